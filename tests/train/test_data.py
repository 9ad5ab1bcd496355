import re

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from defect_hub.train.augmentation import FLIPS, mirror_words
from defect_hub.train.data import (
    NO_MASK,
    DiagnosisCollator,
    DiagnosisDataset,
    draw_references,
    load_split,
    square_mask,
)

DIRECTIONS = {(False, False): [], (True, False): [-1], (False, True): [-2], (True, True): [-1, -2]}


@pytest.fixture(scope="module")
def dataset(rows, processor):
    return DiagnosisDataset(rows, processor, seed=7)


@pytest.fixture(autouse=True)
def first_epoch(request):
    yield
    if "dataset" in request.fixturenames:
        request.getfixturevalue("dataset").set_epoch(0)


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name]
        for name, value in first.items()
    )


def changed(rows, change):
    """The rows with some fields that `change(index, row)` gives; images stay as they are encoded."""
    encoded = rows.cast_column("image", datasets.Image(decode=False)).cast_column("mask", datasets.Image(decode=False))
    table = [{**row, **change(index, row)} for index, row in enumerate(encoded)]
    return datasets.Dataset.from_list(table, features=rows.features, split=rows.split)


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
            fitting = [
                key for key, dims in DIRECTIONS.items() if torch.equal(item["image"], original["image"].flip(dims))
            ]
            assert len(fitting) == 1
            assert torch.equal(item["mask"], original["mask"].flip(DIRECTIONS[fitting[0]]))
            assert item["answer"] == mirror_words(original["answer"], *fitting[0])
            seen.add(fitting[0])
    assert seen == set(DIRECTIONS)


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
    unknown = changed(rows, lambda index, row: {"is_defective": row["is_defective"] if index else None})
    dataset = DiagnosisDataset(unknown, processor, seed=0, flip=False)
    assert len(dataset) == len(rows) - 1
    assert dataset[0]["image_id"] == rows[1]["image_id"]


def test_square_mask():
    mask = Image.fromarray(np.kron([[0, 255], [0, 0]], np.ones((5, 10))).astype(np.uint8))
    target = square_mask(mask, True, 8)
    assert target.shape == (8, 8)
    assert target.unique().tolist() == [0, 1]
    assert target[:4, 4:].all()
    assert target.sum() == 16
    assert (square_mask(None, True, 8) == NO_MASK).all(), "defective, but nobody said where"
    assert (square_mask(None, False, 8) == 0).all()


def test_light_changes_the_image_alone(rows, processor, dataset):
    lit = DiagnosisDataset(rows, processor, seed=7, brightness=0.3, contrast=0.3)
    for index in range(len(dataset)):
        item, plain = lit[index], dataset[index]
        assert not torch.equal(item.pop("image"), plain["image"])
        assert same(item, {name: value for name, value in plain.items() if name != "image"})
        assert same(lit[index], lit[index])
    assert torch.equal(lit.image(0), dataset.image(0))


def test_images_that_were_withheld_are_left_out(rows, processor, capsys):
    fields = [{"image": None}, {"is_defective": None}, {"image": None}] + [{}] * (len(rows) - 3)
    dataset = DiagnosisDataset(changed(rows, lambda index, row: fields[index]), processor, seed=7, flip=False)
    assert [dataset[index]["image_id"] for index in range(len(dataset))] == rows["image_id"][3:]
    said = f"val: 3 of {len(rows)} rows are left out: 2 without image, 1 of unknown is_defective\n"
    assert said in capsys.readouterr().err


def test_rows_that_cannot_be_items_are_refused(rows, processor):
    withheld = changed(rows, lambda index, row: {"image": None})
    with pytest.raises(ValueError, match=r"val: no row can be trained on \(12 without image\)\. Give another split"):
        DiagnosisDataset(withheld, processor, seed=7)
    with pytest.raises(ValueError, match=r"^mask, conversation: no such column\."):
        DiagnosisDataset(rows.remove_columns(["conversation", "mask"]), processor, seed=7)
    silent = changed(rows, lambda index, row: {"conversation": row["conversation"][: 1 + index]})
    with pytest.raises(
        ValueError, match=f"^{rows[0]['image_id']}: conversation: 1 turns. Give a question and an answer"
    ):
        DiagnosisDataset(silent, processor, seed=7)
    damaged = changed(rows, lambda index, row: {"image": {"path": "a.png", "bytes": row["image"]["bytes"][:60]}})
    with pytest.raises(ValueError, match=f"^{rows[0]['image_id']}: the image cannot be decoded "):
        DiagnosisDataset(damaged, processor, seed=7)


# Decoded in each epoch


CHANGES = {"simulated_defects": 0.7, "brightness": 0.2, "contrast": 0.4}


def test_items_are_the_same_whenever_they_are_decoded(rows, processor):
    kept = DiagnosisDataset(rows, processor, seed=7, **CHANGES)
    read = DiagnosisDataset(rows, processor, seed=7, **CHANGES, decode_once=False)
    for epoch in range(2):
        for each in (kept, read):
            each.set_epoch(epoch)
        assert all(same(kept[index], read[index]) for index in range(len(rows)))
    collate = [DiagnosisCollator(each, [2]) for each in (kept, read)]
    assert same(*(each([each.dataset[index] for index in (4, 1, 7)]) for each in collate))
    assert torch.equal(torch.stack(list(kept.images)), torch.stack(list(read.images)))


def test_no_image_is_decoded_twice_for_a_batch(rows, processor, decoded):
    """An item, a reference and the donor of a simulated defect may be one image."""
    images = [row["image"]["bytes"] for row in rows.cast_column("image", datasets.Image(decode=False))]
    decoded.clear()
    dataset = DiagnosisDataset(rows, processor, seed=7, simulated_defects=1.0, decode_once=False)
    assert not decoded
    collate = DiagnosisCollator(dataset, [4])
    indices = dataset.normal_indices("steel surface")[:3].tolist()
    for epoch in range(4):
        dataset.set_epoch(epoch)
        decoded.clear()
        batch = collate(dataset.__getitems__([*indices, indices[0]]))
        assert batch["reference_pixel_values"].shape[:2] == (1, 4)
        pictures = [data for data in decoded if data in images]
        assert len(pictures) == len(set(pictures))
        assert {images[index] for index in indices} <= set(pictures)


def test_cached_features_need_no_image(rows, processor, decoded):
    images = {row["image"]["bytes"] for row in rows.cast_column("image", datasets.Image(decode=False))}
    dataset = DiagnosisDataset(rows, processor, seed=7, decode_once=False)
    dataset.features = Features()
    batch = DiagnosisCollator(dataset, [2])(dataset.__getitems__(range(len(rows))))
    assert "reference_features" in batch
    assert not images & set(decoded)


@pytest.mark.parametrize("decode_once", [True, False])
def test_batches_do_not_depend_on_the_workers(rows, processor, decode_once):
    def batches(workers):
        torch.manual_seed(workers)  # the seed of a worker's own random numbers
        dataset = DiagnosisDataset(rows, processor, seed=7, **CHANGES, decode_once=decode_once)
        dataset.set_epoch(3)
        return list(DataLoader(dataset, 3, collate_fn=DiagnosisCollator(dataset, [1, 2]), num_workers=workers))

    expected = batches(0)
    assert len(expected) == 4
    for workers in (1, 2):
        assert all(map(same, batches(workers), expected))


# Loading


def test_unknown_split_and_config(steelsynth):
    with pytest.raises(ValueError, match=r"split: no 'test' among train, val\. Name one of them"):
        load_split(str(steelsynth), "test")
    with pytest.raises(ValueError, match=r"config: no 'nope' among default, t0, .*\. Name one of them"):
        load_split(str(steelsynth), "train", "nope")
    with pytest.raises(
        ValueError, match=r"image_id, sha256, .*: no such column in 'val'\. Give a data set in the record"
    ):
        load_split(str(steelsynth), "val", "classification")
    rows = load_split(str(steelsynth), "val", "leak_free")
    assert "sha256" in rows.column_names


def test_streamed_split_has_the_same_rows(steelsynth, rows):
    streamed = load_split(str(steelsynth), "val", streaming=True)
    assert isinstance(streamed, datasets.IterableDataset)
    assert [row["sha256"] for row in streamed] == rows["sha256"]


@pytest.mark.parametrize("streaming", [False, True])
def test_unusable_data_sets_are_refused_in_one_line(tmp_path, rows, streaming):
    def refused(name):
        with pytest.raises(ValueError, match=r"\S") as raised:
            load_split(str(tmp_path / name), "train", streaming=streaming)
        assert "\n" not in str(raised.value)
        return str(raised.value).removeprefix(str(tmp_path))

    for name in ("half", "none", "other", "nothing"):
        (tmp_path / name).mkdir()
    path = tmp_path / "half/train.parquet"
    rows.to_parquet(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    pq.write_table(rows.data.table.slice(0, 0), tmp_path / "none/train.parquet")
    (tmp_path / "other/train.csv").write_text("image,label\na.png,crack\n")
    assert refused("half").startswith("/half/train.parquet: damaged (Parquet magic bytes not found in footer.")
    assert refused("none") == "/none/train.parquet: holds no rows. Remove the file"
    assert refused("other").startswith("/other: image_id, sha256, is_defective, object_name, mask: no such column in ")
    assert refused("nothing").startswith(
        "/nothing: no data files in this folder. Build it with `defect-hub data build`"
    )
    assert refused("absent").startswith("/absent: no such folder, and not to be had from the Hub (")


# Simulated defects


@pytest.fixture(scope="module")
def simulating(rows, processor):
    normal = rows.filter(lambda defective: defective is False, input_columns="is_defective")
    return DiagnosisDataset(normal, processor, seed=7, simulated_defects=0.5)


def test_share_of_the_normal_items_gets_a_defect(simulating):
    drawn = []
    for epoch in range(10):
        simulating.set_epoch(epoch)
        drawn += [simulating[index] for index in range(len(simulating))]
    share = sum(item["is_defective"] for item in drawn) / len(drawn)
    assert 0.3 < share < 0.7, len(drawn)
    for item in drawn:
        assert item["mask"].any() == item["is_defective"]
        assert item["answer"].startswith("Yes, there is a" if item["is_defective"] else "No, the steel surface")
        assert item["image"].dtype == torch.uint8


def test_simulated_items_depend_on_seed_epoch_and_index_alone(simulating, rows, processor):
    normal = rows.filter(lambda defective: defective is False, input_columns="is_defective")
    again = DiagnosisDataset(normal, processor, seed=7, simulated_defects=0.5)
    for epoch in (0, 1):
        simulating.set_epoch(epoch)
        again.set_epoch(epoch)
        for index in reversed(range(len(again))):
            assert same(simulating[index], again[index])
    simulating.set_epoch(0)
    assert not all(same(simulating[index], again[index]) for index in range(len(again)))


def test_simulated_items_are_flipped_with_their_words(simulating, processor, rows):
    normal = rows.filter(lambda defective: defective is False, input_columns="is_defective")
    always = DiagnosisDataset(normal, processor, seed=7, simulated_defects=1)
    plain = DiagnosisDataset(normal, processor, seed=7, flip=False, simulated_defects=1)
    seen = set()
    for index in range(len(always)):
        item, original = always[index], plain[index]
        (flip,) = (f for f, dims in DIRECTIONS.items() if torch.equal(item["mask"], original["mask"].flip(dims)))
        assert torch.equal(item["image"], original["image"].flip(DIRECTIONS[flip]))
        assert item["answer"] == mirror_words(original["answer"], *flip)
        seen.add(flip)
    assert len(seen) > 1


def test_defective_items_and_references_stay_as_they_are(rows, processor, dataset):
    simulating = DiagnosisDataset(rows, processor, seed=7, simulated_defects=1)
    for index in range(len(dataset)):
        if dataset[index]["is_defective"]:
            assert same(simulating[index], dataset[index])
        else:
            assert not torch.equal(simulating[index]["image"], dataset[index]["image"])
    batches = [
        DiagnosisCollator(each, [2])([each[index] for index in range(3)])["reference_pixel_values"]
        for each in (simulating, dataset)
    ]
    assert torch.equal(*batches)


# Features in place of images


class Features:
    """In place of a cache: a feature tells its image and variant."""

    def read(self, index, variant=0):
        told = torch.tensor([index, variant], dtype=torch.bfloat16)
        return {"cls_features": told, "local_features": told.expand(5, 2)}


def test_items_hold_the_features_of_their_flip(rows, processor, dataset):
    cached = DiagnosisDataset(rows, processor, seed=7)
    cached.features = Features()
    seen = set()
    for epoch in range(3):
        dataset.set_epoch(epoch)
        cached.set_epoch(epoch)
        for index in range(len(dataset)):
            told, variant = cached[index]["features"]["cls_features"].tolist()
            assert told == index
            assert torch.equal(dataset[index]["image"], dataset.image(index).flip(FLIPS[int(variant)]))
            assert torch.equal(dataset[index]["image"], dataset.variants(index)[int(variant)])
            assert torch.equal(cached[index]["mask"], dataset[index]["mask"])
            assert cached[index]["answer"] == dataset[index]["answer"]
            seen.add(variant)
    assert seen == {0, 1, 2, 3}
    assert len(DiagnosisDataset(rows, processor, seed=7, flip=False).variants(0)) == 1


def test_batches_hold_features_in_place_of_images(rows, processor, dataset):
    cached = DiagnosisDataset(rows, processor, seed=7)
    cached.features = Features()
    plain = DiagnosisCollator(dataset, [2])([dataset[index] for index in (0, 1, 2)])
    batch = DiagnosisCollator(cached, [2])([cached[index] for index in (0, 1, 2)])
    assert {name: tuple(batch.pop(name).shape) for name in ("cls_features", "local_features")} == {
        "cls_features": (3, 2),
        "local_features": (3, 5, 2),
    }
    references = batch.pop("reference_features")
    assert references.shape == (1, 2, 5, 2)
    assert references.dtype == torch.float32
    for chosen, image in zip(references[0, :, 0], plain.pop("reference_pixel_values")[0], strict=True):
        index, variant = chosen.int().tolist()
        assert variant == 0
        assert torch.equal(image, DiagnosisCollator(dataset, [0]).normalize(dataset.image(index)[None])[0])
    del plain["pixel_values"]
    assert batch.keys() == plain.keys()
    assert same(batch, plain)


# Batches


def test_batch_without_references(dataset, processor):
    batch = DiagnosisCollator(dataset, [0])([dataset[index] for index in (0, 1, 2)])
    length = batch["input_ids"].shape[1]
    assert batch.pop("ids") == [dataset[index]["image_id"] for index in (0, 1, 2)]
    shapes = {name: tuple(value.shape) for name, value in batch.items()}
    prompts = processor.prompt_input_ids(["steel surface"]).shape[2:]
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
    normals = collate.normalize(torch.stack([dataset.image(i) for i in dataset.normal_indices("steel surface")]))
    for reference in batch["reference_pixel_values"][0]:
        assert sum(torch.equal(reference, normal) for normal in normals) == 1
    assert same(batch, collate([dataset[index] for index in (0, 1, 2)]))
    dataset.set_epoch(1)
    assert not torch.equal(
        batch["reference_pixel_values"], collate([dataset[index] for index in (0, 1, 2)])["reference_pixel_values"]
    )


def references_of(dataset, collate, indices):
    """Items that the references of a batch show."""
    shown = collate([dataset[index] for index in indices])["reference_pixel_values"].flatten(0, 1)
    known = collate.normalize(torch.stack(list(dataset.images)))
    return [next(index for index, image in enumerate(known) if torch.equal(image, each)) for each in shown]


def test_an_image_is_no_reference_of_its_own_batch(dataset):
    normals = dataset.normal_indices("steel surface")
    assert len(normals) >= 4
    collate, seen = DiagnosisCollator(dataset, [2]), set()
    for epoch in range(8):
        dataset.set_epoch(epoch)
        chosen = references_of(dataset, collate, normals[:2])
        assert len(set(chosen)) == 2
        seen |= set(chosen)
    assert seen <= set(normals[2:])
    # Too few others: the batch's own serve too.
    assert set(references_of(dataset, DiagnosisCollator(dataset, [2]), normals[1:])) <= set(normals)


def test_references_of_mixed_objects_are_each_images_own(rows, processor):
    renamed = changed(rows, lambda index, row: {"object_name": "magnetic tile" if index % 2 else "steel surface"})
    dataset = DiagnosisDataset(renamed, processor, seed=0, flip=False)
    collate = DiagnosisCollator(dataset, [1])
    batch = collate([dataset[0], dataset[1], dataset[2]])
    assert batch["reference_pixel_values"].shape == (3, 1, 3, 240, 240)
    for index, references in enumerate(batch["reference_pixel_values"]):
        own = dataset.normal_indices(dataset[index]["object_name"])
        candidates = collate.normalize(torch.stack([dataset.image(i) for i in own]))
        assert any(torch.equal(references[0], candidate) for candidate in candidates)


def test_an_object_without_normal_images_leaves_the_others_their_references(rows, processor, model):
    """As in TADD, where no crack set has a normal image."""
    crack = next(index for index, row in enumerate(rows) if row["is_defective"])
    renamed = changed(rows, lambda index, row: {"object_name": "road" if index == crack else "steel"})
    dataset = DiagnosisDataset(renamed, processor, seed=0, flip=False)
    other = next(index for index in range(len(dataset)) if index != crack)
    batch = DiagnosisCollator(dataset, [2])([dataset[crack], dataset[other]])
    assert batch["has_references"].tolist() == [False, True]
    assert batch["reference_pixel_values"].shape[:2] == (2, 2)
    assert torch.isfinite(model(**batch).loss)


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
