"""Metrics as plain functions and one small state class; NumPy arrays or torch tensors in."""

from defect_hub.evaluate_metrics.kernels.description import description_accuracy, parse_yes_no
from defect_hub.evaluate_metrics.kernels.histogram import ScoreHistogram
from defect_hub.evaluate_metrics.kernels.inputs import UndefinedMetricError
from defect_hub.evaluate_metrics.kernels.ranking import auroc, average_precision, f1_max

__all__ = [
    "ScoreHistogram",
    "UndefinedMetricError",
    "auroc",
    "average_precision",
    "description_accuracy",
    "f1_max",
    "parse_yes_no",
]
