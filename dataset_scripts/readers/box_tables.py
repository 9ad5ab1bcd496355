"""Boxes of a whole set in one table: a CSV file with a header, or a list of objects in a JSON file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from defect_hub.dataset_scripts.readers.boxes import Box, from_corners, pixel_number
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.images import read_bytes
from defect_hub.dataset_scripts.readers.jsonfile import read_json

CONVENTIONS: Mapping[str, Callable[..., Box]] = {"corners": from_corners, "coco": Box}
"""What makes a box of a category and four numbers."""


def read_box_table(
    path: Path, *, image: str, bbox: str | Sequence[str], category: str, convention: str = "corners"
) -> dict[str, list[Box]]:
    """Read a table with one box a row, or with one image and a list of boxes a row.

    Args:
        path: A file `.json`, or else a UTF-8 CSV file with a header.
        image: Column, or key of the objects, of the image's file name.
        bbox: Column of the box, as four numbers or a list of boxes (in CSV as JSON, or one box as four numbers
            separated by spaces); or the names of four columns. A row without it names an image without boxes.
        category: Column of the category, one for all boxes of a row or a list of as many.
        convention: "corners": x1, y1, x2, y2 in pixels from 0, the second corner just outside the box; "coco": x, y,
            width, height.

    Returns:
        Boxes by file name, with "/" between folders, in the order of the file.

    Raises:
        DataError: The file is missing, malformed or has no rows; a row has no image, no category for its boxes, or no
            four finite numbers as its box.
    """
    make = CONVENTIONS[convention]
    boxes: dict[str, list[Box]] = {}
    for place, row in _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path):
        name = row.get(image)
        if not isinstance(name, str) or not name.strip():
            raise DataError(path, place, f"has no image under {image!r}", "Check that this is the right table")
        found = boxes.setdefault(name.strip().replace("\\", "/"), [])
        try:
            given = _boxes(row.get(bbox) if isinstance(bbox, str) else [row.get(key) for key in bbox])
            found += [make(label, *box) for label, box in zip(_labels(row, category, len(given)), given, strict=True)]
        except ValueError as error:
            raise DataError(path, place, str(error), "Correct or remove the row") from error
    if not boxes:
        raise DataError(path, "table", "has no rows", "Fetch the file again")
    return boxes


def _csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        text = read_bytes(path, "table").decode("utf-8-sig")  # Spreadsheets write a byte-order mark.
        reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        for row in reader:
            if None in row or None in row.values():
                problem = f"has {'more' if None in row else 'fewer'} cells than the header"
                raise DataError(path, f"line {reader.line_num}", problem, "Correct the line")
            yield f"line {reader.line_num}", row
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(path, "table", f"malformed ({error})", "Supply it as UTF-8 CSV") from error


def _json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, item in enumerate(read_json(path, list), start=1):
        if not isinstance(item, dict):
            raise DataError(path, f"item {number}", "is no object", "Check that this is the right file")
        yield f"item {number}", item


def _boxes(given: Any) -> list[tuple[float, float, float, float]]:
    if isinstance(given, str):
        given = _parsed(given) if given.strip().startswith("[") else given.replace(",", " ").split()
    if given is None or (isinstance(given, list) and all(value in (None, "") for value in given)):
        return []
    if not isinstance(given, list):
        raise ValueError(f"box is not four numbers: {given!r:.40}")
    boxes = given if all(isinstance(box, list) for box in given) else [given]
    if any(len(box) != 4 for box in boxes):
        raise ValueError(f"box is not four numbers: {given!r:.40}")
    return [(x, y, width, height) for x, y, width, height in ([pixel_number(value) for value in box] for box in boxes)]


def _labels(row: dict[str, Any], key: str, count: int) -> list[str]:
    """The category of each of the boxes of a row."""
    given = row.get(key)
    if isinstance(given, str) and given.strip().startswith("["):
        given = _parsed(given)
    labels = given if isinstance(given, list) else [given] * count
    if len(labels) != count:
        raise ValueError(f"has {len(labels)} categories for {count} boxes")
    if any(not isinstance(label, (str, int)) or not str(label).strip() for label in labels):
        raise ValueError(f"has no category under {key!r}")
    return [str(label).strip() for label in labels]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"malformed list {text!r:.40} ({error})") from error
