"""The arithmetic of threshold metrics on counts per score group, groups ordered from the highest score down.

A group is one distinct score (exact metrics) or one histogram bin (streaming metrics).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.kernels.inputs import UndefinedMetricError

Counts = NDArray[np.int64]


def require_both_classes(positives: Counts, negatives: Counts) -> tuple[int, int]:
    """Return the totals of both classes.

    Raises:
        UndefinedMetricError: there is no sample at all, or only one class.
    """
    n_positive, n_negative = int(positives.sum()), int(negatives.sum())
    if not n_positive and not n_negative:
        raise UndefinedMetricError("no samples were given")
    if not n_positive:
        raise UndefinedMetricError(f"all {n_negative} samples are negative (normal)")
    if not n_negative:
        raise UndefinedMetricError(f"all {n_positive} samples are positive (defective)")
    return n_positive, n_negative


def auroc_from_counts(positives: Counts, negatives: Counts) -> float:
    """Area under the ROC curve: P(positive above negative) + P(equal) / 2, the Mann-Whitney statistic.

    Args:
        positives: (G,) positives per group.
        negatives: (G,) negatives per group.

    Returns:
        A value in [0, 1].

    Raises:
        UndefinedMetricError: one class is missing.
    """
    n_positive, n_negative = require_both_classes(positives, negatives)
    above = np.cumsum(positives) - positives
    return float((negatives * (above + positives / 2.0)).sum() / n_positive / n_negative)


def average_precision_from_counts(
    positives: Counts, negatives: Counts, tied: NDArray[np.bool_] | None = None
) -> float:
    """Average precision: the mean, over positives, of the precision at each positive's own score.

    Args:
        positives: (G,) positives per group.
        negatives: (G,) negatives per group.
        tied: (G,) whether all scores of a group are equal; None means everywhere. In an untied group the samples are
            taken as evenly interleaved: the i-th of p positives stands below i / (p + 1) of the n negatives, and the
            sum over i is the integral from 1/2 to p + 1/2.

    Returns:
        A value in (0, 1].

    Raises:
        UndefinedMetricError: one class is missing.
    """
    n_positive, _ = require_both_classes(positives, negatives)
    true_positives, retrieved = np.cumsum(positives), np.cumsum(positives + negatives)
    terms = positives * true_positives / retrieved
    if tied is not None:
        spread = ~tied & (positives > 0)
        p, n = positives[spread], negatives[spread]
        terms[spread] = _interleaved_precision(p, n, true_positives[spread] - p, retrieved[spread] - p - n)
    return float(terms.sum() / n_positive)


def _interleaved_precision(p: Counts, n: Counts, true_positives: Counts, retrieved: Counts) -> NDArray[Any]:
    """Integrate (true_positives + x) / (retrieved + slope x) over x from 1/2 to p + 1/2."""
    slope = 1.0 + n / (p + 1.0)
    logarithm = np.log1p(slope * p / (retrieved + slope / 2.0))
    return p / slope + (true_positives - retrieved / slope) / slope * logarithm


def best_f1_from_counts(positives: Counts, negatives: Counts) -> tuple[float, int]:
    """Highest F1 over all cuts "this group and every one above it is positive".

    Returns:
        F1 in (0, 1] and the index of the last group above the cut; the fewest groups when several cuts are best.

    Raises:
        UndefinedMetricError: one class is missing.
    """
    n_positive, _ = require_both_classes(positives, negatives)
    f1 = 2.0 * np.cumsum(positives) / (np.cumsum(positives + negatives) + n_positive)
    best = int(np.argmax(f1))
    return float(f1[best]), best
