from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from defect_hub.dataset_scripts.readers.box_rows import BoxRow, read_box_rows
from defect_hub.dataset_scripts.readers.boxes import Box, clean_boxes
from defect_hub.dataset_scripts.readers.errors import DataError

CORNERS = ["x1", "y1", "x2", "y2", "category"]


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    "line", ["10 20 15 40 3", "10,20,15,40,3", "10;20;15;40;3", "  10,\t20 , 15  40, 3 ,  ", "1e1 2.0e+01 15. 40 3.0"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_separators_line_ends_and_blank_lines(tmp_path: Path, line: str, end: str, mark: str) -> None:
    path = write(tmp_path, mark + end.join([line, "", "  ", line]))
    box = Box("3", 10, 20, 5, 20)
    assert read_box_rows(path, CORNERS) == [BoxRow(None, "3", box)] * 2


@pytest.mark.parametrize("line", ["10,5\t20\t15,25\t40,0\t3", "10,5\t20 15,25, 40,0\t3", "10.5, 20\t15.25; 40 3\t"])
def test_decimal_commas_in_lines_with_tabs(tmp_path: Path, line: str) -> None:
    (row,) = read_box_rows(write(tmp_path, line), CORNERS)
    assert row.box == Box("3", 10.5, 20, 4.75, 20)


def test_empty_file(tmp_path: Path) -> None:
    assert read_box_rows(write(tmp_path, ""), CORNERS) == []
    assert read_box_rows(write(tmp_path, "\r\n \n"), CORNERS) == []


@pytest.mark.parametrize(
    ("columns", "line", "expected"),
    [
        (["image", "x1", "x2", "y1", "y2"], "7 10 15 20 40", (10, 20, 5, 20)),
        (["y2", "x2", "y1", "x1"], "40 15 20 10", (10, 20, 5, 20)),
        (["x1", "y1", "x2", "y2"], "15 40 10 20", (15, 40, -5, -20)),
    ],
)
def test_columns_in_any_order(tmp_path: Path, columns: list[str], line: str, expected: tuple) -> None:
    (row,) = read_box_rows(write(tmp_path, line), columns)
    assert row.box == Box("", *expected) and row.category is None


def test_relative_coordinates(tmp_path: Path) -> None:
    columns = ["category", "x1", "y1", "x2", "y2"]
    (row,) = read_box_rows(write(tmp_path, "0 0.375 0 0.625 0.5"), columns, (200, 100))
    assert row.box == Box("0", 75, 0, 50, 50)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("1.0000000e+00", "1"),
        ("001", "001"),
        ("12.0", "12"),
        ("1.5", "1.5"),
        ("nan", "nan"),
    ],
)
def test_image_names(tmp_path: Path, given: str, name: str) -> None:
    (row,) = read_box_rows(write(tmp_path, f"{given} 1 1 2 2"), ["image", "x1", "y1", "x2", "y2"])
    assert row.image == name


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("1 2 3 4", "has 4 fields where 5 are expected"),
        ("1 2 3 4 5 6", "has 6 fields where 5 are expected"),
        ("1,,3,4,5", "has 4 fields"),
        ("1 2 x 4 a", "is no pixel coordinate: 'x'"),
        ("1 nan 3 4 a", "is no pixel coordinate: 'nan'"),
        ("1 2 3 1e9 a", "is no pixel coordinate: '1e9'"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, line: str, problem: str) -> None:
    path = write(tmp_path, f"1 2 3 4 a\n\n{line}\n")
    with pytest.raises(DataError, match=f"line 3: {problem}") as caught:
        read_box_rows(path, CORNERS)
    assert caught.value.where == path


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_box_rows(tmp_path / "none.txt", CORNERS)
    with pytest.raises(DataError, match="no UTF-8 text"):
        read_box_rows(write(tmp_path, b"\xff\xfe1\x00"), CORNERS)


@pytest.mark.parametrize("columns", [["x1", "y1", "x2"], [*CORNERS, "score"], [*CORNERS, "x1"]])
def test_columns_that_make_no_box(tmp_path: Path, columns: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        read_box_rows(write(tmp_path, ""), columns)
    assert not isinstance(caught.value, DataError)


@pytest.mark.real_data
def test_real_x_ray_castings(raw_data: Path) -> None:
    folder = raw_data / "GDXray/Castings/C0041"
    path = folder / "ground_truth.txt"
    rows = read_box_rows(path, ["image", "x1", "x2", "y1", "y2"])
    number, x1, x2, y1, y2 = np.loadtxt(path).T
    assert [int(row.image or 0) for row in rows] == number.tolist()
    found = np.array([(row.box.x, row.box.y, row.box.width, row.box.height) for row in rows])
    assert np.array_equal(found, np.stack([x1, y1, x2 - x1, y2 - y1], 1))
    with Image.open(min(folder.glob("*.png"))) as image:
        assert all(clean_boxes([row.box], image.size)[0] for row in rows)


@pytest.mark.real_data
def test_real_circuit_boards(raw_data: Path) -> None:
    paths = sorted(path for path in raw_data.glob("DeepPCB/**/*_not/*.txt"))
    rows = [row for path in paths for row in read_box_rows(path, CORNERS)]
    assert len(paths) > 20 and len(rows) > 100
    assert {row.category for row in rows} == {*"123456"}
    assert all(clean_boxes([row.box], (640, 640)) == ([row.box], []) for row in rows)
