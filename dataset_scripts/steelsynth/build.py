"""Generate steelsynth and build it as SteelDefectX is built."""

from __future__ import annotations

import tempfile
from importlib.resources import files
from pathlib import Path

from defect_hub.dataset_scripts.assemble import BuildReport, Recipe, write_dataset
from defect_hub.dataset_scripts.output import check_replaceable, explain_full_disk
from defect_hub.dataset_scripts.samples import Source
from defect_hub.dataset_scripts.steeldefectx.release import load_classes, read_release
from defect_hub.dataset_scripts.steelsynth.release import write_release

TRAIN_SHARE = 0.7
CARD_HEADER = {
    "pretty_name": "steelsynth (synthetic steel surfaces)",
    "license": "apache-2.0",
    "language": ["en"],
    "task_categories": ["image-classification", "image-segmentation", "image-to-text"],
    "tags": ["synthetic", "steel", "surface-defects", "industrial-inspection"],
}


def build_steelsynth(out: Path, n: int = 2000, seed: int = 42, workers: int = 1) -> BuildReport:
    """Generate `n` images, 70 % of them for training, and build them.

    Args:
        out: Folder to write.
        n: Number of images, at least 2.
        seed: Seed of the generator.
        workers: Processes; the result does not depend on it.

    Returns:
        The report of the build.

    Raises:
        DataError: `out` cannot be written; an earlier output is intact.
        ValueError: `n` is smaller than 2.
    """
    if n < 2:
        raise ValueError(f"steelsynth needs at least 2 images, one for each split, not {n}")
    check_replaceable(out)
    source = Source(
        name="steelsynth",
        object_name="steel surface",
        super_category="metallurgy",
        license="apache-2.0",
        redistributable=True,
        split_id=f"steelsynth-seed{seed}",
        text_source="generated",
    )
    n_train = min(max(round(n * TRAIN_SHARE), 1), n - 1)
    classes = load_classes()
    card = (files(__package__) / "card.md").read_text("utf-8")
    out.parent.mkdir(parents=True, exist_ok=True)
    with explain_full_disk(out), tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        raw = Path(folder) / "raw"
        write_release(raw, n_train, n - n_train, seed, workers)
        splits, problems = read_release(raw, classes, source)
        recipe = Recipe([*classes.defects, classes.normal], card, CARD_HEADER, studies=True)
        return write_dataset(out, recipe, splits, problems, workers=workers)
