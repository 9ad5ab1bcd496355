"""What the `evaluate` modules of anomaly maps and masks have in common."""

from typing import Any

import datasets
import evaluate

from defect_hub.evaluate_metrics.kernels import ScoreHistogram
from defect_hub.evaluate_metrics.kernels.inputs import image_pairs
from defect_hub.evaluate_metrics.streaming import StreamingMetric

_INPUTS = """
Args:
    predictions: anomaly maps, one per image (arrays, tensors or nested lists; any range, higher is more anomalous).
    references: masks of the same sizes, 1 (or True) on defects, 0 elsewhere.
"""


def pixel_info(description: str, outputs: str) -> evaluate.MetricInfo:
    """Describe a metric of maps and masks.

    Args:
        description: the metric in one sentence.
        outputs: names and ranges of what `compute` returns; options of `compute` before it.
    """
    return evaluate.MetricInfo(
        description=description,
        citation="",
        inputs_description=f"{_INPUTS}{outputs}\n",
        features=datasets.Features(
            {
                "predictions": datasets.List(datasets.List(datasets.Value("float32"))),
                "references": datasets.List(datasets.List(datasets.Value("uint8"))),
            }
        ),
        streamable=True,
    )


class PixelRanking(StreamingMetric[ScoreHistogram]):
    """A metric of one ranking of all pixels of all images."""

    def new_state(self) -> ScoreHistogram:
        """Return the state of no pixels."""
        return ScoreHistogram()

    def update(self, state: ScoreHistogram, predictions: Any, references: Any) -> None:
        """Add maps and masks, (B, H, W) or B of different sizes; nothing is added if a value is bad."""
        for score_map, mask in list(image_pairs(predictions, references)):
            state.update(score_map, mask)
