"""Boxes of a row of a built data set in the forms of supervision, torchvision and transformers.

A row is what `load_dataset(...)` yields: `objects` is a struct of lists with boxes [x, y, width, height] in pixels and
category ids from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import supervision
    import torch
    from torchvision.tv_tensors import BoundingBoxes


def to_supervision(row: Mapping[str, Any], class_names: Sequence[str] | None = None) -> supervision.Detections:
    """The objects as supervision's `Detections`, for its annotators and metrics.

    Args:
        row: A row.
        class_names: Names by category id, put into `data["class_name"]`; None: without names.

    Returns:
        `xyxy` (N, 4) float32 in pixels and `class_id` (N,).

    Raises:
        ImportError: supervision is not installed.
    """
    try:
        from supervision import Detections
    except ImportError as error:
        raise ImportError("to_supervision needs supervision: pip install supervision") from error
    boxes = np.asarray(row["objects"]["bbox"], np.float32).reshape(-1, 4)
    class_id = np.asarray(row["objects"]["category"], np.int64)
    data: dict[str, Any] = {} if class_names is None else {"class_name": np.asarray(class_names, np.str_)[class_id]}
    return Detections(
        np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1), class_id=class_id, data=data
    )


def to_bounding_boxes(row: Mapping[str, Any]) -> tuple[BoundingBoxes, torch.Tensor]:
    """The objects as torchvision takes them, for its transforms `v2` and detectors.

    Returns:
        `BoundingBoxes` (N, 4) float32 in format XYWH, which know the image's size, and labels (N,) int64.
    """
    import torch
    from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat

    data = torch.tensor(row["objects"]["bbox"], dtype=torch.float32).reshape(-1, 4)
    size = row["height"], row["width"]
    boxes = BoundingBoxes(data, format=BoundingBoxFormat.XYWH, canvas_size=size)
    return boxes, torch.tensor(row["objects"]["category"], dtype=torch.int64)


def to_coco_target(row: Mapping[str, Any]) -> dict[str, Any]:
    """The objects as image processors of transformers take them: `processor(image, annotations=to_coco_target(row))`.

    Returns:
        "image_id" (the row's `image_number`) and "annotations" in COCO's keys. Category ids are those of the row, from
        0, as `id2label` of a model counts.
    """
    lists = row["objects"]
    keys = ("id", "bbox", "category", "area", "iscrowd")
    annotations = [
        {
            "id": number,
            "image_id": row["image_number"],
            "category_id": category,
            "bbox": bbox,
            "area": area,
            "iscrowd": int(is_crowd),
        }
        for number, bbox, category, area, is_crowd in zip(*(lists[key] for key in keys), strict=True)
    ]
    return {"image_id": row["image_number"], "annotations": annotations}
