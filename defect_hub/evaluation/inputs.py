"""Images of a data set, and the normal references that they are compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from defect_hub.diagnose import find_images, read_image
from defect_hub.train.data import draw_references, load_split
from defect_hub.train.evaluation import Reference, References

REFERENCE_SPLIT = "train"
COLUMNS = ("image", "image_id", "sha256", "is_defective", "object_name", "mask", "height", "width")


def load_rows(data: str, split: str) -> tuple[Any, Any]:
    """A split whole, and its images of which it is known whether they are defective.

    Raises:
        ValueError: It lacks a column, or nothing is known.
    """
    rows = load_split(data, split)
    if missing := [name for name in COLUMNS if name not in rows.column_names]:
        raise ValueError(f"{data}: {missing[0]}: no such column in {split!r}. Give a data set in the record schema")
    known = rows.select([index for index, value in enumerate(rows["is_defective"]) if value is not None])
    if not len(known):
        raise ValueError(
            f"{data}: is_defective: unknown for all {len(rows)} images of {split!r}. Choose another --split"
        )
    return rows, known


def check_counts(shots: int, draws: int) -> None:
    """Refuse numbers of references and draws that make no sense."""
    if shots < 0 or draws < 1:
        name, value, least = ("--draws", draws, 1) if shots >= 0 else ("--shots", shots, 0)
        raise ValueError(f"{name} {value}: is below {least}. Give at least {least}")
    if draws > 1 and not shots:
        raise ValueError(f"--draws {draws}: nothing is drawn without references. Add --shots K")


def given_references(paths: Sequence[Path], rows: Any, place: str) -> References:
    """Image files as references of the one object that the rows show.

    Raises:
        ValueError: The rows show several objects, or a file cannot be used.
    """
    names = sorted(set(rows["object_name"]))
    if len(names) > 1:
        raise ValueError(
            f"--reference: shows one object, but {place!r} has {len(names)} ({', '.join(names)}). Draw references of "
            "each with --shots K"
        )
    return {names[0]: [_given(path) for path in find_images(paths)]}


def _given(path: Path) -> Reference:
    image = read_image(path)
    return Reference(path.name, frozenset([hashlib.sha256(path.read_bytes()).hexdigest()]), image)


def drawn_references(source: Any, rows: Any, shots: int, draws: int, seed: int) -> list[References]:
    """References of each draw, for every object that the rows show.

    Args:
        source: Rows that the references are drawn from.
        rows: That are compared with them.
        shots: References of an object.
        draws: How many.
        seed: Of the draws.
    """
    names = sorted(set(rows["object_name"]))
    drawn = {name: draw_references(source, shots, draws, seed, name) for name in names}
    return [
        {name: [Reference.of(source[index]) for index in of[number]] for name, of in drawn.items()}
        for number in range(draws)
    ]
