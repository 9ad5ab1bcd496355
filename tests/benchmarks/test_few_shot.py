"""The few-shot table: draws, baselines, and what it records."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import AutoModel, AutoProcessor

from defect_hub.benchmarks.few_shot import as_markdown, few_shot_table, memory_bank_scores, untrained
from defect_hub.modeling.vv_clip import encode_image


class Rows(list):
    """A list of records that also gives columns, as a data set does."""

    def __getitem__(self, key):  # type: ignore[no-untyped-def]
        return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)


def rows(count: int, seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    records = Rows()
    for index in range(count):
        pixels, mask = rng.integers(90, 110, (64, 64), dtype=np.uint8), np.zeros((64, 64), dtype=np.uint8)
        if index % 2:
            pixels[20:44, 20:44], mask[20:44, 20:44] = 250, 255
        records.append(
            {
                "image": Image.fromarray(pixels),
                "mask": Image.fromarray(mask),
                "is_defective": bool(index % 2),
                "object_name": "steel surface",
                "image_id": f"{seed}-{index}",
                "height": 64,
                "width": 64,
            }
        )
    return records


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path):  # type: ignore[no-untyped-def]
    return AutoModel.from_pretrained(tiny_checkpoint).eval()


@pytest.fixture(scope="module")
def processor(tiny_checkpoint: Path):  # type: ignore[no-untyped-def]
    return AutoProcessor.from_pretrained(tiny_checkpoint)


def test_memory_bank_is_the_mean_of_scaled_nearest_distances(model, processor) -> None:  # type: ignore[no-untyped-def]
    train, test = rows(6, seed=0), rows(4, seed=1)
    references = [train[0]["image"], train[2]["image"]]
    scores = memory_bank_scores(model, processor, test, references)
    _, bank = encode_image(
        model.model.clip, processor.pixel_values(references), model.config.feature_blocks, model.config.vv_mode
    )
    _, query = encode_image(
        model.model.clip, processor.pixel_values([test[1]["image"]]), model.config.feature_blocks, model.config.vv_mode
    )
    expected = np.zeros(model.config.grid_size**2)
    for b, q in zip(bank, query, strict=True):
        patches, points = b.flatten(0, 1).detach().double().numpy(), q[0].detach().double().numpy()
        spread = np.linalg.norm(patches - patches.mean(0), axis=1).mean()
        expected += np.linalg.norm(points[:, None] - patches[None], axis=-1).min(1) / spread / len(bank)
    assert scores.image_scores[1] == pytest.approx(expected.max(), rel=1e-4)


def test_untrained_has_other_weights_and_the_same_configuration(model) -> None:  # type: ignore[no-untyped-def]
    fresh = untrained(model, seed=1)
    assert fresh.config.to_dict() == model.config.to_dict()
    assert not fresh.lm_head.weight.equal(model.lm_head.weight)


def test_table_has_a_row_per_method_and_count(model, processor) -> None:  # type: ignore[no-untyped-def]
    table = few_shot_table(model, processor, rows(8, seed=0), rows(6, seed=1), shots=(0, 1), draws=2)
    assert [(row["method"], row["shots"], row["draws"]) for row in table] == [
        ("SPGDD-GPT", 0, 1),
        ("SPGDD-GPT", 1, 2),
        ("memory bank, same encoder", 1, 2),
        ("memory bank, untrained encoder", 1, 2),
    ]
    assert all(len(row["references"]) == row["draws"] for row in table)
    text = as_markdown(table)
    assert text.count("±") == 6  # two metrics in each of the three rows with several draws
    # A bright square on a flat surface is found by distance alone.
    assert table[-1]["image_auroc"]["mean"] > 0.8
