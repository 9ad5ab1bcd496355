"""Boxes of detections and references: checked, and brought to one form, an array with a row for each box."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.kernels.inputs import as_array

BOX_FORMATS = ("xyxy", "xywh")
# Pixels. The largest size that COCO counts is the square of this.
LIMIT = 1e5
# Columns; both begin with the box: x and y of the top left corner, width, height.
SCORE, LABEL = 4, 5
CATEGORY, AREA, IS_CROWD, IS_NOVEL = 4, 5, 6, 7
DETECTION_COLUMNS, OBJECT_COLUMNS = 6, 8

Rows = NDArray[np.float64]


def read_detections(prediction: Mapping[str, Any], box_format: str, n_classes: int, where: str) -> Rows:
    """Return the detections of one image.

    Args:
        prediction: "boxes" (N, 4) in pixels, "scores" (N,) of any range, "labels" (N,), as the post-processing of
            object detectors in transformers returns them.
        box_format: "xyxy" (two corners) or "xywh" (corner, width, height).
        n_classes: labels must be below; 0: any number.
        where: the image, for messages.

    Returns:
        (N, 6): x, y, width, height, score, label.

    Raises:
        ValueError: a part is missing, of another length, or has an impossible value.
    """
    boxes = _boxes(_part(prediction, "boxes", where), box_format, f"{where}: prediction boxes")
    scores = _column(prediction, "scores", boxes, where)
    _refuse(~np.isfinite(scores), scores, f"{where}: scores", "must be finite")
    labels = _column(prediction, "labels", boxes, where)
    _check_classes(labels, n_classes, f"{where}: labels")
    return np.column_stack([boxes, scores, labels])


def read_objects(objects: Mapping[str, Any], box_format: str, n_classes: int, where: str) -> Rows:
    """Return the annotated objects of one image.

    Args:
        objects: "bbox" (N, 4), "category" (N,) and "area" (N,), all in pixels, as in our data sets and in COCO; if
            given, "iscrowd" (N,) and "is_novel" (N,), whose None is unknown.
        box_format: "xyxy" or "xywh", the format of COCO.
        n_classes: categories must be below; 0: any number.
        where: the image, for messages.

    Returns:
        (N, 8): x, y, width, height, category, area, iscrowd (0 or 1), is_novel (0, 1, or NaN: unknown).

    Raises:
        ValueError: a part is missing, of another length, or has an impossible value.
    """
    name = f"{where}: reference boxes"
    boxes = _boxes(_part(objects, "bbox", where), box_format, name)
    _refuse((boxes[:, 2:] == 0).any(axis=1), boxes, name, "must have a width and a height above 0")
    # Nobody annotates a part of the first pixel.
    relative = (boxes[:, :2] + boxes[:, 2:] <= 1).all(axis=1) & (boxes[:, 2:] < 1).any(axis=1)
    _refuse(relative, boxes, name, "must be in pixels; multiply relative ones by the image's width and height")
    categories = _column(objects, "category", boxes, where)
    _check_classes(categories, n_classes, f"{where}: category")
    areas = _column(objects, "area", boxes, where)
    _refuse(~((areas >= 0) & (areas <= LIMIT**2)), areas, f"{where}: area", "must be from 0 to 1e10 px")
    crowds = _column(objects, "iscrowd", boxes, where, missing=0)
    _refuse((crowds != 0) & (crowds != 1), crowds, f"{where}: iscrowd", "must be 0 or 1")
    novel = _column(objects, "is_novel", boxes, where, missing=np.nan)
    _refuse((novel != 0) & (novel != 1) & ~np.isnan(novel), novel, f"{where}: is_novel", "must be 0, 1 or None")
    return np.column_stack([boxes, categories, areas, crowds, novel])


def stacked(images: Sequence[Rows], n_columns: int) -> Rows:
    """Return the rows of all images, (N, n_columns)."""
    return np.concatenate([np.empty((0, n_columns)), *images])


def _part(item: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in item:
        raise ValueError(f"{where}: {name!r} is missing; found {', '.join(map(repr, item))}")
    return item[name]


def _numbers(values: Any, name: str) -> Rows:
    try:
        return as_array(values).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of numbers: {error}") from error


def _boxes(values: Any, box_format: str, name: str) -> Rows:
    """Return boxes (N, 4) as corner, width, height."""
    boxes = _numbers(values, name)
    if not boxes.size:
        return np.empty((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name} must be of shape (N, 4), got {boxes.shape}")
    _refuse(~(np.abs(boxes) <= LIMIT).all(axis=1), boxes, name, "must be finite and within 1e5 px")
    if box_format == "xyxy":
        _refuse((boxes[:, 2:] < boxes[:, :2]).any(axis=1), boxes, name, "as xyxy must have x2 >= x1 and y2 >= y1")
        boxes = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    _refuse((boxes[:, 2:] < 0).any(axis=1), boxes, name, "as xywh must have no negative width or height")
    return boxes


def _column(
    item: Mapping[str, Any], name: str, boxes: Rows, where: str, missing: float | None = None
) -> NDArray[np.float64]:
    """Return a value for each box; `missing` stands for a part that is not given."""
    if missing is not None and name not in item:
        return np.full(len(boxes), missing)
    values = _numbers(_part(item, name, where), f"{where}: {name}").reshape(-1)
    if len(values) != len(boxes):
        raise ValueError(f"{where}: {len(values)} {name} but {len(boxes)} boxes")
    return values


def _check_classes(values: NDArray[np.float64], n_classes: int, name: str) -> None:
    known = values < (n_classes or np.inf)
    rule = f"must be whole numbers from 0{f' to {n_classes - 1}, one for each class name' if n_classes else ''}"
    _refuse(~(known & (values >= 0) & (values % 1 == 0)), values, name, rule)


def _refuse(bad: NDArray[np.bool_] | np.bool_, values: NDArray[np.float64], name: str, rule: str) -> None:
    """Raise ValueError with the first bad value, if there is one."""
    if bad.any():
        number = int(bad.argmax())
        raise ValueError(f"{name} {rule}; number {number} is {values[number].tolist()}")
