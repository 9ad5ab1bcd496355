"""Scores and defect shapes that broke other implementations; every case holds both classes."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from defect_hub.benchmarks.metrics_error import SCORES
from defect_hub.benchmarks.metrics_speed import elliptical_defects

Masks = NDArray[np.bool_]


def scored(name: str, n: int, seed: int = 0) -> tuple[NDArray, NDArray[np.bool_]]:
    """Return n scores of the named distribution, 5 % of them positive and higher by 1.5 spreads, and the targets."""
    rng = np.random.default_rng(seed)
    targets = rng.random(n) < 0.05
    latent = (rng.standard_normal(n) + 1.5 * targets).astype(np.float32)
    return SCORES[name](latent), targets


def _single_pixels(n: int, side: int, rng: np.random.Generator) -> Masks:
    masks = np.zeros((n, side, side), bool)
    masks[np.arange(n), rng.integers(side, size=n), rng.integers(side, size=n)] = True
    return masks


def _diagonal_neighbours(n: int, side: int, rng: np.random.Generator) -> Masks:
    """Squares that touch at a corner: one region each by 8-connectivity, two by 4-connectivity."""
    masks = np.zeros((n, side, side), bool)
    masks[:, 2:6, 2:6] = masks[:, 6:8, 6:8] = masks[:, 8, 5] = True
    masks[:, -3, -3] = masks[:, -2, -2] = True
    return masks


def _at_the_borders(n: int, side: int, rng: np.random.Generator) -> Masks:
    """Regions in all corners and along two edges; the last rows of one map and the first of the next are defective."""
    masks = np.zeros((n, side, side), bool)
    masks[:, 0, :] = masks[:, -2:, 4:] = masks[:, 3:6, 0] = masks[:, 8, -1] = True
    return masks


def _whole_maps(n: int, side: int, rng: np.random.Generator) -> Masks:
    masks = np.zeros((n, side, side), bool)
    masks[::2] = True
    return masks


def _noise(n: int, side: int, rng: np.random.Generator) -> Masks:
    """Many small ragged regions, some inside the holes of others."""
    return rng.random((n, side, side)) < 0.3


SHAPES: dict[str, Callable[[int, int, np.random.Generator], Masks]] = {
    "ellipses": elliptical_defects,
    "single_pixels": _single_pixels,
    "diagonal_neighbours": _diagonal_neighbours,
    "at_the_borders": _at_the_borders,
    "whole_maps": _whole_maps,
    "noise": _noise,
}


def scored_maps(
    name: str = "random", shape: str = "ellipses", n: int = 6, side: int = 32, seed: int = 0
) -> tuple[NDArray, Masks]:
    """Return score maps (n, side, side) of the named distribution, defects higher by 1.5 spreads, and the masks."""
    rng = np.random.default_rng(seed)
    masks = SHAPES[shape](n, side, rng)
    latent = (rng.standard_normal(masks.shape, dtype=np.float32) + np.float32(1.5) * masks).astype(np.float32)
    return SCORES[name](latent), masks
