"""Curves over all thresholds, few enough points to draw, and the area under a part of one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_POINTS = 2000

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Curve:
    """A curve over falling thresholds.

    Attributes:
        x: (P,) 0-1, ascending.
        y: (P,) 0-1.
        threshold: (P,) the point holds for `score >= threshold`; infinite where nothing is called defective.
    """

    x: Floats
    y: Floats
    threshold: Floats

    def thinned(self) -> "Curve":
        """At most MAX_POINTS of the points, evenly spaced along the curve, both ends included."""
        if self.x.size <= MAX_POINTS:
            return self
        along = np.cumsum(np.abs(np.diff(self.x, prepend=0)) + np.abs(np.diff(self.y, prepend=self.y[0])))
        wanted = np.linspace(along[0], along[-1], MAX_POINTS)
        at = np.unique(np.searchsorted(along, wanted).clip(0, self.x.size - 1))
        at = np.union1d(at, [0, self.x.size - 1])[:MAX_POINTS]
        at[-1] = self.x.size - 1
        return Curve(self.x[at], self.y[at], self.threshold[at])


def area_up_to(x: Floats, y: Floats, limit: float) -> float:
    """Area under straight lines between points, from the first x to `limit`, which the last x reaches."""
    inside = int(np.searchsorted(x, limit, side="right"))
    end = np.interp(limit, x[inside - 1 : inside + 1], y[inside - 1 : inside + 1])
    return float(np.trapezoid(np.append(y[:inside], end), np.append(x[:inside], limit)))
