"""Writes a complete, loadable model folder at once or not at all."""

import shutil
from pathlib import Path
from typing import Any

from transformers import AutoModel


def save_complete(model: Any, processor: Any, folder: Path, card: str) -> None:
    """Model, processor, remote code and card in one folder, written beside it and then renamed.

    Args:
        model: to save.
        processor: of the same checkpoint.
        folder: result; an earlier one is replaced.
        card: text of README.md.
    """
    partial, earlier = (folder.with_name(f"{folder.name}.{suffix}") for suffix in ("tmp", "old"))
    shutil.rmtree(partial, ignore_errors=True)
    # Not by the pipeline's own method: a folder that records its pipeline asks for trust_remote_code for ever.
    model.save_pretrained(partial)
    processor.save_pretrained(partial)
    (partial / "README.md").write_text(card)
    AutoModel.from_pretrained(partial)  # what cannot be loaded must not take its name
    if folder.exists():
        folder.rename(earlier)
    partial.rename(folder)
    shutil.rmtree(earlier, ignore_errors=True)
