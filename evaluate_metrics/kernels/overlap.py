"""IoU and Dice of thresholded anomaly maps, exact and in constant memory."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.kernels.inputs import Images, image_pairs
from defect_hub.evaluate_metrics.kernels.states import FIXED_POINT, Arrays, MetricState, defined, share


class OverlapCounts(MetricState):
    """Overlap of `score >= threshold` with the masks, over all pixels and as a mean over defective images.

    Args:
        threshold: on the scores, chosen on other data.

    Raises:
        ValueError: the threshold is not a number.
    """

    def __init__(self, threshold: float) -> None:
        try:
            self.threshold = float(threshold)
        except (TypeError, ValueError):
            self.threshold = float("nan")
        if np.isnan(self.threshold):
            raise ValueError(f"threshold must be a number on the scale of the scores, got {threshold!r}")
        # True positives, false positives, false negatives, over all images.
        self._pixels = np.zeros(3, np.int64)
        # Sums of IoU and Dice over the images that show a defect, in FIXED_POINT, and the number of these images.
        self._images = np.zeros(3, np.int64)

    def update(self, maps: Images, masks: Images) -> None:
        """Add anomaly maps with their masks, as `PixelScores.update`."""
        pixels, images = np.zeros(3, np.int64), np.zeros(3, np.int64)
        for scores, mask in image_pairs(maps, masks):
            # A Python float would be rounded to the type of the scores.
            found = scores >= np.float64(self.threshold)
            hits, called, defective = (np.count_nonzero(array) for array in (found & mask, found, mask))
            pixels += hits, called - hits, defective - hits
            if defective:
                union = called + defective - hits
                ratios = hits / union, 2 * hits / (called + defective)
                images += *(round(ratio * FIXED_POINT) for ratio in ratios), 1
        self._pixels += pixels
        self._images += images

    def merge(self, other: Self) -> None:
        """Add another state of the same threshold.

        Raises:
            ValueError: the thresholds differ.
        """
        if other.threshold != self.threshold:
            raise ValueError(f"counts at threshold {other.threshold} cannot be added to those at {self.threshold}")
        self._pixels += other._pixels
        self._images += other._images

    def compute(self) -> dict[str, Any]:
        """Return the overlap; what has no value is left out, see `MetricState.compute`.

        "iou", "dice", "precision" and "recall" are of all pixels, "mean_iou" and "mean_dice" of the defective images.
        """
        hits, false_positives, misses = (int(count) for count in self._pixels)
        iou, dice, n_images = (int(total) for total in self._images)
        no_defect = "no image shows a defect"
        return defined(
            {
                "iou": lambda: share(hits, hits + false_positives + misses, "nothing is defective, or called so"),
                "dice": lambda: share(
                    2 * hits, 2 * hits + false_positives + misses, "nothing is defective, or called so"
                ),
                "precision": lambda: share(hits, hits + false_positives, f"no score reaches {self.threshold}"),
                "recall": lambda: share(hits, hits + misses, no_defect),
                "mean_iou": lambda: share(iou, n_images * FIXED_POINT, no_defect),
                "mean_dice": lambda: share(dice, n_images * FIXED_POINT, no_defect),
            }
        )

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return the threshold and the counts."""
        return {"threshold": np.array(self.threshold), "pixels": self._pixels.copy(), "images": self._images.copy()}

    @classmethod
    def from_state_dict(cls, arrays: Arrays) -> Self:
        """Rebuild the state; the inverse of `state_dict`."""
        state = cls(float(arrays["threshold"]))
        state._pixels, state._images = arrays["pixels"].copy(), arrays["images"].copy()
        return state
