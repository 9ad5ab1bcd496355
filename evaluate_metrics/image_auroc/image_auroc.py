"""Image AUROC as an `evaluate` module."""

import datasets
import evaluate

from defect_hub.evaluate_metrics.kernels import auroc

_DESCRIPTION = "Area under the ROC curve over images, exact, ties count one half."
_INPUTS = """
Args:
    predictions: one anomaly score per image (any range, higher is more anomalous).
    references: 1 (or True) for a defective image, 0 for a normal one.
Returns:
    image_auroc: a value in [0, 1].
"""


class ImageAuroc(evaluate.Metric):
    """Image AUROC, range [0, 1]; raises UndefinedMetricError when all images are of one class."""

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
        return {"image_auroc": auroc(predictions, references)}
