"""Metrics as plain functions and small state classes; NumPy arrays or torch tensors in."""

from defect_hub.evaluate_metrics.kernels.bootstrap import Interval, bootstrap, bootstrap_difference, bootstrap_mean
from defect_hub.evaluate_metrics.kernels.calibration import CalibrationBins, ReliabilityBins, calibration_error
from defect_hub.evaluate_metrics.kernels.classification import ConfusionMatrix, class_accuracy
from defect_hub.evaluate_metrics.kernels.curves import Curve
from defect_hub.evaluate_metrics.kernels.description import DescriptionVerdicts, description_accuracy, parse_yes_no
from defect_hub.evaluate_metrics.kernels.groundedness import Claim, Groundedness, grounded_claims
from defect_hub.evaluate_metrics.kernels.histogram import ScoreHistogram
from defect_hub.evaluate_metrics.kernels.inputs import UndefinedMetricError
from defect_hub.evaluate_metrics.kernels.overlap import OverlapCounts
from defect_hub.evaluate_metrics.kernels.pixel_bootstrap import ImageSketches
from defect_hub.evaluate_metrics.kernels.pixel_scores import PixelScores
from defect_hub.evaluate_metrics.kernels.ranking import auroc, average_precision, f1_max
from defect_hub.evaluate_metrics.kernels.regions import RegionOverlaps, aupro, pro_curve, region_overlaps
from defect_hub.evaluate_metrics.kernels.retrieval import RetrievalCounts, retrieval_recall
from defect_hub.evaluate_metrics.kernels.states import MetricState

__all__ = [
    "CalibrationBins",
    "Claim",
    "ConfusionMatrix",
    "Curve",
    "DescriptionVerdicts",
    "Groundedness",
    "ImageSketches",
    "Interval",
    "MetricState",
    "OverlapCounts",
    "PixelScores",
    "RegionOverlaps",
    "ReliabilityBins",
    "RetrievalCounts",
    "ScoreHistogram",
    "UndefinedMetricError",
    "aupro",
    "auroc",
    "average_precision",
    "bootstrap",
    "bootstrap_difference",
    "bootstrap_mean",
    "calibration_error",
    "class_accuracy",
    "description_accuracy",
    "f1_max",
    "grounded_claims",
    "parse_yes_no",
    "pro_curve",
    "region_overlaps",
    "retrieval_recall",
]
