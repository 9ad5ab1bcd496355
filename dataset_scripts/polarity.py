"""Whether thin structures are brighter or darker than their surround, for scratches that no mask marks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from defect_hub.dataset_scripts.box_attributes import box_mask

WINDOW_SHARE = 0.3
"""Side of the window whose mean is the local surround, relative to the shorter side of the image."""
MARGIN_SHARE = 1 / 32
"""Border that is left out: cut-outs of a strip have black lines there."""
EXTREME_SHARE = 0.01
"""Share of the pixels that counts as the strongest bright and as the strongest dark ones."""


def line_polarity(gray: NDArray[np.uint8], boxes: NDArray[np.generic] | None = None) -> float:
    """Compare the strongest bright with the strongest dark deviations from the local mean, in any direction.

    Args:
        gray: Image (H, W), gray values 0 to 255.
        boxes: (N, 4), [left, top, width, height] in pixels: look inside them only; None: everywhere but at the border.

    Returns:
        -1 (only dark deviations) to 1 (only bright ones), (b - d) / (b + d) of their mean strengths; 0 without any.
        Under about 0.05 either way it is a guess: the weakest of the 300 scratches of NEU has 0.12, of the 134 of
        X-SDD 0.26, all with the right sign. An inverted image has the opposite value.

    Raises:
        ValueError: No box touches the image.
    """
    margin = round(MARGIN_SHARE * min(gray.shape)) if boxes is None else 0
    inner = gray[margin : gray.shape[0] - margin, margin : gray.shape[1] - margin].astype(np.float32)
    window = max(round(WINDOW_SHARE * min(inner.shape)), 3)
    deviation = inner - ndimage.uniform_filter(inner, window, mode="nearest")
    values = deviation.ravel() if boxes is None else deviation[box_mask(boxes, gray.shape)]
    count = max(round(EXTREME_SHARE * values.size), 1)
    values = np.partition(values, (count - 1, values.size - count))
    bright, dark = max(float(values[-count:].mean()), 0.0), max(-float(values[:count].mean()), 0.0)
    return (bright - dark) / (bright + dark) if bright + dark else 0.0
