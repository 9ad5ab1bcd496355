"""Error of the streaming pixel metrics against the exact functions, on score distributions that broke other code.

Run `python -m defect_hub.benchmarks.metrics_error`; it prints a Markdown table.
"""

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from defect_hub.benchmarks.metrics_speed import BATCH, SIDE, elliptical_defects
from defect_hub.evaluate_metrics.kernels import PixelScores, aupro, auroc, average_precision, f1_max

Latent = NDArray[np.floating]


def _saturated(latent: Latent) -> Latent:
    return (1 / (1 + np.exp(-12 * latent, dtype=np.float32))).astype(np.float32)


def _one_outlier(latent: Latent) -> Latent:
    """A large offset, and a single 0, such as a border that a model never scores."""
    scores = latent + np.float32(1_000)
    scores.flat[0] = 0
    return scores


SCORES: dict[str, Callable[[Latent], NDArray]] = {
    "random": lambda x: x,
    "skewed_12": lambda x: (1 / (1 + np.exp(-x))) ** 12,
    "skewed_40": lambda x: (1 / (1 + np.exp(-x))) ** 40,
    "tied": lambda x: np.round(x, 1),
    "two_levels": lambda x: (x > 1).astype(np.float32),
    "constant": lambda x: np.full_like(x, 0.3),
    "saturated": _saturated,
    "minus_saturated": lambda x: -_saturated(0.8 - x / 3),  # minus the probability of being normal
    "negative": lambda x: x - 100,
    "shifted_100": lambda x: x + 100,
    "shifted_1000": lambda x: x + 1_000,
    "shifted_10000": lambda x: x + 10_000,
    "one_outlier": _one_outlier,
    "unbounded": lambda x: np.exp(8 * x) * np.sign(x),
    "infinite": lambda x: np.where(np.abs(x) > 1.5, np.inf * x, x),
    "signed_zero": lambda x: np.where(np.abs(x) < 1, 0 * x, x),
    "float16": lambda x: x.astype(np.float16),
    "eight_bit": lambda x: np.clip(x * 32 + 128, 0, 255).astype(np.uint8),
}


def _offset_and_wide(latent: Latent) -> Latent:
    scores = latent + 1_000
    wide = np.random.default_rng(0).random(latent.shape) < 0.01
    scores[wide] = np.exp(20 * latent[wide])
    return scores


# Crowded at a number that is not 0, and spread over many orders of magnitude as well: too much for the bins.
HARD: dict[str, Callable[[Latent], NDArray]] = {
    "sigmoid_plus_1": lambda x: 1 + _saturated(x),
    "sigmoid_plus_10": lambda x: 10 + _saturated(x),
    "shifted_1000_and_1_%_wide": _offset_and_wide,
}
COLUMNS = ("AUROC", "AP", "AUPRO", "F1-max")


def errors(name: str, n: int, seed: int) -> tuple[float, ...]:
    """Return the absolute errors of AUROC, AP, AUPRO and F1-max over n maps of a distribution."""
    rng = np.random.default_rng(seed)
    masks = elliptical_defects(n, SIDE, rng)
    latent = rng.standard_normal(masks.shape, dtype=np.float32) + np.float32(1.5) * masks
    maps = (SCORES | HARD)[name](latent).astype(np.float32)
    state = PixelScores()
    for start in range(0, n, BATCH):
        state.update(maps[start : start + BATCH], masks[start : start + BATCH])
    exact = auroc(maps, masks), average_precision(maps, masks), aupro(maps, masks), f1_max(maps, masks)[0]
    streamed = state.auroc(), state.average_precision(), state.aupro(), state.f1_max()[0]
    return tuple(abs(ours - true) for ours, true in zip(streamed, exact, strict=True))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=40, help="number of 256x256 maps; up to 16 are exact anyway")
    parser.add_argument("--seeds", type=int, default=3, help="the worst of so many draws counts")
    arguments = parser.parse_args()
    print(f"| scores | {' | '.join(COLUMNS)} |")
    print("|---|" + "---:|" * len(COLUMNS))
    for name in tqdm([*SCORES, *HARD], leave=False):
        worst = np.max([errors(name, arguments.maps, seed) for seed in range(arguments.seeds)], axis=0)
        print(f"| {name.replace('_', ' ')} | {' | '.join('0' if error == 0 else f'{error:.0e}' for error in worst)} |")


if __name__ == "__main__":
    main()
