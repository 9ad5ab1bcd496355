"""Writes a complete, loadable model folder at once or not at all."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_token
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
    partial = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    # Not by the pipeline's own method: a folder that records its pipeline asks for trust_remote_code for ever.
    model.save_pretrained(partial)
    processor.save_pretrained(partial)
    if run is not None:
        write_run(partial, run)
    (partial / "README.md").write_text(model_card(partial), encoding="utf-8")
    AutoModel.from_pretrained(partial)  # what cannot be loaded must not take its name
    put_in_place(partial, folder)


def put_in_place(partial: Path, folder: Path) -> None:
    """Give a complete folder its name; one that bears it is replaced."""
    earlier = folder.with_name(f"{folder.name}.old")
    if folder.exists():
        shutil.rmtree(earlier, ignore_errors=True)  # Of an interrupted run, which had `folder` in place.
        folder.rename(earlier)
    partial.rename(folder)
    shutil.rmtree(earlier, ignore_errors=True)


def check_push(repo: str) -> None:
    """Whether a run may hope to publish at its end.

    Args:
        repo: such as `org/name`; empty: it will not.

    Raises:
        ValueError: if no token is there, or the Hub is switched off.
    """
    if repo and constants.HF_HUB_OFFLINE:
        raise ValueError(
            f"push_to_hub={repo}: HF_HUB_OFFLINE is set. Unset it, or publish later with defect-hub publish"
        )
    if repo and not get_token():
        raise ValueError(f"push_to_hub={repo}: no token of the Hub is there. Run `hf auth login` first")


def push(folder: Path, repo: str) -> None:
    """Publish a model folder by `defect-hub publish model`.

    Args:
        folder: of `save_complete`.
        repo: empty: it stays here.

    Raises:
        OSError: if that failed, after the verb itself has said why. The folder is complete all the same.
    """
    command = ["publish", "model", str(folder), "--repo", repo]
    if repo and subprocess.run([sys.executable, "-m", "defect_hub.cli", *command]).returncode:
        raise OSError(f"{folder}: complete, but not published. Run: defect-hub {' '.join(command)}")
