"""Threshold metrics over any number of scores in constant memory, whatever the range of the scores."""

import math
from fractions import Fraction
from functools import cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.kernels.bins import NEGATIVES, POSITIVES, WEIGHTS, ScoreBins, Tally
from defect_hub.evaluate_metrics.kernels.curves import Curve
from defect_hub.evaluate_metrics.kernels.float_order import as_float32, keys_of_sorted, scores_of
from defect_hub.evaluate_metrics.kernels.groups import Groups
from defect_hub.evaluate_metrics.kernels.inputs import (
    UndefinedMetricError,
    Values,
    check_scores,
    check_targets,
    flat_pair,
)
from defect_hub.evaluate_metrics.kernels.states import Arrays, MetricState, defined

# As long as no more scores were given in all, they are kept and the metrics are exact.
EXACT_SCORES = 1 << 20
# Scores binned at once: enough of them to share bins, few enough to be small beside the bins.
CHUNK = 1 << 18

Scores = NDArray[np.float32]
Weights = NDArray[np.int64]


class ScoreHistogram(MetricState):
    """AUROC, average precision and F1-max of scores with 0/1 targets; states add up across batches and processes.

    Scores are rounded to float32. Up to 2^20 scores are kept as they are, and the metrics are exact; more are counted
    in bins of neighbouring floats (`bins`). `docs/metrics.md` gives measured errors. The result depends on the scores
    alone, never on their order, or on how they were split over batches and processes.

    Attributes:
        n_scores: number of scores given.
    """

    def __init__(self) -> None:
        self.n_scores = 0
        self._kept: list[tuple[Scores, Scores, Weights]] = []
        self._n_kept = 0
        self._bins: ScoreBins | None = None

    def update(self, scores: Values, targets: Values) -> None:
        """Add scores of any shape with as many 0/1 targets, NumPy or torch; nothing is added if a value is bad.

        Raises:
            ValueError: NaN scores, targets other than 0 and 1, or different lengths.
        """
        flat_scores, flat_targets = flat_pair(scores, targets)
        chunks = [slice(start, start + CHUNK) for start in range(0, flat_scores.size, CHUNK)]
        for chunk in chunks:
            check_scores(flat_scores[chunk])
            check_targets(flat_targets[chunk])
        for chunk in chunks:
            positive = check_targets(flat_targets[chunk])
            self._add(flat_scores[chunk], positive, np.zeros(np.count_nonzero(positive), np.int64))

    def merge(self, other: Self) -> None:
        """Add the state of another histogram; the result equals one pass over both data, in any order.

        Raises:
            ValueError: the other is the state of another metric.
        """
        self._check_addable(other)
        # Taken first, since a state may be added to itself.
        kept, n_kept, n_scores = list(other._kept), other._n_kept, other.n_scores
        binned = None if other._bins is None else other._bins.tally()
        self._kept += kept
        self._n_kept += n_kept
        self.n_scores += n_scores
        if self.n_scores > EXACT_SCORES:
            bins = self._bin_kept()
            if binned is not None:
                bins.merge(binned)

    def auroc(self) -> float:
        """Area under the ROC curve in [0, 1]; raises UndefinedMetricError when a class is missing."""
        return self._groups().auroc()

    def average_precision(self) -> float:
        """Average precision in (0, 1]; raises UndefinedMetricError when a class is missing."""
        return self._groups().average_precision()

    def f1_max(self) -> tuple[float, float]:
        """Highest F1, and the highest score that reaches it: `score >= threshold` means defective.

        Raises:
            UndefinedMetricError: one class is missing.
        """
        return self._groups().f1_max()

    def negative_quantile(self, quantile: float | Fraction) -> float:
        """The lowest score that at least this share of the negatives do not exceed.

        It is a score of the data (`numpy.quantile` with the method "inverted_cdf"), nothing is interpolated. Where
        scores are binned it is rounded up to the end of the bin, at most 2^-11 of itself.

        Args:
            quantile: in (0, 1]. A float is taken for the decimal number that it prints as.

        Raises:
            UndefinedMetricError: there are no negatives.
            ValueError: the quantile is outside (0, 1].
        """
        if not 0 < quantile <= 1:
            raise ValueError(f"quantile must be in (0, 1], got {quantile}")
        tally = self._tally()
        counted = np.cumsum(tally.counts[NEGATIVES])
        if not counted.size or not counted[-1]:
            raise UndefinedMetricError("no negative (normal) samples were given")
        rank = math.ceil(Fraction(str(quantile)) * int(counted[-1]))
        at = [int(np.searchsorted(counted, rank))]
        return float(scores_of(tally.highest_keys()[at])[0])

    def roc_curve(self) -> Curve:
        """False positive rate (x) and true positive rate (y); raises UndefinedMetricError when a class is missing."""
        return self._groups().roc_curve()

    def pr_curve(self) -> Curve:
        """Recall (x) and precision (y); raises UndefinedMetricError when a class is missing."""
        return self._groups().pr_curve()

    def compute(self) -> dict[str, Any]:
        """Return "auroc", "average_precision", "f1_max" and its "threshold", see `MetricState.compute`."""
        groups = self._groups()
        best = cache(groups.f1_max)
        return defined(
            {
                "auroc": groups.auroc,
                "average_precision": groups.average_precision,
                "f1_max": lambda: best()[0],
                "threshold": lambda: best()[1],
            }
        )

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return the number of scores, and the occupied bins (`Tally`), one score a bin as long as all are kept."""
        return {name: np.asarray(value) for name, value in self._tally()._asdict().items()} | {
            "n_scores": np.array(self.n_scores)
        }

    @classmethod
    def from_state_dict(cls, arrays: Arrays) -> Self:
        """Rebuild a histogram; the inverse of `state_dict`."""
        state = cls()
        state.n_scores = int(arrays["n_scores"])
        tally = Tally(int(arrays["shift"]), *(arrays[name] for name in Tally._fields[1:]))
        if state.n_scores > EXACT_SCORES:
            state._bins = ScoreBins()
            state._bins.merge(tally)
        else:
            state._kept = [_expanded(tally)]
            state._n_kept = state.n_scores
        return state

    def _check_addable(self, other: Self) -> None:
        if type(other) is not type(self):
            raise ValueError(f"a {type(other).__name__} cannot be added to a {type(self).__name__}")

    def _add(self, scores: NDArray[Any], positive: NDArray[np.bool_], weights: Weights) -> None:
        """Add checked scores (N,), of which P are positive, with the weights (P,) of the positives."""
        scores = as_float32(scores)
        if weights.size:
            self._kept.append((scores[~positive], scores[positive], weights))
        else:
            self._kept.append((scores, scores[:0], weights))
        self.n_scores += scores.size
        self._n_kept += scores.size
        if self.n_scores > EXACT_SCORES and (self._bins is None or self._n_kept >= CHUNK):
            self._bin_kept()

    def _bin_kept(self) -> ScoreBins:
        bins = self._bins = self._bins or ScoreBins()
        while self._kept:
            negatives, positives, weights = _joined(self._pop(CHUNK))
            negatives.sort()
            bins.add(keys_of_sorted(negatives), NEGATIVES)
            order = np.argsort(positives)
            bins.add(keys_of_sorted(positives[order]), POSITIVES, weights[order])
        return bins

    def _pop(self, n: int) -> list[tuple[Scores, Scores, Weights]]:
        """Take pieces of together about n scores out of those kept."""
        pieces = []
        while self._kept and n > 0:
            pieces.append(self._kept.pop())
            size = pieces[-1][0].size + pieces[-1][1].size
            n -= size
            self._n_kept -= size
        return pieces

    def _tally(self) -> Tally:
        if self._bins is not None:
            return self._bin_kept().tally()
        negatives, positives, weights = _joined(self._kept)
        order = np.argsort(positives)
        return Tally.exact(keys_of_sorted(np.sort(negatives)), keys_of_sorted(positives[order]), weights[order])

    def _groups(self) -> Groups:
        tally = self._tally()
        counts = tally.counts[:, ::-1]
        return Groups(
            lowest=scores_of(tally.lowest_keys()[::-1]),
            negatives=counts[NEGATIVES],
            positives=counts[POSITIVES],
            weights=counts[WEIGHTS],
            tied=(tally.lowest == tally.highest)[::-1],
        )


def _joined(pieces: list[tuple[Scores, Scores, Weights]]) -> tuple[Scores, Scores, Weights]:
    if not pieces:
        return np.empty(0, np.float32), np.empty(0, np.float32), np.empty(0, np.int64)
    negatives, positives, weights = (np.concatenate(arrays) for arrays in zip(*pieces, strict=True))
    return negatives, positives, weights


def _expanded(tally: Tally) -> tuple[Scores, Scores, Weights]:
    """Undo an exact tally; the weights of equal scores are only known summed, which is all that is asked of them."""
    scores = scores_of(tally.bins)
    n_negatives, n_positives, sums = tally.counts
    weights = np.zeros(n_positives.sum(), np.int64)
    present = n_positives > 0
    weights[(np.cumsum(n_positives) - n_positives)[present]] = sums[present]
    return np.repeat(scores, n_negatives), np.repeat(scores, n_positives), weights
