"""Calibration of the probability of a defect: expected calibration error, Brier score, reliability bins."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.kernels.inputs import (
    UndefinedMetricError,
    Values,
    check_scores,
    check_targets,
    flat_pair,
)
from defect_hub.evaluate_metrics.kernels.states import Arrays, MetricState, defined

# Probabilities are summed as integers of this unit, the step of float32 below 1: sums of 2^38 pixels fit in int64.
UNIT = 1 << 24
BINS = 15


@dataclass(frozen=True)
class ReliabilityBins:
    """The bins of a reliability diagram that hold samples, from low to high.

    Attributes:
        lower, upper: (N,) edges; a bin holds lower < probability <= upper, the first also 0.
        probability: (N,) mean probability.
        positive_share: (N,) share of positives, which equals `probability` when calibrated.
        count: (N,) number of samples.
    """

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    probability: NDArray[np.float64]
    positive_share: NDArray[np.float64]
    count: NDArray[np.int64]


class CalibrationBins(MetricState):
    """Probabilities of the positive class against what happened, in equal-width bins; states add up.

    The error is that of the probability of "defective" against the frequency of defects (binary form). It is not that
    of Guo et al. 2017, "On Calibration of Modern Neural Networks", who compare the confidence max(p, 1 - p) with the
    accuracy (top-label form).
    """

    def __init__(self, bins: int = BINS) -> None:
        """Args: bins: number of bins of equal width over [0, 1], at least 1 (ValueError)."""
        if bins < 1:
            raise ValueError(f"bins must be at least 1, got {bins}")
        self._counts = np.zeros((2, bins), np.int64)
        self._probabilities = np.zeros(bins, np.int64)
        self._squares = np.zeros((), np.int64)

    def update(self, probabilities: Values, targets: Values) -> None:
        """Add probabilities of any shape with as many 0/1 targets; nothing is added if a value is bad.

        Args:
            probabilities: of the positive class (defective), in [0, 1].
            targets: 1 (or True) for positive, 0 for negative.

        Raises:
            ValueError: a probability is NaN or outside [0, 1], a target neither 0 nor 1, or the lengths differ.
        """
        flat, flat_targets = flat_pair(probabilities, targets)
        if not flat.size:
            return
        positive = check_targets(flat_targets)
        if check_scores(flat).min() < 0 or flat.max() > 1:
            raise ValueError(
                f"probabilities must lie in [0, 1], found {flat.min()} to {flat.max()}; apply a sigmoid to logits"
            )
        flat = flat.astype(np.float64)
        n_bins = self._probabilities.size
        bins = np.searchsorted(np.linspace(0, 1, n_bins + 1)[1:-1], flat)
        self._counts += np.bincount(bins + positive * n_bins, minlength=2 * n_bins).reshape(2, n_bins)
        # Sums of integers below 2^53, which float64 holds exactly.
        self._probabilities += np.bincount(bins, np.rint(flat * UNIT), n_bins).astype(np.int64)
        self._squares += np.rint((flat - positive) ** 2 * UNIT).astype(np.int64).sum()

    def merge(self, other: Self) -> None:
        """Add the bins of another state; raises ValueError when their number differs."""
        if other._probabilities.size != self._probabilities.size:
            raise ValueError(
                f"{self._probabilities.size} bins here but {other._probabilities.size} there; use as many"
            )
        self._counts += other._counts
        self._probabilities += other._probabilities
        self._squares += other._squares

    def reliability(self) -> ReliabilityBins:
        """Return the bins that hold samples; raises UndefinedMetricError without samples."""
        count = self._counts.sum(axis=0)
        held = np.flatnonzero(count)
        if not held.size:
            raise UndefinedMetricError("no samples were given")
        edges = np.linspace(0, 1, count.size + 1)
        probability = self._probabilities[held] / UNIT / count[held]
        share = self._counts[1, held] / count[held]
        return ReliabilityBins(edges[held], edges[held + 1], probability, share, count[held])

    def ece(self) -> float:
        """Expected calibration error, the mean gap of the bins weighted by their counts, in [0, 1].

        Raises:
            UndefinedMetricError: no samples were given.
        """
        bins = self.reliability()
        return float(np.average(np.abs(bins.probability - bins.positive_share), weights=bins.count))

    def max_calibration_error(self) -> float:
        """Largest gap of a bin that holds samples, in [0, 1]; raises UndefinedMetricError without samples."""
        bins = self.reliability()
        return float(np.abs(bins.probability - bins.positive_share).max())

    def brier(self) -> float:
        """Brier score, the mean squared difference of probability and target, in [0, 1].

        Raises:
            UndefinedMetricError: no samples were given.
        """
        return float(self._squares / UNIT / self.reliability().count.sum())

    def compute(self) -> dict[str, Any]:
        """Return "ece", "max_calibration_error" and "brier", see `MetricState.compute`."""
        return defined({name: getattr(self, name) for name in ("ece", "max_calibration_error", "brier")})

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return counts (2, N), negatives first, and sums of probabilities (N,) and squares () in units of 2^-24."""
        arrays = {"counts": self._counts, "probabilities": self._probabilities, "squares": self._squares}
        return {name: array.copy() for name, array in arrays.items()}

    @classmethod
    def from_state_dict(cls, arrays: Arrays) -> Self:
        """Rebuild a state; the inverse of `state_dict`."""
        state = cls(arrays["probabilities"].size)
        state._counts += arrays["counts"]
        state._probabilities += arrays["probabilities"]
        state._squares += arrays["squares"]
        return state


def calibration_error(probabilities: Values, targets: Values, bins: int = BINS) -> dict[str, float]:
    """Calibration errors of data in memory, see `CalibrationBins`.

    Args:
        probabilities: of the positive class (defective), any shape, in [0, 1].
        targets: as many, 1 (or True) for positive, 0 for negative.
        bins: number of bins of equal width.

    Returns:
        "ece", "max_calibration_error" and "brier", each in [0, 1], lower is better.

    Raises:
        UndefinedMetricError: no samples were given.
        ValueError: see `CalibrationBins.update`.
    """
    state = CalibrationBins(bins)
    state.update(probabilities, targets)
    # Without samples this raises, unlike `compute`.
    state.reliability()
    return state.compute()
