"""Confidence intervals of pixel metrics by bootstrap over images, from a small sketch of each image.

Pixels of an image are not independent, so whole images are drawn, as in `bootstrap`. Instead of its pixels each image
keeps up to 256 runs of the sorted scores of its normal and of its defective pixels: the ends of each, and how many
pixels lie between them, taken as evenly spread. Counted on one grid of score groups they form a matrix, images by
groups, and all resamples are one product with it.
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.kernels.bootstrap import (
    Interval,
    auroc_of_rows,
    average_precision_of_rows,
    check_confidence,
    intervals,
    resample_counts,
)
from defect_hub.evaluate_metrics.kernels.curves import Floats
from defect_hub.evaluate_metrics.kernels.float_order import as_float32
from defect_hub.evaluate_metrics.kernels.groups import Groups
from defect_hub.evaluate_metrics.kernels.inputs import Images, UndefinedMetricError, image_pairs
from defect_hub.evaluate_metrics.kernels.regions import aupro_name, region_weights
from defect_hub.evaluate_metrics.kernels.states import FIXED_POINT, Arrays, MetricState

# Runs kept of each class of an image, and edges of the common grid taken from each class.
SIZE = 256
EDGES = 256
# Rows of a sketch: highest and lowest score of each run of normal pixels, and their number; the same of the defective
# pixels, and the share of a region (summed over regions) that they make up.
ROWS = 7
NORMAL, DEFECTIVE = 0, 3
HIGHEST, LOWEST, COUNT, REGIONS = range(4)

Sketch = NDArray[np.float32]


class ImageSketches(MetricState):
    """Intervals of pixel AUROC, pixel AP and AUPRO over images; 7 KB an image, so memory grows with the images.

    An image of at most 256 distinct scores a class (8-bit maps) is kept exactly; else runs of ranks are, half of
    them of even length, half ever shorter towards the highest score, where few false alarms decide. The ends of
    intervals over 10 to 100 maps of 128 and 256 px are within 6 % of the interval's width of those of all pixels, with
    exact `values` within 3 % (`test_ends_on_maps_of_realistic_size`). `PixelScores` has the metrics themselves.
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
        self,
        resamples: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
        limit: float = 0.3,
        values: Mapping[str, float] | None = None,
    ) -> dict[str, Interval]:
        """Percentile intervals of "pixel_auroc", "pixel_ap" and "aupro_0.3", see `bootstrap.bootstrap`.

        Args:
            resamples: how often the images are drawn.
            confidence: share of the resamples inside the interval, between 0 and 1.
            seed: of the draws.
            limit: of the false positive rate for AUPRO; it is part of the name.
            values: exact metrics by name, as of `PixelScores`; others are ignored. Each replaces the value of the
                sketches, and the ends move along by the difference, within [0, 1].

        Raises:
            UndefinedMetricError: a class is missing among the pixels, in the data or in every resample.
            ValueError: no resamples, or a confidence or limit out of range.
        """
        check_confidence(confidence)
        if not self._sketches:
            raise UndefinedMetricError("no samples were given")
        # In an order of their own, so that the draws do not depend on the order given.
        ordered = sorted(self._sketches, key=lambda sketch: sketch.tobytes())
        sketches = np.stack(ordered)
        edges = _grid(sketches)
        counts, tied = _counted(sketches, edges)
        reached = counts.sum(axis=0, dtype=np.float64).reshape(3, -1).cumsum(axis=1) * [[1], [1], [FIXED_POINT]]
        # Rounded here, no pixel is lost.
        negatives, positives, weights = np.diff(np.rint(reached).astype(np.int64), prepend=0)
        groups = Groups(edges[::-1], negatives, positives, weights, tied)
        sketched = {
            "pixel_auroc": groups.auroc(),
            "pixel_ap": groups.average_precision(),
            aupro_name(limit): groups.aupro(limit),
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
        exact = {name: (values or {}).get(name, value) for name, value in sketched.items()}
        shift = np.array([exact[name] - value for name, value in sketched.items()])
        return intervals(exact, (np.concatenate(drawn, axis=1) + shift[:, None]).clip(0, 1), confidence)

    def compute(self) -> dict[str, Any]:
        """Return `intervals` with their defaults, or why there are none, see `MetricState.compute`."""
        try:
            return dict(self.intervals())
        except UndefinedMetricError as error:
            return {"undefined": {name: str(error) for name in ("pixel_auroc", "pixel_ap", "aupro_0.3")}}

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return the sketches, (N, 7, 256) float32."""
        return {"sketches": np.array(self._sketches, np.float32).reshape(-1, ROWS, SIZE)}

    @classmethod
    def from_state_dict(cls, arrays: Arrays) -> Self:
        """Rebuild a state; the inverse of `state_dict`."""
        state = cls()
        state._sketches = list(arrays["sketches"])
        return state


def _sketch(scores: NDArray[Any], mask: NDArray[np.bool_]) -> Sketch:
    """Reduce an image (H, W) to (ROWS, SIZE); unused places have a count of 0."""
    sketch = np.zeros((ROWS, SIZE), np.float32)
    # Infinite scores become the highest and lowest numbers: between them is something.
    scores = np.nan_to_num(as_float32(scores))
    shares = region_weights(mask)[0] / FIXED_POINT
    order = np.argsort(-scores[mask])
    for row, pixels in ((NORMAL, -np.sort(-scores[~mask])), (DEFECTIVE, scores[mask][order])):
        if not pixels.size:
            continue
        starts = _starts(pixels, np.arange(1, pixels.size + 1), SIZE)
        ends = np.append(starts[1:], pixels.size)
        sketch[row : row + REGIONS, : starts.size] = pixels[starts], pixels[ends - 1], ends - starts
        if row == DEFECTIVE:
            sketch[row + REGIONS, : starts.size] = np.add.reduceat(shares[order], starts)
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
        runs = sketches[:, row : row + REGIONS].swapaxes(0, 1).reshape(REGIONS, -1)
        highest, lowest, counts = runs[:, runs[COUNT] > 0]
        order = np.argsort(-highest)
        if order.size:
            edges.append(highest[order][_starts(highest[order], np.cumsum(counts[order], dtype=np.float64), EDGES)])
            edges.append(lowest.min(keepdims=True))
    return np.unique(np.concatenate(edges))


def _counted(sketches: Sketch, edges: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Count every image on the grid.

    Returns:
        (N, 3 G) normal pixels, defective pixels and shares of regions per group, from the highest score down; and (G,)
        whether all scores of a group are equal.
    """
    matrix = np.zeros((len(sketches), 3, edges.size), np.float32)
    for row, columns in ((NORMAL, (COUNT,)), (DEFECTIVE, (COUNT, REGIONS))):
        for counts, sketch in zip(matrix[:, row // DEFECTIVE :], sketches[:, row:], strict=True):
            used = np.count_nonzero(sketch[COUNT])
            if not used:
                continue
            # From the top down: nothing is counted at the highest score of a run, all of it at the lowest.
            ends = -sketch[: LOWEST + 1, :used].T.reshape(-1)
            for count, column in zip(counts[: len(columns)], columns, strict=True):
                reached = np.cumsum(np.stack([np.zeros(used), sketch[column, :used]], axis=1).reshape(-1))
                count[:] = np.diff(np.interp(-edges[::-1], ends, reached, left=0), prepend=0)
    return matrix.reshape(len(sketches), -1), _tied(sketches, edges)


def _tied(sketches: Sketch, edges: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether all scores of a group are equal, (G,) from the highest score down."""
    runs = np.concatenate([sketches[:, row : row + REGIONS] for row in (NORMAL, DEFECTIVE)], axis=2)
    highest, lowest, _ = runs.swapaxes(0, 1)[:, runs[:, COUNT] > 0]
    one_score = np.bincount(np.searchsorted(edges, np.unique(highest), "right") - 1, minlength=edges.size) == 1
    spread = highest > lowest
    first, last = (np.searchsorted(edges, ends[spread], "right") - 1 for ends in (lowest, highest))
    crossed = np.cumsum(np.bincount(first, minlength=edges.size + 1) - np.bincount(last + 1, minlength=edges.size + 1))
    return (one_score & (crossed[:-1] == 0))[::-1]


def _aupro_of_rows(regions: Floats, negatives: Floats, limit: float) -> Floats:
    """Area under the per-region overlap up to a false positive rate, divided by it, of each row (R, G)."""
    width = negatives / negatives.sum(axis=1, keepdims=True)
    rise = regions / regions.sum(axis=1, keepdims=True)
    # The curve is straight inside a group, of which only the part left of the limit counts.
    inside = (limit - (np.cumsum(width, axis=1) - width)).clip(0, width)
    share = inside / np.where(width > 0, width, 1)
    return (inside * (np.cumsum(rise, axis=1) - rise + rise * share / 2)).sum(axis=1) / limit
