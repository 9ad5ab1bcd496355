"""Score distributions that broke other implementations; every case holds both classes."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Latent = NDArray[np.float32]


def _saturated(latent: Latent) -> Latent:
    return (1 / (1 + np.exp(-12 * latent, dtype=np.float32))).astype(np.float32)


SCORES: dict[str, Callable[[Latent], NDArray]] = {
    "random": lambda x: x,
    "skewed_12": lambda x: (1 / (1 + np.exp(-x))) ** 12,
    "skewed_40": lambda x: (1 / (1 + np.exp(-x))) ** 40,
    "tied": lambda x: np.round(x, 1),
    "two_levels": lambda x: (x > 1).astype(np.float32),
    "constant": lambda x: np.full_like(x, 0.3),
    "saturated": _saturated,
    "negative": lambda x: x - 100,
    "unbounded": lambda x: np.exp(8 * x) * np.sign(x),
    "infinite": lambda x: np.where(np.abs(x) > 1.5, np.inf * x, x),
    "signed_zero": lambda x: np.where(np.abs(x) < 1, 0 * x, x),
    "float16": lambda x: x.astype(np.float16),
    "eight_bit": lambda x: np.clip(x * 32 + 128, 0, 255).astype(np.uint8),
}


def scored(name: str, n: int, seed: int = 0) -> tuple[NDArray, NDArray[np.bool_]]:
    """Return n scores of the named distribution, 5 % of them positive and higher by 1.5 spreads, and the targets."""
    rng = np.random.default_rng(seed)
    targets = rng.random(n) < 0.05
    latent = (rng.standard_normal(n) + 1.5 * targets).astype(np.float32)
    return SCORES[name](latent), targets
