"""A checkpoint without the weights of its base models, which have terms of their own: it names them instead."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import AutoConfig, AutoModel

import defect_hub  # noqa: F401 (registers the Auto classes)
from defect_hub.dataset_scripts.output import explain_full_disk, put_in_place
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.modeling.base_weights import EXTRA_ROWS, base_tensors, fetch_base, read_tensors, source_of
from defect_hub.publishing.weights import PICKLES, find_weights, split_weights

CONFIG = "config.json"
WHOLE_INSTEAD = "Publish the whole checkpoint, or train with trainable=adapter"


def write_adapters(folder: Path, out: Path, bases: Mapping[str, str], max_shard_bytes: int = 5_000_000_000) -> None:
    """Copy a checkpoint folder without the tensors that equal a base model's; `config.json` names the bases.

    The tensors are mapped into memory and compared one at a time. Equal means equal after the base's tensor was cast
    to our dtype. Rows that follow the base's, of a longer vocabulary, are kept as `<tensor>.extra_rows`.

    Args:
        folder: complete checkpoint, with safetensors weights.
        out: result; an earlier one is replaced.
        bases: part of the model -> "repo_id" or "repo_id@revision" on the Hub.
        max_shard_bytes: largest size of a weight file.

    Raises:
        DataError: the folder, a part or a base is not what it must be, or a base part was trained.
    """
    config = _read_config(folder)
    if config.get("base_models"):
        raise DataError(folder / CONFIG, "base_models", "is set: base weights are left out", "Publish it as it is")
    _check_replaceable(out)
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.from_pretrained(folder))
    tensors = read_tensors(sorted(set(find_weights(folder).values())))
    config["base_models"] = {}
    for part, base in sorted(bases.items()):
        if part not in model.base_parts:
            raise DataError(folder, "bases", f"no part {part!r}", f"Choose from {', '.join(model.base_parts)}")
        if Path(base).exists():
            raise DataError(base, part, "is a local path", "Name a repository of the Hub, where users get it")
        try:
            snapshot = fetch_base(part, base)
            found = base_tensors(snapshot, model.base_parts[part], model._tied_weights_keys or {})
        except (OSError, ValueError) as error:
            raise DataError(base, part, str(error), "Name a revision that you can fetch and that has them") from error
        config["base_models"][part] = {"repo_id": source_of(base)[0], "revision": snapshot.name}
        _leave_out(tensors, found, tuple(model.base_parts[part].values()), base)
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with explain_full_disk(out):
        # Links stay links: what one of them points at was not meant to be published.
        kept_out = (".*", "*.safetensors", "*.safetensors.index.json", *(f"*{ending}" for ending in PICKLES))
        shutil.copytree(folder, temporary, symlinks=True, ignore=shutil.ignore_patterns(*kept_out))
        (temporary / CONFIG).unlink()  # else a link would be written through
        (temporary / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
        _write_shards(tensors, temporary, max_shard_bytes)
    put_in_place(temporary, out)


def _check_replaceable(out: Path) -> None:
    """Raise a `DataError` where `out` exists and is not an earlier result."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / CONFIG).is_file() or not _read_config(out).get("base_models"):
        raise DataError(out, "output", "exists and is no checkpoint without base weights", "Choose another folder")


def _read_config(folder: Path) -> dict:
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(folder / CONFIG, "config", f"cannot be read ({error})", "Give a checkpoint folder") from error
    return dict(config)


def _leave_out(
    tensors: dict[str, torch.Tensor], found: Mapping[str, torch.Tensor], prefixes: tuple[str, ...], base: str
) -> None:
    """Remove from `tensors` what the base has; of longer tensors, leave the extra rows."""
    for name in tqdm([name for name in tensors if name.startswith(prefixes)], desc=base, unit="tensor"):
        ours = tensors.pop(name)
        if name not in found:
            raise DataError(base, name, "the base has no such tensor", "Name the base that this model was built from")
        extra = _extra_rows(name, ours, found[name], base)
        if len(extra):
            tensors[name + EXTRA_ROWS] = extra


def _extra_rows(name: str, ours: torch.Tensor, theirs: torch.Tensor, base: str) -> torch.Tensor:
    """The rows of `ours` behind those of `theirs`, which must be equal."""
    rows = len(theirs) if theirs.ndim else 0
    common = ours[:rows] if ours.ndim else ours
    if common.shape != theirs.shape:
        sizes = f"{tuple(ours.shape)} here and {tuple(theirs.shape)} in the base"
        raise DataError(base, name, sizes, "Name the base that this model was built from")
    theirs = theirs.to(ours.dtype)
    if not torch.equal(common, theirs):
        distance = (common.float() - theirs.float()).abs().max().item()
        raise DataError(base, name, f"differs from the base by up to {distance:.3g}: it was trained", WHOLE_INSTEAD)
    return ours[rows:].clone() if ours.ndim else ours.new_empty(0)


def _write_shards(tensors: dict[str, torch.Tensor], folder: Path, max_shard_bytes: int) -> None:
    shards, index = split_weights({name: tensor.nbytes for name, tensor in tensors.items()}, max_shard_bytes)
    for file, names in shards.items():
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
    for file, content in index.items():
        (folder / file).write_bytes(content)
