"""Boxes of a whole set in one JSON file: a list of objects, one for each box."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from defect_hub.dataset_scripts.readers.boxes import Box, from_corners, pixel_number
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.jsonfile import read_json


def read_box_table(path: Path, *, image: str, bbox: str, category: str) -> dict[str, list[Box]]:
    """Read a list of boxes.

    Args:
        path: The JSON file.
        image: Key of the image's file name.
        bbox: Key of the box, a list x1, y1, x2, y2 in pixels from 0, of which the second corner is just outside.
        category: Key of the category, a text or number.

    Returns:
        Boxes by file name, in the order of the file.

    Raises:
        DataError: The file is missing, malformed or empty; an item has no image, no category or no box of four finite
            numbers.
    """
    boxes: dict[str, list[Box]] = {}
    for number, item in enumerate(read_json(path, list), start=1):
        try:
            if not isinstance(item, dict):
                raise ValueError("is no object")
            name, label = _text(item, image, "image"), _text(item, category, "category")
            boxes.setdefault(name, []).append(from_corners(label, *_sides(item.get(bbox))))
        except ValueError as error:
            remedy = "Correct or remove it, or check that this is the right file"
            raise DataError(path, f"item {number}", str(error), remedy) from error
    if not boxes:
        raise DataError(path, "boxes", "there are none", "Fetch the file again")
    return boxes


def _text(item: Mapping[str, Any], key: str, what: str) -> str:
    value = item.get(key)
    if not isinstance(value, (str, int)) or not str(value).strip():
        raise ValueError(f"has no {what} under {key!r}")
    return str(value).strip()


def _sides(given: Any) -> list[float]:
    if not isinstance(given, list) or len(given) != 4:
        raise ValueError(f"has a box that is not four numbers: {given!r:.40}")
    return [pixel_number(value) for value in given]
