"""MMIO assembled from real images: every box against an independent reading of the sets' own files."""

import contextlib
import io
import json
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from PIL import Image
from pycocotools.coco import COCO
from scipy import ndimage

from defect_hub.dataset_scripts.assemble import BuildReport
from defect_hub.dataset_scripts.export import export_detection
from defect_hub.dataset_scripts.mmio.build import build_mmio
from defect_hub.dataset_scripts.mmio.collection import collect
from defect_hub.dataset_scripts.mmio.scenes import load_scenes
from defect_hub.dataset_scripts.statistics import write_statistics
from tests.dataset_scripts.mmio_raw import table

pytestmark = pytest.mark.real_data
CATEGORIES = [category.name for category in load_scenes().categories]
LABELS = [*CATEGORIES, "normal", "unknown"]
# What the shared folder holds of each set, counted by hand.
COUNTS = {
    "BSData": 16,
    "Casting": 80,
    "DeepPCB": 163,
    "GDXray Castings": 37,
    "MT": 317,
    "MVTec leather": 2,
    "NEU-DET": 913,
    "RIAWELC": 25,
    "X-SDD": 1360,
}
NEU = {
    "crazing": "crazing",
    "inclusion": "steel inclusion",
    "patches": "steel patch",
    "pitted_surface": "pitted surface",
    "rolled-in_scale": "rolled-in scale",
    "scratches": "steel scratch",
}
DEEPPCB = ("open circuit", "short circuit", "mouse bite", "spur", "spurious copper", "pin hole")
MT = {
    "Blowhole": "magnetic tile blowhole",
    "Break": "magnetic tile break",
    "Crack": "magnetic tile crack",
    "Fray": "magnetic tile fray",
    "Uneven": "magnetic tile unevenness",
}
SMALLEST_PART = 9
Boxes = list[tuple[str, list[float]]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, raw_data: Path) -> tuple[Path, BuildReport]:
    folder = tmp_path_factory.mktemp("mmio") / "mmio"
    data = collect(raw_data)
    assert list(data.problems) == []
    return folder, build_mmio(data, folder, workers=2)


@pytest.fixture(scope="module")
def rows(built: tuple[Path, BuildReport]) -> list[dict[str, Any]]:
    """All rows without pictures, categories as names."""
    columns = ["image_id", "image_number", "source", "source_file", "scene", "label", "width", "height", "sha256"]
    columns += ["is_defective", "annotation", "objects", "official_split"]
    found = []
    for shard in sorted(built[0].glob("data/*/*.parquet")):
        for row in pq.read_table(shard, columns=columns).to_pylist():
            objects = row["objects"] | {"category": [CATEGORIES[number] for number in row["objects"]["category"]]}
            found.append(row | {"objects": objects, "label": LABELS[row["label"]]})
    return sorted(found, key=lambda row: row["image_number"])


def boxes_of(row: dict[str, Any]) -> Boxes:
    return sorted(zip(row["objects"]["category"], row["objects"]["bbox"], strict=True))


def of(rows: list[dict[str, Any]], source: str) -> dict[str, dict[str, Any]]:
    """Rows of a source by the name of the image file."""
    found = {Path(row["source_file"]).name: row for row in rows if row["source"] == source}
    assert len(found) == COUNTS[source]
    return found


def check(row: dict[str, Any], expected: Boxes) -> int:
    """Compare the boxes of a row with those read otherwise; return their number."""
    found, wanted = boxes_of(row), sorted(expected)
    assert [name for name, _ in found] == [name for name, _ in wanted], row["image_id"]
    given = np.array([box for _, box in found]).reshape(-1, 4)
    np.testing.assert_allclose(
        given, np.array([box for _, box in wanted]).reshape(-1, 4), rtol=0, atol=1e-4, err_msg=row["image_id"]
    )
    return len(found)


def neu_boxes(path: Path) -> Boxes:
    """VOC: pixels from 1, both corners inside; a box given twice counts once."""
    found = set()
    for item in ET.parse(path).iter("object"):
        name, box = item.findtext("name"), item.find("bndbox")
        assert name and box is not None
        x1, y1, x2, y2 = (int(box.findtext(side) or "") for side in ("xmin", "ymin", "xmax", "ymax"))
        found.add((NEU[name], (x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1)))
    return [(name, list(map(float, box))) for name, box in found]


def parts_of(path: Path, category: str) -> Iterator[tuple[str, list[float], float]]:
    """Category, box and area of each 8-connected part of a mask that is large enough, at least of the largest."""
    labels, _ = ndimage.label(np.asarray(Image.open(path).convert("L")) > 127, np.ones((3, 3)))
    areas = np.bincount(labels.ravel())[1:]
    for number, (ys, xs) in enumerate(ndimage.find_objects(labels)):
        if areas[number] >= min(SMALLEST_PART, areas.max()):
            box = [xs.start, ys.start, xs.stop - xs.start, ys.stop - ys.start]
            yield category, list(map(float, box)), float(areas[number])


def expected_boxes(raw: Path) -> dict[tuple[str, str], Boxes]:
    """Boxes of every image of which an annotation file says them, by source and name of the image file."""
    found: dict[tuple[str, str], Boxes] = {}
    for folder in ("ANNOTATIONS", "Validation_Annotations"):
        for path in (raw / "NEU-DET" / folder).glob("*.xml"):
            found["NEU-DET", f"{path.stem}.jpg"] = neu_boxes(path)
    for path in (raw / "DeepPCB" / "PCBData").glob("group*/*_not/*.txt"):
        found["DeepPCB", f"{path.stem}_test.jpg"] = [
            (DEEPPCB[kind - 1], [x1, y1, x2 - x1, y2 - y1])
            for x1, y1, x2, y2, kind in np.loadtxt(path, int, ndmin=2).tolist()
        ]
    series = raw / "GDXray" / "Castings" / "C0041"
    for number, x1, x2, y1, y2 in np.loadtxt(series / "ground_truth.txt").tolist():
        boxes = found.setdefault(("GDXray Castings", f"C0041_{int(number):04}.png"), [])
        boxes.append(("casting flaw", [x1, y1, x2 - x1, y2 - y1]))
    for path in (raw / "BSData" / "label").glob("*.json"):
        shapes = [np.array(shape["points"]) for shape in json.loads(path.read_text("utf-8"))["shapes"]]
        found["BSData", f"{path.stem}.jpg"] = [
            ("ball screw pitting", [*points.min(0), *(points.max(0) - points.min(0))]) for points in shapes
        ]
    for word, category in MT.items():
        for path in (raw / "MT" / f"MT_{word}" / "Imgs").glob("*.png"):
            found["MT", f"{path.stem}.jpg"] = [(name, box) for name, box, _ in parts_of(path, category)]
    mask = raw / "MVTec-leather-mini" / "leather" / "ground_truth" / "color" / "000_mask.png"
    found["MVTec leather", "color/000.png"] = [(name, box) for name, box, _ in parts_of(mask, "leather colour stain")]
    return found


def test_all_sets_are_read(built: tuple[Path, BuildReport], rows: list[dict[str, Any]]) -> None:
    assert Counter(row["source"] for row in rows) == COUNTS
    assert [row["image_number"] for row in rows] == list(range(len(rows)))
    ids = [number for row in rows for number in row["objects"]["id"]]
    assert ids == list(range(len(ids)))
    problems = Counter(row["problem"] for row in table(built[0] / "box_repairs.csv"))
    assert problems == {"duplicate": 3, "tiny": 11}
    assert sum("empty mask of a defect" in warning for warning in built[1].warnings) == 2


def test_every_box_is_that_of_an_independent_reading(rows: list[dict[str, Any]], raw_data: Path) -> None:
    expected = expected_boxes(raw_data)
    compared: Counter[str] = Counter()
    for row in rows:
        path = Path(row["source_file"])
        name = path.name if row["source"] != "MVTec leather" else f"{path.parent.name}/{path.name}"
        compared[row["source"]] += check(row, expected.pop((row["source"], name), []))
    assert expected == {}
    assert sum(compared.values()) == sum(len(row["objects"]["id"]) for row in rows)
    boxed = {"BSData", "DeepPCB", "GDXray Castings", "MT", "MVTec leather", "NEU-DET"}
    assert {source for source, count in compared.items() if count} == boxed
    assert (compared["GDXray Castings"], compared["NEU-DET"] > 2000, compared["DeepPCB"] > 500) == (185, True, True)


def test_areas_are_pixels_of_masks_and_sides_of_boxes(rows: list[dict[str, Any]], raw_data: Path) -> None:
    for name, row in of(rows, "MT").items():
        word = Path(row["source_file"]).parts[0].removeprefix("MT_")
        if word != "Free":
            parts = parts_of((raw_data / "MT" / row["source_file"]).with_suffix(".png"), MT[word])
            found = zip(*(row["objects"][key] for key in ("category", "bbox", "area")), strict=True)
            assert sorted(found) == sorted(parts), name
    for row in rows:
        if row["annotation"] == "boxes":
            sides = np.array(row["objects"]["bbox"]).reshape(-1, 4)[:, 2:]
            np.testing.assert_allclose(row["objects"]["area"], sides.prod(axis=1), rtol=1e-5)


def test_boxes_lie_in_their_images(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        boxes = np.array(row["objects"]["bbox"]).reshape(-1, 4)
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] > 0).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= np.array([row["width"], row["height"]]) + 1e-3).all()


def test_unlabelled_is_not_normal(rows: list[dict[str, Any]], raw_data: Path) -> None:
    normal = [row for row in rows if row["is_defective"] is False]
    assert {row["label"] for row in normal} == {"normal"} and not any(row["objects"]["id"] for row in normal)
    for row in normal:
        known = ("MT_Free/", "_temp.jpg", "ok_front/", "/good/")
        assert any(part in row["source_file"] for part in known), row["image_id"]
    unknown = Counter(row["source"] for row in rows if row["is_defective"] is None)
    json_files = len(list((raw_data / "BSData" / "label").glob("*.json")))
    listed = len({number for number, *_ in np.loadtxt(raw_data / "GDXray/Castings/C0041/ground_truth.txt").tolist()})
    assert unknown == Counter({"RIAWELC": 25, "BSData": 16 - json_files, "GDXray Castings": 37 - listed})
    assert all(
        row["label"] == "unknown" and row["annotation"] == "none" for row in rows if row["is_defective"] is None
    )


def test_image_level_sets_have_classes_and_no_boxes(
    built: tuple[Path, BuildReport], rows: list[dict[str, Any]]
) -> None:
    classes = {
        "finishing roll printing": "finishing roll printing",
        "iron sheet ash": "iron sheet ash",
        "oxide scale of plate system": "plate system oxide scale",
        "oxide scale of temperature system": "temperature system oxide scale",
        "red iron": "red iron",
        "slag inclusion": "steel inclusion",
        "surface scratch": "steel scratch",
        "def_front": "casting flaw",
        "ok_front": "normal",
    }
    parts = {row["image_id"]: row["part"] for row in table(built[0] / "zero_shot.csv")}
    for row in rows:
        if row["source"] in ("X-SDD", "Casting"):
            folder = Path(row["source_file"]).parent.name
            assert (row["label"], row["is_defective"]) == (classes[folder], folder != "ok_front")
        if row["source"] in ("X-SDD", "Casting", "RIAWELC"):
            part = "seen" if row["is_defective"] is False else "unplaced"
            assert (row["annotation"], row["objects"]["id"], parts[row["image_id"]]) == ("none", [], part)
    data = load_dataset(str(built[0]), "image_level", streaming=True)
    listed = [row["image_id"] for split in data.values() for row in split.select_columns(["image_id"])]
    unplaced = [row["image_id"] for row in rows if row["annotation"] == "none" and row["is_defective"] is not False]
    assert sorted(listed) == sorted(unplaced)


def test_zero_shot_parts_of_real_sets(built: tuple[Path, BuildReport], rows: list[dict[str, Any]]) -> None:
    novel = {row["category"] for row in table(built[0] / "categories.csv") if row["novel"] == "yes"}
    parts = {row["image_id"]: row["part"] for row in table(built[0] / "zero_shot.csv")}
    unseen = {row["image_id"] for row in rows if novel & {*row["objects"]["category"]}}
    assert {image_id for image_id, part in parts.items() if part == "unseen"} == unseen
    assert len(unseen) > 300
    seen = [row for row in rows if parts[row["image_id"]] == "seen"]
    assert not {row["label"] for row in seen} & novel
    assert all(row["objects"]["is_novel"] == [name in novel for name in row["objects"]["category"]] for row in rows)


def test_closed_split_keeps_strata_and_pairs(built: tuple[Path, BuildReport], rows: list[dict[str, Any]]) -> None:
    split_of = {row["image_id"]: row["split"] for row in table(built[0] / "splits.csv")}
    strata: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    pairs: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row["annotation"] != "none":
            strata[row["scene"], row["label"]][split_of[row["image_id"]]] += 1
        if row["source"] == "DeepPCB":
            pairs[Path(row["source_file"]).name[:8]].add(split_of[row["image_id"]])
    large = {name: found for name, found in strata.items() if found.total() >= 60}
    assert len(large) >= 6
    for name, found in large.items():
        assert 0.12 <= found["test"] / found.total() <= 0.28, (name, found)
    assert len(pairs) > 75 and all(len(splits) == 1 for splits in pairs.values())


def test_the_whole_export_is_read_by_pycocotools_and_by_hand(
    built: tuple[Path, BuildReport], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    export_detection(built[0], tmp_path)
    left = {row["image_number"]: row for row in rows}
    categories: Counter[str] = Counter()
    for split in ("train", "test"):
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(str(tmp_path / "annotations" / f"{split}.json"))
        names = {number: category["name"] for number, category in coco.cats.items()}
        for number, image in coco.imgs.items():
            row, entries = left.pop(number), coco.loadAnns(coco.getAnnIds([number]))
            assert (image["width"], image["height"], image["sha256"]) == (row["width"], row["height"], row["sha256"])
            assert [entry["id"] for entry in entries] == row["objects"]["id"]
            assert [names[entry["category_id"]] for entry in entries] == row["objects"]["category"]
            assert np.array_equal(np.float32([entry["bbox"] for entry in entries]), np.float32(row["objects"]["bbox"]))
            categories.update(names[entry["category_id"]] for entry in entries)
            label = tmp_path / "labels" / split / f"{Path(image['file_name']).stem}.txt"
            check_yolo(label, row)
            with Image.open(tmp_path / "Images" / split / image["file_name"]) as picture:
                assert picture.size == (row["width"], row["height"])
    assert left == {}
    assert categories == Counter(name for row in rows for name in row["objects"]["category"])


def check_yolo(path: Path, row: dict[str, Any]) -> None:
    """A YOLO file converted back by hand."""
    lines = [line.split() for line in path.read_text().splitlines()]
    assert [CATEGORIES[int(line[0])] for line in lines] == row["objects"]["category"]
    size = np.array([row["width"], row["height"]])
    for (_, *numbers), box in zip(lines, row["objects"]["bbox"], strict=True):
        centre, sides = np.array(numbers, float).reshape(2, 2) * size
        assert np.abs(np.array([*(centre - sides / 2), *sides]) - box).max() < 1e-3, row["image_id"]


@pytest.mark.slow
def test_statistics_of_the_folder(
    built: tuple[Path, BuildReport], rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("defect_hub.dataset_scripts.statistics.EMBEDDED_IMAGES", 100)  # t-SNE is not looked at here.
    paths = write_statistics(built[0])
    assert {path.name for path in paths} >= {"statistics.json", "long_tail.png", "box_sizes.png"}
    found = json.loads((built[0] / "statistics" / "statistics.json").read_text("utf-8"))
    assert sum(found["images"].values()) == len(rows)
    assert found["annotations"] == Counter(row["annotation"] for row in rows)
    objects, areas = found["objects"], np.array([area for row in rows for area in row["objects"]["area"]])
    assert (objects["number"], objects["images"]) == (len(areas), sum(bool(row["objects"]["id"]) for row in rows))
    counts = Counter(name for row in rows for name in row["objects"]["category"])
    assert {name: about["count"] for name, about in objects["categories"].items()} == {
        name: counts[name] for name in CATEGORIES
    }
    sizes = np.histogram(areas, [0, 32**2, 96**2, np.inf])[0].tolist()
    assert objects["sizes"]["own"] == dict(zip(("small", "medium", "large"), sizes, strict=True))
    scenes = Counter(row["scene"] for row in rows for _ in row["objects"]["id"])
    assert {name: about["number"] for name, about in objects["scenes"].items()} == scenes
    text = (built[0] / "README.md").read_text("utf-8")
    assert "statistics/long_tail.png" in text.partition("<!-- statistics -->")[2]
