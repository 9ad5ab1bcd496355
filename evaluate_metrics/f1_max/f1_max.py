"""F1-max as an `evaluate` module."""

import evaluate

from defect_hub.evaluate_metrics.cached import ScoreMetric, score_info
from defect_hub.evaluate_metrics.kernels import f1_max


class F1Max(ScoreMetric):
    """F1-max, range (0, 1]; raises UndefinedMetricError when all images are of one class."""

    def _info(self) -> evaluate.MetricInfo:
        return score_info(
            "The highest F1 over all thresholds of the score, exact, with the threshold that reaches it.",
            "Returns:\n    f1_max: a value in (0, 1].\n    threshold: `score >= threshold` means defective.",
        )

    def _compute(self, predictions: list[float], references: list[int]) -> dict[str, float]:
        f1, threshold = f1_max(predictions, references)
        return {"f1_max": f1, "threshold": threshold}
