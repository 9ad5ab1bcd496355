"""The boxes of many images together, and how detections match objects, by faster-coco-eval."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.boxes import (
    AREA,
    CATEGORY,
    DETECTION_COLUMNS,
    IS_CROWD,
    LABEL,
    LIMIT,
    OBJECT_COLUMNS,
    SCORE,
    Rows,
    stacked,
)
from defect_hub.evaluate_metrics.extras import needed_for

Integers = NDArray[np.int64]
# Of a class in an image, the detections of highest score.
MAX_DETECTIONS = (1, 10, 100)
Range = tuple[float, float]
# Area in pixels; both ends belong to a range, as in COCO.
ALL_SIZES: Range = (0, LIMIT**2)
SIZES: dict[str, Range] = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, LIMIT**2)}
# IoU; not `arange`, which would step over some of them by a rounding error.
THRESHOLDS = np.linspace(0.5, 0.95, 10)
# A mean F1 summed in another order differs by less.
ROUNDING = 1e-9


class PooledBoxes:
    """The boxes that count: of classes with boxes, the objects, and of each image the 100 detections of highest score.

    Attributes:
        classes: (K,) the labels that have a box which is not a crowd, ascending.
        objects: (G, 8), see `boxes`.
        detections: (D, 6), ordered by class, image and falling score.
    """

    def __init__(self, objects: Sequence[Rows], detections: Sequence[Rows]) -> None:
        """Pool the boxes of N images, each (G, 8) and (D, 6)."""
        truth, found = stacked(objects, OBJECT_COLUMNS), stacked(detections, DETECTION_COLUMNS)
        self.classes = np.unique(truth[truth[:, IS_CROWD] == 0, CATEGORY]).astype(np.int64)
        self.objects, self._object_class, object_pair = self._of_classes(truth, CATEGORY, objects)
        found, found_class, found_pair = self._of_classes(found, LABEL, detections)
        order = np.lexsort((-found[:, SCORE], found_pair))
        rank = np.arange(len(order)) - np.searchsorted(found_pair[order], found_pair[order])
        best = order[rank < MAX_DETECTIONS[-1]]
        self.detections, self._detection_class, detection_pair = found[best], found_class[best], found_pair[best]
        # The library looks at every pair of class and image, also those without any box. As classes do not touch each
        # other, the images of each class are numbered anew, only those with boxes: fewer pairs, the same result.
        pairs = np.unique(np.concatenate([object_pair, detection_pair]))
        first = np.searchsorted(pairs, np.arange(len(self.classes)) * len(objects))
        object_image = np.searchsorted(pairs, object_pair) - first[self._object_class]
        detection_image = np.searchsorted(pairs, detection_pair) - first[self._detection_class]
        objects_area, detections_area = self.objects[:, AREA], self.detections[:, 2] * self.detections[:, 3]
        is_crowd, scores = self.objects[:, IS_CROWD].astype(np.int64), self.detections[:, SCORE]
        self._evaluator = _evaluator(
            _annotations(object_image, self._object_class, self.objects, area=objects_area, iscrowd=is_crowd),
            _annotations(detection_image, self._detection_class, self.detections, area=detections_area, score=scores),
            n_images=1 + max(object_image.max(initial=-1), detection_image.max(initial=-1)),
            n_classes=len(self.classes),
        )

    def _of_classes(self, rows: Rows, column: int, images: Sequence[Rows]) -> tuple[Rows, Integers, Integers]:
        """Return the rows of `classes`, the number of their class, and that of their pair of class and image."""
        kept = np.isin(rows[:, column], self.classes)
        number = np.searchsorted(self.classes, rows[kept, column])
        image = np.repeat(np.arange(len(images)), [len(boxes) for boxes in images])[kept]
        return rows[kept], number, number * len(images) + image

    def precision_and_recall(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what COCO averages; -1 stands for a class without boxes of a size.

        Returns:
            Precision (T, R, K, A, M) and recall (T, K, A, M): for T = 10 IoU thresholds, R = 101 recalls, K classes,
            A = 4 areas (all, small, medium, large), and M = 3 numbers of detections (1, 10, 100).
        """
        result = self._evaluate(THRESHOLDS, [ALL_SIZES, *SIZES.values()], MAX_DETECTIONS)
        return result["precision"], result["recall"]

    def at_best_f1(self) -> dict[str, float]:
        """Return precision, recall and F1, means over classes, at the score threshold where the mean F1 is highest.

        Matches are those of COCO at IoU 0.5; detections of crowds do not count. See `best_f1`.
        """
        matched = self._evaluate(THRESHOLDS[:1], [ALL_SIZES], MAX_DETECTIONS[-1:])["matched"]
        # Keys are "detection_object", both from 1.
        detection, matched_object = np.array([key.split("_") for key in matched], int).reshape(-1, 2).T - 1
        crowd = self.objects[:, IS_CROWD] == 1
        hit, counts = np.zeros(len(self.detections), dtype=bool), np.ones(len(self.detections), dtype=bool)
        hit[detection] = True
        counts[detection[crowd[matched_object]]] = False
        n_objects = np.bincount(self._object_class[~crowd], minlength=len(self.classes))
        return best_f1(self.detections[counts, SCORE], hit[counts], self._detection_class[counts], n_objects)

    def _evaluate(
        self, thresholds: NDArray[np.float64], areas: Sequence[Range], max_detections: Sequence[int]
    ) -> dict[str, Any]:
        parameters = self._evaluator.params
        parameters.iouThrs, parameters.areaRng, parameters.maxDets = thresholds, list(areas), list(max_detections)
        self._evaluator.evaluate()
        return self._evaluator.eval


def _annotations(images: Integers, classes: Integers, boxes: Rows, **extra: NDArray[Any]) -> list[dict[str, Any]]:
    """Return boxes as COCO has them."""
    ids = np.arange(1, len(boxes) + 1)
    columns = {"id": ids, "image_id": images, "category_id": classes, "bbox": boxes[:, :4], **extra}
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _evaluator(truth: list[dict[str, Any]], found: list[dict[str, Any]], n_images: int, n_classes: int) -> Any:
    """Return the library's evaluator of annotations with image and category ids from 0."""
    with needed_for("COCO AP", "faster-coco-eval"):
        from faster_coco_eval import COCO, COCOeval_faster
    images = [{"id": number} for number in range(n_images)]
    categories = [{"id": number} for number in range(n_classes)]
    objects, detections = (
        COCO({"images": images, "categories": categories, "annotations": part}) for part in (truth, found)
    )
    evaluator = COCOeval_faster(objects, detections, "bbox")
    # Each evaluation needs them, and they stay the same.
    evaluator.computeIoU = cache(evaluator.computeIoU)
    return evaluator


def best_f1(
    scores: NDArray[np.float64], hit: NDArray[np.bool_], labels: Integers, n_objects: Integers
) -> dict[str, float]:
    """Return precision, recall and F1, means over classes, at the score threshold of the highest mean F1.

    Args:
        scores: (D,) of detections.
        hit: (D,) whether a detection found an object.
        labels: (D,) number of its class, below K.
        n_objects: (K,) objects of each class, at least 1.

    Returns:
        "precision", "recall", "f1" in [0, 1] and "threshold"; empty if there are no detections.
    """
    if not len(scores):
        return {}
    order = np.lexsort((-scores, labels))
    of_class = labels[order]
    first = np.searchsorted(of_class, of_class)
    total = np.cumsum(hit[order])
    hits: Integers = total - (total - hit[order])[first]
    f1 = 2 * hits / (np.arange(len(order)) - first + 1 + n_objects[of_class])
    # How each detection, as the threshold falls to its score, changes the F1 of its class.
    change = np.diff(f1, prepend=0)
    change[first] = f1[first]
    falling = np.argsort(-scores[order], kind="stable")
    ranked = scores[order][falling]
    mean_f1 = np.cumsum(change[falling]) / len(n_objects)
    last_of_equal = np.append(ranked[1:] != ranked[:-1], True)
    mean_f1 = np.where(last_of_equal, mean_f1, -1)
    threshold = ranked[np.argmax(mean_f1 >= mean_f1.max() - ROUNDING)]

    chosen = scores >= threshold
    n_hits = np.bincount(labels[chosen & hit], minlength=len(n_objects))
    n_chosen = np.bincount(labels[chosen], minlength=len(n_objects))
    return {
        "precision": float((n_hits / np.maximum(n_chosen, 1)).mean()),
        "recall": float((n_hits / n_objects).mean()),
        "f1": float((2 * n_hits / (n_chosen + n_objects)).mean()),
        "threshold": float(threshold),
    }
