"""The average precision of COCO as an `evaluate` module."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from defect_hub.evaluate_metrics.coco import CocoDetections
from defect_hub.evaluate_metrics.streaming import StreamingMetric

_INPUTS = """
Args:
    predictions: for each image "boxes" (N, 4) in pixels, "scores" (N,) and "labels" (N,).
    references: for each image "image_id" and "objects", lists "bbox" (N, 4), "category", "area" and, if known,
        "iscrowd" and "is_novel".
    class_names, novel_names, prediction_format ("xyxy" or "xywh"), reference_format ("xywh" or "xyxy"): options of
        `evaluate.load`.
Returns:
    ap, ap_50, ap_75, ap_small, ap_medium, ap_large, ar_1, ar_10, ar_100, ar_small, ar_medium, ar_large: in [0, 1].
    class_ap: ap by class name.
    ap_base, ap_novel: ap of the classes that are not novel, and of those that are, where this is known.
    precision, recall, f1, threshold: at the threshold of the highest mean F1, at IoU 0.5.
    undefined: the reason for each metric that has no value on this data, if any.
"""


class CocoAp(StreamingMetric[CocoDetections]):
    """COCO's metrics of detections, range [0, 1]; see `CocoDetections` for the options."""

    def __init__(
        self,
        *args: Any,
        class_names: Sequence[str] = (),
        novel_names: Sequence[str] = (),
        prediction_format: str = "xyxy",
        reference_format: str = "xywh",
        **settings: Any,
    ) -> None:
        self._options = (class_names, novel_names, prediction_format, reference_format)
        # Unusable options are refused here, not with the first batch.
        self.new_state()
        super().__init__(*args, **settings)

    def _info(self) -> evaluate.MetricInfo:
        numbers, boxes = (
            datasets.List(datasets.Value("float32")),
            datasets.List(datasets.List(datasets.Value("float32"))),
        )
        predictions = {"boxes": boxes, "scores": numbers, "labels": datasets.List(datasets.Value("int64"))}
        objects = {"bbox": boxes, "category": datasets.List(datasets.Value("int64")), "area": numbers}
        return evaluate.MetricInfo(
            description="Average precision and recall of COCO, and precision and recall at the best score threshold.",
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": predictions,
                    "references": {"image_id": datasets.Value("string"), "objects": objects},
                }
            ),
            streamable=True,
        )

    def new_state(self) -> CocoDetections:
        """Return the state of no images."""
        return CocoDetections(*self._options)

    def result(self, state: CocoDetections) -> dict[str, Any]:
        """Return all metrics by name."""
        return state.compute()
