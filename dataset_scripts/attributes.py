"""Structured attributes of a defect, measured on its mask and image (SteelDefectX release, `structured_attributes`).

Scale, polarity, saliency, count and position follow the released rules. Shape, direction and spatial distribution,
which the release takes from a language model, come from the geometry of the mask, so no network is needed.
"""

from __future__ import annotations

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


def scale_word(ratio: float) -> str:
    """Word for the share of defect pixels; a bound belongs to the larger word, except 0.25, which is still large."""
    return next((word for word, bound in SCALES if ratio < bound), "large" if ratio == 0.25 else "extensive")


def count_word(components: int) -> str:
    """Word for a number of 8-connected components: one to five, else "multiple"."""
    return COUNTS[components - 1] if 1 <= components <= len(COUNTS) else "multiple"


def position_fractions(mask: NDArray[np.bool_]) -> list[list[Any]]:
    """Share of the defect pixels in each cell of a 3x3 grid.

    Args:
        mask: (H, W), not empty.

    Returns:
        `[[cell, fraction], ...]`, largest first, ties in reading order, empty cells dropped; the fractions sum to 1.
    """
    # one-hot (3, length): pixel i lies in third i * 3 // length
    rows, cols = (np.equal.outer(range(3), np.arange(n) * 3 // n).astype(float) for n in mask.shape)
    counts = (rows @ mask.astype(float) @ cols.T).ravel()
    shares = counts / counts.sum()
    return [[CELLS[i], float(shares[i])] for i in np.argsort(-shares, kind="stable") if shares[i] > 0]


def polarity_value(gray: NDArray[Any], mask: NDArray[np.bool_]) -> float:
    """Mean gray value of the defect less that of the background, both (H, W); 0 where all or nothing is defect."""
    area, defect = int(mask.sum()), float(gray.sum(where=mask, dtype=np.float64))
    if area in (0, mask.size):
        return 0.0
    return defect / area - (float(gray.sum(dtype=np.float64)) - defect) / (mask.size - area)


def _cropped(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The bounding box of the defect pixels."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return mask[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]


def _moments(labels: NDArray[np.int32], count: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Areas (N,), centroids (N, 2) as (y, x) and covariances (N, 2, 2) of the labelled components."""
    rows, cols = np.nonzero(labels)
    ids = labels[rows, cols] - 1
    areas = np.bincount(ids, minlength=count).astype(float)
    y_mean = np.bincount(ids, rows, count) / areas
    x_mean = np.bincount(ids, cols, count) / areas
    dy, dx = rows - y_mean[ids], cols - x_mean[ids]
    # 1/12 is the variance of a unit pixel: a one-pixel line keeps a width.
    yy = np.bincount(ids, dy * dy, count) / areas + 1 / 12
    xx = np.bincount(ids, dx * dx, count) / areas + 1 / 12
    yx = np.bincount(ids, dy * dx, count) / areas
    covariances = np.stack([np.stack([yy, yx], -1), np.stack([yx, xx], -1)], -2)
    return areas, np.stack([y_mean, x_mean], -1), covariances


def _axes(covariances: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Major and minor axes in pixels of the ellipses that have these covariances (..., 2, 2)."""
    axes = 4 * np.sqrt(np.linalg.eigvalsh(covariances))
    return axes[..., 1], axes[..., 0]


def _component_shape(component: NDArray[np.bool_], covariance: NDArray[Any], image_area: int) -> str:
    """Shape word of one component given as its bounding-box crop (h, w)."""
    padded = np.pad(component, 1)
    area = int(component.sum())
    holes = ndimage.label(~padded)[1] - 1
    major, minor = _axes(covariance)
    fill = area / (np.pi / 4 * major * minor)
    perimeter = area - int((padded & ndimage.binary_erosion(padded)).sum())
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


def _shape(labels: NDArray[np.int32], areas: NDArray[Any], covariances: NDArray[Any], image_area: int) -> str:
    """Shape word of a whole mask: that of its largest component, unless many small ones make it up."""
    largest = int(areas.argmax())
    if len(areas) >= 6 and areas[largest] < 0.5 * areas.sum():
        major, minor = _axes(covariances)
        return "spot-like" if np.average(major / minor, weights=areas) < STRETCHED else "fragmented"
    box = ndimage.find_objects(labels, max_label=len(areas))[largest]
    return _component_shape(labels[box] == largest + 1, covariances[largest], image_area)


def _direction(areas: NDArray[Any], covariances: NDArray[Any]) -> str:
    """Direction word: the main axis of the components' pooled covariance, "none" where they are as wide as long."""
    pooled = np.average(covariances, axis=0, weights=areas)
    major, minor = _axes(pooled)
    if major < DIRECTED * minor:
        return "none"
    y, x = np.linalg.eigh(pooled)[1][:, 1]
    angle = np.degrees(np.arctan2(abs(y), abs(x)))
    return "horizontal" if angle < 22.5 else "vertical" if angle > 67.5 else "diagonal"


def _distribution(areas: NDArray[Any], centroids: NDArray[Any], shape: tuple[int, ...]) -> str:
    """Distribution word: isolated (one component), clustered (root mean square spread under 15 % of the side)."""
    if len(areas) == 1:
        return "isolated"
    spread = np.sqrt(((centroids - centroids.mean(0)) ** 2).sum(-1).mean())
    return "clustered" if spread < CLUSTER_SPREAD * np.sqrt(shape[0] * shape[1]) else "scattered"


def mask_attributes(gray: NDArray[np.uint8], mask: NDArray[np.bool_], defect_type: str) -> dict[str, Any]:
    """Measure the release's nine structured attributes.

    Args:
        gray: Image (H, W), gray values 0 to 255.
        mask: Defect pixels (H, W), not empty.
        defect_type: Class name, passed through.

    Returns:
        "Defect type", "Shape", "Direction", "Spatial Distribution", "Number of Defects", "Position"
        (`[[cell, fraction], ...]` ranked), "Scale", "Polarity", "Saliency".

    Raises:
        ValueError: The mask is empty or does not have the size of the image.

    Source: release notes of SteelDefectX (Zhao et al. 2026).
    """
    if gray.shape != mask.shape:
        raise ValueError(f"mask of shape {mask.shape} on an image of shape {gray.shape}")
    if not mask.any():
        raise ValueError("an empty mask has no attributes")
    polarity = polarity_value(gray, mask)
    labels, count = ndimage.label(_cropped(mask), EIGHT_CONNECTED)
    areas, centroids, covariances = _moments(labels, count)
    low, high = SALIENCY_LIMITS
    return {
        "Defect type": defect_type,
        "Shape": _shape(labels, areas, covariances, mask.size),
        "Direction": _direction(areas, covariances),
        "Spatial Distribution": _distribution(areas, centroids, mask.shape),
        "Number of Defects": count_word(count),
        "Position": position_fractions(mask),
        "Scale": scale_word(float(mask.mean())),
        "Polarity": "neutral" if abs(polarity) <= POLARITY_LIMIT else "dark" if polarity < 0 else "bright",
        "Saliency": "low" if abs(polarity) < low else "medium" if abs(polarity) <= high else "high",
    }
