"""Speed, memory and error of the pixel metrics, methods interleaved: AUROC, AP and AUPRO of the same maps.

Run `python -m defect_hub.benchmarks.metrics_speed` (Linux); it prints a Markdown table. anomalib and torchmetrics take
part where they are installed.
"""

import argparse
import importlib.util
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from defect_hub.benchmarks.published_pro import published_aupro
from defect_hub.evaluate_metrics.kernels import PixelScores, aupro, auroc, average_precision

Maps = tuple[NDArray[np.float32], NDArray[np.bool_]]
Metrics = dict[str, float]
SIDE = 256
BATCH = 8
COLUMNS = ("AUROC", "AP", "AUPRO")
REFERENCE, OURS = "scikit-learn + published PRO", "PixelScores (streaming)"
RADII = (0.03, 0.11)  # of an ellipse, as a share of the map's side


def elliptical_defects(n: int, side: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return masks (n, side, side): every other one empty, else one to four ellipses; about 2 % of all pixels."""
    masks = np.zeros((n, side, side), bool)
    rows, columns = np.ogrid[:side, :side]
    for mask in masks[::2]:
        for _ in range(rng.integers(1, 5)):
            row, column = rng.integers(side, size=2)
            height, width = rng.uniform(*RADII, size=2) * side
            mask |= ((rows - row) / height) ** 2 + ((columns - column) / width) ** 2 <= 1
    return masks


def make_maps(n: int, seed: int = 0) -> Maps:
    """Return n score maps (n, 256, 256) in (0, 1), white noise that is higher on the defects, and the masks."""
    rng = np.random.default_rng(seed)
    masks = elliptical_defects(n, SIDE, rng)
    logits = rng.standard_normal(masks.shape, dtype=np.float32) + 1.5 * masks - 2
    return (1 / (1 + np.exp(-logits, dtype=np.float32))).astype(np.float32), masks


def with_scikit_learn(maps: Maps) -> Metrics:
    """Return AUROC and AP by scikit-learn and AUPRO by the published procedure: all pixels sorted three times."""
    scores, targets = maps[0].ravel(), maps[1].ravel()
    return {
        "AUROC": float(roc_auc_score(targets, scores)),
        "AP": float(average_precision_score(targets, scores)),
        "AUPRO": published_aupro(*maps),
    }


def with_exact_kernels(maps: Maps) -> Metrics:
    """Return the metrics by the exact functions."""
    return {"AUROC": auroc(*maps), "AP": average_precision(*maps), "AUPRO": aupro(*maps)}


def with_pixel_scores(maps: Maps) -> Metrics:
    """Return the metrics streamed in batches of 8 maps; F1-max and the best IoU are computed along with them."""
    state = PixelScores()
    for start in range(0, len(maps[0]), BATCH):
        state.update(maps[0][start : start + BATCH], maps[1][start : start + BATCH])
    result = state.compute()
    return {"AUROC": result["pixel_auroc"], "AP": result["pixel_ap"], "AUPRO": result["aupro_0.3"]}


def with_torchmetrics(maps: Maps) -> Metrics:
    """Return AUROC and AP by torchmetrics, exact."""
    from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

    state = {"AUROC": BinaryAUROC(), "AP": BinaryAveragePrecision()}
    for start in range(0, len(maps[0]), BATCH):
        scores, masks = (torch.from_numpy(part[start : start + BATCH]) for part in maps)
        for metric in state.values():
            metric.update(scores.flatten(), masks.flatten().int())
    return {name: float(metric.compute()) for name, metric in state.items()}


def with_anomalib(maps: Maps) -> Metrics:
    """Return the AUROC and AUPRO of pixels by anomalib."""
    from anomalib.metrics import AUPRO, AUROC

    fields = ["anomaly_map", "gt_mask"]
    state = {"AUROC": AUROC(fields=fields), "AUPRO": AUPRO(fields=fields)}
    for start in range(0, len(maps[0]), BATCH):
        scores, masks = (torch.from_numpy(part[start : start + BATCH]) for part in maps)
        for metric in state.values():
            metric.update(SimpleNamespace(anomaly_map=scores, gt_mask=masks.int()))
    return {name: float(metric.compute()) for name, metric in state.items()}


METHODS: dict[str, Callable[[Maps], Metrics]] = {
    REFERENCE: with_scikit_learn,
    "exact kernels": with_exact_kernels,
    OURS: with_pixel_scores,
}
if importlib.util.find_spec("torchmetrics"):
    METHODS["torchmetrics"] = with_torchmetrics
if importlib.util.find_spec("anomalib"):
    METHODS["anomalib"] = with_anomalib


def measure(maps: Maps, repeats: int) -> tuple[dict[str, float], dict[str, Metrics]]:
    """Return the least seconds and the values of every method; the methods take turns."""
    seconds = dict.fromkeys(METHODS, float("inf"))
    values = {}
    for _ in range(repeats):
        for name, method in METHODS.items():
            start = time.perf_counter()
            values[name] = method(maps)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds, values


def peak_megabytes(name: str, n: int) -> float:
    """Return the memory that a method takes at its peak beyond the n maps it is given; alone in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_here, name, n).result()


def _peak_here(name: str, n: int) -> float:
    METHODS[name](make_maps(2))  # loads what is loaded once
    maps = make_maps(n)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    before = _status_megabytes("VmRSS")
    METHODS[name](maps)
    return _status_megabytes("VmHWM") - before


def _status_megabytes(field: str) -> float:
    return int(Path("/proc/self/status").read_text().partition(f"{field}:")[2].split()[0]) * 1024 / 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, nargs="+", default=[200, 800], help="numbers of 256x256 maps")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many runs counts")
    arguments = parser.parse_args()
    for method in METHODS.values():
        method(make_maps(2))
    errors = " | ".join(f"{column} error" for column in COLUMNS)
    print(f"| maps | method | seconds | times PixelScores | peak extra MB | {errors} |")
    print("|---:|---|" + "---:|" * (3 + len(COLUMNS)))
    for n in arguments.maps:
        seconds, values = measure(make_maps(n), arguments.repeats)
        for name in METHODS:
            differences = {column: abs(value - values[REFERENCE][column]) for column, value in values[name].items()}
            shown = " | ".join(f"{differences[column]:.0e}" if column in differences else "-" for column in COLUMNS)
            ratio = seconds[name] / seconds[OURS]
            print(f"| {n} | {name} | {seconds[name]:.2f} | {ratio:.1f} | {peak_megabytes(name, n):.0f} | {shown} |")


if __name__ == "__main__":
    main()
