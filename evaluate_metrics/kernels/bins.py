"""Counts per bin of neighbouring floats: constant memory, in the finest bins for which it suffices.

A bin holds 2^shift neighbouring keys (`float_order`), and memory is taken in pages of neighbouring bins, where scores
are. The shift is the smallest for which PAGES pages hold all scores, and at most 12, where a bin is at most 2^-11 of
its value wide and no data need more than 1,112 pages. So it follows from the scores alone, not from their order, and
scores far from 0, or far from each other, cost no precision.
"""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.kernels.float_order import Keys

MAX_SHIFT = 12
NO_LOWEST = (1 << MAX_SHIFT) - 1
PAGE_BITS = 10
PAGE = 1 << PAGE_BITS
# Together 2^17 bins: more would be finer, but no longer fit in the processor's cache.
PAGES = 1 << 7
# Rows of the counts; WEIGHTS sums the weights of the positives.
NEGATIVES, POSITIVES, WEIGHTS = range(3)


class Tally(NamedTuple):
    """Bins that hold scores, ascending.

    Attributes:
        shift: bits of the key that a bin leaves open; 0 is one float32 a bin.
        bins: (N,) key >> shift.
        counts: (3, N) negatives, positives, and the summed weights of the positives.
        lowest: (N,) the open bits of the lowest key in the bin.
        highest: (N,) those of the highest key; equal to `lowest` where all scores of the bin are equal.
    """

    shift: int
    bins: Keys
    counts: NDArray[np.int64]
    lowest: NDArray[np.uint16]
    highest: NDArray[np.uint16]

    @classmethod
    def exact(cls, negatives: Keys, positives: Keys, weights: NDArray[np.int64]) -> Self:
        """Tally keys in any order, one float32 a bin.

        Args:
            negatives: (N,) keys.
            positives: (P,) keys.
            weights: (P,) of the positives.
        """
        bins, at = np.unique(np.concatenate([negatives, positives]), return_inverse=True)
        counts = np.zeros((3, bins.size), np.int64)
        np.add.at(counts[NEGATIVES], at[: negatives.size], 1)
        np.add.at(counts[POSITIVES], at[negatives.size :], 1)
        np.add.at(counts[WEIGHTS], at[negatives.size :], weights)
        return cls(0, bins, counts, *np.zeros((2, bins.size), np.uint16))

    def coarser(self, shift: int) -> "Tally":
        """The same scores in bins that leave `shift` bits open, at least as many as now."""
        steps = shift - self.shift
        if not steps or not self.bins.size:
            return self._replace(shift=shift)
        within = (self.bins & ((1 << steps) - 1)) << self.shift
        bins = self.bins >> steps
        starts = _starts(bins)
        return Tally(
            shift,
            bins[starts],
            np.add.reduceat(self.counts, starts, axis=1),
            np.minimum.reduceat((within | self.lowest).astype(np.uint16), starts),
            np.maximum.reduceat((within | self.highest).astype(np.uint16), starts),
        )

    def lowest_keys(self) -> Keys:
        """(N,) the lowest key in each bin."""
        return (self.bins << self.shift) | self.lowest

    def highest_keys(self) -> Keys:
        """(N,) the highest key in each bin."""
        return (self.bins << self.shift) | self.highest


class ScoreBins:
    """Pages of bins, which are added, and coarsened, as new scores need it."""

    _counts: NDArray[np.int64]
    _pages: Keys
    _lowest: NDArray[np.uint16]
    _highest: NDArray[np.uint16]

    def __init__(self) -> None:
        self._open(shift=0, pages=np.empty(0, np.int64))

    def add(self, keys: Keys, row: int, weights: NDArray[np.int64] | None = None) -> None:
        """Count ascending keys, (N,), in a row, and sum their weights, (N,)."""
        if not keys.size:
            return
        shift = None
        while shift != self._shift:  # making room may coarsen the bins
            shift = self._shift
            bins = keys >> shift
            starts = _starts(bins)
            self._make_room(bins[starts] >> PAGE_BITS, shift)
        ends = np.append(starts[1:], keys.size) - 1
        at = self._places(bins[starts])
        self._counts[row, at] += ends - starts + 1
        if weights is not None:
            self._counts[WEIGHTS, at] += np.add.reduceat(weights, starts)
        open_bits = (1 << shift) - 1
        self._widen(at, (keys[starts] & open_bits).astype(np.uint16), (keys[ends] & open_bits).astype(np.uint16))

    def merge(self, other: Tally) -> None:
        """Add the scores of a tally."""
        if other.bins.size:
            self._make_room(other.bins >> PAGE_BITS, other.shift)
            self._put(other.coarser(self._shift))

    def tally(self) -> Tally:
        """Copies of the bins that hold scores."""
        bins = ((self._pages << PAGE_BITS)[:, None] + np.arange(PAGE)).reshape(-1)
        at = np.flatnonzero(self._counts.any(axis=0))
        return Tally(self._shift, bins[at], self._counts[:, at], self._lowest[at], self._highest[at])

    def _make_room(self, pages: Keys, shift: int) -> None:
        """Have a page for all bins of these pages, given ascending at a shift; coarsen where that takes too many."""
        held, pages = self._pages, pages[_starts(pages)]
        if shift == self._shift and np.isin(pages, held, assume_unique=True).all():
            return
        coarser = max(shift, self._shift)
        wanted = np.union1d(held >> (coarser - self._shift), pages >> (coarser - shift))
        while wanted.size > PAGES and coarser < MAX_SHIFT:
            coarser += 1
            wanted = np.unique(wanted >> 1)
        if coarser == self._shift:
            self._insert(np.setdiff1d(wanted, held, assume_unique=True), wanted)
            return
        tally = self.tally()
        self._open(coarser, wanted)
        self._put(tally.coarser(coarser))

    def _insert(self, new: Keys, pages: Keys) -> None:
        """Add empty pages to those held, which gives `pages`."""
        at = np.searchsorted(self._pages, new)
        self._pages = pages
        self._counts = np.insert(self._counts.reshape(3, -1, PAGE), at, 0, axis=1).reshape(3, -1)
        self._lowest = np.insert(self._lowest.reshape(-1, PAGE), at, NO_LOWEST, axis=0).reshape(-1)
        self._highest = np.insert(self._highest.reshape(-1, PAGE), at, 0, axis=0).reshape(-1)

    def _open(self, shift: int, pages: Keys) -> None:
        """Start with empty pages, ascending."""
        self._shift, self._pages = shift, pages
        self._counts = np.zeros((3, pages.size * PAGE), np.int64)
        self._lowest = np.full(pages.size * PAGE, NO_LOWEST, np.uint16)
        self._highest = np.zeros(pages.size * PAGE, np.uint16)

    def _places(self, bins: Keys) -> Keys:
        """Where ascending bins lie in the arrays."""
        pages = bins >> PAGE_BITS
        starts = _starts(pages)
        shifts = (np.searchsorted(self._pages, pages[starts]) - pages[starts]) << PAGE_BITS
        return bins + np.repeat(shifts, np.diff(starts, append=bins.size))

    def _put(self, tally: Tally) -> None:
        if tally.bins.size:
            at = self._places(tally.bins)
            self._counts[:, at] += tally.counts
            self._widen(at, tally.lowest, tally.highest)

    def _widen(self, at: Keys, lowest: NDArray[np.uint16], highest: NDArray[np.uint16]) -> None:
        self._lowest[at] = np.minimum(self._lowest[at], lowest)
        self._highest[at] = np.maximum(self._highest[at], highest)


def _starts(ascending: Keys) -> NDArray[np.intp]:
    """Where each run of equal values begins."""
    return np.append(0, np.flatnonzero(ascending[1:] != ascending[:-1]) + 1)
