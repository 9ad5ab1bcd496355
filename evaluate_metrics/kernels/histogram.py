"""Threshold metrics over any number of scores in constant memory (21 MB), whatever the range of the scores.

The bits of a float32, seen as an integer, keep the order of the numbers once negative values are flipped. The top
20 bits (sign, exponent, 11 bits of mantissa) name one of 2^20 bins, each at most 2^-11 of its value wide: no range is
needed. Probabilities crowd below 1, where these bins are coarse, so a score in [0.5, 1) is keyed by 1 - score, which
float32 holds exactly. Beside the counts every bin keeps the lowest and the highest of the 12 bits left: where they
agree all its scores are equal, and ties are treated exactly. Scores of float16, or of 8 bits, never share a bin.
"""

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

LOW_BITS = 12
LOW_MASK = (1 << LOW_BITS) - 1
SIGN_BIT = np.uint32(1 << 31)
# The key of 0.5, and by how much 1 and above move up: 1 - score spans the 23 octaves from 2^-24 to 0.5.
HALF = 0xBF000000
SHIFT = 23 << 23
BINS = ((1 << 32) + SHIFT) >> LOW_BITS
# Temporaries stay inside the processor's cache, and small beside the state.
CHUNK = 1 << 18


class ScoreHistogram:
    """Counts of negatives and positives per score bin; states add up across batches and processes.

    Scores are rounded to float32. Scores that differ by less than 2^-11 of their size share a bin, so subtract a large
    common offset first. `docs/metrics.md` gives measured errors; `kernels.ranking` is exact where memory allows.
    """

    def __init__(self) -> None:
        self._counts = np.zeros((2, BINS), np.int64)
        self._lowest = np.full(BINS, LOW_MASK, np.uint16)
        self._highest = np.zeros(BINS, np.uint16)

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
            self._add(flat_scores[chunk], check_targets(flat_targets[chunk]))

    def merge(self, other: "ScoreHistogram") -> None:
        """Add the state of another histogram; the result equals one pass over both data, in any order."""
        self._counts += other._counts
        np.minimum(self._lowest, other._lowest, out=self._lowest)
        np.maximum(self._highest, other._highest, out=self._highest)

    def auroc(self) -> float:
        """Area under the ROC curve in [0, 1]; raises UndefinedMetricError when a class is missing."""
        _, positives, negatives = self._groups()
        return auroc_from_counts(positives, negatives)

    def average_precision(self) -> float:
        """Average precision in (0, 1]; raises UndefinedMetricError when a class is missing."""
        bins, positives, negatives = self._groups()
        return average_precision_from_counts(positives, negatives, self._lowest[bins] == self._highest[bins])

    def f1_max(self) -> tuple[float, float]:
        """Highest F1 over the bins' lowest scores, and that score: `score >= threshold` means defective.

        Raises:
            UndefinedMetricError: one class is missing.
        """
        bins, positives, negatives = self._groups()
        f1, best = best_f1_from_counts(positives, negatives)
        return f1, _score_of((int(bins[best]) << LOW_BITS) | int(self._lowest[bins[best]]))

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return copies of the arrays: counts (2, BINS) int64, negatives first; lowest, highest (BINS,) uint16."""
        return {"counts": self._counts.copy(), "lowest": self._lowest.copy(), "highest": self._highest.copy()}

    def load_state_dict(self, state: dict[str, NDArray[Any]]) -> None:
        """Replace the state by one from `state_dict`.

        Raises:
            ValueError: an array is missing, or has another shape or type.
        """
        for name, own in (("counts", self._counts), ("lowest", self._lowest), ("highest", self._highest)):
            given = state.get(name)
            if given is None or given.shape != own.shape or given.dtype != own.dtype:
                raise ValueError(f"state of a score histogram: `{name}` must be {own.dtype} of shape {own.shape}")
        self._counts = state["counts"].copy()
        self._lowest = state["lowest"].copy()
        self._highest = state["highest"].copy()

    def _add(self, scores: NDArray[Any], positive: NDArray[np.bool_]) -> None:
        keys = _ordered_keys(scores)
        bins = keys >> LOW_BITS
        low = (keys & LOW_MASK).astype(np.uint16)
        np.add.at(self._counts.reshape(-1), bins + positive * BINS, 1)
        np.minimum.at(self._lowest, bins, low)
        np.maximum.at(self._highest, bins, low)

    def _groups(self) -> tuple[NDArray[np.intp], Counts, Counts]:
        """Return the occupied bins from high to low with their positives and negatives."""
        bins = np.flatnonzero(self._counts.any(axis=0))[::-1]
        negatives, positives = self._counts[:, bins]
        return bins, positives, negatives


def _ordered_keys(scores: NDArray[Any]) -> NDArray[np.int64]:
    """Map scores to integers of the same order, at least 0 and below 2^12 BINS."""
    # Adding zero turns -0.0, which equals 0.0, into it.
    scores = scores.astype(np.float32) + np.float32(0)
    keys = _integers(scores)
    keys[scores >= 1] += SHIFT
    upper = (scores >= 0.5) & (scores < 1)
    keys[upper] = 2 * HALF - _integers(1 - scores[upper])
    return keys


def _integers(numbers: NDArray[np.float32]) -> NDArray[np.int64]:
    """Flip all bits of a negative number, else set the sign bit."""
    bits = numbers.view(np.uint32)
    negative = (bits.view(np.int32) >> 31).view(np.uint32)
    return (bits ^ (negative | SIGN_BIT)).astype(np.int64)


def _score_of(key: int) -> float:
    """Invert `_ordered_keys` for one key."""
    if HALF < key <= HALF + SHIFT:
        return 1 - _score_of(2 * HALF - key)
    bits = np.uint32(key - SHIFT if key > HALF else key)
    return float((bits ^ SIGN_BIT if bits & SIGN_BIT else ~bits).view(np.float32))
