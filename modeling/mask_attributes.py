"""Structured attributes of a defect, measured on its mask and image (SteelDefectX release, `structured_attributes`).

Scale, polarity, saliency, count and position follow the released rules, but for one case: a mask of the whole image
leaves no background to compare with. The release's not-a-number comes out as "neutral" and "high" there; here the
contrast is 0, hence "neutral" and "low". Shape, direction and spatial distribution, which the release takes from a
language model, come from the geometry of the mask, so no network is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SCALES = (("tiny", 0.01), ("small", 0.03), ("medium", 0.10), ("large", 0.25))
"""Scale words with their upper bound on defect pixels / image pixels; beyond the last the scale is "extensive"."""
POLARITY_LIMIT = 5.0
SALIENCY_LIMITS = (10.0, 40.0)
COUNTS = ("one", "two", "three", "four", "five")
CELLS = (
    "top-left",
    "top-center",
    "top-right",
    "middle-left",
    "center",
    "middle-right",
    "bottom-left",
    "bottom-center",
    "bottom-right",
)
SHAPES = (
    "linear",
    "curved",
    "elongated",
    "circular",
    "irregular",
    "fragmented",
    "network-like",
    "spot-like",
    "patch-like",
)
DIRECTIONS = ("horizontal", "vertical", "diagonal", "none")
DISTRIBUTIONS = ("isolated", "clustered", "scattered")
EIGHT_CONNECTED = np.ones((3, 3), dtype=int)

# Geometry thresholds, chosen on the shapes of steelsynth and of the magnetic-tile masks.
SLENDER = 6.0
STRETCHED = 2.5
DIRECTED = 1.6
CLUSTER_SPREAD = 0.15


@dataclass(frozen=True)
class Components:
    """The N 8-connected components of a mask, in reading order of their first pixels.

    Attributes:
        labels: Bounding box of all of them (h, w): 1 to N, 0 is background.
        boxes: (N, 4) int, [left, top, width, height] in pixels of the mask.
        areas: (N,) int, pixels.
        centroids: (N, 2) as (y, x) in pixels of the mask.
        covariances: (N, 2, 2) of the pixel squares, in the order y, x.
        holes: (N,) int, 4-connected pieces of background inside each component.
    """

    labels: NDArray[np.int32]
    boxes: NDArray[np.int64]
    areas: NDArray[np.int64]
    centroids: NDArray[np.float64]
    covariances: NDArray[np.float64]
    holes: NDArray[np.int64]


def components(mask: NDArray[np.bool_]) -> Components:
    """Label a mask (H, W) and measure its components in one pass.

    Raises:
        ValueError: The mask is empty.
    """
    # All measures are sums over runs: the stretches of defect pixels in a row, far fewer than pixels.
    starts, ends = _runs(mask)
    if not len(starts):
        raise ValueError("an empty mask has no components")
    stride = mask.shape[1] + 1
    y, left = np.divmod(starts, stride)
    right = left + (ends - starts)
    top, bottom, west = y[0], y[-1] + 1, left.min()
    labels, count = ndimage.label(mask[top:bottom, west : right.max()], EIGHT_CONNECTED)
    owner = labels[y - top, left - west] - 1
    order = owner.argsort(kind="stable")
    owner, y, left, right, links = (
        values[order] for values in (owner, y, left, right, _touching(starts, ends, stride))
    )
    first = owner.searchsorted(np.arange(count))
    length, middle = right - left, (left + right - 1) / 2
    areas = np.add.reduceat(length, first)
    y_mean, x_mean = (np.add.reduceat(length * values, first) / areas for values in (y, middle))
    dy, dx = y - y_mean[owner], middle - x_mean[owner]
    # 1/12 is the variance of a unit pixel: a one-pixel line keeps a width; that of a run is length**2 / 12.
    yy, yx, xx = (
        np.add.reduceat(length * values, first) / areas
        for values in (dy * dy + 1 / 12, dy * dx, dx * dx + length * length / 12)
    )
    x0, y0 = np.minimum.reduceat(left, first), y[first]
    x1, y1 = np.maximum.reduceat(right, first), np.maximum.reduceat(y, first) + 1
    return Components(
        labels=labels,
        boxes=np.array([x0, y0, x1 - x0, y1 - y0]).T,
        areas=areas,
        centroids=np.array([y_mean, x_mean]).T,
        covariances=np.array([[yy, yx], [yx, xx]]).T,
        # Runs that touch form a planar graph, whose loops are the holes: links - runs + 1.
        holes=np.add.reduceat(links - 1, first) + 1,
    )


def _runs(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts and ends of the runs of True, as positions row * (w + 1) + column."""
    height, width = mask.shape
    # One False before the first row and behind every row, so that no run goes over a border.
    padded = np.zeros(height * (width + 1) + 1, dtype=bool)
    padded[1:].reshape(height, width + 1)[:, :width] = mask
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    return edges[::2], edges[1::2]


def _touching(starts: NDArray[np.int64], ends: NDArray[np.int64], stride: int) -> NDArray[np.int64]:
    """Number of runs in the next row that each run touches, corners included."""
    first = np.searchsorted(ends, starts + stride)
    return np.maximum(np.searchsorted(starts, ends + stride, "right") - first, 0)


def scale_word(ratio: float) -> str:
    """Word for the share of defect pixels; a bound belongs to the larger word, except 0.25, which is still large."""
    return next((word for word, bound in SCALES if ratio < bound), "large" if ratio == 0.25 else "extensive")


def count_word(count: int) -> str:
    """Word for a number of 8-connected components: one to five, else "multiple"."""
    return COUNTS[count - 1] if 1 <= count <= len(COUNTS) else "multiple"


def position_fractions(
    mask: NDArray[np.bool_], shape: tuple[int, ...] | None = None, origin: tuple[int, int] = (0, 0)
) -> list[list[Any]]:
    """Share of the defect pixels in each cell of a 3x3 grid.

    Args:
        mask: (H, W). The release counts every mask pixel above 0 here, where all else is measured on those above 127:
            pass those to compare with it.
        shape: (H, W) of the image, where the mask is only the part of it that holds all defects; None: it is whole.
        origin: (top, left) of that part.

    Returns:
        `[[cell, fraction], ...]` to six digits, largest first, ties in reading order, without the empty cells.
    """
    ys, xs = (
        [min(max(round(third * side / 3) - start, 0), length) for third in range(4)]
        for side, start, length in zip(shape or mask.shape, origin, mask.shape, strict=True)
    )
    cells = (mask[ys[i] : ys[i + 1], xs[j] : xs[j + 1]] for i in range(3) for j in range(3))
    return ranked_cells([int(np.count_nonzero(cell)) for cell in cells])


def ranked_cells(counts: Sequence[int]) -> list[list[Any]]:
    """Cells with their share, from the pixels in each cell in reading order."""
    total = sum(counts)
    ranked = sorted(zip(CELLS, counts, strict=True), key=lambda item: -item[1])
    return [[name, round(count / total, 6)] for name, count in ranked if count]


def polarity_value(gray: NDArray[Any], mask: NDArray[np.bool_]) -> float:
    """Mean gray value of the defect less that of the background, both (H, W); 0 where all or nothing is defect."""
    area = int(np.count_nonzero(mask))
    return mean_difference(float(gray[mask].sum(dtype=np.float64)), area, gray_total(gray), mask.size)


def gray_total(gray: NDArray[Any]) -> float:
    """Sum of all gray values (H, W)."""
    # Sums of columns in integers are exact, and faster than one sum in float64.
    return float(gray.sum(axis=0, dtype=np.uint32 if gray.dtype == np.uint8 else np.float64).sum(dtype=np.float64))


def mean_difference(defect: float, area: int, total: float, size: int) -> float:
    """Mean of a part less that of the rest, from the sum of the part and of all, and their pixels."""
    if area in (0, size):
        return 0.0
    return defect / area - (total - defect) / (size - area)


def _axes(covariances: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Major and minor axes in pixels of the ellipses that have these covariances (..., 2, 2)."""
    yy, yx, xx = covariances[..., 0, 0], covariances[..., 0, 1], covariances[..., 1, 1]
    middle, reach = (yy + xx) / 2, np.hypot((yy - xx) / 2, yx)
    return 4 * np.sqrt(middle + reach), 4 * np.sqrt(middle - reach)


def _inner_pixels(component: NDArray[np.bool_]) -> int:
    """Number of pixels of a component (h, w) whose four neighbours all belong to it."""
    core = component[1:-1, 1:-1]
    across, down = component[1:-1, :-2] & component[1:-1, 2:], component[:-2, 1:-1] & component[2:, 1:-1]
    return int(np.count_nonzero(core & across & down))


def _component_shape(parts: Components, index: int, image_area: int) -> str:
    """Shape word of one component."""
    area, holes = int(parts.areas[index]), int(parts.holes[index])
    major, minor = _axes(parts.covariances[index])
    fill = area / (np.pi / 4 * major * minor)
    left, top, box_width, box_height = parts.boxes[index] - [*parts.boxes[:, :2].min(0), 0, 0]
    crop = parts.labels[top : top + box_height, left : left + box_width]
    perimeter = area - _inner_pixels(crop == index + 1)
    width = max(2 * area / max(perimeter, 1), 1.0)
    length = area / width
    if holes >= 3 and fill < 0.75:
        return "network-like"
    if length >= SLENDER * width and major >= 3 * minor:
        return "linear" if minor <= 2.5 * width else "curved"
    if length >= SLENDER * width and fill < 0.6:
        return "curved"
    if major >= STRETCHED * minor:
        return "elongated"
    if major < 1.35 * minor and fill > 0.97 and holes == 0:
        return "circular" if area >= 0.0015 * image_area else "spot-like"
    if area < 0.003 * image_area:
        return "spot-like"
    return "patch-like" if area >= 0.03 * image_area and fill > 0.8 else "irregular"


def _shape(parts: Components, image_area: int) -> str:
    """Shape word of a whole mask: that of its largest component, unless many small ones make it up."""
    areas = parts.areas
    largest = int(areas.argmax())
    if len(areas) >= 6 and areas[largest] < 0.5 * areas.sum():
        major, minor = _axes(parts.covariances)
        return "spot-like" if np.average(major / minor, weights=areas) < STRETCHED else "fragmented"
    return _component_shape(parts, largest, image_area)


def _direction(areas: NDArray[Any], covariances: NDArray[Any]) -> str:
    """Direction word: the main axis of the components' pooled covariance, "none" where they are as wide as long."""
    yy, yx, _, xx = (areas @ covariances.reshape(-1, 4) / areas.sum()).tolist()
    middle, reach = (yy + xx) / 2, math.hypot((yy - xx) / 2, yx)
    if middle + reach < DIRECTED**2 * (middle - reach):
        return "none"
    angle = abs(math.degrees(math.atan2(2 * yx, xx - yy))) / 2
    return "horizontal" if angle < 22.5 else "vertical" if angle > 67.5 else "diagonal"


def distribution_word(centres: NDArray[Any], shape: tuple[int, ...]) -> str:
    """Distribution word: isolated (one centre), clustered (root mean square spread under 15 % of the side)."""
    if len(centres) == 1:
        return "isolated"
    spread = np.sqrt(centres.var(axis=0).sum())
    return "clustered" if spread < CLUSTER_SPREAD * np.sqrt(shape[0] * shape[1]) else "scattered"


def contrast_words(polarity: float) -> dict[str, str]:
    """The attributes "Polarity" and "Saliency" of a difference in mean gray values."""
    low, high = SALIENCY_LIMITS
    return {
        "Polarity": "neutral" if abs(polarity) <= POLARITY_LIMIT else "dark" if polarity < 0 else "bright",
        "Saliency": "low" if abs(polarity) < low else "medium" if abs(polarity) <= high else "high",
    }


def mask_attributes(
    gray: NDArray[np.uint8] | None, mask: NDArray[np.bool_], defect_type: str, parts: Components | None = None
) -> dict[str, Any]:
    """Measure the release's nine structured attributes.

    Args:
        gray: Image (H, W), gray values 0 to 255; None leaves out "Polarity" and "Saliency".
        mask: Defect pixels (H, W), not empty.
        defect_type: Class name, passed through.
        parts: `components(mask)` where it is known already.

    Returns:
        "Defect type", "Shape", "Direction", "Spatial Distribution", "Number of Defects", "Position"
        (`[[cell, fraction], ...]` ranked), "Scale", "Polarity", "Saliency".

    Raises:
        ValueError: The mask is empty or does not have the size of the image.

    Source: release notes of SteelDefectX (Zhao et al. 2026).
    """
    if gray is not None and gray.shape != mask.shape:
        raise ValueError(f"mask of shape {mask.shape} on an image of shape {gray.shape}")
    parts = components(mask) if parts is None else parts
    return {
        "Defect type": defect_type,
        "Shape": _shape(parts, mask.size),
        "Direction": _direction(parts.areas, parts.covariances),
        "Spatial Distribution": distribution_word(parts.centroids, mask.shape),
        "Number of Defects": count_word(len(parts.areas)),
        "Position": position_fractions(mask),
        "Scale": scale_word(int(parts.areas.sum()) / mask.size),
        **({} if gray is None else contrast_words(polarity_value(gray, mask))),
    }
