"""A small Space: all pixel metrics of an anomaly map and a mask."""

from pathlib import Path
from typing import Any

import evaluate
import numpy as np
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.apps import map_app

METRIC = evaluate.load(str(Path(__file__).with_name("pixel_metrics.py")))


def compute(score_map: NDArray[Any], mask: NDArray[np.bool_], limit: float) -> dict[str, Any]:
    """Return the metric of one map and its mask, each (H, W)."""
    return METRIC.compute(predictions=[score_map], references=[mask], limit=limit)


demo = map_app(
    title="Pixel metrics",
    about="AUROC, AP, F1-max, best IoU and AUPRO of one map; AUPRO goes to a false positive rate of `limit`.",
    compute=compute,
    option=("limit", 0.3),
)

if __name__ == "__main__":
    demo.launch()
