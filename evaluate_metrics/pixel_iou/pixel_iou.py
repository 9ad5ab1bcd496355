"""IoU and Dice of thresholded anomaly maps as an `evaluate` module, in constant memory."""

from typing import Any

import evaluate

from defect_hub.evaluate_metrics.kernels import OverlapCounts
from defect_hub.evaluate_metrics.pixels import pixel_info
from defect_hub.evaluate_metrics.streaming import StreamingMetric


class PixelIou(StreamingMetric[OverlapCounts]):
    """Overlap at a threshold, range [0, 1]; metrics without a value are absent, and "undefined" says why.

    Args:
        threshold: `score >= threshold` means defective; the metric must know it before any data.
    """

    def __init__(self, *args: Any, threshold: float | None = None, **settings: Any) -> None:
        self.threshold = threshold
        super().__init__(*args, **settings)

    def _info(self) -> evaluate.MetricInfo:
        return pixel_info(
            "IoU, Dice, precision and recall of anomaly maps at a threshold that is given.",
            "    threshold: `score >= threshold` means defective; an option of `evaluate.load`, or of `compute`\n"
            "        where all data is given to it at once.\n"
            "Returns:\n    iou, dice, precision, recall: over all pixels, values in [0, 1].\n"
            "    mean_iou, mean_dice: means over the images that show a defect, values in [0, 1].\n"
            "    undefined: the reason for each metric that has no value on this data, if any.",
        )

    def new_state(self) -> OverlapCounts:
        """Return the state of no pixels.

        Raises:
            ValueError: no threshold was given.
        """
        if self.threshold is None:
            raise ValueError("threshold: not given; use evaluate.load(..., threshold=...) with one fit on other data")
        return OverlapCounts(self.threshold)

    def compute(self, *, threshold: float | None = None, **inputs: Any) -> dict[str, Any] | None:
        """Return the metrics of everything added, or of all data given here at a threshold given here.

        Raises:
            ValueError: data was added before the threshold was given, or no threshold was given.
        """
        if threshold is None:
            return super().compute(**inputs)
        if len(self):
            raise ValueError("threshold: given after data was added; use evaluate.load(..., threshold=...)")
        loaded, self.threshold = self.threshold, threshold
        try:
            return super().compute(**inputs)
        finally:
            self.threshold = loaded

    def result(self, state: OverlapCounts) -> dict[str, Any]:
        """Return all metrics by name."""
        return state.compute()
