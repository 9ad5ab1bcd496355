"""Pixel AUROC as an `evaluate` module, in constant memory."""

import evaluate

from defect_hub.evaluate_metrics.kernels import ScoreHistogram
from defect_hub.evaluate_metrics.pixels import PixelRanking, pixel_info


class PixelAuroc(PixelRanking):
    """Pixel AUROC, range [0, 1]; raises UndefinedMetricError when no pixel, or every pixel, is defective."""

    def _info(self) -> evaluate.MetricInfo:
        return pixel_info(
            "Area under the ROC curve over all pixels of all images, in constant memory.",
            "Returns:\n    pixel_auroc: a value in [0, 1].",
        )

    def result(self, state: ScoreHistogram) -> dict[str, float]:
        """Return the pixel AUROC."""
        return {"pixel_auroc": state.auroc()}
