"""Pixel average precision as an `evaluate` module, in constant memory."""

import evaluate

from defect_hub.evaluate_metrics.kernels import ScoreHistogram
from defect_hub.evaluate_metrics.pixels import PixelRanking, pixel_info


class PixelAp(PixelRanking):
    """Pixel AP, range (0, 1]; raises UndefinedMetricError when no pixel, or every pixel, is defective."""

    def _info(self) -> evaluate.MetricInfo:
        return pixel_info(
            "Average precision over all pixels of all images, in constant memory.",
            "Returns:\n    pixel_ap: a value in (0, 1].",
        )

    def result(self, state: ScoreHistogram) -> dict[str, float]:
        """Return the pixel average precision."""
        return {"pixel_ap": state.average_precision()}
