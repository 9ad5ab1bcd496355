"""Description accuracy as an `evaluate` module, in constant memory."""

from typing import Any

import datasets
import evaluate

from defect_hub.evaluate_metrics.kernels import DescriptionVerdicts
from defect_hub.evaluate_metrics.streaming import StreamingMetric

_DESCRIPTION = "Share of the answers whose yes or no is right; an answer that says neither, or not clearly, is wrong."
_INPUTS = """
Args:
    predictions: the generated texts, answers to "is there a defect?".
    references: 1 (or True) for a defective image, 0 for a normal one.
Returns:
    description_accuracy: a value in [0, 1].
    unparsed: the share of answers without a verdict, in [0, 1].
    recall: the share of yes among the answers on defective images, in [0, 1].
    specificity: the share of no among the answers on normal images, in [0, 1].
    undefined: the reason for each metric that has no value on this data, if any.
"""


class DescriptionAccuracy(StreamingMetric[DescriptionVerdicts]):
    """Description accuracy, range [0, 1]; metrics without a value are absent, and "undefined" says why."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("int64")}
            ),
            streamable=True,
        )

    def new_state(self) -> DescriptionVerdicts:
        """Return the state of no answers."""
        return DescriptionVerdicts()

    def result(self, state: DescriptionVerdicts) -> dict[str, Any]:
        """Return all metrics by name."""
        return _renamed(state.compute())


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
    """The values with "accuracy" under the name of the module, so that `evaluate.combine` tells it apart."""
    found = {"description_accuracy" if name == "accuracy" else name: value for name, value in values.items()}
    return found | ({"undefined": _renamed(found["undefined"])} if "undefined" in found else {})
