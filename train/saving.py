"""Writes a complete, loadable model folder at once or not at all."""

import shutil
from pathlib import Path
from typing import Any

from transformers import AutoModel

from defect_hub.train.cards import model_card
from defect_hub.train.run_facts import RunFacts, write_run


def save_complete(model: Any, processor: Any, folder: Path, run: RunFacts | None) -> None:
    """Model, processor, remote code, record and card in one folder, written beside it and then renamed.

    Args:
        model: to save.
        processor: of the same checkpoint.
        folder: result; an earlier one is replaced.
        run: how the weights came about; None: not recorded, as the card then says.
    """
    partial, earlier = (folder.with_name(f"{folder.name}.{suffix}") for suffix in ("tmp", "old"))
    shutil.rmtree(partial, ignore_errors=True)
    # Not by the pipeline's own method: a folder that records its pipeline asks for trust_remote_code for ever.
    model.save_pretrained(partial)
    processor.save_pretrained(partial)
    if run is not None:
        write_run(partial, run)
    (partial / "README.md").write_text(model_card(partial), encoding="utf-8")
    AutoModel.from_pretrained(partial)  # what cannot be loaded must not take its name
    if folder.exists():
        shutil.rmtree(earlier, ignore_errors=True)  # Of an interrupted run, which had `folder` in place.
        folder.rename(earlier)
    partial.rename(folder)
    shutil.rmtree(earlier, ignore_errors=True)
