"""Zero- and few-shot detection table of a checkpoint, over several draws of references.

python -m defect_hub.benchmarks.few_shot --model MODEL --data DATA --test-split test --out results.json

Beside the model itself, on the same split and the same draws: a memory bank on the same encoder (distance to the
nearest reference patch, no training of its own), and the same bank on an untrained encoder.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoProcessor
from transformers.trainer_utils import set_seed

from defect_hub.benchmarks.measuring import provenance, summary
from defect_hub.modeling.memory_bank import distance_maps
from defect_hub.modeling.presets_spgdd_gpt import init_from_scratch
from defect_hub.modeling.vv_clip import encode_image
from defect_hub.train.data import draw_references, load_split
from defect_hub.train.evaluation import DiagnosisScores, Prediction, data_fingerprint, evaluate_diagnosis, score_split
from defect_hub.train.recording import without_places
from defect_hub.train.whole_file import write_whole

METRICS = ("image_auroc", "pixel_auroc")


@torch.no_grad()
def memory_bank_scores(model: Any, processor: Any, rows: Any, reference_images: list[Any]) -> DiagnosisScores:
    """Baseline: each patch's distance to the nearest of all reference patches, averaged over the blocks.

    Each block's distances are divided by their mean over the references' own spread, so that blocks weigh alike; the
    image score is the maximum of the map.
    """
    config = model.config
    grid = config.grid_size

    def features(images: list[Any]) -> list[torch.Tensor]:
        return encode_image(model.model.clip, processor.pixel_values(images), config.feature_blocks, config.vv_mode)[1]

    banks = [z.flatten(0, 1)[None, None] for z in features(reference_images)]  # (1, 1, K * N, C)

    def predict(batch: list[dict[str, Any]]) -> Prediction:
        total = torch.zeros(len(batch), grid * grid)
        for query, bank in zip(features([row["image"] for row in batch]), banks, strict=True):
            spread = (bank - bank.mean(dim=2, keepdim=True)).norm(dim=-1).mean()
            total += distance_maps(query, bank.expand(len(batch), -1, -1, -1), "nearest")[:, 0] / spread
        maps = total.view(-1, grid, grid) / len(banks)
        return Prediction(maps.amax(dim=(1, 2)), maps, [])

    return score_split(predict, rows, batch_size=16)


def untrained(model: Any, seed: int) -> Any:
    """A model of the same configuration with fresh weights."""
    set_seed(seed)
    fresh = type(model)(model.config).eval()
    init_from_scratch(fresh)
    return fresh


def few_shot_table(
    model: Any,
    processor: Any,
    train_rows: Any,
    test_rows: Any,
    shots: tuple[int, ...] = (0, 1, 2, 4),
    draws: int = 5,
    seed: int = 42,
) -> list[dict[str, Any]]:
    """One row per method and number of references, with mean and sample standard deviation over the draws.

    Args:
        model: checkpoint.
        processor: of the checkpoint.
        train_rows: where references are drawn from.
        test_rows: what is scored.
        shots: numbers of references.
        draws: draws of references for each number above 0.
        seed: of the draws.
    """
    bank_on_fresh = untrained(model, seed)

    def spgdd_gpt(references: list[Any]) -> DiagnosisScores:
        return evaluate_diagnosis(model, processor, test_rows, references or None, describe=False)

    methods: dict[str, Callable[[list[Any]], DiagnosisScores]] = {
        "SPGDD-GPT": spgdd_gpt,
        "memory bank, same encoder": lambda refs: memory_bank_scores(model, processor, test_rows, refs),
        "memory bank, untrained encoder": lambda refs: memory_bank_scores(bank_on_fresh, processor, test_rows, refs),
    }
    table = []
    for method, run in methods.items():
        for count in shots:
            if count == 0 and method != "SPGDD-GPT":
                continue  # a bank needs references
            chosen = draw_references(train_rows, count, draws if count else 1, seed)
            results = [run([train_rows[index]["image"] for index in indices]) for indices in chosen]
            row: dict[str, Any] = {"method": method, "shots": count, "draws": len(chosen)}
            for name in METRICS:
                values = [result.metric(name) for result in results]
                row[name] = summary(values)
            row["references"] = [[train_rows[index]["image_id"] for index in indices] for indices in chosen]
            table.append(row)
    return table


def as_markdown(table: list[dict[str, Any]]) -> str:
    """The table as people read it; one draw has no spread."""
    lines = ["| method | shots | image AUROC | pixel AUROC |", "|---|---:|---:|---:|"]
    for row in table:
        cells = [
            f"{row[name]['mean']:.3f}" + ("" if row[name]["std"] is None else f" ± {row[name]['std']:.3f}")
            for name in METRICS
        ]
        lines.append(f"| {row['method']} | {row['shots']} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder or Hub id")
    parser.add_argument("--data", required=True, help="data set in the record schema")
    parser.add_argument("--train-split", default="train")
    parser.add_argument("--test-split", default="test")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--out", type=Path, help="JSON file with the table and where it comes from")
    options = parser.parse_args()
    model = AutoModel.from_pretrained(options.model, dtype="float32").eval()
    processor = AutoProcessor.from_pretrained(options.model)
    train_rows, test_rows = (load_split(options.data, split) for split in (options.train_split, options.test_split))
    table = few_shot_table(model, processor, train_rows, test_rows, draws=options.draws, seed=options.seed)
    print(as_markdown(table))
    if options.out:
        result = {
            **provenance(f"python -m defect_hub.benchmarks.few_shot {without_places(sys.argv[1:])}", options.seed),
            "train_fingerprint": data_fingerprint(train_rows),
            "test_fingerprint": data_fingerprint(test_rows),
            "table": table,
        }
        write_whole(options.out, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
