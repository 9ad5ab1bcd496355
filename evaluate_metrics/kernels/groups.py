"""The threshold metrics of scores counted in groups, from the highest score down.

A group is one distinct score (exact metrics) or one histogram bin (streaming metrics).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.kernels.curves import Curve, Floats, area_up_to
from defect_hub.evaluate_metrics.kernels.inputs import UndefinedMetricError

Counts = NDArray[np.int64]


class Groups(NamedTuple):
    """Scores that are counted together, from high to low.

    Attributes:
        lowest: (G,) the lowest score of each group.
        negatives: (G,) number of negatives.
        positives: (G,) number of positives.
        weights: (G,) summed weights of the positives; only the per-region overlap uses them.
        tied: (G,) whether all scores of the group are equal.
    """

    lowest: Floats
    negatives: Counts
    positives: Counts
    weights: Counts
    tied: NDArray[np.bool_]

    def auroc(self) -> float:
        """Area under the ROC curve in [0, 1]: P(positive above negative) + P(equal) / 2, the Mann-Whitney statistic.

        Raises:
            UndefinedMetricError: one class is missing.
        """
        n_positive, n_negative = self._totals()
        above = np.cumsum(self.positives) - self.positives
        return float((self.negatives * (above + self.positives / 2.0)).sum() / n_positive / n_negative)

    def average_precision(self) -> float:
        """The mean, over positives, of the precision at each positive's own score, in (0, 1].

        Where the scores of a group differ, they are taken as evenly interleaved: the i-th of p positives stands below
        i / (p + 1) of the n negatives, and the sum over i is the integral from 1/2 to p + 1/2.

        Raises:
            UndefinedMetricError: one class is missing.
        """
        n_positive, _ = self._totals()
        true_positives, retrieved = np.cumsum(self.positives), np.cumsum(self.positives + self.negatives)
        terms = self.positives * true_positives / retrieved
        spread = ~self.tied & (self.positives > 0)
        p, n = self.positives[spread], self.negatives[spread]
        terms[spread] = _interleaved_precision(p, n, true_positives[spread] - p, retrieved[spread] - p - n)
        return float(terms.sum() / n_positive)

    def f1_max(self) -> tuple[float, float]:
        """Highest F1, in (0, 1], and the highest of the groups' lowest scores that reaches it.

        Raises:
            UndefinedMetricError: one class is missing.
        """
        n_positive, _ = self._totals()
        f1 = 2.0 * np.cumsum(self.positives) / (np.cumsum(self.positives + self.negatives) + n_positive)
        best = int(np.argmax(f1))
        return float(f1[best]), float(self.lowest[best])

    def aupro(self, limit: float) -> float:
        """Area under the per-region overlap up to a false positive rate, divided by that rate, in [0, 1].

        Raises:
            UndefinedMetricError: there is no defective region, or no normal pixel.
            ValueError: the limit is not in (0, 1].
        """
        if not 0 < limit <= 1:
            raise ValueError(f"limit must be a false positive rate in (0, 1], got {limit}")
        return area_up_to(*self._pro_rates(), limit) / limit

    def roc_curve(self) -> Curve:
        """False positive rate (x), true positive rate (y)."""
        n_positive, n_negative = self._totals()
        return self._curve(_rates(self.negatives, n_negative), _rates(self.positives, n_positive))

    def pr_curve(self) -> Curve:
        """Recall (x), precision (y); at recall 0 the precision of the first group."""
        n_positive, _ = self._totals()
        precision = np.cumsum(self.positives) / np.cumsum(self.positives + self.negatives)
        return self._curve(_rates(self.positives, n_positive), np.append(precision[0], precision))

    def pro_curve(self) -> Curve:
        """False positive rate (x), mean share of the regions found (y)."""
        return self._curve(*self._pro_rates())

    def _pro_rates(self) -> tuple[Floats, Floats]:
        _, n_negative = self._totals()
        return _rates(self.negatives, n_negative), _rates(self.weights, int(self.weights.sum()))

    def _curve(self, x: Floats, y: Floats) -> Curve:
        return Curve(x, y, np.append(np.inf, self.lowest)).thinned()

    def _totals(self) -> tuple[int, int]:
        n_positive, n_negative = int(self.positives.sum()), int(self.negatives.sum())
        if not n_positive and not n_negative:
            raise UndefinedMetricError("no samples were given")
        if not n_positive:
            raise UndefinedMetricError(f"all {n_negative} samples are negative (normal)")
        if not n_negative:
            raise UndefinedMetricError(f"all {n_positive} samples are positive (defective)")
        return n_positive, n_negative


def _rates(counts: Counts, total: int) -> Floats:
    """(G + 1,) from 0 to 1."""
    return np.append(0, np.cumsum(counts)) / total


def _interleaved_precision(p: Counts, n: Counts, true_positives: Counts, retrieved: Counts) -> Floats:
    """Integrate (true_positives + x) / (retrieved + slope x) over x from 1/2 to p + 1/2."""
    slope = 1.0 + n / (p + 1.0)
    logarithm = np.log1p(slope * p / (retrieved + slope / 2.0))
    return p / slope + (true_positives - retrieved / slope) / slope * logarithm
