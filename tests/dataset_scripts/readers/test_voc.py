import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from defect_hub.dataset_scripts.readers.boxes import Box, clean_boxes
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.voc import read_voc

SIZE = "<size><width>200</width><height>100</height><depth>1</depth></size>"


def voc(*boxes: tuple, head: str = SIZE) -> str:
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
        "</object>"
        for name, a, b, c, d in boxes
    )
    return f"<annotation><folder>sc</folder><filename>no_suffix</filename>{head}{objects}</annotation>"


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "a.xml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("corners", [(1, 1, 200, 100), (1, 1, 2, 2), (199, 99, 200, 100), (31, 20, 77, 21)])
def test_box_covers_the_pixels_that_voc_counts_from_one(tmp_path, corners):
    xmin, ymin, xmax, ymax = corners
    annotation = read_voc(write(tmp_path, voc(("scratches", *corners))))
    (box,) = annotation.boxes
    expected = np.array([[xmin <= x <= xmax and ymin <= y <= ymax for x in range(1, 201)] for y in range(1, 101)])
    covered = np.zeros((annotation.height, annotation.width), bool)
    covered[int(box.y) : int(box.y + box.height), int(box.x) : int(box.x + box.width)] = True
    assert (covered == expected).all()
    assert box.category == "scratches"


def test_order_names_and_size(tmp_path):
    annotation = read_voc(write(tmp_path, voc((" rolled-in_scale\n", 2, 3, 10.5, 20), ("d", 5, 5, 6, 6))))
    assert (annotation.width, annotation.height) == (200, 100)
    assert annotation.boxes == [Box("rolled-in_scale", 1, 2, 9.5, 18), Box("d", 4, 4, 2, 2)]


def test_an_image_without_boxes(tmp_path):
    assert read_voc(write(tmp_path, voc())).boxes == []


@pytest.mark.parametrize(
    ("corners", "given", "cleaned", "problems"),
    [
        ((0, 0, 201, 101), (-1, -1, 202, 102), (0, 0, 200, 100), ["clipped"]),
        ((150, 1, 300, 9), (149, 0, 151, 9), (149, 0, 51, 9), ["clipped"]),
        ((9, 1, 2, 9), (9, 0, -8, 9), (1, 0, 8, 9), ["inverted"]),
        ((5, 5, 5, 5), (4, 4, 1, 1), (4, 4, 1, 1), []),
        ((201, 1, 210, 9), (200, 0, 10, 9), None, ["outside"]),
    ],
)
def test_boxes_that_leave_the_image_or_are_swapped_are_left_to_cleaning(tmp_path, corners, given, cleaned, problems):
    annotation = read_voc(write(tmp_path, voc(("a", *corners))))
    assert annotation.boxes == [Box("a", *given)]
    boxes, repairs = clean_boxes(annotation.boxes, (annotation.width, annotation.height))
    assert boxes == ([] if cleaned is None else [Box("a", *cleaned)])
    assert [repair.problem for repair in repairs] == problems


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (voc(("a", "left", 1, 5, 9)), "bndbox/xmin: is no pixel coordinate: 'left'"),
        (voc(("a", 1, "nan", 5, 9)), "bndbox/ymin: is no pixel coordinate: 'nan'"),
        (voc(("a", 1, 1, "inf", 9)), "bndbox/xmax: is no pixel coordinate: 'inf'"),
        (voc(("a", 1, 1, "", 9)), "bndbox/xmax: is no pixel coordinate: ''"),
        (voc(("a", 1, 1, 5, 9)).replace("<ymax>9</ymax>", ""), "bndbox/ymax: is missing"),
        (voc(("", 1, 1, 5, 9)), "object: has no name"),
        (voc(head=""), "size/width: is missing"),
        (voc(head="<size><width>0</width><height>9</height></size>"), "size: 0x9 px"),
        (voc()[:-5], "XML: malformed"),
        ("", "XML: malformed"),
        ("<?xml version='1.0' encoding='klingon'?>" + voc(), "XML: malformed"),
    ],
)
def test_errors_are_one_line_that_says_where(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as caught:
        read_voc(write(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "a.xml"))


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_voc(tmp_path / "none.xml")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_document_type_is_refused_before_its_entities_unfold(tmp_path, encoding):
    levels = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(12))
    bomb = f'<!DOCTYPE annotation [<!ENTITY e0 "x">{levels}]><annotation>{SIZE}&e12;</annotation>'
    with pytest.raises(DataError, match="has a DOCTYPE"):
        read_voc(write(tmp_path, bomb.encode(encoding)))


@pytest.mark.real_data
def test_real_annotations(raw_data):
    files = sorted(raw_data.glob("NEU-DET/*ANNOTATIONS/*.xml"))
    assert len(files) > 800
    touching = 0
    repeated: list[tuple[str, str, int]] = []
    for path in files:
        annotation = read_voc(path)
        image = path.parents[1] / "IMAGES" / f"{path.stem}.jpg"
        assert (annotation.width, annotation.height) == Image.open(image).size
        text = path.read_text()
        columns = [[int(value) for value in re.findall(rf"<{key}>(\d+)<", text)] for key in ("xmin", "xmax")]
        assert [(box.x + 1, box.x + box.width) for box in annotation.boxes] == list(zip(*columns, strict=True))
        repairs = clean_boxes(annotation.boxes, (annotation.width, annotation.height))[1]
        repeated += [(path.stem, repair.problem, repair.number) for repair in repairs]
        touching += any(box.x == 0 and box.x + box.width == annotation.width for box in annotation.boxes)
    assert touching
    assert repeated == [
        ("crazing_120", "duplicate", 4),
        ("inclusion_62", "duplicate", 7),
        ("patches_198", "duplicate", 3),
    ]
