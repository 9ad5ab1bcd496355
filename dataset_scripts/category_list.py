"""The list of categories in a built data set: what is known of each beside its objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.tables import read_table

CATEGORIES_FILE = "categories.csv"
CATEGORY_COLUMNS = ("category", "super_category", "scene", "prompt", "novel")


def read_categories(folder: Path) -> dict[str, dict[str, Any]]:
    """Super-category, scene, prompt and novelty of the categories of a build, by name; empty where it lists none.

    Raises:
        DataError: The list is malformed or lacks a column.
    """
    path = folder / CATEGORIES_FILE
    rows = read_table(path, key="category") if path.is_file() else {}
    try:
        return {
            name: {**{key: row[key] for key in CATEGORY_COLUMNS[1:]}, "novel": row["novel"] == "yes"}
            for name, row in rows.items()
        }
    except KeyError as error:
        raise DataError(path, "header", f"lacks the column {error}", "Build the data set again") from error
