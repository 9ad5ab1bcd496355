"""Speed, memory and error of pixel AUROC and AP: the streaming histogram against scikit-learn, interleaved.

Run `python -m defect_hub.benchmarks.metrics_speed`; it prints a Markdown table.
"""

import argparse
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from defect_hub.evaluate_metrics.kernels import ScoreHistogram, auroc, average_precision

Maps = tuple[NDArray[np.float32], NDArray[np.bool_]]
Metrics = tuple[float, float]
SIDE = 256
BATCH = 8


def make_maps(n: int, seed: int = 0) -> Maps:
    """Return n score maps (n, 256, 256) in (0, 1) and masks with 2 % defective pixels."""
    rng = np.random.default_rng(seed)
    masks = rng.random((n, SIDE, SIDE), dtype=np.float32) < 0.02
    logits = rng.standard_normal((n, SIDE, SIDE), dtype=np.float32) + 1.5 * masks - 2
    return (1 / (1 + np.exp(-logits, dtype=np.float32))).astype(np.float32), masks


def with_scikit_learn(maps: Maps) -> Metrics:
    """Return AUROC and AP of all pixels at once."""
    scores, targets = maps[0].ravel(), maps[1].ravel()
    return float(roc_auc_score(targets, scores)), float(average_precision_score(targets, scores))


def with_ranking(maps: Maps) -> Metrics:
    """Return AUROC and AP by the exact kernels."""
    return auroc(*maps), average_precision(*maps)


def with_histogram(maps: Maps) -> Metrics:
    """Return AUROC and AP streamed in batches of 8 maps."""
    histogram = ScoreHistogram()
    for start in range(0, len(maps[0]), BATCH):
        histogram.update(maps[0][start : start + BATCH], maps[1][start : start + BATCH])
    return histogram.auroc(), histogram.average_precision()


METHODS: dict[str, Callable[[Maps], Metrics]] = {
    "scikit-learn": with_scikit_learn,
    "kernels.ranking (exact)": with_ranking,
    "ScoreHistogram (streaming)": with_histogram,
}


def measure(maps: Maps, repeats: int) -> dict[str, tuple[float, float, Metrics]]:
    """Return the best seconds, the peak extra MB and the values of every method, methods interleaved."""
    seconds = {name: float("inf") for name in METHODS}
    values = {}
    for _ in range(repeats):
        for name, method in METHODS.items():
            start = time.perf_counter()
            values[name] = method(maps)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return {name: (seconds[name], _peak_megabytes(method, maps), values[name]) for name, method in METHODS.items()}


def _peak_megabytes(method: Callable[[Maps], Metrics], maps: Maps) -> float:
    tracemalloc.start()
    method(maps)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=int, nargs="+", default=[200, 800], help="numbers of 256x256 maps")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many runs counts")
    arguments = parser.parse_args()
    print("| maps | method | seconds | times faster | peak extra MB | AUROC error | AP error |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    for n in arguments.maps:
        results = measure(make_maps(n), arguments.repeats)
        reference_seconds, _, reference = results["scikit-learn"]
        for name, (seconds, megabytes, values) in results.items():
            errors = " | ".join(f"{abs(ours - theirs):.0e}" for ours, theirs in zip(values, reference, strict=True))
            print(f"| {n} | {name} | {seconds:.2f} | {reference_seconds / seconds:.1f} | {megabytes:.0f} | {errors} |")


if __name__ == "__main__":
    main()
