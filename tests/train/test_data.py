import re

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from defect_hub.train.data import (
    NO_MASK,
    DiagnosisCollator,
    DiagnosisDataset,
    draw_references,
    load_split,
    mirror_words,
    square_mask,
)

FLIPS = {(False, False): [], (True, False): [-1], (False, True): [-2], (True, True): [-1, -2]}


@pytest.fixture(scope="module")
def dataset(rows, processor):
    return DiagnosisDataset(rows, processor, seed=7)


@pytest.fixture(autouse=True)
def first_epoch(request):
    yield
    if "dataset" in request.fixturenames:
        request.getfixturevalue("dataset").set_epoch(0)


def same(first, second):
    return all(
        torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name]
        for name, value in first.items()
    )


# Words


@pytest.mark.parametrize(
    ("horizontal", "vertical", "expected"),
    [
        (False, False, "a dark pit in the top left of the steel. Right, in the bottom center"),
        (True, False, "a dark pit in the top right of the steel. Right, in the bottom center"),
        (False, True, "a dark pit in the bottom left of the steel. Right, in the top center"),
        (True, True, "a dark pit in the bottom right of the steel. Right, in the top center"),
    ],
)
def test_position_words_are_mirrored(horizontal, vertical, expected):
    text = "a dark pit in the top left of the steel. Right, in the bottom center"
    assert mirror_words(text, horizontal, vertical) == expected


def test_punctuation_and_longer_words_stay():
    assert mirror_words("left, left. leftover topmost middle right;", True, True) == (
        "right, right. leftover topmost middle left;"
    )


# Items


def test_items_depend_on_seed_epoch_and_index_alone(rows, processor, dataset):
    again = DiagnosisDataset(rows, processor, seed=7)
    again.set_epoch(3)
    [again[index] for index in reversed(range(len(again)))]
    again.set_epoch(0)
    assert all(same(dataset[index], again[index]) for index in range(len(dataset)))
    other = DiagnosisDataset(rows, processor, seed=8)
    assert not all(same(dataset[index], other[index]) for index in range(len(dataset)))


def test_flips_keep_image_mask_and_words_together(rows, processor, dataset):
    plain = DiagnosisDataset(rows, processor, seed=7, flip=False)
    seen = set()
    for epoch in range(4):
        dataset.set_epoch(epoch)
        for index in range(len(dataset)):
            item, original = dataset[index], plain[index]
            fitting = [key for key, dims in FLIPS.items() if torch.equal(item["image"], original["image"].flip(dims))]
            assert len(fitting) == 1
            assert torch.equal(item["mask"], original["mask"].flip(FLIPS[fitting[0]]))
            assert item["answer"] == mirror_words(original["answer"], *fitting[0])
            seen.add(fitting[0])
    assert seen == set(FLIPS)


def test_answers_name_the_side_on_which_the_mask_lies(dataset):
    """Independent of how a flip is done: the words must fit the item as it is."""
    checked = 0
    for epoch in range(4):
        dataset.set_epoch(epoch)
        for index in range(len(dataset)):
            item = dataset[index]
            place = re.search(r"in the (top|bottom) (left|right) of", item["answer"])
            if place:
                row, column = place.groups()
                mask = item["mask"] == 1
                third = mask.shape[0] // 3
                rows = slice(0, third) if row == "top" else slice(-third, None)
                columns = slice(0, third) if column == "left" else slice(-third, None)
                assert mask[rows, columns].any()
                checked += 1
    assert checked >= 4


def test_images_are_those_of_the_processor(rows, processor):
    plain = DiagnosisDataset(rows, processor, seed=7, flip=False)
    collate = DiagnosisCollator(plain, [0])
    batch = collate([plain[index] for index in range(4)])
    expected = processor.pixel_values([rows[index]["image"] for index in range(4)])
    # Stored as uint8: half a grey level after normalisation.
    torch.testing.assert_close(batch["pixel_values"], expected, atol=0.6 / 255 / 0.26, rtol=0)


def test_rows_of_unknown_verdict_are_left_out(rows, processor):
    unknown = [{**rows[0], "is_defective": None}, rows[1]]
    dataset = DiagnosisDataset(unknown, processor, seed=0, flip=False)
    assert len(dataset) == 1
    assert dataset[0]["is_defective"] == rows[1]["is_defective"]


def test_square_mask():
    mask = Image.fromarray(np.kron([[0, 255], [0, 0]], np.ones((5, 10))).astype(np.uint8))
    target = square_mask(mask, True, 8)
    assert target.shape == (8, 8)
    assert target.unique().tolist() == [0, 1]
    assert target[:4, 4:].all()
    assert target.sum() == 16
    assert (square_mask(None, True, 8) == NO_MASK).all(), "defective, but nobody said where"
    assert (square_mask(None, False, 8) == 0).all()


def test_unknown_split(steelsynth):
    with pytest.raises(ValueError, match=r"split: no 'test' among train, val\. Name one of them"):
        load_split(str(steelsynth), "test")
    assert "sha256" in load_split(str(steelsynth), "val").column_names


# Batches


def test_batch_without_references(dataset, processor):
    batch = DiagnosisCollator(dataset, [0])([dataset[index] for index in (0, 1, 2)])
    length = batch["input_ids"].shape[1]
    shapes = {name: tuple(value.shape) for name, value in batch.items()}
    prompts = (24, processor.max_prompt_length)
    assert shapes == {
        "pixel_values": (3, 3, 240, 240),
        "masks": (3, 240, 240),
        "is_defective": (3,),
        "prompt_input_ids": (3, 2, *prompts),
        "input_ids": (3, length),
        "attention_mask": (3, length),
        "labels": (3, length),
    }
    assert batch["masks"].dtype == torch.long
    assert [processor.tokenizer.decode(row[row != -100], skip_special_tokens=True) for row in batch["labels"]] == [
        " " + dataset[index]["answer"] for index in (0, 1, 2)
    ]


def test_batch_trains_the_model(dataset, model):
    batch = DiagnosisCollator(dataset, [2])([dataset[index] for index in (0, 1)])
    with torch.no_grad():
        output = model(**batch)
    assert output.losses.keys() >= {"text", "pixel", "tddf", "sep"}
    assert torch.isfinite(output.loss)


def test_references_are_normal_images_shared_by_one_object(dataset):
    collate = DiagnosisCollator(dataset, [3])
    batch = collate([dataset[index] for index in (0, 1, 2)])
    assert batch["reference_pixel_values"].shape == (1, 3, 3, 240, 240)
    normals = collate.normalize(torch.stack([dataset.images[i] for i in dataset.normal_indices("steel surface")]))
    for reference in batch["reference_pixel_values"][0]:
        assert sum(torch.equal(reference, normal) for normal in normals) == 1
    assert same(batch, collate([dataset[index] for index in (0, 1, 2)]))
    dataset.set_epoch(1)
    assert not torch.equal(
        batch["reference_pixel_values"], collate([dataset[index] for index in (0, 1, 2)])["reference_pixel_values"]
    )


def test_references_of_mixed_objects_are_each_images_own(rows, processor):
    renamed = [
        {**row, "object_name": "magnetic tile" if index % 2 else "steel surface"} for index, row in enumerate(rows)
    ]
    dataset = DiagnosisDataset(renamed, processor, seed=0, flip=False)
    collate = DiagnosisCollator(dataset, [1])
    batch = collate([dataset[0], dataset[1], dataset[2]])
    assert batch["reference_pixel_values"].shape == (3, 1, 3, 240, 240)
    for index, references in enumerate(batch["reference_pixel_values"]):
        own = dataset.normal_indices(dataset[index]["object_name"])
        candidates = collate.normalize(torch.stack([dataset.images[i] for i in own]))
        assert any(torch.equal(references[0], candidate) for candidate in candidates)


def test_too_few_normal_images_make_the_batch_zero_shot(dataset):
    batch = DiagnosisCollator(dataset, [100])([dataset[0]])
    assert "reference_pixel_values" not in batch


def test_every_reference_count_is_drawn(dataset):
    collate = DiagnosisCollator(dataset, [0, 1, 2])
    counts = set()
    for epoch in range(12):
        dataset.set_epoch(epoch)
        batch = collate([dataset[0]])
        counts.add(batch["reference_pixel_values"].shape[1] if "reference_pixel_values" in batch else 0)
    assert counts == {0, 1, 2}


# References


def normal_rows(count: int) -> datasets.Dataset:
    names = ["tile" if index % 3 else "plate" for index in range(count)]
    return datasets.Dataset.from_dict(
        {"is_defective": [(False, True, None)[index % 4 % 3] for index in range(count)], "object_name": names}
    )


def test_references_are_normal_distinct_and_repeatable():
    train = normal_rows(40)
    chosen = draw_references(train, shots=4, draws=3, seed=42)
    assert chosen == draw_references(train, shots=4, draws=3, seed=42)
    assert chosen[:2] == draw_references(train, shots=4, draws=2, seed=42)
    assert len({tuple(draw) for draw in chosen}) == 3
    for draw in chosen:
        assert len(set(draw)) == 4
        assert all(train[index]["is_defective"] is False for index in draw)


def test_references_show_the_object_asked_for():
    train = normal_rows(40)
    (draw,) = draw_references(train, shots=3, draws=1, seed=0, object_name="plate")
    assert {train[index]["object_name"] for index in draw} == {"plate"}


def test_too_few_normal_images_to_draw_from():
    with pytest.raises(
        ValueError, match=r"5 references: the split has 1 normal images of 'plate' to draw from\. Take fewer"
    ):
        draw_references(normal_rows(3), shots=5, draws=1, seed=0, object_name="plate")
