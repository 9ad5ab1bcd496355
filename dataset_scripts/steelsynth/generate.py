"""One synthetic sample: a surface, perhaps a defect, and its exact mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from defect_hub.dataset_scripts.steelsynth.defects import DRAWERS, SIGNS, Mark
from defect_hub.dataset_scripts.steelsynth.surface import Field, rolled_surface
from defect_hub.modeling.mask_attributes import EIGHT_CONNECTED, POLARITY_LIMIT, polarity_value

NORMAL = "Normal surface"
NORMAL_SHARE = 0.35
TURNED_SHARE = 0.3
"""Images whose rolling direction is horizontal."""
MASK_LEVEL = 0.4
"""Share of its full strength at which a defect belongs to the mask."""
MIN_COMPONENT = 4
MIN_PIXELS = 24


@dataclass(frozen=True)
class SynthSample:
    """A generated image.

    Attributes:
        image: Gray values (size, size), uint8.
        mask: Defect pixels (size, size), bool; all False on a normal surface.
        class_name: A SteelDefectX class name or "Normal surface".
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    class_name: str


def _mask(coverage: Field) -> NDArray[np.bool_]:
    """Covered pixels without specks that nobody sees."""
    labels, count = ndimage.label(coverage >= MASK_LEVEL, EIGHT_CONNECTED)
    kept = np.bincount(labels.ravel(), minlength=count + 1) >= MIN_COMPONENT
    kept[0] = False
    return kept[labels]


def _with_sign(image: Field, mark: Mark, mask: NDArray[np.bool_], sign: int) -> Field:
    """Deepen the defect where the illumination would give it the wrong polarity against the whole background."""
    missing = 2 * POLARITY_LIMIT - sign * polarity_value(image, mask)
    if missing <= 0:
        return image
    return image + sign * missing / float(mark.coverage[mask].mean()) * mark.coverage


def generate_sample(seed: int, index: int, size: int = 256) -> SynthSample:
    """Generate one image, the same for equal arguments.

    Args:
        seed: Seed of the data set, >= 0.
        index: Number of the image in the data set, >= 0.
        size: Side in pixels, at least 64.

    Returns:
        The sample; about 35 % are normal surfaces, the others share the defect classes evenly.

    Raises:
        ValueError: `size` is under 64: the smallest defects would not fit.
    """
    if size < 64:
        raise ValueError(f"size {size} is under 64")
    rng = np.random.default_rng([seed, index])
    normal = rng.random() < NORMAL_SHARE
    class_name = NORMAL if normal else list(DRAWERS)[rng.integers(len(DRAWERS))]
    image = rolled_surface(rng, size)
    mask = np.zeros((size, size), dtype=bool)
    if not normal:
        while mask.sum() < MIN_PIXELS:
            mark = DRAWERS[class_name](rng, image)
            mask = _mask(mark.coverage)
        image = image + mark.delta
        if class_name in SIGNS:
            image = _with_sign(image, mark, mask, SIGNS[class_name])
    pixels = np.clip(image + 0.5, 0, 255).astype(np.uint8)
    if rng.random() < TURNED_SHARE:
        pixels, mask = np.ascontiguousarray(pixels.T), np.ascontiguousarray(mask.T)
    return SynthSample(pixels, mask, class_name)
