"""Groundedness of descriptions as an `evaluate` module, in constant memory."""

from typing import Any

import datasets
import evaluate

from defect_hub.evaluate_metrics.kernels import Groundedness as Claims
from defect_hub.evaluate_metrics.streaming import StreamingMetric

_DESCRIPTION = "Share of what descriptions say of presence, place, number and size that the masks bear out."
_INPUTS = """
Args:
    predictions: the generated texts.
    references: the masks of their images, (H, W) of 1 (or True) on defects and 0 elsewhere; sizes may differ.
Returns:
    groundedness: the share of all claims that the masks support, in [0, 1].
    presence, location, count, size: the same for each kind of claim.
    claims_per_text: mean number of claims.
    without_claims: the share of texts that claim nothing, in [0, 1].
    undefined: the reason for each metric that has no value on this data, if any.
"""


class Groundedness(StreamingMetric[Claims]):
    """Groundedness, range [0, 1]; metrics without a value are absent, and "undefined" says why."""

    def _info(self) -> evaluate.MetricInfo:
        masks = datasets.List(datasets.List(datasets.Value("uint8")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Value("string"), "references": masks}),
            streamable=True,
        )

    def new_state(self) -> Claims:
        """Return the state of no texts."""
        return Claims()

    def result(self, state: Claims) -> dict[str, Any]:
        """Return all metrics by name."""
        return state.compute()
