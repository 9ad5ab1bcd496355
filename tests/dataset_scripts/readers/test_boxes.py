import pickle
import random
from typing import Any

import pytest
import torch
from torchvision.ops import box_convert, clip_boxes_to_image

from defect_hub.dataset_scripts.readers.boxes import (
    REPAIRS,
    Box,
    BoxRepair,
    clean_boxes,
    from_corners,
    from_points,
    from_voc,
    from_yolo,
    pixel_number,
)

SIZE = WIDTH, HEIGHT = 200, 100


def sides(box: Box) -> tuple[float, float, float, float]:
    return box.x, box.y, box.width, box.height


def repair(box: Box) -> tuple[Box | None, list[str]]:
    """The box after cleaning, and the problems found."""
    boxes, repairs = clean_boxes([box], SIZE)
    return boxes[0] if boxes else None, [item.problem for item in repairs]


def test_corners_and_centres_agree_with_torchvision() -> None:
    given = torch.rand(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 90
    from_corner = torch.tensor([sides(from_corners("a", *row)) for row in given.tolist()], dtype=torch.float64)
    torch.testing.assert_close(from_corner, box_convert(given, "xyxy", "xywh"))
    scale = torch.tensor([WIDTH, HEIGHT] * 2, dtype=torch.float64)
    from_centre = [sides(from_yolo("a", *row, SIZE)) for row in (given / scale).tolist()]
    torch.testing.assert_close(
        torch.tensor(from_centre, dtype=torch.float64), box_convert(given, "cxcywh", "xywh"), rtol=1e-9, atol=1e-9
    )


def test_conversions_by_hand() -> None:
    assert from_corners("a", 10, 20, 15, 40) == Box("a", 10, 20, 5, 20)
    assert from_yolo("a", 0.5, 0.25, 0.25, 0.5, SIZE) == Box("a", 75, 0, 50, 50)
    assert from_points("a", [(3, 9), (1.5, 4), (7, 5)]) == Box("a", 1.5, 4, 5.5, 5)
    assert from_points("a", iter([(3, 9)])) == Box("a", 3, 9, 0, 0)


@pytest.mark.parametrize(
    ("corners", "expected"),
    [
        ((1, 1, 200, 100), (0, 0, 200, 100)),
        ((31, 20, 31, 21), (30, 19, 1, 2)),
        ((2.5, 1, 10, 5), (1.5, 0, 8.5, 5)),
        ((0, 1, 201, 5), (-1, 0, 202, 5)),
    ],
)
def test_both_voc_corners_belong_to_the_box(corners: tuple, expected: tuple) -> None:
    assert sides(from_voc("a", *corners)) == expected


def test_swapped_voc_corners_are_the_same_box_once_cleaned() -> None:
    expected = from_voc("a", 11, 21, 15, 40)
    for corners in ((15, 21, 11, 40), (11, 40, 15, 21), (15, 40, 11, 21)):
        assert repair(from_voc("a", *corners)) == (expected, ["inverted"])


@pytest.mark.parametrize(
    ("value", "number"), [("7", 7), (" 1.0e+02\n", 100), (-3, -3), (2.5, 2.5), ("-999999", -999999)]
)
def test_pixel_numbers(value: Any, number: float) -> None:
    assert pixel_number(value) == number


@pytest.mark.parametrize("value", ["", "x", "nan", "inf", "1e6", float("nan"), float("inf"), -1e6, 10**400])
def test_what_is_no_pixel_number(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^is no pixel coordinate: "):
        pixel_number(value)


@pytest.mark.parametrize("value", [None, True, [1], {}])
def test_other_types_are_no_pixel_numbers(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^is no pixel coordinate: "):
        pixel_number(value)


def test_good_boxes_stay_as_they_are() -> None:
    boxes = [Box("a", 0, 0, WIDTH, HEIGHT, 12.5, True), Box("b", 199, 99, 1, 1), Box("a", 5, 5, 0.01, 90)]
    assert clean_boxes(boxes, SIZE) == (boxes, [])
    assert clean_boxes([], SIZE) == ([], [])
    assert pickle.loads(pickle.dumps(boxes)) == boxes


@pytest.mark.parametrize(
    ("box", "used", "problems"),
    [
        (Box("a", 30, 40, -10, 5), (20, 40, 10, 5), ["inverted"]),
        (Box("a", 30, 40, -10, -5), (20, 35, 10, 5), ["inverted"]),
        (Box("a", -5, -6, 10, 20), (0, 0, 5, 14), ["clipped"]),
        (Box("a", 195, 90, 10, 20), (195, 90, 5, 10), ["clipped"]),
        (Box("a", -1, -1, 999, 999), (0, 0, 200, 100), ["clipped"]),
        (Box("a", 5, 50, -10, 10), (0, 50, 5, 10), ["inverted", "clipped"]),
        (Box("a", 200, 5, 5, 5), None, ["outside"]),
        (Box("a", -5, 5, 5, 5), None, ["outside"]),
        (Box("a", 5, -9, 5, 9), None, ["outside"]),
        (Box("a", 5, 100, 5, 5), None, ["outside"]),
        (Box("a", -5, 5, -5, 5), None, ["inverted", "outside"]),
        (Box("a", 5, 5, 0, 5), None, ["empty"]),
        (Box("a", 5, 5, 5, 0), None, ["empty"]),
        (Box("a", 5, 5, -1e-9, 5), None, ["empty"]),
        (Box("a", 500, 5, 0, 5), None, ["empty"]),
    ],
)
def test_each_repair(box: Box, used: tuple | None, problems: list[str]) -> None:
    cleaned, found = repair(box)
    assert (None if cleaned is None else sides(cleaned)) == used
    assert found == problems and {*problems} <= {*REPAIRS}


def test_a_chain_of_repairs_tells_every_step() -> None:
    boxes = [Box("a", 0, 50, 5, 10), Box("b", 0, 50, 5, 10), Box("a", 5, 50, -10, 10)]
    assert clean_boxes(boxes, SIZE) == (
        boxes[:2],
        [
            BoxRepair(3, "a", "inverted", (5, 50, -10, 10), (-5, 50, 10, 10)),
            BoxRepair(3, "a", "clipped", (-5, 50, 10, 10), (0, 50, 5, 10)),
            BoxRepair(3, "a", "duplicate", (0, 50, 5, 10), None),
        ],
    )


def test_float_noise_is_cut_off_without_a_repair() -> None:
    cleaned, problems = repair(Box("a", -0.009, 3, 200.018, 50, area=70))
    assert cleaned == Box("a", 0, 3, 200, 50, area=70) and problems == []
    cleaned, problems = repair(Box("a", 190, -0.02, 10, 50, area=70))
    assert cleaned == Box("a", 190, 0, 10, 49.98) and problems == ["clipped"]


def test_area_and_crowd() -> None:
    assert repair(Box("a", 30, 40, -10, 5, 33, True))[0] == Box("a", 20, 40, 10, 5, 33, True)
    assert repair(Box("a", -30, 40, 40, 5, 33, True))[0] == Box("a", 0, 40, 10, 5, None, True)


@pytest.mark.parametrize("place", [10, 10.5, 10.495, 10.505, 0])
@pytest.mark.parametrize("field", range(4))
def test_boxes_within_a_hundredth_of_a_pixel_are_one(place: float, field: int) -> None:
    first = [place, place, 20.0, 20.0]
    for difference, problems in ((0.0099, ["duplicate"]), (0.0101, [])):
        second = first.copy()
        second[field] += difference
        boxes = [Box("a", *first), Box("b", *second), Box("a", *second)]
        cleaned, repairs = clean_boxes(boxes, SIZE)
        assert [item.problem for item in repairs] == problems
        assert cleaned == boxes[: 3 - len(problems)]


def random_boxes(rng: random.Random) -> list[Box]:
    boxes: list[Box] = []
    for _ in range(rng.randrange(30)):
        category = rng.choice("ab")
        area = rng.choice([None, 5.0])
        draw = rng.choice([lambda: rng.uniform(-60, 250), lambda: float(rng.randrange(-3, 8)) * 25])
        if boxes and rng.random() < 0.3:
            other = rng.choice(boxes)
            boxes.append(Box(category, *(side + rng.uniform(-0.02, 0.02) for side in sides(other)), area))
        else:
            boxes.append(Box(category, draw(), draw(), draw(), draw(), area))
    return boxes


@pytest.mark.parametrize("seed", range(200))
def test_cleaned_boxes_are_good_and_stay(seed: int) -> None:
    boxes = random_boxes(random.Random(seed))
    cleaned, repairs = clean_boxes(boxes, SIZE)
    assert clean_boxes(cleaned, SIZE) == (cleaned, [])
    assert len(boxes) == len(cleaned) + sum(item.used is None for item in repairs)
    for box in cleaned:
        assert box.x >= 0 and box.y >= 0 and box.width > 0 and box.height > 0
        assert box.x + box.width <= WIDTH + 1e-9 and box.y + box.height <= HEIGHT + 1e-9
    for index, box in enumerate(cleaned):
        for other in cleaned[:index]:
            near = max(abs(a - b) for a, b in zip(sides(box), sides(other), strict=True)) <= 0.01
            assert not near or box.category != other.category
    places = [item.number for item in repairs]
    assert places == sorted(places) and all(boxes[item.number - 1].category == item.category for item in repairs)


def test_clipping_agrees_with_torchvision() -> None:
    rng = random.Random(0)
    for _ in range(200):
        corners = [rng.uniform(-50, 150), rng.uniform(-50, 90), rng.uniform(150, 300), rng.uniform(90, 150)]
        expected = clip_boxes_to_image(torch.tensor([corners], dtype=torch.float64), (HEIGHT, WIDTH))
        (cleaned,), _ = clean_boxes([from_corners("a", *corners)], SIZE)
        expected = box_convert(expected, "xyxy", "xywh")[0]
        torch.testing.assert_close(torch.tensor(sides(cleaned), dtype=torch.float64), expected)
