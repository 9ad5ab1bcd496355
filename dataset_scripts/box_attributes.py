"""The attributes of `mask_attributes` for images that are annotated with boxes only."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defect_hub.modeling.mask_attributes import (
    contrast_words,
    count_word,
    distribution_word,
    gray_total,
    mean_difference,
    position_fractions,
    ranked_cells,
    scale_word,
)


def box_mask(boxes: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The union of boxes as a mask.

    Args:
        boxes: (N, 4), [left, top, width, height] in pixels; edges are rounded to whole pixels, at least one apart.
        shape: (H, W) of the image.

    Raises:
        ValueError: No box touches the image.
    """
    edges = np.asarray(boxes, dtype=float).reshape(-1, 4)
    low = np.floor(edges[:, :2] + 0.5).astype(int)
    high = np.maximum(np.floor(edges[:, :2] + edges[:, 2:] + 0.5).astype(int), low + 1)
    union = np.zeros(shape, dtype=bool)
    for (left, top), (right, bottom) in zip(low.clip(0), high.clip(0), strict=True):
        union[top:bottom, left:right] = True
    if not union.any():
        raise ValueError("no box touches the image")
    return union


def box_attributes(
    gray: NDArray[np.uint8], boxes: NDArray[Any], defect_type: str, total: float | None = None
) -> dict[str, Any]:
    """Measure the nine structured attributes of an image annotated with boxes only.

    They are coarser than those of a mask: boxes also hold background, so that the scale is too large and the contrast
    too weak; the count is that of the boxes, overlapping or not; shape and direction are unknown.

    Args:
        gray: Image (H, W), gray values 0 to 255.
        boxes: (N, 4), [left, top, width, height] in pixels.
        defect_type: Class name, passed through.
        total: `gray_total(gray)` where it is known already.

    Returns:
        The keys of `mask_attributes`. "Shape" is "unclear", "Direction" is "none", "Spatial Distribution" follows the
        centres of the boxes, the rest is measured on their union.

    Raises:
        ValueError: No box touches the image.
    """
    boxes = np.asarray(boxes, dtype=float)
    if not len(boxes):
        raise ValueError("no box touches the image")
    measure = _measure_box if len(boxes) == 1 else _measure_boxes
    area, defect, position = measure(gray, boxes)
    polarity = mean_difference(defect, area, gray_total(gray) if total is None else total, gray.size)
    return {
        "Defect type": defect_type,
        "Shape": "unclear",
        "Direction": "none",
        "Spatial Distribution": distribution_word(boxes[:, :2] + boxes[:, 2:] / 2, gray.shape),
        "Number of Defects": count_word(len(boxes)),
        "Position": position,
        "Scale": scale_word(area / gray.size),
        **contrast_words(polarity),
    }


def _measure_boxes(gray: NDArray[np.uint8], boxes: NDArray[np.float64]) -> tuple[int, float, list[list[Any]]]:
    """Area of the union of boxes, sum of its gray values, and its share in each cell."""
    # Only the part of the image around all boxes is looked at.
    left, top = np.floor(boxes[:, :2].min(axis=0)).astype(int).clip(0).tolist()
    window = gray[top:, left:][: int(np.ceil((boxes[:, 1] + boxes[:, 3]).max())) - top + 1]
    window = window[:, : int(np.ceil((boxes[:, 0] + boxes[:, 2]).max())) - left + 1]
    union = box_mask(boxes - (left, top, 0, 0), window.shape)
    position = position_fractions(union, gray.shape, (top, left))
    return int(np.count_nonzero(union)), float(window[union].sum(dtype=np.float64)), position


def _measure_box(gray: NDArray[np.uint8], boxes: NDArray[np.float64]) -> tuple[int, float, list[list[Any]]]:
    """The same of a single box, as most are: a rectangle needs no mask."""
    sides: list[tuple[int, int]] = []
    shares: list[list[int]] = []
    for start, length, end in zip(boxes[0, :2].tolist(), boxes[0, 2:].tolist(), gray.shape[::-1], strict=True):
        low = math.floor(start + 0.5)
        high = min(max(math.floor(start + length + 0.5), low + 1), end)
        low = max(low, 0)
        borders = [round(third * end / 3) for third in range(4)]
        sides.append((low, high))
        shares.append([max(min(high, borders[i + 1]) - max(low, borders[i]), 0) for i in range(3)])
    (left, right), (top, bottom) = sides
    if right <= left or bottom <= top:
        raise ValueError("no box touches the image")
    window = gray[top:bottom, left:right]
    counts = [across * down for down in shares[1] for across in shares[0]]
    return window.size, float(window.sum(dtype=np.uint64)), ranked_cells(counts)
