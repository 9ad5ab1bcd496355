"""Put a built folder into the `datasets` cache, so that its bare name loads from any directory and offline."""

from __future__ import annotations

from pathlib import Path

from datasets import get_dataset_config_names, load_dataset_builder

from defect_hub.dataset_scripts.output import is_build
from defect_hub.dataset_scripts.readers.errors import DataError


def prepare_cache(folder: Path) -> list[str]:
    """Cache every config of a built data set.

    Args:
        folder: The folder; its name becomes the name that `load_dataset` takes.

    Returns:
        The names of the configs.

    Raises:
        DataError: The folder is not an output of a builder.
    """
    if not is_build(folder):
        raise DataError(folder, "folder", "is not a built data set", "Make one with defect-hub data build")
    configs = sorted(get_dataset_config_names(str(folder.resolve())), key=lambda name: name == "default")
    for config in configs:
        builder = load_dataset_builder(str(folder.resolve()), config)
        # `datasets` refuses a name without a config where the latest cached build has several. With a hash for each
        # config, the one cached last, which is the default, is what the bare name gives.
        builder.download_and_prepare(str(Path(builder.cache_dir).with_name(f"{builder.hash}-{config}")))
    return configs
