import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from defect_hub.dataset_scripts.readers.box_tables import read_box_table
from defect_hub.dataset_scripts.readers.boxes import Box
from defect_hub.dataset_scripts.readers.errors import DataError

read = partial(read_box_table, image="name", bbox="bbox", category="defect")
A, B = Box("stain", 1, 2, 9.5, 6), Box("3", 0, 0, 2, 2)


def write(tmp_path: Path, content: Any) -> Path:
    if isinstance(content, str):
        path = tmp_path / "a.csv"
        path.write_bytes(content.encode())
    else:
        path = tmp_path / "a.json"
        path.write_text(json.dumps(content), "utf-8")
    return path


def test_objects_with_one_box_or_several(tmp_path: Path) -> None:
    items = [
        {"name": "1.jpg", "defect": "stain", "bbox": [1, 2, 10.5, 8], "image_width": 99},
        {"name": "x\\2.jpg", "defect": 3, "bbox": ["0", 0, 2, 2.0]},
        {"name": "1.jpg", "defect": ["3", "stain"], "bbox": [[0, 0, 2, 2], [1, 2, 10.5, 8]]},
        {"name": "3.jpg", "defect": "stain", "bbox": [[1, 2, 10.5, 8], [1, 2, 10.5, 8]]},
        {"name": "4.jpg", "defect": None, "bbox": []},
        {"name": "5.jpg"},
        {"name": "1.jpg", "bbox": None},
    ]
    found = read(write(tmp_path, items))
    assert found == {"1.jpg": [A, B, A], "x/2.jpg": [B], "3.jpg": [A, A], "4.jpg": [], "5.jpg": []}
    assert list(found) == ["1.jpg", "x/2.jpg", "3.jpg", "4.jpg", "5.jpg"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\n\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv_rows(tmp_path: Path, end: str, mark: str) -> None:
    lines = [
        "name, defect,bbox",
        'd\\1.jpg,stain,"[1, 2, 10.5, 8]"',
        "d/1.jpg, 3 ,  0 0 2.0e+00 2",
        '2.jpg,stain,"1,2,10.5,8"',
        '2.jpg,"[""3"", ""stain""]","[[0, 0, 2, 2], [1, 2, 10.5, 8]]"',
        "3.jpg,stain,[]",
        "4.jpg,,",
    ]
    found = read(write(tmp_path, mark + end.join([*lines, ""])))
    assert found == {"d/1.jpg": [A, B], "2.jpg": [A, B, A], "3.jpg": [], "4.jpg": []}


def test_four_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "name,xmin,ymin,xmax,ymax,defect\n1.jpg,1,2,10.5,8,stain\n2.jpg,,,,,\n1.jpg,0,0,2,2,3\n")
    assert read(path, bbox=["xmin", "ymin", "xmax", "ymax"]) == {"1.jpg": [A, B], "2.jpg": []}


def test_conventions(tmp_path: Path) -> None:
    path = write(tmp_path, [{"name": "1", "defect": "a", "bbox": [5, 6, 7, 10]}])
    assert read(path)["1"] == [Box("a", 5, 6, 2, 4)]
    assert read(path, convention="coco")["1"] == [Box("a", 5, 6, 7, 10)]


def row(**changes: Any) -> dict[str, Any]:
    return {"name": "1.jpg", "defect": "stain", "bbox": [1, 2, 3, 4]} | changes


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (row(name=None), "has no image under 'name'"),
        (row(name=" "), "has no image under 'name'"),
        (row(bbox=[1, 2, 3]), "box is not four numbers: [1, 2, 3]"),
        (row(bbox=[[1, 2, 3, 4], [1]]), "box is not four numbers"),
        (row(bbox=[[1, 2, 3, 4], 5]), "box is not four numbers"),
        (row(bbox={"x": 1}), "box is not four numbers"),
        (row(bbox=5), "box is not four numbers"),
        (row(bbox="1 2 3"), "box is not four numbers"),
        (row(bbox="[1, 2, 3, 4"), "malformed list '[1, 2, 3, 4'"),
        (row(bbox=[1, 2, 3, float("nan")]), "is no pixel coordinate: nan"),
        (row(bbox=[1, 2, 3, "x"]), "is no pixel coordinate: 'x'"),
        (row(bbox=[1, 2, None, 4]), "is no pixel coordinate: None"),
        (row(defect=None), "has no category under 'defect'"),
        (row(defect=""), "has no category under 'defect'"),
        (row(defect=["a", "b"]), "has 2 categories for 1 boxes"),
    ],
)
def test_unusable_rows_are_named(tmp_path: Path, bad: dict, problem: str) -> None:
    path = write(tmp_path, [row(), bad])
    with pytest.raises(DataError) as caught:
        read(path)
    assert caught.value.field == "item 2" and problem in str(caught.value) and caught.value.where == path


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([], "table: has no rows"),
        ("", "table: has no rows"),
        ("name,defect,bbox\r\n", "table: has no rows"),
        ({"name": 1}, "JSON: top level is a dict"),
        ([3], "item 1: is no object"),
        ("name,defect,bbox\n1,a\n", "line 2: has fewer cells than the header"),
        ("name,defect,bbox\n\n1,a,1 2 3 4,5\n", "line 3: has more cells than the header"),
        ('name,defect,bbox\n1,a,"1 2 3 4\n', "table: malformed"),
        ("file,defect,bbox\n1,a,1 2 3 4\n", "line 2: has no image under 'name'"),
        ("name,defect,bbox\n1,a,1 2 3 x\n", "line 2: is no pixel coordinate: 'x'"),
    ],
)
def test_unusable_tables(tmp_path: Path, content: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read(write(tmp_path, content))


def test_unreadable_files(tmp_path: Path) -> None:
    for name in ("none.csv", "none.json"):
        with pytest.raises(DataError, match="cannot be read"):
            read(tmp_path / name)
    path = tmp_path / "a.csv"
    path.write_bytes("name,defect,bbox\n1,污,1 2 3 4\n".encode("gbk"))
    with pytest.raises(DataError, match="UTF-8"):
        read(path)
