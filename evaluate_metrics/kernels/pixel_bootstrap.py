"""Confidence intervals of pixel metrics by bootstrap over images, from a small sketch of each image.

Pixels of an image are not independent, so whole images are drawn, as in `bootstrap`. Instead of its pixels each image
keeps up to 128 scores of its normal and of its defective pixels, and how many pixels each stands for. Counted on one
grid of score groups they form a matrix, images by groups, and all resamples are one product with it.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.kernels.bootstrap import (
    Interval,
    auroc_of_rows,
    average_precision_of_rows,
    intervals,
    resample_counts,
)
from defect_hub.evaluate_metrics.kernels.curves import Floats
from defect_hub.evaluate_metrics.kernels.float_order import as_float32
from defect_hub.evaluate_metrics.kernels.groups import Groups
from defect_hub.evaluate_metrics.kernels.inputs import Images, UndefinedMetricError, image_pairs
from defect_hub.evaluate_metrics.kernels.regions import region_weights
from defect_hub.evaluate_metrics.kernels.states import FIXED_POINT, Arrays, MetricState

# Scores kept of each class of an image, and edges of the common grid taken from each class.
SIZE = 128
EDGES = 256
# Rows of a sketch: scores of the normal pixels and how many pixels each stands for; the same of the defective pixels,
# and the share of a region (summed over regions) that these pixels make up.
NORMAL, NORMAL_COUNT, DEFECTIVE, DEFECTIVE_COUNT, REGIONS = range(5)

Sketch = NDArray[np.float32]


class ImageSketches(MetricState):
    """Intervals of pixel AUROC, pixel AP and AUPRO over images; 2.5 KB an image, so memory grows with the images.

    An image of at most 128 distinct scores a class (8-bit maps nearly) is kept exactly; else ranks are, half of them
    evenly spaced, half ever denser towards the highest score, where few false alarms decide. `docs/metrics.md` gives
    measured errors. `PixelScores` has the metrics themselves.
    """

    def __init__(self) -> None:
        self._sketches: list[Sketch] = []

    def update(self, maps: Images, masks: Images) -> None:
        """Add anomaly maps with their masks; nothing is added if a value is bad.

        Args:
            maps: (B, H, W), (B, 1, H, W) or (H, W) scores, or B maps of different sizes; any range.
            masks: as many masks of 0 and 1 (or bool) of the same sizes.

        Raises:
            ValueError: NaN scores, masks with other values, or different numbers or sizes.
        """
        self._sketches += [_sketch(scores, mask) for scores, mask in image_pairs(maps, masks)]

    def merge(self, other: Self) -> None:
        """Add the images of another state; the intervals do not depend on the order of the images."""
        self._sketches += other._sketches

    def intervals(
        self, resamples: int = 1000, confidence: float = 0.95, seed: int = 0, limit: float = 0.3
    ) -> dict[str, Interval]:
        """Percentile intervals of "pixel_auroc", "pixel_ap" and "aupro_0.3", see `bootstrap.bootstrap`.

        Args:
            resamples: how often the images are drawn.
            confidence: share of the resamples inside the interval, between 0 and 1.
            seed: of the draws.
            limit: of the false positive rate for AUPRO; it is part of the name.

        Raises:
            UndefinedMetricError: a class is missing among the pixels, in the data or in every resample.
            ValueError: no resamples, or a confidence or limit out of range.
        """
        if not self._sketches:
            raise UndefinedMetricError("no samples were given")
        # In an order of their own, so that the draws do not depend on the order given.
        ordered = sorted(self._sketches, key=lambda sketch: sketch.tobytes())
        sketches = np.stack(ordered)
        edges = _grid(sketches)
        counts, tied = _counted(sketches, edges)
        normal, defective, regions = counts.sum(axis=0, dtype=np.float64).reshape(3, -1)
        pixels = (normal.astype(np.int64), defective.astype(np.int64), (regions * FIXED_POINT).astype(np.int64))
        groups = Groups(edges[::-1], *pixels, tied)
        values = {
            "pixel_auroc": groups.auroc(),
            "pixel_ap": groups.average_precision(),
            f"aupro_{limit:g}": groups.aupro(limit),
        }

        def of_resamples(drawn: NDArray[np.int64]) -> Floats:
            summed = (drawn.astype(np.float32) @ counts).astype(np.float64).reshape(len(drawn), 3, -1)
            normal, defective, regions = summed[np.all(summed[:, :2].any(axis=2), axis=1)].swapaxes(0, 1)
            return np.stack(
                [
                    auroc_of_rows(defective, normal),
                    average_precision_of_rows(defective, normal, tied),
                    _aupro_of_rows(regions, normal, limit),
                ]
            )

        n = len(sketches)
        drawn = [of_resamples(chunk) for chunk in resample_counts(np.arange(n), n, resamples, seed)]
        return intervals(values, np.concatenate(drawn, axis=1), confidence)

    def compute(self) -> dict[str, Any]:
        """Return `intervals` with their defaults, or why there are none, see `MetricState.compute`."""
        try:
            return dict(self.intervals())
        except UndefinedMetricError as error:
            return {"undefined": {name: str(error) for name in ("pixel_auroc", "pixel_ap", "aupro_0.3")}}

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return the sketches, (N, 5, 128) float32."""
        return {"sketches": np.array(self._sketches, np.float32).reshape(-1, 5, SIZE)}

    @classmethod
    def from_state_dict(cls, arrays: Arrays) -> Self:
        """Rebuild a state; the inverse of `state_dict`."""
        state = cls()
        state._sketches = list(arrays["sketches"])
        return state


def _sketch(scores: NDArray[Any], mask: NDArray[np.bool_]) -> Sketch:
    """Reduce an image (H, W) to (5, SIZE); unused places have a count of 0."""
    sketch = np.zeros((5, SIZE), np.float32)
    scores = as_float32(scores)
    shares = region_weights(mask)[0] / FIXED_POINT
    order = np.argsort(-scores[mask])
    for row, pixels, weights in (
        (NORMAL, -np.sort(-scores[~mask]), None),
        (DEFECTIVE, scores[mask][order], shares[order]),
    ):
        if not pixels.size:
            continue
        starts = _starts(pixels, np.arange(1, pixels.size + 1), SIZE)
        counts = np.diff(starts, append=pixels.size)
        sketch[row, : starts.size] = pixels[starts + counts // 2]
        sketch[row + 1, : starts.size] = counts
        if weights is not None:
            sketch[REGIONS, : starts.size] = np.add.reduceat(weights, starts)
    return sketch


def _starts(scores: NDArray[np.float32], reached: NDArray[Any], size: int) -> NDArray[np.intp]:
    """Split descending scores into at most `size` runs; return where each begins.

    Args:
        scores: (P,).
        reached: (P,) number of pixels down to and including each score.
        size: even.
    """
    distinct = np.append(0, np.flatnonzero(scores[1:] != scores[:-1]) + 1)
    if distinct.size <= size:
        return distinct
    even = np.linspace(0, reached[-1], size // 2, endpoint=False)
    ranks = np.append(even, np.geomspace(1, reached[-1], size // 2) - 1)
    return np.unique(np.searchsorted(reached, ranks, side="right").clip(max=scores.size - 1))


def _grid(sketches: Sketch) -> NDArray[np.float32]:
    """The lowest score of every group of the common grid, (G,) ascending."""
    edges = []
    for row in (NORMAL, DEFECTIVE):
        scores, counts = sketches[:, row].reshape(-1), sketches[:, row + 1].reshape(-1)
        scores, counts = scores[counts > 0], counts[counts > 0]
        order = np.argsort(-scores)
        if order.size:
            edges.append(scores[order][_starts(scores[order], np.cumsum(counts[order], dtype=np.float64), EDGES)])
            edges.append(scores.min(keepdims=True))
    return np.unique(np.concatenate(edges))


def _counted(sketches: Sketch, edges: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Count every image on the grid.

    Returns:
        (N, 3 G) normal pixels, defective pixels and shares of regions per group, from the highest score down; and (G,)
        whether all scores of a group are equal.
    """
    n, n_groups = len(sketches), edges.size
    scores = sketches[:, [NORMAL, DEFECTIVE]]
    used = sketches[:, [NORMAL_COUNT, DEFECTIVE_COUNT]] > 0
    groups = n_groups - np.searchsorted(edges, scores, side="right").clip(min=1)
    cells = np.arange(n)[:, None] * n_groups + groups.swapaxes(0, 1)
    rows = ((0, NORMAL_COUNT), (1, DEFECTIVE_COUNT), (1, REGIONS))
    counts = [np.bincount(cells[side].reshape(-1), sketches[:, row].reshape(-1), n * n_groups) for side, row in rows]
    matrix = np.stack([count.reshape(n, n_groups) for count in counts], axis=1, dtype=np.float32)
    distinct = np.unique(scores[used])
    return matrix.reshape(n, 3 * n_groups), np.bincount(np.searchsorted(edges, distinct, "right"))[1:][::-1] == 1


def _aupro_of_rows(regions: Floats, negatives: Floats, limit: float) -> Floats:
    """Area under the per-region overlap up to a false positive rate, divided by it, of each row (R, G)."""
    width = negatives / negatives.sum(axis=1, keepdims=True)
    rise = regions / regions.sum(axis=1, keepdims=True)
    # The curve is straight inside a group, of which only the part left of the limit counts.
    inside = (limit - (np.cumsum(width, axis=1) - width)).clip(0, width)
    share = inside / np.where(width > 0, width, 1)
    return (inside * (np.cumsum(rise, axis=1) - rise + rise * share / 2)).sum(axis=1) / limit
