"""Independent references of the metrics, from published definitions and well-kept libraries."""

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from defect_hub.benchmarks.published_pro import area_up_to, published_aupro, published_pro_curve

label_by_skimage = functools.partial(label, connectivity=2)
reference_pro_curve = functools.partial(published_pro_curve, label=label_by_skimage)
reference_aupro = functools.partial(published_aupro, label=label_by_skimage)


def brute_force_aupro(maps: Sequence[NDArray], masks: Sequence[NDArray], limit: float = 0.3) -> float:
    """Return the AUPRO by accepting pixels threshold by threshold and flood-filling regions; tiny inputs only."""
    regions = [(image, pixels) for image, mask in enumerate(masks) for pixels in _flooded(np.asarray(mask, bool))]
    n_normal = sum(int((~np.asarray(mask, bool)).sum()) for mask in masks)
    points = [(0.0, 0.0)]
    for threshold in sorted({score for scores in maps for score in scores.ravel().tolist()}, reverse=True):
        false_positives = sum(
            int(((scores >= threshold) & ~np.asarray(mask, bool)).sum())
            for scores, mask in zip(maps, masks, strict=True)
        )
        overlaps = [np.mean([maps[image][pixel] >= threshold for pixel in pixels]) for image, pixels in regions]
        points.append((false_positives / n_normal, float(np.mean(overlaps))))
    points.append((1.0, 1.0))
    x, y = np.array(points).T
    return area_up_to(x, y, limit)


def _flooded(mask: NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """Return the pixels of every 8-connected region."""
    left = set(zip(*map(np.ndarray.tolist, np.nonzero(mask)), strict=True))
    regions = []
    while left:
        region, front = [], [left.pop()]
        while front:
            row, column = front.pop()
            region.append((row, column))
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            front.extend(near)
        regions.append(region)
    return regions


def _flat(maps: Sequence[NDArray], masks: Sequence[NDArray]) -> tuple[NDArray, NDArray[np.bool_]]:
    """Return all scores as ranks, and their targets.

    scikit-learn sums differences of infinities and float16 thresholds badly; ranks order equally.
    """
    scores = np.concatenate([np.ravel(scores) for scores in maps])
    return np.unique(scores, return_inverse=True)[1], np.concatenate([np.ravel(mask) for mask in masks]).astype(bool)


def reference_auroc(maps: Sequence[NDArray], masks: Sequence[NDArray]) -> float:
    """Return the AUROC of all pixels by scikit-learn."""
    ranks, targets = _flat(maps, masks)
    return float(roc_auc_score(targets, ranks))


def reference_average_precision(maps: Sequence[NDArray], masks: Sequence[NDArray]) -> float:
    """Return the average precision of all pixels by scikit-learn."""
    ranks, targets = _flat(maps, masks)
    return float(average_precision_score(targets, ranks))


def reference_f1_max(maps: Sequence[NDArray], masks: Sequence[NDArray]) -> float:
    """Return the best F1 over all thresholds by scikit-learn; of pixels it is the best Dice."""
    ranks, targets = _flat(maps, masks)
    precision, recall, _ = precision_recall_curve(targets, ranks)
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))


def reference_iou_max(maps: Sequence[NDArray], masks: Sequence[NDArray]) -> float:
    """Return the best intersection over union over all thresholds, counted from scikit-learn's curve."""
    ranks, targets = _flat(maps, masks)
    precision, recall, _ = precision_recall_curve(targets, ranks)
    true_positives = recall * targets.sum()
    union = true_positives / np.maximum(precision, 1e-12) + targets.sum() - true_positives
    return float(np.max(true_positives / union))
