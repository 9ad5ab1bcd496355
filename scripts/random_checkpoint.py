"""Writes a tiny checkpoint with random weights, complete and always the same for a seed.

python scripts/random_checkpoint.py FOLDER [--seed 0]
"""

import argparse
from pathlib import Path

import torch

import defect_hub  # noqa: F401 (registers the Auto classes, so that the code is written too)
from defect_hub.modeling.presets_spgdd_gpt import build_tiny
from defect_hub.modeling.processing_spgdd_gpt import DIAGNOSIS_QUESTION
from defect_hub.train.saving import save_complete

ANSWERS = ["No, the steel surface shows no defect.", "Yes, there is a small dark scratch in the top left."]


def write_random_checkpoint(folder: Path, seed: int) -> None:
    """Write the tiny preset with fresh weights.

    Args:
        folder: result.
        seed: of the weights.

    Raises:
        FileExistsError: if the folder exists.
    """
    if folder.exists():
        raise FileExistsError(f"{folder}: exists; name a new folder")
    torch.manual_seed(seed)
    model, processor = build_tiny([DIAGNOSIS_QUESTION, *ANSWERS], ["steel surface"])
    save_complete(model, processor, folder, run=None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write_random_checkpoint(options.folder, options.seed)
