"""Boxes around defects in one convention, whatever the annotation format, and what is done about bad ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

LARGEST = 1e6
"""Numbers from here on, in absolute value, are no pixels."""
NOISE = 1e-3
"""Pixels: a box so narrow has no extent."""
ROUNDING = 0.01
"""Pixels: a box so little outside the image is a rounding error: six digits of a fraction of 10,000 px."""
SAME = 0.01
"""Pixels by which the coordinates and sides of two boxes may differ that are one box annotated twice."""
REPAIRS = ("inverted", "clipped", "outside", "empty", "duplicate", "tiny")
"""What can be wrong with a box: `clean_boxes` reports all but the last, of parts of masks below a minimum area."""


@dataclass(frozen=True, slots=True)
class Box:
    """A box in pixels from 0, as COCO counts.

    Attributes:
        category: Name of what it holds.
        x: Left edge.
        y: Top edge.
        width: Width; as a file gives it, it may be <= 0 until `clean_boxes`.
        height: Height, likewise.
        area: Area of the object in pixels, where the file says it; None: that of the box.
        is_crowd: Whether it holds several objects that nobody told apart.
    """

    category: str
    x: float
    y: float
    width: float
    height: float
    area: float | None = None
    is_crowd: bool = False


@dataclass(frozen=True)
class BoxList:
    """The boxes of one image.

    Attributes:
        boxes: As the annotation gives them.
        differences: How a second annotation of the image differs from this one; None: there is no second one.
    """

    boxes: Sequence[Box]
    differences: Sequence[str] | None = None


@dataclass(frozen=True)
class BoxRepair:
    """One change of a box that could not stay as it was; a box can need several.

    Attributes:
        number: Place among the boxes of the image, or the parts of a category's mask, from 1.
        category: Category of the box.
        problem: One of `REPAIRS`.
        given: (x, y, width, height) before the change.
        used: The same after it; None: the box is left out.
    """

    number: int
    category: str
    problem: str
    given: tuple[float, float, float, float]
    used: tuple[float, float, float, float] | None

    def __str__(self) -> str:
        given, used = (
            "left out" if box is None else [round(side, 2) for side in box] for box in (self.given, self.used)
        )
        return f"box {self.number} ({self.category}) is {self.problem}: {given} -> {used}"


def from_corners(category: str, x1: float, y1: float, x2: float, y2: float) -> Box:
    """A box from two corners in pixels from 0, of which the second is just outside the box: width is x2 - x1."""
    return Box(category, x1, y1, x2 - x1, y2 - y1)


def from_voc(category: str, xmin: float, ymin: float, xmax: float, ymax: float) -> Box:
    """A box from two corner pixels in pixels from 1, which both belong to it: 1 to 200 is x 0, width 200.

    Swapped corners give a negative width or height whose absolute value counts both corner pixels as well.
    """
    left, right = (xmin - 1, xmax) if xmin <= xmax else (xmin, xmax - 1)
    top, bottom = (ymin - 1, ymax) if ymin <= ymax else (ymin, ymax - 1)
    return from_corners(category, left, top, right, bottom)


def from_yolo(category: str, cx: float, cy: float, width: float, height: float, image_size: tuple[int, int]) -> Box:
    """A box from its centre and sides, all four as fractions of the image's (width, height)."""
    across, down = image_size
    return Box(category, (cx - width / 2) * across, (cy - height / 2) * down, width * across, height * down)


def from_points(category: str, points: Iterable[tuple[float, float]]) -> Box:
    """The bounding box of at least one point (x, y) in pixels from 0."""
    xs, ys = zip(*points, strict=True)
    return from_corners(category, min(xs), min(ys), max(xs), max(ys))


def pixel_number(value: Any) -> float:
    """A number, or the text of one, as a coordinate.

    Raises:
        ValueError: It is no number, not finite, or not below 1e6 in absolute value. The text begins with "is no".
    """
    if type(value) is float and -LARGEST < value < LARGEST:  # Nearly every number of a large JSON file.
        return value
    try:
        number = float(value)
        if isinstance(value, bool) or not abs(number) < LARGEST:  # Neither infinite nor "nan".
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"is no pixel coordinate: {value!r:.40}") from error
    return number


def clean_boxes(boxes: Sequence[Box], image_size: tuple[int, int]) -> tuple[list[Box], list[BoxRepair]]:
    """Repair boxes, or leave out those that cannot be repaired, and tell which.

    Swapped corners are swapped back ("inverted"). What leaves the image is cut off ("clipped"), which makes an area
    given for the object unknown. A box wholly outside the image ("outside"), without extent ("empty") or equal to an
    earlier one of its category ("duplicate") is left out. Up to 0.01 px outside is cut off without a repair.

    Args:
        boxes: Boxes of one image with finite numbers.
        image_size: (width, height) of the image in pixels.

    Returns:
        The good boxes in their order, and one repair for each change. Cleaning them again changes nothing.
    """
    cleaned: list[Box] = []
    repairs: list[BoxRepair] = []
    seen: dict[tuple[str, int, int], list[Box]] = {}
    for number, given in enumerate(boxes, start=1):
        box, changes = _fit(given, image_size)
        if box is not None and _is_repeated(box, seen):
            box = None
            changes.append(("duplicate", None))
        before = given
        for problem, after in changes:
            used = None if after is None else _sides(after)
            repairs.append(BoxRepair(number, given.category, problem, _sides(before), used))
            before = after or before
        if box is not None:
            cleaned.append(box)
    return cleaned, repairs


def _fit(box: Box, image_size: tuple[int, int]) -> tuple[Box | None, list[tuple[str, Box | None]]]:
    """The part of a box inside the image, None where there is none, and each problem with the box after it."""
    changes: list[tuple[str, Box | None]] = []
    if min(abs(box.width), abs(box.height)) <= NOISE:
        return None, [("empty", None)]
    if box.width < 0 or box.height < 0:
        x, y = box.x + min(box.width, 0), box.y + min(box.height, 0)
        box = Box(box.category, x, y, abs(box.width), abs(box.height), box.area, box.is_crowd)
        changes.append(("inverted", box))
    left, top = max(box.x, 0), max(box.y, 0)
    right, bottom = min(box.x + box.width, image_size[0]), min(box.y + box.height, image_size[1])
    if min(right - left, bottom - top) <= NOISE:
        return None, [*changes, ("outside", None)]
    excess = max(left - box.x, top - box.y, box.x + box.width - right, box.y + box.height - bottom)
    if excess > 0:
        area = box.area if excess <= ROUNDING else None
        box = Box(box.category, left, top, right - left, bottom - top, area, box.is_crowd)
    if excess > ROUNDING:
        changes.append(("clipped", box))
    return box, changes


def _is_repeated(box: Box, seen: dict[tuple[str, int, int], list[Box]]) -> bool:
    """Whether the same box was seen before; if not, it is added, by its category and the pixel next to its corner."""
    sides = _sides(box)
    columns = {round(box.x - SAME), round(box.x + SAME)}
    rows = {round(box.y - SAME), round(box.y + SAME)}
    for column in columns:
        for row in rows:
            for other in seen.get((box.category, column, row), ()):
                if all(abs(a - b) <= SAME for a, b in zip(sides, _sides(other), strict=True)):
                    return True
    seen.setdefault((box.category, round(box.x), round(box.y)), []).append(box)
    return False


def _sides(box: Box) -> tuple[float, float, float, float]:
    return box.x, box.y, box.width, box.height
