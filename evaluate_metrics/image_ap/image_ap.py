"""Image average precision as an `evaluate` module."""

import evaluate

from defect_hub.evaluate_metrics.cached import ScoreMetric, score_info
from defect_hub.evaluate_metrics.kernels import average_precision


class ImageAp(ScoreMetric):
    """Image average precision, range (0, 1]; raises UndefinedMetricError when all images are of one class."""

    def _info(self) -> evaluate.MetricInfo:
        return score_info(
            "Average precision over images, exact: the step-wise area under precision over recall.",
            "Returns:\n    image_ap: a value in (0, 1].",
        )

    def _compute(self, predictions: list[float], references: list[int]) -> dict[str, float]:
        return {"image_ap": average_precision(predictions, references)}
