"""Exact threshold metrics for data that fits in memory: sort once, then count per distinct score."""

import numpy as np
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.kernels.groups import Groups
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
    return grouped(scores, targets).auroc()


def average_precision(scores: Values, targets: Values) -> float:
    """Average precision, the step-wise area under precision over recall; equal scores enter together.

    Args, errors: see `auroc`.

    Returns:
        A value in (0, 1]; the share of positives is chance.
    """
    return grouped(scores, targets).average_precision()


def f1_max(scores: Values, targets: Values) -> tuple[float, float]:
    """Highest F1 over all thresholds, and the highest threshold that reaches it.

    Args, errors: see `auroc`.

    Returns:
        F1 in (0, 1] and a threshold among the scores, where `score >= threshold` means defective.
    """
    return grouped(scores, targets).f1_max()


def grouped(scores: Values, targets: Values, weights: NDArray[np.int64] | None = None) -> Groups:
    """Count the samples by distinct score.

    Args:
        scores: any shape, N values.
        targets: N values, 0 or 1.
        weights: (N,), of which those of the positives are summed.

    Raises:
        ValueError: see `auroc`.
    """
    flat_scores, flat_targets = flat_pair(scores, targets)
    flat_scores, positive = check_scores(flat_scores), check_targets(flat_targets)
    order = np.argsort(flat_scores)[::-1]
    values, positive = flat_scores[order], positive[order]
    # Neighbours are compared, not subtracted: inf - inf is NaN.
    ends = np.append(np.flatnonzero(values[1:] != values[:-1]), values.size - 1) if values.size else np.arange(0)
    positives = np.diff(np.cumsum(positive)[ends], prepend=0)
    sums = np.zeros_like(positives) if weights is None else np.diff(np.cumsum(weights[order])[ends], prepend=0)
    return Groups(values[ends], np.diff(ends, prepend=-1) - positives, positives, sums, np.ones(ends.size, np.bool_))
