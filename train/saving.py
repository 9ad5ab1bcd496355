"""Writes a complete, loadable model folder at once or not at all."""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel


def save_complete(
    model: Any, processor: Any, folder: Path, card: str, storage_dtype: torch.dtype = torch.float32
) -> None:
    """Model, processor, remote code and card in one folder, written beside it and then renamed.

    Args:
        model: to save; loads in float32 whatever `storage_dtype` is.
        processor: of the same checkpoint.
        folder: result; an earlier one is replaced.
        card: text of README.md.
        storage_dtype: of the weights on disk.
    """
    partial = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    weights = {
        name: tensor.to(storage_dtype) if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }
    # Not by the pipeline's own method: a folder that records its pipeline asks for trust_remote_code for ever.
    model.save_pretrained(partial, state_dict=weights)
    processor.save_pretrained(partial)
    (partial / "README.md").write_text(card)
    AutoModel.from_pretrained(partial)  # what cannot be loaded must not take its name
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
