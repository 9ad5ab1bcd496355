"""Random changes of training images, with torchvision v2: mask, boxes and words follow the image.

Every draw is made from numbers that name it (seed, epoch, index of the item), so it does not depend on which process
makes it, or when.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

# Axes of the four flips of an image: none, left-right, top-bottom, both.
FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))
LIGHT_STREAM = 2  # flips have the plain numbers, simulated defects have 1


def draw_flips(seed: int, epoch: int, index: int) -> tuple[bool, bool]:
    """Whether an item is flipped left-right, and top-bottom: each in half of the draws."""
    horizontal, vertical = np.random.default_rng([seed, epoch, index]).random(2) < 0.5
    return bool(horizontal), bool(vertical)


def draw_light(seed: int, epoch: int, index: int, brightness: float, contrast: float) -> tuple[float, float]:
    """Factors of an item's brightness and contrast.

    Args:
        seed: of the run.
        epoch: number of the pass.
        index: of the item.
        brightness: 0-1; the factor is uniform in [1 - brightness, 1 + brightness].
        contrast: the same of the contrast.
    """
    ranges = np.array([brightness, contrast])
    first, second = np.random.default_rng([seed, epoch, index, LIGHT_STREAM]).uniform(1 - ranges, 1 + ranges)
    return float(first), float(second)


def flip_sample(
    sample: Mapping[str, tv_tensors.TVTensor], horizontal: bool, vertical: bool
) -> dict[str, tv_tensors.TVTensor]:
    """The parts of a sample (images, masks, boxes) after one flip."""
    flipped = dict(sample)
    if horizontal:
        flipped = {name: functional.horizontal_flip(part) for name, part in flipped.items()}
    if vertical:
        flipped = {name: functional.vertical_flip(part) for name, part in flipped.items()}
    return flipped


def change_light(image: torch.Tensor, brightness: float, contrast: float) -> torch.Tensor:
    """Multiply the gray values, then their distances from the mean gray.

    Args:
        image: (3, H, W) uint8.
        brightness: factor; 1 leaves the image as it is.
        contrast: factor; 1 leaves the image as it is.

    Returns:
        (3, H, W) uint8, cut off at 0 and 255.
    """
    return functional.adjust_contrast(functional.adjust_brightness(image, brightness), contrast)


def mirror_words(text: str, horizontal: bool, vertical: bool) -> str:
    """Position words as they read after a flip: left and right swap, top and bottom swap."""
    swaps = ({"left": "right", "right": "left"} if horizontal else {}) | (
        {"top": "bottom", "bottom": "top"} if vertical else {}
    )
    return " ".join(_swap_word(word, swaps) for word in text.split(" "))


def _swap_word(word: str, swaps: dict[str, str]) -> str:
    stem = word.rstrip(".,;")
    return swaps.get(stem, stem) + word[len(stem) :]
