"""The weights of a checkpoint: checked before they are published, and split where a file is too large."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from huggingface_hub.constants import SAFETENSORS_INDEX_FILE as INDEX
from huggingface_hub.constants import SAFETENSORS_SINGLE_FILE as SINGLE
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import AutoModel

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.jsonfile import read_json

PICKLES = (".bin", ".ckpt", ".h5", ".msgpack", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth")
"""Endings of weight files other than safetensors; loading them may run code."""
_SHOWN = 5


def find_weights(folder: Path) -> dict[str, Path]:
    """Find the file of each tensor of a checkpoint: model.safetensors, or the shards of its index.

    Raises:
        DataError: There are no safetensors, a file is broken or missing, or index and shards disagree.
    """
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file() and index.is_file():
        problem = f"lies beside {INDEX}, and loaders would take either"
        raise DataError(single, "weights", problem, "Remove the one that is out of date")
    if single.is_file():
        return dict.fromkeys(_sizes(single), single)
    if index.is_file():
        return _sharded(folder, index)
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLES)
    problem = f"only {', '.join(pickles)}, which are never published" if pickles else "there are none"
    remedy = "Load the model where you trust it, and save it with save_pretrained: that writes safetensors"
    raise DataError(folder, "weights", problem, remedy)


def check_weights(folder: Path) -> None:
    """Check a whole checkpoint: every number is finite, and the model class takes names and shapes as they are.

    The numbers are read once, one tensor in memory at a time (about 0.2 s/GB beside the disk); for names and shapes
    the model is built without memory.

    Raises:
        DataError: Also where `find_weights` raises one.
    """
    tensors = find_weights(folder)
    _check_finite(tensors)
    # On the meta device; other sizes are then listed, not raised. The class is the installed one, never code that lies
    # in the folder.
    _, report = AutoModel.from_pretrained(
        folder,
        device_map="meta",
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        trust_remote_code=False,
        use_safetensors=True,
    )
    shapes = {f"{name} ({list(found)} instead of {list(own)})" for name, found, own in report["mismatched_keys"]}
    problems = {"missing": report["missing_keys"], "unknown": report["unexpected_keys"], "of another shape": shapes}
    listed = [f"{len(names)} {what}: {_first(names)}" for what, names in problems.items() if names]
    if listed:
        remedy = "Save weights and config.json together, with save_pretrained of the trained model"
        raise DataError(folder, "weights", "do not fit the model of config.json: " + "; ".join(listed), remedy)


def shard_weights(folder: Path, staging: Path, max_shard_bytes: int) -> dict[str, Path | bytes]:
    """The weight files to publish: those of the checkpoint, or smaller ones where one is too large.

    Args:
        folder: Checkpoint.
        staging: For the smaller files; the tensors are mapped on their way, not held in memory.
        max_shard_bytes: Of one file; a single tensor that is larger has a file of its own.

    Raises:
        DataError: As `find_weights`.
    """
    tensors = find_weights(folder)
    files = sorted(set(tensors.values()))
    if all(file.stat().st_size <= max_shard_bytes for file in files):
        published: dict[str, Path | bytes] = {file.name: file for file in files}
        if (folder / INDEX).is_file():
            published[INDEX] = folder / INDEX
        return published
    shards, index = split_weights(
        {name: size for file in files for name, size in _sizes(file).items()}, max_shard_bytes
    )
    staging.mkdir(parents=True, exist_ok=True)
    for shard, names in tqdm(shards.items(), desc="splitting weights", unit="file", leave=False):
        _write(staging / shard, {name: tensors[name] for name in names})
    return {**{shard: staging / shard for shard in shards}, **index}


def split_weights(sizes: Mapping[str, int], max_shard_bytes: int) -> tuple[dict[str, list[str]], dict[str, bytes]]:
    """Distribute tensors over files that transformers reads.

    Args:
        sizes: Bytes of each tensor.
        max_shard_bytes: Of one file; a single tensor that is larger has a file of its own.

    Returns:
        File -> names of its tensors; and where there are several files, name and content of their index.
    """
    plan = split_state_dict_into_shards_factory(
        dict(sorted(sizes.items())),
        get_storage_size=int,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_bytes,
    )
    index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
    content = (json.dumps(index, indent=2, sort_keys=True) + "\n").encode()
    return plan.filename_to_tensors, {INDEX: content} if plan.is_sharded else {}


def _sharded(folder: Path, index: Path) -> dict[str, Path]:
    weight_map = read_json(index, dict).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise DataError(index, "weight_map", "is missing or empty", "Save the model again with save_pretrained")
    remedy = "Copy all files of the checkpoint, or save it again with save_pretrained"
    shards = sorted(set(map(str, weight_map.values())))
    if foreign := [shard for shard in shards if Path(shard).name != shard or not shard.endswith(".safetensors")]:
        raise DataError(index, "weight_map", f"names {foreign[0]!r}, no safetensors file beside it", remedy)
    if missing := [shard for shard in shards if not (folder / shard).is_file()]:
        raise DataError(index, "weight_map", f"{len(missing)} shards are missing: {_first(missing)}", remedy)
    found = {name: shard for shard in shards for name in _sizes(folder / shard)}
    if differing := {name for name, _ in found.items() ^ weight_map.items()}:
        raise DataError(index, "weight_map", f"does not agree with the shards on {_first(differing)}", remedy)
    return {name: folder / shard for name, shard in found.items()}


def _sizes(file: Path) -> dict[str, int]:
    """Bytes of each tensor; the file is mapped, not read."""
    with _opened(file) as tensors:
        return {name: tensors.get_tensor(name).nbytes for name in tensors.keys()}  # noqa: SIM118


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        remedy = "Copy it again, or save the model again with save_pretrained"
        raise DataError(file, "weights", f"no readable safetensors file ({error})", remedy) from error


def _check_finite(tensors: Mapping[str, Path]) -> None:
    bad = []
    for name, tensor in tqdm(_read(tensors), desc="checking weights", total=len(tensors), unit="tensor", leave=False):
        # The extremes carry any NaN and Inf, and are found much faster than torch.isfinite looks at each number.
        if tensor.is_floating_point() and tensor.numel() and not all(end.isfinite() for end in tensor.aminmax()):
            bad.append(name)
    if bad:
        where = next(iter(tensors.values())).parent
        problem = f"{len(bad)} tensors hold NaN or Inf: {_first(bad)}"
        raise DataError(where, "weights", problem, "The training diverged; publish an earlier checkpoint")


def _read(tensors: Mapping[str, Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors, file by file; each is mapped until it is used."""
    by_file = defaultdict(list)
    for name, file in tensors.items():
        by_file[file].append(name)
    for file, names in by_file.items():
        with _opened(file) as opened:
            for name in names:
                yield name, opened.get_tensor(name)


def _write(file: Path, tensors: Mapping[str, Path]) -> None:
    partial = file.with_name(f"{file.name}.tmp")
    save_file(dict(_read(tensors)), partial, metadata={"format": "pt"})
    partial.replace(file)


def _first(names: Collection[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(sorted(names)[:_SHOWN]) + more
