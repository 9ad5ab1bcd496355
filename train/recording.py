"""Collects the facts of a training run while it runs; see `run_facts`."""

import json
import platform
import shlex
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import torch
from huggingface_hub import RepoCard, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from defect_hub.train.evaluation import data_fingerprint
from defect_hub.train.run_facts import (
    RUN_FILE,
    BaseModel,
    DataUse,
    RunFacts,
    SourceRows,
    read_run,
    stages,
    weights_license,
)

_SOURCE_COLUMNS = ("source", "license", "redistributable", "is_defective")


def public_name(place: str) -> str:
    """How others may know a data set or model: its Hub id, or the last part of a local path.

    Training calls every result "model", so such a folder goes by the name of the one above.
    """
    if not Path(place).exists():
        return place
    folder = Path(place).resolve()
    return folder.parent.name if folder.name == "model" else folder.name


def without_places(arguments: list[str]) -> str:
    """A command's arguments for a shell; of absolute paths, and of those that lead upwards, the last part stays."""
    words = []
    for argument in arguments:
        option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
        path = Path(value)
        kept = path.name if path.is_absolute() or ".." in path.parts else value
        words.append(shlex.quote(f"{option}{equals}{kept}"))
    return " ".join(words)


def repeatable_command(arguments: list[str], processes: int) -> str:
    """The command that repeats a run, without the places of this machine."""
    launch = f"accelerate launch{' --multi_gpu' if processes > 1 else ''} --num_processes {processes}"
    return f"{launch} train/spgdd_gpt.py {without_places(arguments)}".rstrip()


def recipe_record(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as a recipe file takes them, without the places of this machine."""
    kept = {key: value for key, value in settings.items() if key != "output_dir"}
    names = {key: public_name(settings[key]) for key in ("data", "model")}
    return kept | names | {"model_config": json.loads(settings["model_config"])}


def listed_rows(data: str, split: str, config: str) -> datasets.Dataset:
    """What `data_use` reads of a split that is streamed; nothing else of its files is fetched.

    Args:
        data: folder of Parquet files, or Hub id of such a data set.
        split: of it.
        config: of it.
    """
    rows = datasets.load_dataset(data, config, split=split, streaming=True, columns=[*_SOURCE_COLUMNS, "sha256"])
    return datasets.Dataset(pa.concat_tables(rows.with_format("arrow").iter(batch_size=1000)))


def data_use(use: str, split: str, rows: Any) -> DataUse:
    """Sources and licences of the images that serve a purpose.

    Args:
        use: `training`, `calibration` or `evaluation`.
        split: that the images are part of.
        rows: in the record schema; those with unknown `is_defective` are not used.
    """
    columns = (rows[name] for name in _SOURCE_COLUMNS)
    counted = Counter(row[:3] for row in zip(*columns, strict=True) if row[3] is not None)
    sources = [
        SourceRows(name, license, free, number) for (name, license, free), number in sorted(counted.items(), key=str)
    ]
    return DataUse(use, split, sources, data_fingerprint(rows))


def base_models(model: str) -> list[BaseModel]:
    """What a recipe goes on from: its checkpoint, and the bases that this one leaves out or was converted from.

    None if fresh. What an earlier stage has recorded is not repeated.

    Raises:
        ValueError: if the checkpoint's `run.json` is damaged.
    """
    if model == "tiny":
        return []
    run, config = recorded_run(model), _file_of(model, "config.json")
    fields = json.loads(config.read_text(encoding="utf-8")) if config else {}
    origins = [origin for key in ("base_models", "converted_from") for origin in (fields.get(key) or {}).values()]
    license = weights_license(run) if run else _stated_license(model)
    known = {base.name for _, stage in (stages(run) if run else ()) for base in stage.base_models}
    bases = [base for base in dict.fromkeys(map(_origin, origins)) if base.name not in known]
    return [BaseModel(public_name(model), license, run), *bases]


def recorded_run(model: str) -> RunFacts | None:
    """The record of a local checkpoint or of one on the Hub; None if it has none.

    Raises:
        ValueError: if it is damaged.
    """
    record = _file_of(model, RUN_FILE)
    return read_run(record.parent) if record else None


def _origin(origin: Mapping[str, str]) -> BaseModel:
    """A base by its Hub id and commit, or by the name of a local file or folder and the digest of its weights."""
    if name := origin.get("repo_id"):
        return BaseModel(name, _stated_license(name), version=origin["revision"])
    return BaseModel(origin.get("file") or origin["folder"], None, version=origin["sha256"])


def _stated_license(model: str) -> str | None:
    card = _file_of(model, "README.md")
    return RepoCard.load(card, ignore_metadata_errors=True).data.get("license") if card else None


def _file_of(model: str, name: str) -> Path | None:
    """A file of a local checkpoint or of one on the Hub; None if it has none, or none can be had without network."""
    if Path(model).is_dir():
        return Path(model) / name if (Path(model) / name).is_file() else None
    try:
        return Path(hf_hub_download(model, name))
    except EntryNotFoundError:
        return None


def hardware(device: torch.device, processes: int) -> str:
    """The machine in general words."""
    if device.type == "cuda":
        kind = torch.cuda.get_device_name(device)
    else:
        kind = f"{device.type}, {platform.machine()} with {torch.backends.cpu.get_cpu_capability()}"
        kind += f", {torch.get_num_threads()} threads a process"
    return f"{kind}; processes: {processes}"


def versions() -> dict[str, str]:
    """Libraries that a result depends on."""
    return {name: version(name) for name in ("defect-hub", "transformers", "torch")}
