"""Any common inspection image as the 8-bit RGB that the encoders expect."""

import numpy as np
from PIL import Image

MIN_SIDE = 8
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Of the files that a folder of images is searched for, in small letters."""


def to_rgb(image: Image.Image | np.ndarray) -> Image.Image:
    """An 8-bit RGB image from any common inspection format.

    16-bit gray is divided by 257 (full range to full range), transparency is dropped.

    Args:
        image: PIL image or (H, W) / (H, W, 3) uint8 array.

    Raises:
        ValueError: if the image is smaller than 8x8 px or holds floating-point pixels.
    """
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    if min(image.size) < MIN_SIDE:
        raise ValueError(f"image is {image.width}x{image.height} px; at least {MIN_SIDE}x{MIN_SIDE} px are needed")
    if image.mode == "F":
        raise ValueError("image holds floating-point pixels; convert it to 8-bit or 16-bit gray first")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    return image.convert("RGB")
