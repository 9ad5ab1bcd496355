import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from defect_hub.dataset_scripts.readers.boxes import Box
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


def test_corners_one_pixel_outside_are_moved_onto_the_edge(tmp_path):
    (box,) = read_voc(write(tmp_path, voc(("a", 0, 0, 201, 101)))).boxes
    assert box == Box("a", 0, 0, 200, 100)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (voc(("a", -1, 1, 9, 9)), r"a\.xml: box of a \(-1, 1\) to \(9, 9\): leaves the image of 200x100 px\. Correct"),
        (voc(("a", 1, 1, 202, 9)), "leaves the image"),
        (voc(("a", 1, 1, 9, 102)), "leaves the image"),
        (voc(("a", 9, 1, 2, 9)), "no extent or swapped corners"),
        (voc(("a", 1, 9, 5, 9)), "no extent or swapped corners"),
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
    for path in files:
        annotation = read_voc(path)
        image = path.parents[1] / "IMAGES" / f"{path.stem}.jpg"
        assert (annotation.width, annotation.height) == Image.open(image).size
        text = path.read_text()
        columns = [[int(value) for value in re.findall(rf"<{key}>(\d+)<", text)] for key in ("xmin", "xmax")]
        assert [(box.x + 1, box.x + box.width) for box in annotation.boxes] == list(zip(*columns, strict=True))
        touching += any(box.x == 0 and box.x + box.width == annotation.width for box in annotation.boxes)
    assert touching
