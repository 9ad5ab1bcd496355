"""Checks a description against the mask it is meant to describe."""

import re

from .mask_attributes import CELLS

COUNT_WORDS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
_ROWS = {"top": 0, "upper": 0, "middle": 1, "bottom": 2, "lower": 2}
_COLUMNS = {"left": 0, "right": 2}
_POSITION = re.compile(r"\b(?:(top|upper|middle|bottom|lower)[ -](left|center|right)|(center))\b")
_COUNT = re.compile(r"\bthere (?:is|are) (\w+)\b")


def cell_name(row: int, column: int) -> str:
    """Name of a cell of the 3x3 grid, e.g. "top-left"; rows and columns count from 0."""
    return CELLS[3 * row + column]


def box_cell(box: list[int], height: int, width: int) -> str:
    """Cell of the 3x3 grid that holds the centre of a box [x, y, w, h], px."""
    x, y, w, h = box
    return cell_name(min(int(3 * (y + h / 2) / height), 2), min(int(3 * (x + w / 2) / width), 2))


def _covers(box: list[int], row: int, column: int, height: int, width: int) -> bool:
    x, y, w, h = box
    left, top = column * width / 3, row * height / 3
    return x < left + width / 3 and x + w > left and y < top + height / 3 and y + h > top


def unsupported_claims(
    description: str, regions: list[dict], is_defective: bool, height: int, width: int
) -> list[str]:
    """Words of presence, place and count in a description that the map does not support.

    Args:
        description: generated text.
        regions: connected regions of the mask, each with "box" [x, y, w, h], px.
        is_defective: the calibrated decision.
        height: of the image, px.
        width: of the image, px.

    Returns:
        The unsupported words with the reason, e.g. 'position "top left": no region there'; empty when all hold.
    """
    text = description.strip().lower()
    claims = []
    says_defect = text.startswith("yes")
    if text.startswith(("yes", "no")) and says_defect != is_defective:
        found = "a defect" if is_defective else "no defect"
        claims.append(f'presence "{text.split(maxsplit=1)[0].strip(",.")}": the map shows {found}')
    if not says_defect or not is_defective:
        return claims
    for match in _POSITION.finditer(text):
        row = _ROWS[match[1]] if match[1] else 1
        column = _COLUMNS.get(match[2], 1)
        if not any(_covers(region["box"], row, column, height, width) for region in regions):
            claims.append(f'position "{match[0]}": no region there')
    counted = _COUNT.search(text)
    if counted and COUNT_WORDS.get(counted[1], 0) > len(regions):
        claims.append(f'count "{counted[1]}": the map shows {len(regions)}')
    return claims
