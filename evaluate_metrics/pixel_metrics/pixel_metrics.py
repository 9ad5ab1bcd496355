"""All pixel metrics in one pass as an `evaluate` module, in constant memory."""

from typing import Any

import evaluate

from defect_hub.evaluate_metrics.kernels import PixelScores
from defect_hub.evaluate_metrics.pixels import pixel_info
from defect_hub.evaluate_metrics.streaming import StreamingMetric


class PixelMetrics(StreamingMetric[PixelScores]):
    """Pixel AUROC, AP, F1-max, best IoU and AUPRO; those without a value are absent, and "undefined" says why."""

    def _info(self) -> evaluate.MetricInfo:
        return pixel_info(
            "Pixel AUROC, average precision, F1-max, best IoU and AUPRO of anomaly maps, in one pass.",
            "    limit: of the false positive rate for AUPRO in (0, 1], an option of `compute` (default 0.3).\n"
            "Returns:\n    pixel_auroc, pixel_ap, pixel_f1_max, pixel_iou_max, aupro_0.3: values in [0, 1].\n"
            "    pixel_threshold: `score >= pixel_threshold` reaches F1-max and the best IoU.\n"
            "    undefined: the reason for each metric that has no value on this data, if any.",
        )

    def new_state(self) -> PixelScores:
        """Return the state of no pixels."""
        return PixelScores()

    def result(self, state: PixelScores, limit: float = 0.3) -> dict[str, Any]:
        """Return all metrics by name, AUPRO up to a false positive rate of `limit`."""
        return state.compute(limit)
