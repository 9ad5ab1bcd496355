"""Random detections and annotated boxes, and what independent references say of them."""

import contextlib
import io
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Item = dict[str, Any]
KEYS = [
    *("ap", "ap_50", "ap_75", "ap_small", "ap_medium", "ap_large"),
    *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
]


@dataclass(frozen=True)
class Kind:
    """How random boxes are drawn.

    Attributes:
        images: number of images, of which about `normal` have no object.
        classes: number of labels; only the first `annotated` occur in references.
        objects: at most so many in an image; 0: none.
        found: chance that an object is detected.
        alarms: at most so many detections of nothing in an image.
        levels: scores are rounded to so many steps; 0: not at all.
        crowds: share of crowd boxes.
        sides: shortest and longest side of a box in pixels.
    """

    images: int = 16
    classes: int = 5
    annotated: int = 5
    objects: int = 6
    found: float = 0.8
    alarms: int = 6
    levels: int = 0
    crowds: float = 0.0
    normal: float = 0.2
    sides: tuple[float, float] = (4, 250)


KINDS = {
    "plain": Kind(),
    "crowds": Kind(crowds=0.3),
    "only crowds": Kind(crowds=1.0),
    "ties in scores": Kind(levels=4),
    "all scores equal": Kind(levels=1),
    "classes without boxes": Kind(classes=12, annotated=3),
    "many detections": Kind(images=4, classes=2, annotated=2, alarms=400, objects=20),
    "many detections, ties, crowds": Kind(images=4, classes=1, annotated=1, alarms=300, levels=3, crowds=0.2),
    "tiny boxes": Kind(sides=(1, 4)),
    "large boxes": Kind(sides=(120, 400)),
    "one class": Kind(classes=1, annotated=1),
    "one image": Kind(images=1, normal=0),
    "no detections": Kind(found=0, alarms=0),
    "only false alarms": Kind(found=0),
    "no objects": Kind(objects=0),
    "nothing at all": Kind(objects=0, alarms=0),
    "nearly all normal": Kind(images=40, normal=0.95),
}


def draw(kind: Kind, seed: int = 0) -> tuple[list[Item], list[Item]]:
    """Return predictions (xyxy, float32) and references (xywh, image ids not in order)."""
    random = np.random.default_rng(seed)
    predictions, references = [], []
    for image_id in random.permutation(10 * kind.images)[: kind.images]:
        normal = random.random() < kind.normal
        objects = _boxes(random, 0 if normal else random.integers(0, kind.objects + 1), kind)
        category = random.integers(0, kind.annotated, len(objects))
        found = random.random(len(objects)) < kind.found
        near = objects[found] + random.normal(0, 0.08, (found.sum(), 4)) * objects[found][:, [2, 3, 2, 3]]
        alarms = _boxes(random, random.integers(0, kind.alarms + 1), kind)
        boxes = np.concatenate([near, alarms])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], 0)
        labels = np.concatenate([category[found], random.integers(0, kind.classes, len(alarms))])
        labels = np.where(random.random(len(labels)) < 0.1, random.integers(0, kind.classes, len(labels)), labels)
        scores = random.random(len(boxes))
        corners = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]).astype(np.float32)
        predictions.append(
            {
                "boxes": corners,
                "scores": np.ceil(scores * kind.levels) / kind.levels if kind.levels else scores.astype(np.float32),
                "labels": labels,
            }
        )
        # As of a mask, which fills its box only in part.
        area = objects[:, 2] * objects[:, 3] * random.uniform(0.5, 1, len(objects))
        crowd = random.random(len(objects)) < kind.crowds
        objects_row = {"bbox": objects, "category": category, "area": area, "iscrowd": crowd}
        references.append({"image_id": int(image_id), "objects": objects_row})
    return predictions, references


def _boxes(random: np.random.Generator, count: int, kind: Kind) -> NDArray[np.float64]:
    sides = random.uniform(*kind.sides, (count, 2))
    return np.hstack([random.uniform(0, 600, (count, 2)), sides]).astype(np.float32).astype(np.float64)


def with_pycocotools(predictions: list[Item], references: list[Item], classes: int) -> tuple[Item, NDArray[Any]]:
    """Return COCO's figures by our names, without those of -1, and the AP of each class, -1 where it has none."""
    truth, found = [], []
    for prediction, reference in zip(predictions, references, strict=True):
        row = reference["objects"]
        for box, label, area, crowd in zip(row["bbox"], row["category"], row["area"], row["iscrowd"], strict=True):
            truth.append({"bbox": box.tolist(), "category_id": int(label), "area": float(area), "iscrowd": int(crowd)})
            truth[-1] |= {"image_id": reference["image_id"], "id": len(truth)}
        boxes = np.float64(prediction["boxes"]).reshape(-1, 4)
        for (x1, y1, x2, y2), score, label in zip(boxes, prediction["scores"], prediction["labels"], strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            found.append({"bbox": box, "category_id": int(label), "score": float(score), "area": box[2] * box[3]})
            found[-1] |= {"image_id": reference["image_id"], "id": len(found), "iscrowd": 0}
    head = {
        "images": [{"id": reference["image_id"]} for reference in references],
        "categories": [{"id": number} for number in range(classes)],
    }
    return evaluated(_coco(head | {"annotations": truth}), _coco(head | {"annotations": found}))


def evaluated(truth: COCO, found: COCO) -> tuple[Item, NDArray[Any]]:
    """Return pycocotools' figures by our names, and the AP of each class."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(truth, found, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    figures = {name: value for name, value in zip(KEYS, evaluator.stats, strict=True) if value > -1}
    return figures, evaluator.eval["precision"][..., 0, -1].mean(axis=(0, 1))


def _coco(content: Item) -> COCO:
    coco = COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def at_best_f1(predictions: list[Item], references: list[Item]) -> Item:
    """Return mean precision, recall and F1 at the best threshold, by trying every score, box by box."""
    objects: dict[int, int] = defaultdict(int)
    outcomes: list[tuple[float, int, bool]] = []
    for prediction, reference in zip(predictions, references, strict=True):
        row = reference["objects"]
        for label, crowd in zip(row["category"], row["iscrowd"], strict=True):
            objects[int(label)] += not crowd
        for label in set(prediction["labels"].tolist()):
            chosen = np.flatnonzero(prediction["labels"] == label)
            chosen = chosen[np.argsort(-prediction["scores"][chosen], kind="stable")][:100]
            truth = [number for number, other in enumerate(row["category"]) if other == label]
            free = {number for number in truth if not row["iscrowd"][number]}
            for number in chosen:
                overlaps = {
                    other: _iou(prediction["boxes"][number], row["bbox"][other], row["iscrowd"][other])
                    for other in truth
                }
                good = {other: overlap for other, overlap in overlaps.items() if overlap >= 0.5}
                best = max(good.keys() & free, key=good.__getitem__, default=None)
                if best is not None:
                    free.remove(best)
                elif any(row["iscrowd"][other] for other in good):
                    continue
                outcomes.append((float(prediction["scores"][number]), label, best is not None))
    counts = {label: count for label, count in objects.items() if count}
    outcomes = [outcome for outcome in outcomes if outcome[1] in counts]
    best: Item = {}
    for threshold in sorted({score for score, _, _ in outcomes}, reverse=True):
        figures = []
        for label, count in counts.items():
            hits = [hit for score, other, hit in outcomes if other == label and score >= threshold]
            precision = sum(hits) / len(hits) if hits else 0.0
            recall = sum(hits) / count
            figures.append((precision, recall, 2 * sum(hits) / (len(hits) + count)))
        means = dict(zip(("precision", "recall", "f1"), map(float, np.mean(figures, axis=0)), strict=True))
        if not best or means["f1"] > best["f1"] + 1e-9:
            best = means | {"threshold": threshold}
    return best


def _iou(corners: NDArray[Any], box: NDArray[Any], crowd: bool) -> float:
    x1, y1, x2, y2 = map(float, corners)
    x, y, width, height = map(float, box)
    across, down = min(x2, x + width) - max(x1, x), min(y2, y + height) - max(y1, y)
    shared = across * down if across > 0 and down > 0 else 0.0
    own = (x2 - x1) * (y2 - y1)
    return shared / (own if crowd else own + width * height - shared) if shared else 0.0
