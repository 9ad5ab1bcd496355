"""Percentile confidence intervals by bootstrap over images (Efron and Tibshirani 1993, chapter 13).

A resample draws as many images as there are, with replacement. Only how often each image was drawn matters, so the
scores are sorted once, and each metric is a cumulative sum over counts, for many resamples at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.kernels.curves import Floats
from defect_hub.evaluate_metrics.kernels.groups import Counts
from defect_hub.evaluate_metrics.kernels.inputs import UndefinedMetricError, Values, as_array, check_targets, flat_pair
from defect_hub.evaluate_metrics.kernels.ranking import grouped

# Numbers in an array of resamples, 1 MB.
CHUNK = 1 << 17


@dataclass(frozen=True)
class Interval:
    """A metric with its confidence interval.

    Attributes:
        value: the metric of the data itself.
        low, high: ends of the interval.
        confidence: share of the resamples between them.
        resamples: number of resamples on which the metric has a value.
    """

    value: float
    low: float
    high: float
    confidence: float
    resamples: int


def bootstrap(
    scores: Values,
    targets: Values,
    metrics: Sequence[str] = ("auroc", "average_precision", "f1_max"),
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Confidence intervals of threshold metrics over images; equal scores are treated exactly.

    Resamples in which a class is missing have no value; they are left out, and `Interval.resamples` tells how many
    remain.

    Args:
        scores: (N,) one per image, higher means more likely defective; any range, NaN forbidden.
        targets: (N,) 0 or 1 (or bool).
        metrics: names among "auroc", "average_precision" and "f1_max".
        resamples: how often the images are drawn.
        confidence: share of the resamples inside the interval, between 0 and 1.
        seed: of the draws.

    Raises:
        UndefinedMetricError: one class is missing, in the data or in every resample.
        ValueError: more than one score per image, bad scores or targets (see `ranking.auroc`), no or unknown metrics,
            no resamples, or a bad confidence.
    """
    check_confidence(confidence)
    return intervals(*_resampled(scores, targets, metrics, resamples, seed), confidence)


def bootstrap_difference(
    scores: Values,
    other_scores: Values,
    targets: Values,
    metrics: Sequence[str] = ("auroc", "average_precision", "f1_max"),
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Confidence intervals of the difference of two detectors on the same images: the first less the other.

    Both are measured on the same resamples, so that what makes an image hard for both cancels. An interval that does
    not hold 0 shows a difference that another choice of such images would hardly undo.

    Args:
        scores: (N,) of the first detector, one per image.
        other_scores: (N,) of the other, in the same order; its range may be another.
        targets, metrics, resamples, confidence, seed: see `bootstrap`.

    Raises:
        UndefinedMetricError, ValueError: see `bootstrap`.
    """
    check_confidence(confidence)
    values, drawn = _resampled(scores, targets, metrics, resamples, seed)
    other_values, other_drawn = _resampled(other_scores, targets, metrics, resamples, seed)
    return intervals({name: values[name] - other_values[name] for name in values}, drawn - other_drawn, confidence)


def _resampled(
    scores: Values, targets: Values, metrics: Sequence[str], resamples: int, seed: int
) -> tuple[dict[str, float], Floats]:
    """Return the M metrics of the data by name, and of the R resamples that hold both classes, (M, R).

    The draws, and so the columns, depend on the targets and the seed alone.
    """
    if as_array(scores).ndim > 1:
        raise ValueError("scores must be (N,), one per image; ImageSketches gives intervals of anomaly maps")
    if isinstance(metrics, str):
        raise ValueError(f"metrics must be a sequence of names, got {metrics!r}; write ({metrics!r},)")
    unknown = sorted(set(metrics) - METRICS.keys())
    if unknown or not metrics:
        raise ValueError(f"metrics must be at least one among {sorted(METRICS)}, got {unknown}")
    groups = grouped(scores, targets)
    # Raises when a class is missing.
    values = {name: groups.f1_max()[0] if name == "f1_max" else getattr(groups, name)() for name in metrics}
    flat_scores, flat_targets = flat_pair(scores, targets)
    n_groups = groups.lowest.size
    group = n_groups - 1 - np.searchsorted(groups.lowest[::-1], flat_scores)
    # A cell for the negatives of each group, then one for its positives.
    cells = group + n_groups * check_targets(flat_targets)

    def of_resamples(counts: Counts) -> Floats:
        negatives, positives = counts[:, :n_groups].astype(float), counts[:, n_groups:].astype(float)
        both = negatives.any(axis=1) & positives.any(axis=1)
        return np.stack([METRICS[name](positives[both], negatives[both]) for name in metrics])

    drawn = [of_resamples(counts) for counts in resample_counts(cells, 2 * n_groups, resamples, seed)]
    return values, np.concatenate(drawn, axis=1)


def bootstrap_mean(values: Values, resamples: int = 1000, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Confidence interval of a mean over images, for example of right (1) and wrong (0) answers or of overlaps.

    Args:
        values: (N,) finite numbers, one per image.
        resamples, confidence, seed: see `bootstrap`.

    Raises:
        UndefinedMetricError: no values were given.
        ValueError: a value is not finite, no resamples, or a bad confidence.
    """
    check_confidence(confidence)
    numbers = as_array(values).astype(float)
    if numbers.ndim != 1:
        raise ValueError(
            f"values must be (N,), one per image, got shape {numbers.shape}; average over each image first"
        )
    if not numbers.size:
        raise UndefinedMetricError("no values were given")
    if not np.isfinite(numbers).all():
        raise ValueError("values must be finite; leave out images without a value")
    counts = resample_counts(np.arange(numbers.size), numbers.size, resamples, seed)
    drawn = np.concatenate([chunk @ numbers / numbers.size for chunk in counts])
    return intervals({"mean": float(numbers.mean())}, drawn[None], confidence)["mean"]


def check_confidence(confidence: float) -> None:
    """Raise ValueError unless the confidence lies between 0 and 1; called before the work of resampling."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}; 0.95 is usual")


def resample_counts(cells: NDArray[np.integer], n_cells: int, resamples: int, seed: int) -> Iterator[Counts]:
    """Draw as many images as there are, with replacement, again and again; count those drawn in each cell.

    Args:
        cells: (N,) the cell of every image, which does not change the draws; `np.arange(N)` counts each on its own.
        n_cells: number of cells.
        resamples: number R of resamples, at least 1 (ValueError).
        seed: of the draws.

    Yields:
        (r, n_cells) counts of some resamples, together R; each row adds up to N.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    generator = np.random.default_rng(seed)
    step = max(1, CHUNK // max(n_cells, cells.size))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = cells[generator.integers(0, cells.size, (rows, cells.size))]
        drawn += np.arange(rows)[:, None] * n_cells
        yield np.bincount(drawn.reshape(-1), minlength=rows * n_cells).reshape(rows, n_cells)


def intervals(values: Mapping[str, float], drawn: Floats, confidence: float) -> dict[str, Interval]:
    """Percentile intervals of M metrics.

    Args:
        values: the metrics of the data itself, by name.
        drawn: (M, R) those of the resamples on which they have a value, in the same order.
        confidence: share of the resamples inside the interval, see `check_confidence`.

    Raises:
        UndefinedMetricError: R is 0.
    """
    if not drawn.shape[1]:
        raise UndefinedMetricError("no resample holds both classes; draw more")
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=1)
    return {
        name: Interval(value, float(low[i]), float(high[i]), confidence, drawn.shape[1])
        for i, (name, value) in enumerate(values.items())
    }


def auroc_of_rows(positives: Floats, negatives: Floats) -> Floats:
    """Area under the ROC curve of each row of counts (R, G), both classes in each, from the highest score down."""
    above = np.cumsum(positives, axis=1) - positives / 2
    return np.einsum("rg,rg->r", negatives, above) / positives.sum(axis=1) / negatives.sum(axis=1)


def average_precision_of_rows(positives: Floats, negatives: Floats, tied: NDArray[np.bool_] | None = None) -> Floats:
    """Average precision of each row of counts (R, G), see `auroc_of_rows`.

    Args:
        positives, negatives: (R, G).
        tied: (G,) whether the scores of a group are equal and enter together; elsewhere the precision amid the group
            stands for all of it. None means equal everywhere.
    """
    ahead = 0 if tied is None else np.where(tied, 0, 0.5)
    retrieved = np.cumsum(positives + negatives, axis=1) - ahead * (positives + negatives)
    # Where nothing is retrieved yet there is no positive either.
    precision = (np.cumsum(positives, axis=1) - ahead * positives) / np.maximum(retrieved, 0.5)
    return np.einsum("rg,rg->r", positives, precision) / positives.sum(axis=1)


def f1_max_of_rows(positives: Floats, negatives: Floats) -> Floats:
    """Highest F1 of each row of counts (R, G), see `auroc_of_rows`."""
    retrieved = np.cumsum(positives + negatives, axis=1)
    f1 = 2 * np.cumsum(positives, axis=1) / (retrieved + positives.sum(axis=1, keepdims=True))
    return f1.max(axis=1)


METRICS = {"auroc": auroc_of_rows, "average_precision": average_precision_of_rows, "f1_max": f1_max_of_rows}
