"""AUPRO, the area under the per-region overlap curve, as an `evaluate` module, in constant memory."""

import evaluate

from defect_hub.evaluate_metrics.kernels import PixelScores
from defect_hub.evaluate_metrics.kernels.regions import aupro_name
from defect_hub.evaluate_metrics.pixels import pixel_info
from defect_hub.evaluate_metrics.streaming import StreamingMetric


class Aupro(StreamingMetric[PixelScores]):
    """AUPRO, range [0, 1]; raises UndefinedMetricError when no pixel, or every pixel, is defective."""

    def _info(self) -> evaluate.MetricInfo:
        return pixel_info(
            "Area under the per-region overlap over the false positive rate up to a limit, divided by the limit.",
            "    limit: of the false positive rate in (0, 1], an option of `compute` (default 0.3).\n"
            "Returns:\n    aupro_0.3: a value in [0, 1]; the name holds the limit.",
        )

    def new_state(self) -> PixelScores:
        """Return the state of no pixels."""
        return PixelScores()

    def result(self, state: PixelScores, limit: float = 0.3) -> dict[str, float]:
        """Return AUPRO up to a false positive rate of `limit`."""
        return {aupro_name(limit): state.aupro(limit)}
