import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

from defect_hub.dataset_scripts.readers.boxes import Box
from defect_hub.dataset_scripts.readers.coco import CocoCategory, CocoFile, CocoImage, read_coco
from defect_hub.dataset_scripts.readers.errors import DataError

IMAGES = [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}, {"id": 2, "file_name": "b.jpg"}]
CATEGORIES = [{"id": 1, "name": "crack", "supercategory": "metal"}, {"id": 7, "name": "dent"}]


def item(number: Any = 1, image: Any = 1, category: Any = 1, **extra: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": [1, 2, 3, 4], **extra}


def read(tmp_path: Path, *annotations: Any, images: Sequence[Any] = IMAGES, categories: Any = CATEGORIES) -> CocoFile:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}), "utf-8")
    return read_coco(path)


def texts(coco: CocoFile) -> dict[str, list[str]]:
    return {name: [f"{error.field}: {error.problem}" for error in errors] for name, errors in coco.problems.items()}


def test_images_categories_and_boxes(tmp_path: Path) -> None:
    images = [*IMAGES, {"id": 3, "file_name": "x\\y/c.jpg", "scene": "hull", "height": None, "width": "64"}]
    categories = [*CATEGORIES, {"id": 8, "name": " rust ä ", "supercategory": None, "novel": True}]
    coco = read(
        tmp_path,
        item(1, area=7.5, iscrowd=1),
        item(2, 3, 8, bbox=[0.5, 1, -2, 3]),
        item(3, 1, 7, area=0, iscrowd=0),
        images=images,
        categories=categories,
    )
    assert coco.categories == [
        CocoCategory(1, "crack", "metal", {}),
        CocoCategory(7, "dent", None, {}),
        CocoCategory(8, "rust ä", None, {"novel": True}),
    ]
    assert coco.images == {
        "a.jpg": CocoImage(1, "a.jpg", 64, 48, {}),
        "b.jpg": CocoImage(2, "b.jpg", None, None, {}),
        "x/y/c.jpg": CocoImage(3, "x/y/c.jpg", 64, None, {"scene": "hull"}),
    }
    assert coco.boxes == {
        "a.jpg": [Box("crack", 1, 2, 3, 4, 7.5, True), Box("dent", 1, 2, 3, 4)],
        "b.jpg": [],
        "x/y/c.jpg": [Box("rust ä", 0.5, 1, -2, 3)],
    }
    assert coco.problems == {}


def test_agrees_with_pycocotools(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rng = random.Random(0)
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 640, "height": 480} for number in range(20)]
    annotations = [
        item(
            number,
            rng.randrange(20),
            rng.choice((1, 7)),
            bbox=[rng.uniform(0, 300), rng.uniform(0, 200), rng.uniform(1, 99), rng.uniform(1, 99)],
            area=rng.uniform(1, 9000),
            iscrowd=rng.randrange(2),
        )
        for number in range(300)
    ]
    coco = read(tmp_path, *annotations, images=images)
    reference = COCO(tmp_path / "a.json")
    capsys.readouterr()  # what pycocotools prints
    for name, boxes in coco.boxes.items():
        expected = reference.imgToAnns[coco.images[name].id]
        assert [[box.x, box.y, box.width, box.height] for box in boxes] == [entry["bbox"] for entry in expected]
        assert [box.category for box in boxes] == [reference.cats[entry["category_id"]]["name"] for entry in expected]
        assert [box.area for box in boxes] == [entry["area"] for entry in expected]
        assert [box.is_crowd for box in boxes] == [bool(entry["iscrowd"]) for entry in expected]
    assert sum(map(len, coco.boxes.values())) == 300


@pytest.mark.parametrize("missing", [{"bbox": None}, {"bbox": []}])
def test_polygons_stand_in_for_a_missing_bbox(tmp_path: Path, missing: dict) -> None:
    polygons = [[5, 6, 9, 6, 7, 11.5], [20, 3, 21, 3, 21, 4, 20, 4]]
    coco = read(tmp_path, item(segmentation=polygons, area=9, **missing), item(2, segmentation=[[0, 0, 9, 0, 9, 9]]))
    assert coco.boxes["a.jpg"] == [Box("crack", 5, 3, 16, 8.5, 9), Box("crack", 1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (item(5, category=2), "is of an unknown category (2)"),
        (item(5, category=None), "is of an unknown category (None)"),
        (item(5, category="dent"), "is of an unknown category ('dent')"),
        (item(5, bbox=[1, 2, 3]), "has a bbox that is not four numbers: [1, 2, 3]"),
        (item(5, bbox="1 2 3 4"), "has a bbox that is not four numbers: '1 2 3 4'"),
        (item(5, bbox=[1, float("nan"), 3, 4]), "is no pixel coordinate: nan"),
        (item(5, bbox=[1, 2, float("inf"), 4]), "is no pixel coordinate: inf"),
        (item(5, bbox=[1, 2, None, 4]), "is no pixel coordinate: None"),
        (item(5, bbox=None), "has neither a bbox nor polygons"),
        (item(5, bbox=None, segmentation=[]), "has neither a bbox nor polygons"),
        (item(5, bbox=None, segmentation={"counts": [9], "size": [3, 3]}), "has neither a bbox nor polygons"),
        (item(5, bbox=None, segmentation=[[1, 2, 3, 4]]), "has no bbox, and a polygon that is not three or more"),
        (item(5, bbox=None, segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "has no bbox, and a polygon that is not three"),
        (item(5, bbox=None, segmentation=[[1, 2, 3, "x", 5, 6]]), "is no pixel coordinate: 'x'"),
    ],
)
def test_unusable_annotations_are_left_out_and_reported(tmp_path: Path, bad: dict, problem: str) -> None:
    coco = read(tmp_path, item(4), bad, item(6))
    assert coco.boxes["a.jpg"] == [Box("crack", 1, 2, 3, 4)] * 2
    ((name, (error,)),) = coco.problems.items()
    assert name == "a.jpg" and error.field == "annotation 5" and error.problem.startswith(problem)
    assert error.where == tmp_path / "a.json" and error.remedy


def test_annotations_without_a_known_image_or_an_id_of_their_own(tmp_path: Path) -> None:
    coco = read(tmp_path, item(1), item(1, 2), item(None), item(None), item(2, 9), item(None, None))
    assert [len(boxes) for boxes in coco.boxes.values()] == [3, 1]
    assert texts(coco) == {
        "b.jpg": ["annotation 1: has the id of an earlier one"],
        "": [
            "annotation 2: is of an unknown image (9)",
            "annotation 6 of the list: is of an unknown image (None)",
        ],
    }


def test_ids_as_numbers_or_text(tmp_path: Path) -> None:
    images = [{"id": "1", "file_name": "a.jpg"}, {"id": 2.0, "file_name": "b.jpg"}, {"id": "c", "file_name": "c.jpg"}]
    annotations = [item("x", 1, "1"), item("2", "2", 1.0), item(3, " c ", "7"), item(2, "c")]
    coco = read(tmp_path, *annotations, images=images, categories=[{"id": "1", "name": "crack"}, CATEGORIES[1]])
    found = {name: [box.category for box in boxes] for name, boxes in coco.boxes.items()}
    assert found == {"a.jpg": ["crack"], "b.jpg": ["crack"], "c.jpg": ["dent", "crack"]}
    assert texts(coco) == {"c.jpg": ["annotation 2: has the id of an earlier one"]}


@pytest.mark.parametrize("categories", [None, []])
def test_without_categories_their_ids_are_the_names(tmp_path: Path, categories: Any) -> None:
    coco = read(tmp_path, item(1, category=3), item(2, category=None), categories=categories)
    assert coco.categories == [] and coco.boxes["a.jpg"] == [Box("3", 1, 2, 3, 4)]
    assert texts(coco) == {"a.jpg": ["annotation 2: is of an unknown category (None)"]}


def test_images_listed_twice(tmp_path: Path) -> None:
    images = [*IMAGES, IMAGES[0], {**IMAGES[0], "id": 3}, {"id": 4, "file_name": "b.jpg", "width": 9}]
    coco = read(tmp_path, item(1, 1), item(2, 3), item(3, 4), images=images)
    assert coco.images == {"a.jpg": CocoImage(1, "a.jpg", 64, 48, {}), "b.jpg": CocoImage(2, "b.jpg", None, None, {})}
    assert [len(boxes) for boxes in coco.boxes.values()] == [2, 1]
    assert texts(coco) == {"b.jpg": ["image 4: contradicts an earlier entry of b.jpg"]}


def test_two_images_of_one_id_are_both_reported(tmp_path: Path) -> None:
    coco = read(tmp_path, item(), images=[*IMAGES, {"id": 1, "file_name": "c.jpg"}])
    assert list(coco.images) == list(coco.boxes) == ["a.jpg", "b.jpg"]
    problem = "image 1: is the id of two images, a.jpg and c.jpg"
    assert texts(coco) == {"a.jpg": [problem], "c.jpg": [problem]}


def test_unusable_images_and_sizes(tmp_path: Path) -> None:
    images = [
        {"file_name": "a.jpg"},
        {"id": 2, "file_name": None},
        {"id": True, "file_name": "b.jpg"},
        {"id": 4, "file_name": "c.jpg", "width": 0, "height": "tall"},
        {"id": 5, "file_name": "d.jpg", "width": 9.5, "height": 9.0},
    ]
    coco = read(tmp_path, images=images)
    assert coco.images == {"c.jpg": CocoImage(4, "c.jpg", None, None, {}), "d.jpg": CocoImage(5, "d.jpg", None, 9, {})}
    assert texts(coco) == {
        "": [f"image {number} of the list: has no id or no file_name" for number in (1, 2, 3)],
        "c.jpg": ["image 4: width is no number of pixels: 0", "image 4: height is no pixel coordinate: 'tall'"],
        "d.jpg": ["image 5: width is no number of pixels: 9.5"],
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"images": []', "JSON: malformed"),
        ("", "JSON: malformed"),
        ("[]", "JSON: top level is a list"),
        ('{"annotations": []}', "images: is no list of objects"),
        ('{"images": []}', "annotations: is no list of objects"),
        ('{"images": [], "annotations": {}}', "annotations: is no list of objects"),
        ('{"images": [], "annotations": [3]}', "annotations: is no list of objects"),
        ('{"images": [], "annotations": [], "categories": {"1": "a"}}', "categories: is no list of objects"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "category 1 of the list: has no id or no"),
        ('{"images": [], "annotations": [], "categories": [{"name": "a"}]}', "category 1 of the list: has no id or"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": "1", "name": "b"}]}',
            "category 2 of the list: has the id 1 of a",
        ),
    ],
)
def test_malformed_files_raise(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=problem) as caught:
        read_coco(path)
    assert caught.value.where == path


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_coco(tmp_path / "none.json")


def test_fractions_instead_of_pixels_are_refused(tmp_path: Path) -> None:
    fractions = [item(number, bbox=[0.1, 0.2, 0.3, 0.4]) for number in range(3)]
    with pytest.raises(DataError, match=r"a\.json: bbox: all boxes lie within two pixels, .* Give x, y, .* in pixels"):
        read(tmp_path, *fractions)
    assert len(read(tmp_path, *fractions[:2]).boxes["a.jpg"]) == 2
    assert len(read(tmp_path, *fractions, item(9)).boxes["a.jpg"]) == 4
