"""Calibration errors of a probability as an `evaluate` module."""

from typing import Any

import evaluate

from defect_hub.evaluate_metrics.cached import ScoreMetric, score_info
from defect_hub.evaluate_metrics.kernels import CalibrationBins, calibration_error
from defect_hub.evaluate_metrics.kernels.calibration import BINS


class CalibrationError(ScoreMetric):
    """Calibration errors, range [0, 1]; raises UndefinedMetricError without samples."""

    def _info(self) -> evaluate.MetricInfo:
        return score_info(
            "Expected and largest calibration error (binary, equal-width bins) and Brier score of a probability.",
            f"    bins: (in `compute`) number of bins of equal width, {BINS} by default.\n"
            "Returns:\n    ece, max_calibration_error, brier: values in [0, 1], lower is better.",
            predictions="probability that the image is defective, in [0, 1]",
        )

    def check(self, predictions: Any, references: Any) -> None:
        """Raise ValueError for what is no probability, and for bad labels."""
        CalibrationBins().update(predictions, references)

    def _compute(self, predictions: list[float], references: list[int], bins: int = BINS) -> dict[str, float]:
        return calibration_error(predictions, references, bins)
