"""Description accuracy as an `evaluate` module."""

import datasets
import evaluate

from defect_hub.evaluate_metrics.kernels import description_accuracy

_DESCRIPTION = "Share of the answers whose leading yes or no is right; an answer that begins with neither is wrong."
_INPUTS = """
Args:
    predictions: the generated texts, answers to "is there a defect?".
    references: 1 (or True) for a defective image, 0 for a normal one.
Returns:
    description_accuracy: a value in [0, 1].
    unparsed: the share of answers without a verdict, in [0, 1].
"""


class DescriptionAccuracy(evaluate.Metric):
    """Description accuracy, range [0, 1]."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: list[str], references: list[int]) -> dict[str, float]:
        result = description_accuracy(predictions, references)
        return {"description_accuracy": result["accuracy"], "unparsed": result["unparsed"]}
