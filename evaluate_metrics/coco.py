"""Object detection: the average precision of COCO, and precision and recall at the best score threshold."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.box_matching import MAX_DETECTIONS, SIZES, PooledBoxes
from defect_hub.evaluate_metrics.boxes import (
    BOX_FORMATS,
    CATEGORY,
    DETECTION_COLUMNS,
    IS_NOVEL,
    OBJECT_COLUMNS,
    Rows,
    read_detections,
    read_objects,
    stacked,
)
from defect_hub.evaluate_metrics.extras import needed_for
from defect_hub.evaluate_metrics.kernels import UndefinedMetricError
from defect_hub.evaluate_metrics.kernels.states import Arrays, MetricState, defined

ImageId = int | str
# Objects (G, 8) and detections (D, 6), see `boxes`.
Image = tuple[Rows, Rows]


class CocoDetections(MetricState):
    """Boxes of images, for the metrics of COCO; exact, so the state grows: 64 bytes an object, 48 a detection.

    An image counts once: one seen again is left out if its boxes are the same (samplers of several processes repeat
    images to even out their shares), and refused if they are not. The order of images does not matter: equal scores
    within an image rank as they are given, equal scores of several images by image id, as in COCO.

    Args:
        class_names: in the order of labels; empty: classes are named by their numbers.
        novel_names: the classes of "ap_novel"; empty: those with a box whose `is_novel` is true.
        prediction_format: "xyxy", two corners, as transformers returns boxes, or "xywh".
        reference_format: "xywh", corner, width and height, as COCO and our data sets have boxes, or "xyxy".

    Raises:
        ImportError: faster-coco-eval is missing.
        ValueError: an unknown format, a string in place of a list of names, a class name given twice or ending in
            a null character, or a novel class that is not a class.
    """

    def __init__(
        self,
        class_names: Sequence[str] = (),
        novel_names: Sequence[str] = (),
        prediction_format: str = "xyxy",
        reference_format: str = "xywh",
    ) -> None:
        # Where it is missing, say so before hours of detection.
        with needed_for("COCO AP", "faster-coco-eval"):
            import faster_coco_eval  # noqa: F401
        for box_format in (prediction_format, reference_format):
            if box_format not in BOX_FORMATS:
                raise ValueError(f"box format {box_format!r} is unknown; choose one of {', '.join(BOX_FORMATS)}")
        for field, names in (("class_names", class_names), ("novel_names", novel_names)):
            if isinstance(names, str):
                raise ValueError(f"{field} must be a list of names, got {names!r}; write [{names!r}]")
        for name in class_names:
            _check_text("class_names", name)
        if len(set(class_names)) < len(class_names):
            raise ValueError("class_names: a name occurs twice; names must differ")
        if unknown := sorted(set(novel_names) - set(class_names)):
            raise ValueError(f"novel_names: {', '.join(unknown)} not among class_names")
        self.class_names, self.novel_names = list(class_names), list(novel_names)
        self.prediction_format, self.reference_format = prediction_format, reference_format
        self._images: dict[ImageId, Image] = {}

    @property
    def n_images(self) -> int:
        """Number of different images."""
        return len(self._images)

    def update(self, predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]) -> None:
        """Add images.

        Args:
            predictions: for each image "boxes" (N, 4) in pixels, "scores" (N,), "labels" (N,): what
                `post_process_object_detection` of transformers returns. Without detections, they are empty.
            references: for each image "image_id" (a number or a text) and "objects", as in the rows of our data sets:
                "bbox" (N, 4), "category" (N,), "area" (N,), if known "iscrowd" (N,) and "is_novel" (N,). They are
                empty for a normal image.

        Raises:
            ValueError: an impossible box, score or label, by image and number; an image seen before with other boxes.
                No image of the call is then added.
        """
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions but {len(references)} references")
        images: dict[ImageId, Image] = {}
        n_classes = len(self.class_names)
        for prediction, reference in zip(predictions, references, strict=True):
            if missing := {"image_id", "objects"} - set(reference):
                raise ValueError(f"a reference lacks {', '.join(sorted(missing))}; found {', '.join(reference)}")
            image_id = _checked_id(reference["image_id"])
            where = f"image {image_id!r}"
            objects = read_objects(reference["objects"], self.reference_format, n_classes, where)
            detections = read_detections(prediction, self.prediction_format, n_classes, where)
            _add(images, {image_id: (objects, detections)})
        _add(self._images, images)

    def merge(self, other: Self) -> None:
        """Add the images of another state.

        Raises:
            ValueError: it has other class names or novel names, or other boxes of an image of both.
        """
        if (self.class_names, self.novel_names) != (other.class_names, other.novel_names):
            raise ValueError("the states to merge have different class_names or novel_names; create them alike")
        _add(self._images, other._images)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return the settings and all boxes, images in the order of their ids."""
        objects, detections = self._by_id()
        return {
            "class_names": np.array(self.class_names, dtype=np.str_),
            "novel_names": np.array(self.novel_names, dtype=np.str_),
            "formats": np.array([self.prediction_format, self.reference_format]),
            "image_ids": np.array(sorted(self._images)),
            "n_objects": np.array([len(rows) for rows in objects], dtype=np.int64),
            "n_detections": np.array([len(rows) for rows in detections], dtype=np.int64),
            "objects": stacked(objects, OBJECT_COLUMNS),
            "detections": stacked(detections, DETECTION_COLUMNS),
        }

    @classmethod
    def from_state_dict(cls, arrays: Arrays) -> Self:
        """Rebuild a state; the inverse of `state_dict`."""
        state = cls(arrays["class_names"].tolist(), arrays["novel_names"].tolist(), *arrays["formats"].tolist())
        objects = np.split(arrays["objects"], np.cumsum(arrays["n_objects"]))
        detections = np.split(arrays["detections"], np.cumsum(arrays["n_detections"]))
        # `split` returns a part more: what is left at the end, nothing.
        images = zip(objects[:-1], detections[:-1], strict=True)
        state._images = dict(zip(arrays["image_ids"].tolist(), images, strict=True))
        return state

    def compute(self) -> dict[str, Any]:
        """Return the metrics, in [0, 1]; classes without boxes count nowhere.

        Returns:
            "ap": mean over classes and the IoU thresholds 0.50, 0.55, ... 0.95 of the precision at 101 recalls.
            "ap_50", "ap_75": at one threshold.
            "ap_small", "ap_medium", "ap_large": of objects by area; limits at 32 x 32 px and 96 x 96 px.
            "ar_1", "ar_10", "ar_100": mean recall with so many detections for each class and image.
            "ar_small", "ar_medium", "ar_large": with 100.
            "class_ap": "ap" by class name.
            "ap_base", "ap_novel": "ap" of the other and of the novel classes; only where novelty is known.
            "precision", "recall", "f1", "threshold": see `PooledBoxes.at_best_f1`.
            "undefined": why others are absent, by name.
        """
        boxes = PooledBoxes(*self._by_id())
        precision, recall = boxes.precision_and_recall()
        names = [self.class_names[label] if self.class_names else str(label) for label in boxes.classes]
        empty = "" if names else "no reference has a box that is not a crowd"
        overall = {
            "ap": precision[..., 0, -1],
            "ap_50": precision[0, :, :, 0, -1],
            "ap_75": precision[5, :, :, 0, -1],
            **{f"ar_{count}": recall[..., 0, number] for number, count in enumerate(MAX_DETECTIONS)},
        }
        metrics: dict[str, Callable[[], Any]] = {name: partial(_mean, part, empty) for name, part in overall.items()}
        for number, size in enumerate(SIZES, 1):
            reason = empty or f"no reference has a {size} box"
            metrics[f"ap_{size}"] = partial(_mean, precision[..., number, -1], reason)
            metrics[f"ar_{size}"] = partial(_mean, recall[..., number, -1], reason)
        for group, chosen in self._groups(boxes).items():
            reason = empty or f"no reference has a box of a {group} class"
            metrics[f"ap_{group}"] = partial(_mean, precision[:, :, chosen, 0, -1], reason)
        best = boxes.at_best_f1()
        for name in ("precision", "recall", "f1", "threshold"):
            metrics[name] = partial(_entry, best, name, empty or "no detection is of a class that has boxes")
        class_ap = dict(zip(names, overall["ap"].mean(axis=(0, 1)).tolist(), strict=True))
        return {"class_ap": class_ap} | defined(metrics)

    def _by_id(self) -> tuple[list[Rows], list[Rows]]:
        """Return the objects and the detections of all images in the order of their ids."""
        images = [self._images[image_id] for image_id in sorted(self._images)]
        return [objects for objects, _ in images], [detections for _, detections in images]

    def _groups(self, boxes: PooledBoxes) -> dict[str, NDArray[np.bool_]]:
        """Return which of the K classes are base and which novel; empty: not known."""
        novelty = boxes.objects[:, IS_NOVEL]
        if self.novel_names:
            labels = [self.class_names.index(name) for name in self.novel_names]
        elif np.isnan(novelty).all():
            return {}
        else:
            labels = boxes.objects[novelty == 1, CATEGORY]
        novel = np.isin(boxes.classes, labels)
        return {"base": ~novel, "novel": novel}


def _checked_id(image_id: Any) -> ImageId:
    if isinstance(image_id, str):
        _check_text("image_id", image_id)
        return str(image_id)
    if not isinstance(image_id, int | np.integer):
        raise ValueError(f"image_id must be a whole number or a text, got {image_id!r}")
    if not -(1 << 63) <= image_id < 1 << 63:
        raise ValueError(f"image_id {image_id} does not fit in 64 bits; give it as a text")
    return int(image_id)


def _check_text(field: str, text: str) -> None:
    """Refuse what an array of texts would change."""
    if text.endswith("\0"):
        raise ValueError(f"{field}: {text!r} ends in a null character; leave it out")


def _add(images: dict[ImageId, Image], new: Mapping[ImageId, Image]) -> None:
    """Add images; nothing is changed if one is refused."""
    if {type(image_id) for image_id in new} | {type(image_id) for image_id in islice(images, 1)} == {int, str}:
        raise ValueError("image_id: numbers and texts are mixed; use one of them for all images")
    for image_id in images.keys() & new.keys():
        if not all(map(_same, images[image_id], new[image_id])):
            raise ValueError(
                f"image {image_id!r} was added before with other boxes; each image needs an id of its own"
            )
    images.update(new)


def _same(one: Rows, other: Rows) -> bool:
    return np.array_equal(one, other, equal_nan=True)


def _mean(values: NDArray[np.float64], reason: str) -> float:
    """Average over what exists, as COCO does; -1 stands for a class without boxes."""
    values = values[values > -1]
    if not values.size:
        raise UndefinedMetricError(reason)
    return float(values.mean())


def _entry(values: Mapping[str, float], name: str, reason: str) -> float:
    if name not in values:
        raise UndefinedMetricError(reason)
    return values[name]
