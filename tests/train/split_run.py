"""Training runs of SPGDD-GPT whose batches are split in several ways, as a script for several processes.

python -m torch.distributed.run --nproc_per_node 2 tests/train/split_run.py DATA FOLDER '[["name", 4, 1, true]]'
"""

import json
import os
import sys
from pathlib import Path

import torch

from defect_hub.modeling.presets_spgdd_gpt import tiny_config
from defect_hub.train.data import DiagnosisCollator, DiagnosisDataset
from defect_hub.train.loop import build_accelerator, fit
from defect_hub.train.spgdd_gpt import SpgddGptRecipe, build_model, split_rows

# AdamW divides a gradient by its size, so rounding weighs most where gradients are smallest, and grows with the rate.
# At 1e-4 (and 240 px) a tensor of CLIP's text tower came out 1.4e-6 apart, at 3e-5 no weight more than 4e-7.
LEARNING_RATE = 3e-5


def train(data: Path, folder: Path, name: str, batch_size: int, accumulation: int, counts: bool) -> None:
    """20 steps of the tiny preset at a smaller image size; the weights go to `FOLDER/NAME.pt`.

    Args:
        data: steelsynth.
        folder: of the results.
        name: of the run.
        batch_size: of a process and forward pass.
        accumulation: forward passes of a step.
        counts: whether the loop gets the model's `loss_counts`.
    """
    clip = tiny_config().clip_config.to_dict()
    clip["vision_config"]["image_size"] = 96
    recipe = SpgddGptRecipe(
        data=str(data),
        output_dir=str(folder / name),
        model_config=json.dumps({"clip_config": clip}),
        reference_counts=[0],
        batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        max_steps=20,
        learning_rate=LEARNING_RATE,
    )
    accelerator = build_accelerator(recipe)
    assert accelerator.num_processes == int(os.environ.get("WORLD_SIZE", "1"))
    rows, _ = split_rows(recipe)
    model, processor = build_model(recipe, rows)
    if not counts:
        model.loss_counts = None
    dataset = DiagnosisDataset(rows, processor, recipe.seed, recipe.flip)
    trained = fit(model, dataset, DiagnosisCollator(dataset, recipe.reference_counts), recipe, accelerator)
    if accelerator.is_main_process:
        torch.save(trained.state_dict(), folder / f"{name}.pt")


if __name__ == "__main__":
    for run in json.loads(sys.argv[3]):
        train(Path(sys.argv[1]), Path(sys.argv[2]), *run)
