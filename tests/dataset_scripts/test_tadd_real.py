"""TADD built from real images: every text is checked against its mask by code of its own."""

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets, load_dataset
from PIL import Image
from skimage.measure import label

from defect_hub.dataset_scripts.records import make_record
from defect_hub.dataset_scripts.tadd.build import build_tadd
from defect_hub.dataset_scripts.tadd.collection import collect
from defect_hub.dataset_scripts.tadd.subsets import load_subsets
from defect_hub.modeling.template_sentences import plural

pytestmark = pytest.mark.real_data
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")
# What the shared folder holds of each subset, counted by hand.
COUNTS = {
    "BSData": 16,
    "CFD": 155,
    "Crack500": 16,
    "CrackTree200": 3,
    "DeepCrack": 34,
    "GAPs": 4,
    "MT": 317,
    "MVTec-AD": 2,
    "NEU": 913,
    "Rissbilder": 8,
    "Volker": 8,
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, raw_data: Path) -> Dataset:
    folder = tmp_path_factory.mktemp("tadd")
    build_tadd(raw_data, folder / "tadd", workers=2)
    return concatenate_datasets(list(load_dataset(str(folder / "tadd"), cache_dir=str(folder / "cache")).values()))


def top_cell(mask: np.ndarray) -> set[str]:
    """Words of the cell of a 3x3 grid with most defect pixels, counted pixel by pixel; of several where they tie."""
    y, x = mask.nonzero()
    height, width = mask.shape
    row = (y >= round(height / 3)).astype(int) + (y >= round(2 * height / 3))
    column = (x >= round(width / 3)).astype(int) + (x >= round(2 * width / 3))
    counts = np.zeros((3, 3), int)
    np.add.at(counts, (row, column), 1)
    places = np.argwhere(counts == counts.max())
    return {"center" if (r, c) == (1, 1) else f"{ROWS[r]} {COLUMNS[c]}" for r, c in places.tolist()}


def test_all_subsets_are_read(rows: Dataset) -> None:
    found = {name: rows["source"].count(name) for name in set(rows["source"])}
    assert found == COUNTS
    assert {row["split_id"] for row in rows.remove_columns(["image", "mask"])} == {"tadd-70-15-15-seed42"}


def test_unannotated_images_of_real_sets(rows: Dataset) -> None:
    plain = rows.remove_columns(["image", "mask"])
    unannotated = [row for row in plain if row["annotation"] == "none" and row["is_defective"] is not False]
    cfd = {row["image_id"] for row in unannotated if row["source"] == "CFD"}
    assert cfd == {f"CFD/image/{n}" for n in [*range(201, 209), *range(301, 330)]}
    assert {row["is_defective"] for row in unannotated if row["source"] == "BSData"} == {None}
    assert all("MT_Uneven" in row["image_id"] for row in unannotated if row["source"] == "MT")


def test_descriptions_say_what_the_masks_show(rows: Dataset) -> None:
    subsets, names = load_subsets(), rows.features["label"].names
    checked = 0
    for row in rows.remove_columns(["image"]):
        if not row["is_defective"]:
            continue
        category = names[row["label"]]
        noun = subsets[row["source"]].nouns.get(category, category)
        text = row["t2"]
        assert re.search(rf"\b({noun}|{plural(noun)})\b", text, re.IGNORECASE), (row["image_id"], text)
        assert row["object_name"] in text
        if row["annotation"] != "mask":
            continue
        mask = np.asarray(row["mask"]) > 0
        count = label(mask, connectivity=2).max()
        words = rf"\b{NUMBERS.get(count, 'several')}\b.*{plural(noun)}" if count > 1 else rf"\ban?\b.*\b{noun}\b"
        assert re.search(words, text, re.IGNORECASE), (row["image_id"], text)
        assert any(cell in text for cell in top_cell(mask)), (row["image_id"], text)
        checked += 1
    assert checked > 350


def test_box_descriptions_count_the_boxes(rows: Dataset) -> None:
    names = rows.features["label"].names
    for row in rows.remove_columns(["image", "mask"]):
        if row["annotation"] == "boxes":
            category = names[row["label"]]
            count = row["objects"]["category"].count(row["label"])
            noun = load_subsets()[row["source"]].nouns.get(category, category)
            if count == 0:
                assert noun in row["t2"] or plural(noun) in row["t2"]
            else:
                number = NUMBERS.get(count, "several") if count > 1 else "an?"
                assert re.search(
                    rf"\b{number}\b[^.]*({plural(noun) if count > 1 else noun})", row["t2"], re.IGNORECASE
                )


def test_normal_images_are_described(rows: Dataset) -> None:
    normal = [row for row in rows.remove_columns(["image", "mask"]) if row["is_defective"] is False]
    assert normal
    for row in normal:
        assert row["object_name"] in row["t2"]
        assert re.search(r"\b(no|not|without|free|normal|intact|flawless|good|clean)\b", row["t2"], re.IGNORECASE)
    assert len({row["t2"] for row in normal}) > 10


@pytest.fixture
def visa(tmp_path: Path, raw_data: Path) -> tuple[Path, list[dict[str, str]]]:
    """VisA's real split list, and a generated image and mask for every 40th of its rows."""
    root = tmp_path / "VisA"
    shutil.copytree(raw_data / "VisA-splits" / "split_csv", root / "split_csv")
    with (root / "split_csv" / "1cls.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))[::40]
    rng = np.random.default_rng(0)
    for row in listed:
        for name in filter(None, (row["image"], row["mask"])):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(root / row["image"], "JPEG")
        if row["mask"]:
            mask = np.zeros((48, 64), np.uint8)
            mask[10:20, 30:45] = 1
            Image.fromarray(mask).save(root / row["mask"])
    return root, listed


def test_visa_with_its_real_split_list(visa: tuple[Path, list[dict[str, str]]]) -> None:
    root, listed = visa
    found = collect(root)
    assert found.problems == []
    samples = {sample.source_file: sample for sample in found.samples}
    assert len(samples) == len(listed) == 271
    for row in listed:
        sample = samples[row["image"]]
        record = make_record(sample).row
        assert record["official_split"] == row["split"]
        assert record["is_defective"] == (row["label"] == "anomaly")
        if row["label"] == "anomaly":
            assert record["objects"]["bbox"] == [[30, 10, 15, 10]]
    assert {sample.source.object_name for sample in found.samples} == set(load_subsets()["VisA"].objects.values())


def test_neu_in_its_segmentation_form(raw_data: Path) -> None:
    found = collect(raw_data / "NEU_Seg")
    assert (found.problems, len(found.samples)) == ([], 119)
    for sample in found.samples:
        mask = np.asarray(Image.open(str(sample.image).replace("images", "annotations").replace(".jpg", ".png")))
        counts = np.bincount(mask.ravel(), minlength=4)[1:]
        record = make_record(sample).row
        assert record["label"] == ("inclusion", "patches", "scratches")[counts.argmax()]
        assert record["official_split"] == ("test" if "/test/" in sample.image.as_posix() else "train")
        assert sum(record["objects"]["area"]) == counts.sum()
