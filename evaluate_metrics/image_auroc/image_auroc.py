"""Image AUROC as an `evaluate` module."""

import evaluate

from defect_hub.evaluate_metrics.cached import ScoreMetric, score_info
from defect_hub.evaluate_metrics.kernels import auroc


class ImageAuroc(ScoreMetric):
    """Image AUROC, range [0, 1]; raises UndefinedMetricError when all images are of one class."""

    def _info(self) -> evaluate.MetricInfo:
        return score_info(
            "Area under the ROC curve over images, exact, ties count one half.",
            "Returns:\n    image_auroc: a value in [0, 1].",
        )

    def _compute(self, predictions: list[float], references: list[int]) -> dict[str, float]:
        return {"image_auroc": auroc(predictions, references)}
