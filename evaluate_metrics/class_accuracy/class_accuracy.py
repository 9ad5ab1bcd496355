"""Accuracy and mean class accuracy as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from defect_hub.evaluate_metrics.cached import CachedMetric
from defect_hub.evaluate_metrics.kernels import class_accuracy

_DESCRIPTION = "Accuracy, mean class accuracy (mAcc), the recall of each class, and the confusion matrix."
_INPUTS = """
Args:
    predictions: one class id per image, from 0.
    references: the true class ids.
    class_names: (in `compute`) names in the order of the ids; left out, the ids name the classes.
Returns:
    accuracy: share of right predictions, in [0, 1].
    mean_class_accuracy: mean recall of the classes that occur in the references, in [0, 1].
    per_class_recall: recall by class; classes without samples are left out.
    confusion: counts, a row for each true class, a column for each predicted one, in the order of `classes`.
"""


class ClassAccuracy(CachedMetric):
    """Accuracy and mean class accuracy, range [0, 1]; raises UndefinedMetricError without samples."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(
        self, predictions: list[int], references: list[int], class_names: list[str] | None = None
    ) -> dict[str, Any]:
        return class_accuracy(predictions, references, class_names)
