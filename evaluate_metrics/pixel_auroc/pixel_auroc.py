"""Pixel AUROC as an `evaluate` module, in constant memory."""

import datasets
import evaluate

from defect_hub.evaluate_metrics.kernels import ScoreHistogram
from defect_hub.evaluate_metrics.streaming import StreamingMetric

_DESCRIPTION = "Area under the ROC curve over all pixels of all images, streamed through a fixed-size histogram."
_INPUTS = """
Args:
    predictions: anomaly maps, one per image (arrays, tensors or nested lists; any range, higher is more anomalous).
    references: masks of the same sizes, 1 (or True) on defects, 0 elsewhere.
Returns:
    pixel_auroc: a value in [0, 1].
"""


class PixelAuroc(StreamingMetric):
    """Pixel AUROC, range [0, 1]; raises UndefinedMetricError when no pixel, or every pixel, is defective."""

    def _info(self) -> evaluate.MetricInfo:
        maps = datasets.List(datasets.List(datasets.Value("float32")))
        masks = datasets.List(datasets.List(datasets.Value("uint8")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": maps, "references": masks}),
            streamable=True,
        )

    def result(self, histogram: ScoreHistogram) -> dict[str, float]:
        """Return the pixel AUROC."""
        return {"pixel_auroc": histogram.auroc()}
