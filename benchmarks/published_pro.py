"""Area under the per-region overlap curve as published with MVTec AD: every score kept and sorted.

Bergmann et al., "The MVTec Anomaly Detection Dataset", International Journal of Computer Vision 129, 2021. Written
from the definition; the reference of the speed table and of the tests.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
Labels = NDArray[np.integer]


def label_by_scipy(mask: NDArray[np.bool_]) -> Labels:
    """Return the 8-connected components of a mask (H, W) as labels 1..R, 0 outside."""
    return ndimage.label(mask, structure=np.ones((3, 3)))[0]


def published_pro_curve(
    maps: Iterable[NDArray], masks: Iterable[NDArray], label: Callable[[NDArray[np.bool_]], Labels] = label_by_scipy
) -> tuple[Floats, Floats]:
    """Return false positive rates (P,) and mean per-region overlaps (P,) at the distinct scores, with (0, 0), (1, 1).

    Args:
        maps: Scores (H, W) of each image; higher is more defective.
        masks: Booleans (H, W) of each image.
        label: Finds the components of a mask.
    """
    gains = []
    n_regions = 0
    for mask in masks:
        labels = label(np.asarray(mask, bool))
        gain = np.zeros(labels.shape)
        for region in range(1, labels.max() + 1):
            inside = labels == region
            gain[inside] = 1 / inside.sum()
            n_regions += 1
        gains.append(gain.ravel())
    scores = np.concatenate([np.ravel(scores) for scores in maps])
    overlap_gain = np.concatenate(gains)
    outside = overlap_gain == 0

    order = np.argsort(scores, kind="stable")[::-1]
    scores = scores[order]
    false_positive_rate = np.cumsum(outside[order]) / outside.sum()
    overlap = np.cumsum(overlap_gain[order]) / n_regions
    # Equal scores are accepted together.
    last_of_score = np.append(scores[1:] != scores[:-1], True)
    x = np.concatenate([[0], false_positive_rate[last_of_score], [1]])
    y = np.concatenate([[0], overlap[last_of_score], [1]])
    return x, y


def area_up_to(x: Floats, y: Floats, limit: float) -> float:
    """Return the trapezoidal area under y(x), x ascending, from 0 to limit, divided by limit.

    The segment that crosses the limit is cut there by linear interpolation.
    """
    inside = x <= limit
    x_cut, y_cut = x[inside], y[inside]
    if x_cut[-1] < limit:
        after = x_cut.size
        share = (limit - x[after - 1]) / (x[after] - x[after - 1])
        x_cut = np.append(x_cut, limit)
        y_cut = np.append(y_cut, y[after - 1] + share * (y[after] - y[after - 1]))
    return float(np.trapezoid(y_cut, x_cut) / limit)


def published_aupro(
    maps: Iterable[NDArray],
    masks: Iterable[NDArray],
    limit: float = 0.3,
    label: Callable[[NDArray[np.bool_]], Labels] = label_by_scipy,
) -> float:
    """Return the area under the per-region overlap curve up to a false positive rate, in [0, 1]."""
    return area_up_to(*published_pro_curve(maps, masks, label), limit)
