"""TADD built from real images: every text is checked against its mask by code of its own."""

import re
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets, load_dataset
from skimage.measure import label

from defect_hub.dataset_scripts.tadd.build import build_tadd
from defect_hub.dataset_scripts.tadd.subsets import load_subsets
from defect_hub.dataset_scripts.texts import plural

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
            count = sum(item["category"] == category for item in row["objects"])
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
