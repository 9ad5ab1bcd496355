"""F1-max as an `evaluate` module."""

import datasets
import evaluate

from defect_hub.evaluate_metrics.kernels import f1_max

_DESCRIPTION = "The highest F1 over all thresholds of the score, exact, with the threshold that reaches it."
_INPUTS = """
Args:
    predictions: one anomaly score per image (any range, higher is more anomalous).
    references: 1 (or True) for a defective image, 0 for a normal one.
Returns:
    f1_max: a value in (0, 1].
    threshold: `score >= threshold` means defective.
"""


class F1Max(evaluate.Metric):
    """F1-max, range (0, 1]; raises UndefinedMetricError when all images are of one class."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: list[float], references: list[int]) -> dict[str, float]:
        f1, threshold = f1_max(predictions, references)
        return {"f1_max": f1, "threshold": threshold}
