import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from defect_hub.dataset_scripts.readers.box_tables import read_box_table
from defect_hub.dataset_scripts.readers.boxes import Box
from defect_hub.dataset_scripts.readers.errors import DataError

read = partial(read_box_table, image="name", bbox="bbox", category="defect")


def write(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content), "utf-8")
    return path


def item(**changes: Any) -> dict[str, Any]:
    return {"name": "1.jpg", "defect": "stain", "bbox": [1, 2, 10.5, 8]} | changes


def test_boxes_by_image_in_the_order_of_the_file(tmp_path: Path) -> None:
    items = [item(name="2.jpg", image_width=99), item(defect=3, bbox=["0", 0, 2, 2.0]), item(name=" 2.jpg "), item()]
    stain, three = Box("stain", 1, 2, 9.5, 6), Box("3", 0, 0, 2, 2)
    found = read(write(tmp_path, items))
    assert list(found.items()) == [("2.jpg", [stain, stain]), ("1.jpg", [three, stain])]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (3, "is no object"),
        (item(name=None), "has no image under 'name'"),
        (item(name=" "), "has no image under 'name'"),
        (item(bbox=None), "has a box that is not four numbers: None"),
        (item(bbox=[1, 2, 3]), "has a box that is not four numbers: [1, 2, 3]"),
        (item(bbox="1 2 3 4"), "has a box that is not four numbers: '1 2 3 4'"),
        (item(bbox=[[1, 2, 3, 4]]), "has a box that is not four numbers"),
        (item(bbox=[1, 2, 3, float("nan")]), "is no pixel coordinate: nan"),
        (item(bbox=[1, 2, 3, "x"]), "is no pixel coordinate: 'x'"),
        (item(bbox=[1, 2, None, 4]), "is no pixel coordinate: None"),
        (item(defect=None), "has no category under 'defect'"),
        (item(defect=""), "has no category under 'defect'"),
        (item(defect=["a"]), "has no category under 'defect'"),
    ],
)
def test_unusable_items_are_named(tmp_path: Path, bad: Any, problem: str) -> None:
    path = write(tmp_path, [item(), bad])
    with pytest.raises(DataError) as caught:
        read(path)
    assert (caught.value.where, caught.value.field) == (path, "item 2") and caught.value.problem.startswith(problem)


@pytest.mark.parametrize(
    ("content", "problem"), [([], "boxes: there are none"), ({"name": 1}, "JSON: top level is a")]
)
def test_unusable_files(tmp_path: Path, content: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read(write(tmp_path, content))
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "none.json")
