"""Pixel F1-max as an `evaluate` module, in constant memory."""

import evaluate

from defect_hub.evaluate_metrics.kernels import ScoreHistogram
from defect_hub.evaluate_metrics.pixels import PixelRanking, pixel_info


class PixelF1Max(PixelRanking):
    """Pixel F1-max, range (0, 1]; raises UndefinedMetricError when no pixel, or every pixel, is defective."""

    def _info(self) -> evaluate.MetricInfo:
        return pixel_info(
            "The highest F1 over all thresholds on the pixels of all images, and the threshold, in constant memory.",
            "Returns:\n    pixel_f1_max: a value in (0, 1].\n    threshold: `score >= threshold` means defective.",
        )

    def result(self, state: ScoreHistogram) -> dict[str, float]:
        """Return F1-max and its threshold."""
        f1, threshold = state.f1_max()
        return {"pixel_f1_max": f1, "threshold": threshold}
