import csv
import json
from pathlib import Path

import pytest

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.tables import read_table

ROWS = [
    {"image": "a/1.JPG", "split": "train", "note": ""},
    {"image": "a/2.JPG", "split": "test", "note": 'with "quotes", a comma\nand a line ä'},
]


def write(tmp_path: Path, text: str | bytes, name: str = "a.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def write_csv(tmp_path: Path, rows: list[dict[str, str]], encoding: str = "utf-8") -> Path:
    path = tmp_path / "a.csv"
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_rows_of_a_csv_file_by_key(tmp_path: Path, encoding: str) -> None:
    rows = read_table(write_csv(tmp_path, ROWS, encoding), key="image")
    assert list(rows.items()) == [(row["image"], row) for row in ROWS]


def test_line_ends_blank_lines_and_repeated_rows(tmp_path: Path) -> None:
    for end in ("\n", "\r\n"):
        path = write(tmp_path, end.join(["image,split", "1,train", "", "2,test", "1,train", ""]))
        assert read_table(path, key="image") == {
            "1": {"image": "1", "split": "train"},
            "2": {"image": "2", "split": "test"},
        }


def test_rows_of_a_json_file_by_key(tmp_path: Path) -> None:
    items = [{"file": "1.jpg", "split": "test", "type": 2, "of": ["a", "ä"], "none": None}, {"file": "2.jpg"}]
    expected = {
        "1.jpg": {"file": "1.jpg", "split": "test", "type": "2", "of": '["a", "ä"]', "none": ""},
        "2.jpg": {"file": "2.jpg"},
    }
    top = write(tmp_path, json.dumps(items), "top.json")
    assert read_table(top, key="file") == expected
    inner = write(tmp_path, json.dumps({"info": 1, "images": items}), "inner.JSON")
    assert read_table(inner, key="file", root="images") == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("image,split\n1,train\n1,test\n", "line 3: contradicts an earlier row of image '1'"),
        ("name,split\n1,train\n", "line 2: no value of 'image' among the columns name, split"),
        ("image,split\n1,train\n,test\n", "line 3: no value of 'image'"),
        ("image,split\n1,train,2\n", "line 2: has 3 cells where the header has 2"),
        ("image,split\n1\n", "line 2: has 1 cells where the header has 2"),
        ("image,image\n1,2\n", "header: names a column twice"),
        ('image,split\n1,"train\n', "table: malformed"),
        (b"image,split\n\xff\xfe,train\n", "table: malformed"),
        ("image,split\n", "table: has no rows"),
        ("", "table: has no rows"),
    ],
)
def test_unusable_csv_files(tmp_path: Path, text: str | bytes, problem: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=problem) as caught:
        read_table(path, key="image")
    assert caught.value.where == path and caught.value.remedy


@pytest.mark.parametrize(
    ("content", "root", "problem"),
    [
        ('[{"image": "1"}, {"image": "1", "a": 2}]', None, "item 2: contradicts an earlier row"),
        ('[{"image": "1"}, {"file": "1"}]', None, "item 2: no value of 'image' among the columns file"),
        ('[{"image": "1"}, 2]', None, "item 2: is no object"),
        ('{"rows": {"image": "1"}}', "rows", "rows: is no list of objects"),
        ('{"rows": []}', "images", "images: is no list of objects"),
        ('{"rows": []}', "rows", "table: has no rows"),
        ('{"rows": []}', None, "JSON: top level is a dict, expected a list"),
        ("[]", "rows", "JSON: top level is a list, expected a dict"),
        ("[{", None, "JSON: malformed"),
    ],
)
def test_unusable_json_files(tmp_path: Path, content: str, root: str | None, problem: str) -> None:
    path = write(tmp_path, content, "a.json")
    with pytest.raises(DataError, match=problem) as caught:
        read_table(path, key="image", root=root)
    assert caught.value.where == path


@pytest.mark.parametrize("name", ["a.csv", "a.json"])
def test_missing_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name}: .*cannot be read"):
        read_table(tmp_path / name, key="image")


@pytest.mark.real_data
def test_real_tables(raw_data: Path) -> None:
    path = raw_data / "VisA-splits/split_csv/1cls.csv"
    rows = read_table(path, key="image")
    lines = path.read_text("utf-8").splitlines()
    assert len(rows) == len(lines) - 1 == 10_821
    assert [",".join(row.values()) for row in rows.values()] == lines[1:]
    parts = read_table(raw_data / "BSData/image_data.json", key="filename", root="images")
    assert {row["train_test_split"] for row in parts.values()} == {"train", "test", ""}
    names = {image.name for image in (raw_data / "BSData/data").glob("*.jpg")}
    assert names <= {*parts}
