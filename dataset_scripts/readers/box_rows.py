"""Boxes from text files with one box a line, in columns of any order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from defect_hub.dataset_scripts.readers.boxes import Box, from_corners, from_voc, from_yolo, pixel_number
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.images import read_bytes

CORNERS = ("x1", "y1", "x2", "y2")
CENTRE = ("cx", "cy", "width", "height")
EDGES = ("x", "y", "width", "height")
IGNORED = "-"


@dataclass(frozen=True)
class BoxRow:
    """One line of a file.

    Attributes:
        line: Its number, from 1.
        image: What its column "image" says, with "/" between folders; None without such a column.
        category: What its column "category" says; None without such a column. Here and in `image` a number of another
            form than digits is written as an integer where it is one: "1.0e+00" is "1", "001" stays.
        box: The box, of category "" where the line names none.
    """

    line: int
    image: str | None
    category: str | None
    box: Box


def split_lines(path: Path) -> list[tuple[int, list[str]]]:
    """Number, from 1, and fields of each line of a UTF-8 text file that has some.

    Fields are separated by any number of spaces, tabs, commas and semicolons. In a line with tabs, a comma between two
    digits is a decimal point instead.

    Raises:
        DataError: The file is missing or no UTF-8 text.
    """
    try:
        text = read_bytes(path, "boxes").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(path, "boxes", f"no UTF-8 text ({error})", "Supply it as a text file") from error
    lines = enumerate(text.splitlines(), start=1)
    split = ((number, _fields(line)) for number, line in lines)
    return [(number, fields) for number, fields in split if fields]


def _fields(line: str) -> list[str]:
    if "\t" in line:
        line = re.sub(r"(?<=\d),(?=\d)", ".", line)
    return [field for field in re.split(r"[\s,;]+", line) if field]


def read_box_rows(
    path: Path,
    columns: Sequence[str],
    *,
    image_size: tuple[int, int] | None = None,
    relative: bool = False,
    convention: str = "corners",
) -> list[BoxRow]:
    """Read a file with one box a line and no header.

    Args:
        path: A text file; see `split_lines` for its separators.
        columns: What its columns hold, in their order: "x1", "y1", "x2", "y2" (two corners), or "cx", "cy" (centre) or
            "x", "y" (left, top) with "width" and "height"; also "image", "category", and "-" for what is not read.
        image_size: (width, height) of the image in pixels, for relative coordinates.
        relative: Whether coordinates are fractions of the image size.
        convention: How two corners in pixels are counted: "corners" from 0 with the second just outside the box, "voc"
            from 1 with both inside.

    Raises:
        DataError: The file is missing or no text; a line has another number of fields than columns, or no number where
            one must be.
        ValueError: The columns hold no box, or the arguments do not fit together.
    """
    names = [name for name in columns if name != IGNORED]
    sides = next((form for form in (CORNERS, CENTRE, EDGES) if {*form} == {*names} - {"image", "category"}), None)
    if sides is None or len({*names}) < len(names):
        raise ValueError(f"columns {', '.join(columns)} hold no box, or something twice")
    if convention not in ("corners", "voc") or (convention == "voc" and (relative or sides != CORNERS)):
        raise ValueError(f"convention {convention!r} does not fit the columns {', '.join(columns)}")
    if relative and image_size is None:
        raise ValueError("relative coordinates need the image size")
    scale = image_size if relative and image_size is not None else (1, 1)
    rows = []
    for line, fields in split_lines(path):
        place = f"line {line}"
        if len(fields) != len(columns):
            problem = f"has {len(fields)} fields where {len(columns)} are expected"
            raise DataError(path, place, problem, f"Correct the line to: {' '.join(columns)}")
        row = dict(zip(columns, fields, strict=True))
        image, category = (_name(row[key]) if key in row else None for key in ("image", "category"))
        numbers = read_numbers([row[key] for key in sides], path, place)
        box = _box(category or "", sides, numbers, scale, convention)
        rows.append(BoxRow(line, None if image is None else image.replace("\\", "/"), category, box))
    return rows


def read_numbers(fields: Sequence[str], path: Path, place: str) -> list[float]:
    """Fields of a line as coordinates.

    Raises:
        DataError: One is no finite number below 1e6 in absolute value.
    """
    try:
        return [pixel_number(field) for field in fields]
    except ValueError as error:
        raise DataError(path, place, str(error), "Correct or remove the line") from error


def _name(field: str) -> str:
    try:
        number = float(field)
    except ValueError:
        return field
    return str(int(number)) if number.is_integer() and not field.isdigit() else field


def _box(
    category: str, sides: Sequence[str], numbers: Sequence[float], scale: tuple[int, int], convention: str
) -> Box:
    a, b, c, d = numbers
    if sides == CENTRE:
        return from_yolo(category, a, b, c, d, scale)
    across, down = scale
    a, b, c, d = a * across, b * down, c * across, d * down
    if sides == EDGES:
        return Box(category, a, b, c, d)
    return from_voc(category, a, b, c, d) if convention == "voc" else from_corners(category, a, b, c, d)
