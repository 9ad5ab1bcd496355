"""Exact threshold metrics for data that fits in memory: sort once, then count per distinct score."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.kernels.counts import (
    Counts,
    auroc_from_counts,
    average_precision_from_counts,
    best_f1_from_counts,
)
from defect_hub.evaluate_metrics.kernels.inputs import Values, check_scores, check_targets, flat_pair


def auroc(scores: Values, targets: Values) -> float:
    """Area under the ROC curve; equal scores count one half.

    Args:
        scores: any shape, higher means more likely defective; any range, NaN forbidden.
        targets: same number of values, 0 or 1 (or bool).

    Returns:
        A value in [0, 1]; 0.5 is chance.

    Raises:
        UndefinedMetricError: one class is missing.
        ValueError: NaN scores, targets other than 0 and 1, or different lengths.
    """
    _, positives, negatives = _group(scores, targets)
    return auroc_from_counts(positives, negatives)


def average_precision(scores: Values, targets: Values) -> float:
    """Average precision, the step-wise area under precision over recall; equal scores enter together.

    Args, errors: see `auroc`.

    Returns:
        A value in (0, 1]; the share of positives is chance.
    """
    _, positives, negatives = _group(scores, targets)
    return average_precision_from_counts(positives, negatives)


def f1_max(scores: Values, targets: Values) -> tuple[float, float]:
    """Highest F1 over all thresholds, and the highest threshold that reaches it.

    Args, errors: see `auroc`.

    Returns:
        F1 in (0, 1] and a threshold among the scores, where `score >= threshold` means defective.
    """
    values, positives, negatives = _group(scores, targets)
    f1, best = best_f1_from_counts(positives, negatives)
    return f1, float(values[best])


def _group(scores: Values, targets: Values) -> tuple[NDArray[Any], Counts, Counts]:
    """Return the distinct scores from high to low with their positives and negatives."""
    flat_scores, flat_targets = flat_pair(scores, targets)
    flat_scores, positive = check_scores(flat_scores), check_targets(flat_targets)
    order = np.argsort(flat_scores)[::-1]
    values, positive = flat_scores[order], positive[order]
    # Neighbours are compared, not subtracted: inf - inf is NaN.
    ends = np.append(np.flatnonzero(values[1:] != values[:-1]), values.size - 1) if values.size else np.arange(0)
    positives = np.diff(np.cumsum(positive)[ends], prepend=0)
    return values[ends], positives, np.diff(ends, prepend=-1) - positives
