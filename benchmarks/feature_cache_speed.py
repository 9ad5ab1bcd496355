"""Training speed with and without cached image features: paper-size CLIP, tiny language model, random weights.

Run `python -m defect_hub.benchmarks.feature_cache_speed --data BUILT_SET --out results.json`; it prints a Markdown
table. Both sides train the same batches in turn by the same code; only where the features come from differs.
"""

import argparse
import json
import statistics
import tempfile
import time
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm import tqdm
from transformers.trainer_utils import set_seed

from defect_hub.modeling.configuration_spgdd_gpt import VIT_B_16_PLUS_240
from defect_hub.modeling.modeling_spgdd_gpt import SpgddGptForConditionalGeneration
from defect_hub.modeling.presets_spgdd_gpt import TINY_VOCAB_SIZE, build_processor, tiny_config, tiny_tokenizers
from defect_hub.train.adaptation import freeze_bases
from defect_hub.train.data import DiagnosisCollator, DiagnosisDataset, load_split
from defect_hub.train.recording import hardware
from defect_hub.train.spgdd_gpt import cache_features
from defect_hub.train.whole_file import write_whole


def build(rows: Any, paper_size: bool) -> tuple[Any, Any]:
    """Model and processor; the tiny preset, or with CLIP at the paper's size."""
    overrides: dict[str, Any] = {}
    if paper_size:
        words = {"vocab_size": TINY_VOCAB_SIZE, "bos_token_id": 1, "eos_token_id": 3}  # the tiny tokenizer's
        clip: dict[str, Any] = dict(VIT_B_16_PLUS_240)
        clip["text_config"] = clip["text_config"] | words
        overrides = {"clip_config": clip, "feature_blocks": [3, 8, 12]}
    corpus = [turn["value"] for conversation in rows["conversation"] for turn in conversation[:2]]
    names = sorted(set(rows["object_name"]))
    config = tiny_config(**overrides)
    processor = build_processor(config, *tiny_tokenizers(corpus, names), object_name=names[0])
    return SpgddGptForConditionalGeneration(config), processor


@dataclass
class Side:
    """A model in training, and what was measured of its steps.

    Attributes:
        model: whose base models are frozen.
        dataset: with cached features or without.
        collate: items to batches.
        optimizer: of the trained weights.
        seconds: of each step: loading, forward and backward pass, update.
        losses: of each step, by name.
    """

    model: Any
    dataset: DiagnosisDataset
    collate: DiagnosisCollator
    optimizer: torch.optim.Optimizer
    seconds: list[float] = field(default_factory=list)
    losses: list[dict[str, float]] = field(default_factory=list)

    def step(self, indices: range) -> None:
        """Train on some items."""
        start = time.perf_counter()
        output = self.model(**self.collate([self.dataset[index] for index in indices]))
        output.loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.seconds.append(time.perf_counter() - start)
        self.losses.append({name: float(loss.detach()) for name, loss in output.losses.items()})


def side(model: Any, processor: Any, rows: Any) -> Side:
    """Training of a model as the paper's recipe does it."""
    freeze_bases(model)
    dataset = DiagnosisDataset(rows, processor, seed=42)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0)
    return Side(model, dataset, DiagnosisCollator(dataset, [0, 1, 2, 4]), optimizer)


def differences(first: list[dict[str, float]], second: list[dict[str, float]]) -> dict[str, list[float]]:
    """By name of the loss: its mean size in `first`, and the largest absolute difference to `second`."""
    return {
        name: [
            statistics.fmean(abs(losses[name]) for losses in first),
            max(abs(one[name] - other[name]) for one, other in zip(first, second, strict=True)),
        ]
        for name in first[0]
    }


def measure(rows: Any, cache: Path, batch_size: int, paper_size: bool = True) -> dict[str, Any]:
    """Both sides from the same initial weights, step by step in turn, so that other load meets both.

    Args:
        rows: a split in the record schema.
        cache: folder for the features.
        batch_size: images a step.
        paper_size: CLIP of the paper's size; else tiny.

    Returns:
        Images a second of each side (by its median step) and of building the cache, what that takes on the disk, and
        how far the losses of the two lie apart, see `differences`.
    """
    set_seed(42)
    model, processor = build(rows, paper_size)
    images, cached = side(model, processor, rows), side(deepcopy(model), processor, rows)
    count = len(images.dataset)
    start = time.perf_counter()
    cache_features(cached.model, cached.dataset, cached.collate, cache, Accelerator(cpu=True))
    building = time.perf_counter() - start
    for each in (images, cached):
        each.model.train()
    for first in tqdm(range(0, count - batch_size + 1, batch_size), desc="train", leave=False):
        for each in (images, cached):
            if not first:
                each.step(range(batch_size))  # not counted: encodes the prompts, which are then remembered
            each.step(range(first, first + batch_size))
    speeds = {
        name: batch_size / statistics.median(each.seconds[1:])
        for name, each in (("images", images), ("cache", cached))
    }
    return {
        "images_per_second": speeds,
        "speedup": speeds["cache"] / speeds["images"],
        "built_images_per_second": count / building,
        "megabytes_per_image": sum(path.stat().st_size for path in cache.rglob("*.safetensors")) / count / 1e6,
        "losses": differences(images.losses, cached.losses),
        "images": count,
        "batch_size": batch_size,
        "hardware": hardware(torch.device("cpu"), 1),
    }


def as_markdown(results: dict[str, Any]) -> str:
    """The table of the documentation."""
    speeds = results["images_per_second"]
    rows = [
        ("training that encodes its images", f"{speeds['images']:.2f} images/s"),
        ("training from the cache", f"{speeds['cache']:.2f} images/s"),
        ("ratio", f"{results['speedup']:.1f}"),
        ("building the cache, four flips each", f"{results['built_images_per_second']:.2f} images/s"),
        ("size of the cache, four flips each", f"{results['megabytes_per_image']:.2f} MB an image"),
    ]
    for name, (size, difference) in results["losses"].items():
        rows.append((f"loss `{name}`: mean size, largest difference between the two", f"{size:.4f}, {difference:.1e}"))
    return "\n".join(["| what | measured |", "| --- | ---: |", *(f"| {what} | {value} |" for what, value in rows)])


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="built data set, folder or Hub id")
    parser.add_argument("--split", default="train", help="(default: %(default)s)")
    parser.add_argument("--n", type=int, default=32, help="images (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, help="file for the results as JSON")
    options = parser.parse_args()
    rows = load_split(options.data, options.split)
    if len(rows) < options.n:
        parser.error(f"--n {options.n}: {options.data} has {len(rows)} images in {options.split!r}. Take fewer")
    with tempfile.TemporaryDirectory() as temporary:
        results = measure(rows.select(range(options.n)), Path(temporary), options.batch_size)
    if options.out:
        write_whole(options.out, json.dumps(results, indent=2) + "\n")
    print(as_markdown(results))


if __name__ == "__main__":
    main()
