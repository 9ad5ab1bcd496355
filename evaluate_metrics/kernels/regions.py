"""Connected regions of a mask, and how much of each a score map finds (PRO, Bergmann et al. 2021, MVTec AD)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from defect_hub.evaluate_metrics.kernels.curves import Curve
from defect_hub.evaluate_metrics.kernels.groups import Groups
from defect_hub.evaluate_metrics.kernels.inputs import Images, UndefinedMetricError, image_pairs
from defect_hub.evaluate_metrics.kernels.ranking import grouped
from defect_hub.evaluate_metrics.kernels.states import FIXED_POINT

# Diagonal neighbours touch.
_EIGHT = np.ones((3, 3), bool)
# Each region weighs FIXED_POINT, shared by its pixels; the sum over so many regions fits in int64.
MAX_REGIONS = 1 << 22


@dataclass(frozen=True)
class RegionOverlaps:
    """Every region of the masks at one threshold.

    Attributes:
        image: (R,) index of the image.
        area: (R,) px.
        overlap: (R,) share of the region with `score >= threshold`, 0-1.
    """

    image: NDArray[np.int64]
    area: NDArray[np.int64]
    overlap: NDArray[np.float64]


def aupro(maps: Images, masks: Images, limit: float = 0.3) -> float:
    """Area under the per-region overlap over the false positive rate, up to `limit`, divided by `limit`; exact.

    The overlap is the share of a region found, averaged over all regions of all images; the false positive rate counts
    the normal pixels of all images.

    Args:
        maps: (B, H, W), (B, 1, H, W) or (H, W) scores, or B maps of different sizes; any range, NaN forbidden.
        masks: as many masks of 0 and 1 (or bool) of the same sizes; regions are 8-connected.
        limit: false positive rate in (0, 1].

    Returns:
        A value in [0, 1]; limit / 2 is chance.

    Raises:
        UndefinedMetricError: there is no defective region, or no normal pixel.
        ValueError: NaN scores, masks with other values, different sizes, more than 2^22 regions, or a limit outside
            (0, 1].
    """
    return _groups(maps, masks).aupro(limit)


def pro_curve(maps: Images, masks: Images) -> Curve:
    """False positive rate (x) and mean share of the regions found (y); arguments and errors as for `aupro`."""
    return _groups(maps, masks).pro_curve()


def region_overlaps(maps: Images, masks: Images, threshold: float) -> RegionOverlaps:
    """How much of each region is found at a threshold; arguments and errors as for `aupro`."""
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for index, (scores, mask) in enumerate(image_pairs(maps, masks)):
        labels, areas = label_regions(mask)
        found = np.bincount(labels[scores >= np.float64(threshold)], minlength=areas.size + 1)[1:]
        parts.append((np.full(areas.size, index), areas, found / areas))
    image, area, overlap = (np.concatenate(values) for values in zip(*parts, strict=True))
    return RegionOverlaps(image, area, overlap)


def label_regions(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the 8-connected regions as labels (H, W), 0 outside, and their areas (R,) in px."""
    labels, n = ndimage.label(mask, _EIGHT)
    return labels, np.bincount(labels.reshape(-1), minlength=n + 1)[1:]


def region_weights(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
    """Return the weight of every defective pixel in row-major order, (P,), and the number of regions.

    The pixels of a region share FIXED_POINT as evenly as integers can.
    """
    if not mask.any():
        return np.empty(0, np.int64), 0
    # Labelling takes as long as all the rest: only where there is something.
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    inner = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    labels, areas = label_regions(inner)
    region = labels[inner] - 1
    by_region = np.argsort(region, kind="stable")
    rank = np.empty_like(by_region)
    rank[by_region] = np.arange(region.size) - np.repeat(np.cumsum(areas) - areas, areas)
    return (FIXED_POINT // areas)[region] + (rank < (FIXED_POINT % areas)[region]), areas.size


def check_regions(n: int) -> None:
    """Raise ValueError for more regions than can be summed."""
    if n > MAX_REGIONS:
        raise ValueError(f"{n} defective regions; at most {MAX_REGIONS} can be counted, are these masks?")


def aupro_name(limit: float) -> str:
    """The name of AUPRO in results, which holds the limit: "aupro_0.3"."""
    return f"aupro_{float(limit)}"


def _groups(maps: Images, masks: Images) -> Groups:
    pairs = list(image_pairs(maps, masks))
    if not pairs:
        raise UndefinedMetricError("no samples were given")
    scores = np.concatenate([scores.reshape(-1) for scores, _ in pairs])
    positive = np.concatenate([mask.reshape(-1) for _, mask in pairs])
    weighted = [region_weights(mask) for _, mask in pairs]
    check_regions(sum(n for _, n in weighted))
    weights = np.zeros(scores.size, np.int64)
    weights[positive] = np.concatenate([pixels for pixels, _ in weighted])
    return grouped(scores, positive, weights)
