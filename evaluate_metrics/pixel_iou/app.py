"""A small Space: IoU and Dice of an anomaly map and a mask."""

from pathlib import Path
from typing import Any

import evaluate
import numpy as np
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.apps import map_app

METRIC = evaluate.load(str(Path(__file__).with_name("pixel_iou.py")))


def compute(score_map: NDArray[Any], mask: NDArray[np.bool_], threshold: float) -> dict[str, Any]:
    """Return the metric of one map and its mask, each (H, W)."""
    return METRIC.compute(predictions=[score_map], references=[mask], threshold=threshold)


demo = map_app(
    title="Pixel IoU",
    about="Overlap of `score >= threshold` with the mask of one map. An image's scores are its grey values, 0 to 255.",
    compute=compute,
    option=("threshold", 140.0),
)

if __name__ == "__main__":
    demo.launch()
