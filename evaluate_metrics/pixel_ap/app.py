"""A small Space: pixel average precision of an anomaly map and a mask."""

from pathlib import Path
from typing import Any

import evaluate
import numpy as np
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.apps import map_app

METRIC = evaluate.load(str(Path(__file__).with_name("pixel_ap.py")))


def compute(score_map: NDArray[Any], mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the metric of one map and its mask, each (H, W)."""
    return METRIC.compute(predictions=[score_map], references=[mask])


demo = map_app(
    title="Pixel AP",
    about="Average precision over the pixels of one map; the share of defective pixels is chance.",
    compute=compute,
)

if __name__ == "__main__":
    demo.launch()
