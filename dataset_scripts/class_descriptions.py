"""Class descriptions taken apart, and released attributes held against measured ones (SteelDefectX)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from defect_hub.dataset_scripts.readers.errors import DataError

FORM = "A photo of <class>, which shows <visual attributes> caused by <cause>."
OPENING = r"A photo of (?:an? )?(?P<name>[^,.]+?),? (?:(?:which|that) shows?|showing) "
# A cause may itself be "deformation due to low carbon content": "due to" counts only where nothing is "caused by".
PATTERNS = [
    re.compile(rf"{OPENING}(?P<visual_attributes>.*[^,]),? {link} (?P<cause>[^.].*?)\.?", re.IGNORECASE)
    for link in ("caused by", "due to")
]
MEASURED_KEYS = ("Number of Defects", "Position", "Scale", "Polarity", "Saliency")
"""The attributes that the release computes from image and mask; a language model wrote the others."""


@dataclass(frozen=True)
class ClassDescription:
    """The parts of a class description, text level T1.

    Attributes:
        name: Class name as the sentence writes it.
        visual_attributes: What the class looks like.
        cause: Its likely cause.
    """

    name: str
    visual_attributes: str
    cause: str


def parse_class_description(sentence: str, where: str | Path = "class_descriptions.json") -> ClassDescription:
    """Take a class description apart.

    "that shows", "showing", "due to" and a missing full stop are accepted too; of several "caused by" the last counts.

    Args:
        sentence: "A photo of <class>, which shows <visual attributes> caused by <cause>."
        where: Its file, for the error.

    Returns:
        The parts, without the full stop.

    Raises:
        DataError: The sentence has another form.
    """
    text = " ".join(sentence.split())
    for pattern in PATTERNS:
        found = pattern.fullmatch(text)
        if found:
            return ClassDescription(**found.groupdict())
    name = re.match(r"A photo of ([^,.]+)", text, re.IGNORECASE)
    raise DataError(where, name[1] if name else repr(text[:40]), "is not a class description", f'Write "{FORM}"')


def compose_class_description(description: ClassDescription) -> str:
    """The sentence that `parse_class_description` takes apart."""
    return f"A photo of {description.name}, which shows {description.visual_attributes} caused by {description.cause}."


def attribute_disagreements(
    shipped: Mapping[str, Any], recomputed: Mapping[str, Any], position_tolerance: float = 1e-3
) -> list[str]:
    """Compare released attributes with measured ones, as far as the release measures them too.

    Args:
        shipped: The released attributes.
        recomputed: Those of `mask_attributes`, but with "Position" of the mask pixels above 0.
        position_tolerance: Difference up to which two shares of the defect are equal, so that their cells may swap.

    Returns:
        A line for each attribute that differs, e.g. "Scale: released small, measured medium".
    """
    lines = []
    for key in MEASURED_KEYS:
        released, measured = shipped[key], recomputed[key]
        if key == "Position":
            released, measured = _position_difference(released, measured, position_tolerance)
        if released != measured:
            lines.append(f"{key}: released {released}, measured {measured}")
    return lines


def _position_difference(
    released: list[list[Any]], measured: list[list[Any]], tolerance: float
) -> tuple[str | None, str | None]:
    """What differs: the cells with other shares, or else the order of the cells; (None, None) where nothing does."""
    shares, truth = ({cell: float(share) for cell, share in position} for position in (released, measured))
    cells = [cell for cell in {**shares, **truth} if abs(shares.get(cell, 0) - truth.get(cell, 0)) > tolerance]
    if cells:
        words = [", ".join(f"{cell} {found.get(cell, 0):.3f}" for cell in cells) for found in (shares, truth)]
        return words[0], words[1]
    ranked = [truth.get(cell, 0) for cell in shares]
    if any(later > earlier + tolerance for earlier, later in pairwise(ranked)):
        return f"order {', '.join(shares)}", f"order {', '.join(truth)}"
    return None, None
