"""Defect pixels or boxes from labelme's JSON files, versions 3 to 5."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from defect_hub.dataset_scripts.readers.boxes import LARGEST, Box, from_corners, from_points
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.images import check_size, decode
from defect_hub.dataset_scripts.readers.jsonfile import read_json

POINTS = {
    "polygon": range(3, 1_000_000),
    "rectangle": range(2, 5),
    "circle": range(2, 3),
    "line": range(2, 3),
    "linestrip": range(2, 1_000_000),
    "point": range(1, 2),
    "mask": range(1, 3),
}
"""How many points a shape of each type has."""


def read_labelme(image_size: tuple[int, int], *, path: Path) -> dict[str, NDArray[np.bool_]]:
    """Read the shapes of an image.

    Shapes are drawn as labelme itself draws them: a pixel belongs to a shape whose outline passes through it, which
    adds about half the outline's length to the area. Lines and points, which have no area, are one pixel wide. What
    lies outside the image is cut off. The copy of the image inside the file is not read.

    Args:
        image_size: (width, height) of the image in pixels.
        path: The JSON file.

    Returns:
        Defect pixels (H, W) by label, in the order of the file.

    Raises:
        DataError: The file is missing, malformed or made for an image of another size; a shape has no label, is of an
            unknown type, has another number of points than its type, or lies outside the image.
    """
    regions: dict[str, NDArray[np.bool_]] = {}
    for field, label, shape in _shapes(path, image_size):
        pixels = np.asarray(_draw(image_size, shape, path, field)) > 0
        if not pixels.any():
            raise DataError(path, field, "lies outside the image", "Correct or remove the shape")
        regions[label] = pixels | regions.get(label, False)
    return regions


def read_labelme_boxes(path: Path, image_size: tuple[int, int]) -> list[Box]:
    """Read the bounding boxes of the shapes of an image.

    A box reaches from the smallest to the largest coordinate of its shape, a circle's over its diameter, a mask's over
    its pixels. Points and straight lines along an axis have boxes without extent.

    Args:
        path: The JSON file.
        image_size: (width, height) of the image in pixels.

    Returns:
        Boxes in the order of the file, with the labels as categories; they may leave the image.

    Raises:
        DataError: As in `read_labelme`, but for shapes outside the image; a mask has no pixel.
    """
    return [_box(shape, label, path, field) for field, label, shape in _shapes(path, image_size)]


def _shapes(path: Path, image_size: tuple[int, int]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield for each shape how errors name it, its label, and what the file says of it."""
    content = read_json(path, dict)
    size = content.get("imageWidth"), content.get("imageHeight")
    if None not in size:
        check_size(size, image_size, path, "annotation")
    shapes = content.get("shapes")
    if not isinstance(shapes, list):
        raise DataError(path, "shapes", "is no list", "Check that this is a labelme file")
    for number, shape in enumerate(shapes, start=1):
        field = f"shape {number}"
        label = shape.get("label") if isinstance(shape, dict) else None
        if not isinstance(label, str) or not label:
            raise DataError(path, field, "has no label", "Name the category of the shape")
        yield field, label, shape


def _box(shape: dict[str, Any], label: str, path: Path, field: str) -> Box:
    kind = _kind(shape, path, field)
    points = _points(shape, kind, path, field)
    x, y = points[0]
    if kind == "circle":
        radius = math.dist(*points)
        return from_corners(label, x - radius, y - radius, x + radius, y + radius)
    if kind == "mask":
        inner = _stamp(shape, path, field).getbbox()
        if inner is None:
            raise DataError(path, field, "has a mask without a pixel", "Correct or remove the shape")
        left, top, right, bottom = inner
        return from_corners(label, int(x) + left, int(y) + top, int(x) + right, int(y) + bottom)
    return from_points(label, points)


def _kind(shape: dict[str, Any], path: Path, field: str) -> str:
    kind = str(shape.get("shape_type") or "polygon")  # Early versions knew polygons only.
    if kind not in POINTS:
        problem = f"is of the unknown type {kind!r}"
        raise DataError(path, field, problem, f"Draw it as one of {', '.join(POINTS)}")
    return kind


def _draw(image_size: tuple[int, int], shape: dict[str, Any], path: Path, field: str) -> Image.Image:
    kind = _kind(shape, path, field)
    points = _points(shape, kind, path, field)
    canvas = Image.new("L", image_size)
    draw = ImageDraw.Draw(canvas)
    if kind == "polygon":
        draw.polygon(points, fill=255, outline=255)
    elif kind == "rectangle":
        xs, ys = zip(*points, strict=True)
        draw.rectangle((min(xs), min(ys), max(xs), max(ys)), fill=255)
    elif kind == "circle":
        (x, y), rim = points
        radius = math.dist((x, y), rim)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    elif kind == "mask":
        stamp = _stamp(shape, path, field)
        canvas.paste(255, (int(points[0][0]), int(points[0][1])), stamp)
    elif kind == "point":
        draw.point(points, fill=255)
    else:
        draw.line(points, fill=255)
    return canvas


def _points(shape: dict[str, Any], kind: str, path: Path, field: str) -> list[tuple[float, float]]:
    try:
        points = [(float(x), float(y)) for x, y in shape["points"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(path, field, "has no points of two numbers", "Correct or remove the shape") from error
    if len(points) not in POINTS[kind]:
        raise DataError(path, field, f"{kind} of {len(points)} points", "Correct or remove the shape")
    if not all(abs(value) < LARGEST for point in points for value in point):  # Neither infinite nor "nan".
        raise DataError(path, field, "has a point that is no pixel", "Correct or remove the shape")
    return points


def _stamp(shape: dict[str, Any], path: Path, field: str) -> Image.Image:
    """The pixels of a shape of type `mask`: every value but 0 belongs to it."""
    try:
        data = base64.b64decode(shape["mask"], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(path, field, "has no mask in base64", "Correct or remove the shape") from error
    return Image.fromarray(np.asarray(decode(data, path, field, ("1", "L"), "one 8-bit channel")) != 0)
