from pathlib import Path

import pytest
import torch
from torchvision.ops import box_convert

from defect_hub.dataset_scripts.readers.boxes import Box
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.yolo import read_yolo

NAMES = ["crack", "dent", "rust ä"]
SIZE = (640, 480)


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_boxes_agree_with_torchvision(tmp_path: Path) -> None:
    rows = torch.rand(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    text = "\n".join(f"{index % 3} " + " ".join(map(repr, row)) for index, row in enumerate(rows.tolist()))
    boxes = read_yolo(write(tmp_path, text), NAMES, SIZE)
    found = torch.tensor([(box.x, box.y, box.width, box.height) for box in boxes], dtype=torch.float64)
    expected = box_convert(rows * torch.tensor(SIZE * 2), "cxcywh", "xywh")
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert [box.category for box in boxes] == NAMES * 10


@pytest.mark.parametrize("start", ["1", "1.0", " 1", "\ufeff1", "1e0"])
@pytest.mark.parametrize("end", ["\n", "\r\n", " \r\n\r\n", ""])
def test_forms_of_a_line(tmp_path: Path, start: str, end: str) -> None:
    path = write(tmp_path, f"{start} 0.5\t0.5  2.5e-01, 0.5{end}")
    assert read_yolo(path, NAMES, SIZE) == [Box("dent", 240, 120, 160, 240)]


def test_polygons_count_by_their_bounding_box(tmp_path: Path) -> None:
    text = "0 0.25 0.5 0.5 0.25 0.75 0.75\n2 0.5 0.5 0.1 0.1\n1 .1 .2 .3 .2 .3 .4 .1 .4\n"
    triangle, box, square = read_yolo(write(tmp_path, text), NAMES, SIZE)
    assert triangle == Box("crack", 160, 120, 320, 240)
    assert box.category == "rust ä"
    assert (square.x, square.y, square.width, square.height) == pytest.approx((64, 96, 128, 96))


def test_an_empty_file_is_an_image_without_objects(tmp_path: Path) -> None:
    assert read_yolo(write(tmp_path, ""), NAMES, SIZE) == []
    assert read_yolo(write(tmp_path, "\r\n\n  "), NAMES, SIZE) == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("3 .5 .5 .1 .1", "class id '3' has no name: there are names for 0 to 2"),
        ("-1 .5 .5 .1 .1", "class id '-1' has no name"),
        ("1.5 .5 .5 .1 .1", "class id '1.5' is no integer"),
        ("nan .5 .5 .1 .1", "class id 'nan' is no integer"),
        ("crack .5 .5 .1 .1", "class id 'crack' is no integer"),
        ("1 .5 nan .1 .1", "is no pixel coordinate: 'nan'"),
        ("1 .5 inf .1 .1", "is no pixel coordinate: 'inf'"),
        ("1 .5 .5 .1", "has 3 numbers after the class id"),
        ("1 .5 .5 .1 .1 .97", "has 5 numbers after the class id"),
        ("1 .5 .5 .1 .1 .1 .1 .1", "has 7 numbers after the class id"),
        ("1", "has 0 numbers after the class id"),
        ("1 120 80 30 20", "holds 120, which is no fraction of the image size"),
        ("1 0,846875 0,179167 0,081250 0,066667", "holds 846875, which is no fraction of the image size"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, line: str, problem: str) -> None:
    path = write(tmp_path, f"1 .5 .5 .1 .1\r\n\r\n{line}\r\n")
    with pytest.raises(DataError, match=f"line 3: {problem}") as caught:
        read_yolo(path, NAMES, SIZE)
    assert caught.value.where == path and "\n" not in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_yolo(tmp_path / "none.txt", NAMES, SIZE)
    with pytest.raises(DataError, match="no UTF-8 text"):
        read_yolo(write(tmp_path, b"\x89PNG\xff"), NAMES, SIZE)
