"""Collects the facts of a training run while it runs; see `run_facts`."""

import json
import platform
import shlex
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import RepoCard, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from defect_hub.train.evaluation import data_fingerprint
from defect_hub.train.run_facts import RUN_FILE, BaseModel, DataUse, SourceRows, read_run, weights_license


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
    return f"accelerate launch --num_processes {processes} train/spgdd_gpt.py {without_places(arguments)}".rstrip()


def recipe_record(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as a recipe file takes them, without the places of this machine."""
    kept = {key: value for key, value in settings.items() if key != "output_dir"}
    names = {key: public_name(settings[key]) for key in ("data", "model")}
    return kept | names | {"model_config": json.loads(settings["model_config"])}


def data_use(use: str, split: str, rows: Any) -> DataUse:
    """Sources and licences of the images that serve a purpose.

    Args:
        use: `training`, `calibration` or `evaluation`.
        split: that the images are part of.
        rows: in the record schema; those with unknown `is_defective` are not used.
    """
    columns = (rows[name] for name in ("source", "license", "redistributable", "is_defective"))
    counted = Counter(row[:3] for row in zip(*columns, strict=True) if row[3] is not None)
    sources = [
        SourceRows(name, license, free, number) for (name, license, free), number in sorted(counted.items(), key=str)
    ]
    return DataUse(use, split, sources, data_fingerprint(rows))


def base_models(model: str) -> list[BaseModel]:
    """What a recipe goes on from: its checkpoint, and the bases whose weights that one leaves out; none if fresh.

    Raises:
        ValueError: if the checkpoint's `run.json` is damaged.
    """
    if model == "tiny":
        return []
    record, config = (_file_of(model, name) for name in (RUN_FILE, "config.json"))
    run = read_run(record.parent) if record else None
    left_out = json.loads(config.read_text(encoding="utf-8")).get("base_models") or {} if config else {}
    license = weights_license(run) if run else _stated_license(model)
    ids = dict.fromkeys(base["repo_id"] for base in left_out.values())
    return [BaseModel(public_name(model), license, run), *(BaseModel(name, _stated_license(name)) for name in ids)]


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
