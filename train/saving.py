"""Writes a complete, loadable model folder at once or not at all."""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, pipeline

_CLASS = "modeling_spgdd_gpt.SpgddGptForConditionalGeneration"


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
    model.config.auto_map = {"AutoModelForImageTextToText": _CLASS}
    # The pipeline object knows how to record its own class and code in the folder.
    task = pipeline("defect-diagnosis", model=model, processor=processor)
    weights = {name: tensor.to(storage_dtype) for name, tensor in model.state_dict().items()}
    task.save_pretrained(str(partial), state_dict=weights)
    processor.save_pretrained(partial)
    (partial / "README.md").write_text(card)
    AutoModel.from_pretrained(partial)  # what cannot be loaded must not take its name
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
