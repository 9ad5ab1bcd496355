"""A small Space: the average precision of a table of boxes."""

from pathlib import Path
from typing import Any

import evaluate

from defect_hub.evaluate_metrics.apps import table_app

MODULE = str(Path(__file__).with_name("coco_ap.py"))
OBJECT = "object"
EXAMPLE = [
    ["1.png", "scratch", 10, 20, 60, 45, OBJECT],
    ["1.png", "scratch", 12, 20, 58, 47, "0.9"],
    ["1.png", "inclusion", 100, 90, 130, 120, OBJECT],
    ["1.png", "inclusion", 90, 95, 125, 130, "0.6"],
    ["2.png", "scratch", 5, 5, 40, 30, "0.3"],
]


def compute(rows: list[list]) -> dict[str, Any]:
    """Return the metrics of the table's rows: objects, and detections with their scores."""
    names = sorted({str(row[1]) for row in rows})
    predictions: dict[str, dict[str, list]] = {}
    references: dict[str, dict[str, list]] = {}
    for image, name, x1, y1, x2, y2, kind in rows:
        detections = predictions.setdefault(str(image), {"boxes": [], "scores": [], "labels": []})
        objects = references.setdefault(str(image), {"bbox": [], "category": [], "area": []})
        box = [float(side) for side in (x1, y1, x2, y2)]
        if kind == OBJECT:
            objects["bbox"].append(box)
            objects["category"].append(names.index(str(name)))
            objects["area"].append((box[2] - box[0]) * (box[3] - box[1]))
        else:
            detections["boxes"].append(box)
            detections["scores"].append(float(kind))
            detections["labels"].append(names.index(str(name)))
    metric = evaluate.load(MODULE, class_names=names, reference_format="xyxy")
    listed = [{"image_id": image, "objects": objects} for image, objects in references.items()]
    return metric.compute(predictions=list(predictions.values()), references=listed)


demo = table_app(
    title="COCO average precision",
    about="Detections against objects, corners in pixels. The last column is the score of a detection, or `object`.",
    headers=["image", "class", "x1", "y1", "x2", "y2", "score or `object`"],
    datatypes=["str", "str", "number", "number", "number", "number", "str"],
    example=EXAMPLE,
    compute=compute,
)

if __name__ == "__main__":
    demo.launch()
