"""All pixel metrics of anomaly maps in one pass and constant memory, the per-region overlap among them."""

from functools import cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.kernels.curves import Curve
from defect_hub.evaluate_metrics.kernels.histogram import ScoreHistogram
from defect_hub.evaluate_metrics.kernels.inputs import Images, image_pairs
from defect_hub.evaluate_metrics.kernels.regions import aupro_name, check_regions, region_weights
from defect_hub.evaluate_metrics.kernels.states import Arrays, defined


class PixelScores(ScoreHistogram):
    """Pixel AUROC, AP, F1-max, best IoU and AUPRO of anomaly maps; exact and streaming as `ScoreHistogram`.

    All images share one ranking. Each region of a mask (8-connected) counts alike in the per-region overlap.

    Attributes:
        n_images: number of maps given.
        n_regions: number of defective regions in their masks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.n_images = 0
        self.n_regions = 0

    def update(self, maps: Images, masks: Images) -> None:
        """Add anomaly maps with their masks; nothing is added if a value is bad.

        Args:
            maps: (B, H, W), (B, 1, H, W) or (H, W) scores, or B maps of different sizes; any range.
            masks: as many masks of 0 and 1 (or bool) of the same sizes.

        Raises:
            ValueError: NaN scores, masks with other values, different numbers or sizes, or more than 2^22 regions.
        """
        pairs = list(image_pairs(maps, masks))
        weighted = [region_weights(mask) for _, mask in pairs]
        n_regions = self.n_regions + sum(n for _, n in weighted)
        check_regions(n_regions)
        for (scores, mask), (weights, _) in zip(pairs, weighted, strict=True):
            self._add(scores.reshape(-1), mask.reshape(-1), weights)
        self.n_images += len(pairs)
        self.n_regions = n_regions

    def merge(self, other: Self) -> None:
        """Add the state of another process; the result equals one pass over both data, in any order."""
        super().merge(other)
        self.n_images += other.n_images
        self.n_regions += other.n_regions

    def _check_addable(self, other: Self) -> None:
        super()._check_addable(other)
        check_regions(self.n_regions + other.n_regions)

    def aupro(self, limit: float = 0.3) -> float:
        """Area under the per-region overlap up to a false positive rate, divided by it, as `regions.aupro`."""
        return self._groups().aupro(limit)

    def pro_curve(self) -> Curve:
        """False positive rate (x) and mean share of the regions found (y)."""
        return self._groups().pro_curve()

    def compute(self, limit: float = 0.3) -> dict[str, Any]:
        """Return all metrics by name; those without a value are left out, see `MetricState.compute`.

        Args:
            limit: of the false positive rate for AUPRO; it is part of the name, "aupro_0.3".
        """
        groups = self._groups()
        best = cache(groups.f1_max)
        return defined(
            {
                "pixel_auroc": groups.auroc,
                "pixel_ap": groups.average_precision,
                "pixel_f1_max": lambda: best()[0],
                "pixel_threshold": lambda: best()[1],
                # IoU rises with F1 (Dice), so the same threshold is best.
                "pixel_iou_max": lambda: best()[0] / (2 - best()[0]),
                aupro_name(limit): lambda: groups.aupro(limit),
            }
        )

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return the state of the histogram and the numbers of images and regions."""
        return super().state_dict() | {"n_images": np.array(self.n_images), "n_regions": np.array(self.n_regions)}

    @classmethod
    def from_state_dict(cls, arrays: Arrays) -> Self:
        """Rebuild the state; the inverse of `state_dict`."""
        state = super().from_state_dict(arrays)
        state.n_images, state.n_regions = int(arrays["n_images"]), int(arrays["n_regions"])
        return state
