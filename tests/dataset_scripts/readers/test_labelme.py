import base64
import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from defect_hub.dataset_scripts.readers.boxes import Box, clean_boxes
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.labelme import read_labelme, read_labelme_boxes

SIZE = WIDTH, HEIGHT = 60, 40
Y, X = np.mgrid[:HEIGHT, :WIDTH]


def shape(points: list, kind: str | None = "polygon", label: Any = "pit", **extra: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **extra}


def write(tmp_path: Path, *shapes: Any, **head: Any) -> Path:
    head = {"version": "4.5.6", "imageWidth": WIDTH, "imageHeight": HEIGHT, "imageData": "AAAA"} | head
    path = tmp_path / "a.json"
    path.write_text(json.dumps(head | {"shapes": [*shapes]}), "utf-8")
    return path


def drawn(tmp_path: Path, *args: Any, **extra: Any) -> np.ndarray:
    return read_labelme(SIZE, path=write(tmp_path, shape(*args, **extra)))["pit"]


def png(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_shapes_with_an_area(tmp_path: Path) -> None:
    block = (X >= 10) & (X <= 30) & (Y >= 5) & (Y <= 12)
    corners = [[10.2, 5.9], [30.7, 5.1], [30, 12.5], [10, 12]]
    assert np.array_equal(drawn(tmp_path, corners), block)
    assert np.array_equal(drawn(tmp_path, corners, None), block)
    assert np.array_equal(drawn(tmp_path, corners, "rectangle"), block)
    for two in ([[10, 5], [30, 12]], [[30, 5], [10, 12]], [[30, 12], [10, 5]]):
        assert np.array_equal(drawn(tmp_path, two, "rectangle"), block)
    triangle = drawn(tmp_path, [[0, 0], [39, 0], [0, 39]])
    assert np.array_equal(triangle, X + Y <= 39)
    circle = drawn(tmp_path, [[30, 20], [30, 32]], "circle")
    assert (circle ^ (np.hypot(X - 30, Y - 20) <= 12)).sum() <= 0.1 * circle.sum()
    assert circle[20, 18] and circle[20, 42] and not circle[20, 17] and not circle[20, 43]
    assert np.array_equal(circle, circle[:, ::-1][:, [WIDTH - 1, *range(WIDTH - 1)]])


def test_lines_and_points_are_one_pixel_wide(tmp_path: Path) -> None:
    assert np.array_equal(drawn(tmp_path, [[3, 7], [50, 7]], "line"), (Y == 7) & (X >= 3) & (X <= 50))
    angle = ((Y == 7) & (X >= 3) & (X <= 20)) | ((X == 20) & (Y >= 7) & (Y <= 30))
    assert np.array_equal(drawn(tmp_path, [[3, 7], [20, 7], [20, 30]], "linestrip"), angle)
    assert np.array_equal(drawn(tmp_path, [[5.8, 6.3]], "point"), (X == 5) & (Y == 6))


@pytest.mark.parametrize("on", [1, 255])
def test_mask_shapes(tmp_path: Path, on: int) -> None:
    mask = np.random.default_rng(0).random((6, 8)) > 0.5
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[4:10, 20:28] = mask
    stamp = png(mask.astype(np.uint8) * on)
    assert np.array_equal(drawn(tmp_path, [[20, 4], [27, 9]], "mask", mask=stamp), expected)
    assert np.array_equal(drawn(tmp_path, [[20, 4], [27, 9]], "mask", mask=png(mask)), expected)
    cut = drawn(tmp_path, [[56, 38], [63, 43]], "mask", mask=stamp)
    assert np.array_equal(cut[38:, 56:], mask[:2, :4]) and cut.sum() == mask[:2, :4].sum()


def test_shapes_of_one_label_are_united(tmp_path: Path) -> None:
    shapes = [
        shape([[1, 1], [5, 5]], "rectangle", "rust"),
        shape([[10, 10], [12, 12]], "rectangle", "Pitting ä"),
        shape([[4, 4], [8, 8]], "rectangle", "rust"),
    ]
    regions = read_labelme(SIZE, path=write(tmp_path, *shapes))
    assert list(regions) == ["rust", "Pitting ä"]
    assert [int(regions[name].sum()) for name in regions] == [46, 9]
    assert read_labelme(SIZE, path=write(tmp_path)) == {}


def test_what_leaves_the_image_is_cut_off(tmp_path: Path) -> None:
    assert np.array_equal(drawn(tmp_path, [[-9, -3], [4, -3], [4, 2], [-9, 2]]), (X <= 4) & (Y <= 2))
    assert np.array_equal(drawn(tmp_path, [[50, 30], [WIDTH + 7, HEIGHT + 5]], "rectangle"), (X >= 50) & (Y >= 30))
    # The side from (20, 0) to (80, 60) meets the right edge at (60, 40): it is not bent there.
    cut = drawn(tmp_path, [[20, 0], [80, 60], [20, 60]])
    assert np.array_equal(cut, (X >= 20) & (Y >= X - 20))


def test_early_versions(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    old = {"label": "pit", "line_color": None, "fill_color": None, "points": [[1, 1], [4, 1], [4, 3], [1, 3]]}
    path.write_text(json.dumps({"flags": {}, "shapes": [old], "lineColor": [0, 255, 0, 128], "imagePath": "a.jpg"}))
    assert read_labelme(SIZE, path=path)["pit"].sum() == 12
    path.write_text(json.dumps({"shapes": [old], "imageWidth": None, "imageHeight": None}))
    assert partial(read_labelme, path=path)(SIZE)["pit"].sum() == 12


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (shape([[1, 1], [2, 2]]), "polygon of 2 points"),
        (shape([[1, 1]], "rectangle"), "rectangle of 1 points"),
        (shape([[1, 1], [2, 2], [3, 3]], "circle"), "circle of 3 points"),
        (shape([], "point"), "point of 0 points"),
        (shape([[1, 1], [2, 2]], "cuboid"), "is of the unknown type 'cuboid'"),
        (shape([[1, 1], [2, 2]], ["line"]), "is of the unknown type"),
        (shape([[1, 1], [2, 2], [3, 1]], label=""), "has no label"),
        (shape([[1, 1], [2, 2], [3, 1]], label=None), "has no label"),
        ({"points": [[1, 1], [2, 2], [3, 1]]}, "has no label"),
        ("polygon", "has no label"),
        ({"label": "pit"}, "has no points of two numbers"),
        (shape([[1, 1], [2], [3, 1]]), "has no points of two numbers"),
        (shape([[1, 1], [2, "x"], [3, 1]]), "has no points of two numbers"),
        (shape([[1, 1], [2, float("nan")], [3, 1]]), "has a point that is no pixel"),
        (shape([[1, 1], [2, 1e300], [3, 1]]), "has a point that is no pixel"),
        (shape([[60, 3]], "point"), "lies outside the image"),
        (shape([[-9, -9], [-5, -9], [-5, -5]]), "lies outside the image"),
        (shape([[1, 1], [2, 2]], "mask"), "has no mask in base64"),
        (shape([[1, 1], [2, 2]], "mask", mask="ä?"), "has no mask in base64"),
        (shape([[1, 1], [2, 2]], "mask", mask=base64.b64encode(b"GIF").decode()), "is not an image"),
    ],
)
def test_unusable_shapes_are_named_by_number(tmp_path: Path, bad: Any, problem: str) -> None:
    path = write(tmp_path, shape([[1, 1], [4, 4]], "rectangle"), bad)
    with pytest.raises(DataError, match=f"shape 2: {problem}") as caught:
        read_labelme(SIZE, path=path)
    assert caught.value.where == path and caught.value.remedy
    if problem == "lies outside the image":
        cleaned, repairs = clean_boxes(read_labelme_boxes(path, SIZE), SIZE)
        assert len(cleaned) == 1 and repairs[-1].used is None
    else:
        with pytest.raises(DataError, match=f"shape 2: {problem}"):
            read_labelme_boxes(path, SIZE)


def test_boxes_of_shapes(tmp_path: Path) -> None:
    stamp = np.zeros((6, 8), np.uint8)
    stamp[1:4, 2:7] = 1
    path = write(
        tmp_path,
        shape([[10.2, 5.9], [30.7, 5.1], [30, 12.5], [10, 12]]),
        shape([[30, 12], [10, 5]], "rectangle", "rust ä"),
        shape([[30, 20], [30, 32]], "circle"),
        shape([[20, 4], [27, 9]], "mask", mask=png(stamp)),
        shape([[3, 7], [50, 9]], "line"),
        shape([[3, 7], [20, 7], [20, 30]], "linestrip"),
        shape([[5.8, 6.3]], "point"),
        shape([[-9, -3], [4, -3], [4, 2]], None),
    )
    found = read_labelme_boxes(path, SIZE)
    assert [box.category for box in found] == ["pit", "rust ä"] + ["pit"] * 6
    expected = [
        (10, 5.1, 20.7, 7.4),
        (10, 5, 20, 7),
        (18, 8, 24, 24),
        (22, 5, 5, 3),
        (3, 7, 47, 2),
        (3, 7, 17, 23),
        (5.8, 6.3, 0, 0),
        (-9, -3, 13, 5),
    ]
    assert [(box.x, box.y, box.width, box.height) for box in found] == [pytest.approx(sides) for sides in expected]
    assert read_labelme_boxes(write(tmp_path), SIZE) == []


def test_a_mask_without_a_pixel_has_no_box(tmp_path: Path) -> None:
    path = write(tmp_path, shape([[20, 4], [27, 9]], "mask", mask=png(np.zeros((6, 8), np.uint8))))
    with pytest.raises(DataError, match="shape 1: has a mask without a pixel"):
        read_labelme_boxes(path, SIZE)


def test_unusable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="annotation: 61x40 px where its image has 60x40 px"):
        read_labelme(SIZE, path=write(tmp_path, imageWidth=61))
    with pytest.raises(DataError, match="annotation: 61x40 px where its image has 60x40 px"):
        read_labelme_boxes(write(tmp_path, imageWidth=61), SIZE)
    with pytest.raises(DataError, match="shapes: is no list"):
        read_labelme(SIZE, path=_rewrite(tmp_path, {"shapes": {}}))
    with pytest.raises(DataError, match="JSON: malformed"):
        read_labelme(SIZE, path=_rewrite(tmp_path, '{"shapes": ['))
    with pytest.raises(DataError, match="JSON: cannot be read"):
        read_labelme(SIZE, path=tmp_path / "b.json")


def _rewrite(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "a.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def area_and_steps(points: list) -> tuple[float, float]:
    """Area of a polygon by the shoelace formula, and the pixels that its outline passes through."""
    x, y = np.array(points).T
    steps = np.maximum(abs(np.roll(x, -1) - x), abs(np.roll(y, -1) - y)).sum()
    return abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2, steps


@pytest.mark.real_data
def test_real_polygons_have_their_area(raw_data: Path) -> None:
    paths = sorted((raw_data / "BSData/label").glob("*.json"))
    total = expected = 0.0
    for path in paths:
        content = json.loads(path.read_text("utf-8"))
        image = Image.open(raw_data / "BSData/data" / f"{path.stem}.jpg")
        regions = read_labelme(image.size, path=path)
        assert set(regions) == {item["label"] for item in content["shapes"]} == {"Pitting"}
        boxes = read_labelme_boxes(path, image.size)
        ends = [(np.min(item["points"], 0), np.max(item["points"], 0)) for item in content["shapes"]]
        assert boxes == [Box("Pitting", *low.tolist(), *(high - low).tolist()) for low, high in ends]
        sizes = np.array([area_and_steps(item["points"]) for item in content["shapes"]])
        area, steps = sizes.sum(0)
        # By Pick's theorem a polygon holds area + boundary / 2 + 1 points of the grid, its boundary included; steps
        # shorter than a pixel make that an upper limit.
        assert area < regions["Pitting"].sum() <= area + steps / 2 + len(sizes)
        total, expected = total + regions["Pitting"].sum(), expected + area
    assert len(paths) == 10
    assert total == pytest.approx(expected, rel=0.04)
