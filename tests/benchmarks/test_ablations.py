"""The ablations at tiny scale: what is run, and how directions are read."""

import json
from pathlib import Path
from typing import Any

import pytest

from defect_hub.benchmarks.ablation_page import SEEDS, TABLE, ablation_lines
from defect_hub.benchmarks.ablations import is_trained, main, shots_of
from defect_hub.benchmarks.bench import variant_arguments
from defect_hub.benchmarks.paper_tables import load_paper
from defect_hub.train.recipe import parse_recipe
from defect_hub.train.spgdd_gpt import SpgddGptRecipe

VARIANTS = load_paper("spgdd-gpt").all_variants()


def test_every_trained_variant_is_a_recipe() -> None:
    for name, options in VARIANTS.items():
        if is_trained(options):
            recipe = parse_recipe(SpgddGptRecipe, ["--model", "x", *variant_arguments(options)])
            assert json.loads(recipe.model_config) == options.get("model_config", {}), name


def test_what_never_saw_references_is_shown_none() -> None:
    assert shots_of(VARIANTS["no_memory"]) == (0,)
    assert shots_of(VARIANTS["default"]) == (0, 1, 2, 4)


def record(variant: str, image: float, pixel: float) -> dict[str, Any]:
    """A record whose figures are the same for all numbers of references."""
    metrics = {
        "image_auroc": {"mean": image, "std": 0.01},
        "pixel_auroc": {"mean": pixel, "std": 0.01},
        "image_auroc_max": {"mean": 0.5, "std": None},
    }
    images = {"normal": 1, "defective": 2, "fingerprint": "f", "objects": 1}
    cells = [
        {"row": f"{shots}-shot", "data": "MT", "shots": shots, "metrics": metrics, "images": images, "references": "r"}
        for shots in (0, 1, 2, 4)
    ]
    about = {"command": "c", "steps": 1, "hardware": "h", "date": "d"}
    return {"paper": "spgdd-gpt", "table": TABLE, "variant": variant, "cells": cells, **about}


def test_directions_within_the_spread_of_the_seeds_are_none() -> None:
    figures = {"default": (0.70, 0.80), "seed_43": (0.72, 0.80), "seed_44": (0.71, 0.81), "cosine": (0.69, 0.70)}
    records = [record(name, *values) for name, values in figures.items()] + [record("clip", 0.80, 0.80)]
    assert set(SEEDS) < {item["variant"] for item in records}
    lines = list(ablation_lines(load_paper("spgdd-gpt"), records))
    rows = {tuple(line.split(" | ")[1:3]): line.split(" | ")[3:] for line in lines if line.startswith(("| 4", "| 7"))}
    # Paper: (87.4 - 95.2 + 81.7 - 88.5) / 2 and (88.6 - 95.8 + 83.6 - 96.8) / 2.
    assert rows["w/o TDDF", "Image-AUC"] == ["-7.3", "-2.0", "2.0", "none |"]
    assert rows["w/o TDDF", "Pixel-AUC"] == ["-10.2", "-10.3", "1.0", "as in the paper |"]
    assert rows["CLIP", "Image-AUC"][1:] == ["+9.0", "2.0", "opposite |"]
    assert ("w/o TDDF", "Acc.") not in rows
    assert "| default | MT | Image-AUC | 70.0 ± 1.0 | 70.0 ± 1.0 | 70.0 ± 1.0 | 70.0 ± 1.0 |" in lines


def test_evaluations_need_the_default_first(tmp_path: Path) -> None:
    arguments = ["--data", "x", "--tested", "x", "--work", str(tmp_path), "--out", str(tmp_path)]
    with pytest.raises(ValueError, match="Run the variant 'default' first"):
        main([*arguments, "--only", "rotations"])
