"""How the boxes of one image differ between its COCO and its YOLO annotation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from defect_hub.dataset_scripts.readers.boxes import Box

SAME_IOU = 0.9
SAME_CORNERS = 1.5
"""Pixels: boxes whose edges are no farther apart are one, for the IoU of small boxes falls below 0.9 by rounding."""
ROUNDING = 0.1
"""Pixels that edges may lie apart by rounding: six digits of a fraction are 0.01 px in an image of 10,000 px."""


def compare_boxes(coco: Sequence[Box], yolo: Sequence[Box], image_size: tuple[int, int]) -> list[str]:
    """One line for each difference: number, a box in one only, another category, other coordinates.

    Boxes are paired from the nearest on, first within categories and then across; whether two can be one is judged on
    their parts inside the image, for many tools cut boxes off there.

    Args:
        coco: Boxes in pixels.
        yolo: Boxes in pixels.
        image_size: (width, height) of the image in pixels.
    """
    if len(coco) == len(yolo) and all(map(_agree, coco, yolo)):
        return []  # In most releases they stand in the same order.
    lines = [f"boxes: {len(coco)} in COCO, {len(yolo)} in YOLO"] if len(coco) != len(yolo) else []
    ours, theirs = _corners(coco), _corners(yolo)
    distance = _distance(ours, theirs)
    limit = np.tile(image_size, 2)
    inside = np.clip(ours, 0, limit), np.clip(theirs, 0, limit)
    alike = (_iou(*inside) >= SAME_IOU) | (_distance(*inside) <= SAME_CORNERS)
    names = (np.array([box.category for box in boxes], np.str_) for boxes in (coco, yolo))
    same = np.equal.outer(*names)
    pairs = _paired(distance, alike, _paired(distance, alike & same, {}))
    for mine, other in pairs.items():
        box, found = coco[mine], yolo[other]
        if box.category != found.category:
            lines.append(f"boxes: {_named(mine, box)} in COCO is {found.category} in YOLO")
        if distance[mine, other] > ROUNDING:
            lines.append(f"boxes: {_named(mine, box)} in COCO is off by {distance[mine, other]:.2f} px in YOLO")
    return lines + _alone(coco, "COCO", {*pairs}) + _alone(yolo, "YOLO", {*pairs.values()})


def _agree(ours: Box, theirs: Box) -> bool:
    edges = (
        ours.x - theirs.x,
        ours.y - theirs.y,
        ours.x + ours.width - theirs.x - theirs.width,
        ours.y + ours.height - theirs.y - theirs.height,
    )
    return ours.category == theirs.category and max(map(abs, edges)) <= ROUNDING


def _paired(distance: NDArray[np.float64], allowed: NDArray[np.bool_], pairs: dict[int, int]) -> dict[int, int]:
    """`pairs` and the nearest allowed ones of what they leave, in the order of the rows."""
    found = dict(pairs)
    used = {*pairs.values()}
    rows, columns = np.nonzero(allowed)
    for place in np.argsort(distance[rows, columns], kind="stable"):
        row, column = int(rows[place]), int(columns[place])
        if row not in found and column not in used:
            found[row] = column
            used.add(column)
    return dict(sorted(found.items()))


def _corners(boxes: Sequence[Box]) -> NDArray[np.float64]:
    """Left, top, right and bottom edges (N, 4), also of boxes with swapped corners."""
    edges = np.array([(box.x, box.y, box.x + box.width, box.y + box.height) for box in boxes], float).reshape(-1, 2, 2)
    return np.sort(edges, axis=1).reshape(-1, 4)


def _distance(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest distance of corresponding edges (N, M) of boxes (N, 4) and (M, 4), in pixels."""
    distance: NDArray[np.float64] = np.abs(ours[:, None] - theirs).max(axis=2)
    return distance


def _iou(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU (N, M); 0 of boxes without area."""
    sides = np.minimum(ours[:, None, 2:], theirs[:, 2:]) - np.maximum(ours[:, None, :2], theirs[:, :2])
    common = sides.clip(0).prod(axis=2)
    areas = [(corners[:, 2:] - corners[:, :2]).prod(axis=1) for corners in (ours, theirs)]
    union = areas[0][:, None] + areas[1] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _alone(boxes: Sequence[Box], where: str, paired: set[int]) -> list[str]:
    return [
        f"boxes: {_named(number, box)} is only in {where}" for number, box in enumerate(boxes) if number not in paired
    ]


def _named(index: int, box: Box) -> str:
    crowd = " (crowd)" if box.is_crowd else ""
    return (
        f"box {index + 1}, {box.category}{crowd} at ({box.x:.1f}, {box.y:.1f}), {box.width:.1f} x {box.height:.1f} px"
    )
