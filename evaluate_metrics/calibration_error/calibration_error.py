"""Calibration errors of a probability as an `evaluate` module."""

import datasets
import evaluate

from defect_hub.evaluate_metrics.cached import CachedMetric
from defect_hub.evaluate_metrics.kernels import calibration_error

_DESCRIPTION = "Expected and largest calibration error (binary, equal-width bins) and Brier score of a probability."
_INPUTS = """
Args:
    predictions: probability that the image is defective, in [0, 1].
    references: 1 (or True) for a defective image, 0 for a normal one.
    bins: (in `compute`) number of bins of equal width, 15 by default.
Returns:
    ece, max_calibration_error, brier: values in [0, 1], lower is better.
"""


class CalibrationError(CachedMetric):
    """Calibration errors, range [0, 1]; raises UndefinedMetricError without samples."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: list[float], references: list[int], bins: int = 15) -> dict[str, float]:
        return calibration_error(predictions, references, bins)
