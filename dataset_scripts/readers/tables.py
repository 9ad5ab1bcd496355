"""Tables of images: CSV files with a header, or lists of objects in JSON files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.images import read_bytes
from defect_hub.dataset_scripts.readers.jsonfile import read_json

Row = dict[str, str]


def read_table(path: Path, *, key: str, root: str | None = None) -> dict[str, Row]:
    """Rows of a table by the value of one column.

    Args:
        path: A UTF-8 CSV file with a header, or a file `.json`.
        key: Column whose value names the row. Rows that repeat one with the same content count once.
        root: JSON only: key of the list of objects; None where the list is the top level.

    Returns:
        Rows by key in the order of the file. Values of a JSON file that are no text become
        JSON text, null "".

    Raises:
        DataError: The file is missing or malformed, lacks the column, or gives a key different contents.
    """
    rows: dict[str, Row] = {}
    for place, row in _json_rows(path, root) if path.suffix.lower() == ".json" else _csv_rows(path):
        if not row.get(key):
            problem = f"no value of {key!r} among the columns {', '.join(row)}"
            raise DataError(path, place, problem, "Check that this is the right table")
        if rows.setdefault(row[key], row) != row:
            problem = f"contradicts an earlier row of {key} {row[key]!r}"
            raise DataError(path, place, problem, "Remove one of the rows")
    if not rows:
        raise DataError(path, "table", "has no rows", "Fetch the file again")
    return rows


def _csv_rows(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        text = read_bytes(path, "table").decode("utf-8-sig")  # Spreadsheets write a byte-order mark.
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = next(reader, [])
        if len({*header}) < len(header):
            raise DataError(path, "header", "names a column twice", "Rename one of them")
        for cells in filter(None, reader):
            place = f"line {reader.line_num}"
            if len(cells) != len(header):
                problem = f"has {len(cells)} cells where the header has {len(header)}"
                raise DataError(path, place, problem, "Correct the line")
            yield place, dict(zip(header, cells, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(path, "table", f"malformed ({error})", "Supply it as UTF-8 CSV") from error


def _json_rows(path: Path, root: str | None) -> Iterator[tuple[str, Row]]:
    items = read_json(path, list if root is None else dict)
    if root is not None:
        items = items.get(root)
    if not isinstance(items, list):
        raise DataError(path, str(root), "is no list of objects", "Check that this is the right file")
    for number, item in enumerate(items, start=1):
        if not isinstance(item, Mapping):
            raise DataError(path, f"item {number}", "is no object", "Check that this is the right file")
        yield f"item {number}", {name: _text(value) for name, value in item.items()}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
