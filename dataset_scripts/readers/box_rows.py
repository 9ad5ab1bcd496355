"""Boxes from text files with one box a line, in columns of any order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from defect_hub.dataset_scripts.readers.boxes import Box, from_corners, pixel_number
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.images import read_bytes

CORNERS = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class BoxRow:
    """One line of a file.

    Attributes:
        image: What its column "image" says; None without such a column.
        category: What its column "category" says; None without such a column. Here and in `image` a number of another
            form than digits is written as an integer where it is one: "1.0e+00" is "1", "001" stays.
        box: The box, of category "" where the line names none.
    """

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
    scale: tuple[int, int] = (1, 1),
) -> list[BoxRow]:
    """Read a file with one box a line and no header.

    Args:
        path: A text file; see `split_lines` for its separators.
        columns: What its columns hold, in their order: two corners "x1", "y1", "x2", "y2" from 0, of which the second
            is just outside the box, and maybe "image" and "category".
        scale: (width, height) of the image in pixels, where coordinates are fractions of them.

    Raises:
        DataError: The file is missing or no text; a line has another number of fields than columns, or no number where
            one must be.
        ValueError: The columns hold no box.
    """
    if sorted({*columns} - {"image", "category"}) != sorted(CORNERS) or len({*columns}) < len(columns):
        raise ValueError(f"columns {', '.join(columns)} hold no box, or something else or twice")
    across, down = scale
    rows = []
    for line, fields in split_lines(path):
        place = f"line {line}"
        if len(fields) != len(columns):
            problem = f"has {len(fields)} fields where {len(columns)} are expected"
            raise DataError(path, place, problem, f"Correct the line to: {' '.join(columns)}")
        row = dict(zip(columns, fields, strict=True))
        image, category = (_name(row[key]) if key in row else None for key in ("image", "category"))
        x1, y1, x2, y2 = read_numbers([row[key] for key in CORNERS], path, place)
        box = from_corners(category or "", x1 * across, y1 * down, x2 * across, y2 * down)
        rows.append(BoxRow(image, category, box))
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
