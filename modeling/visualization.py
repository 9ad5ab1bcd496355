"""Pictures of a diagnosis: a heat map over the image, and the outline of the mask."""

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from .inspection_images import to_rgb

OUTLINE_COLOUR = (255, 45, 85)
# Polynomial of Google's Turbo colour map (A. Mikhailov 2019): rows red, green, blue; columns rising powers.
_TURBO = np.array(
    [
        [0.13572138, 4.61539260, -42.66032258, 132.13108234, -152.94239396, 59.28637943],
        [0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604],
        [0.10667330, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973],
    ]
)


def turbo(values: np.ndarray) -> np.ndarray:
    """Colours from dark blue (0) over green to dark red (1).

    Args:
        values: any shape, clipped to 0-1.

    Returns:
        (*shape, 3), float, 0-1.
    """
    powers = np.clip(values, 0, 1)[..., None] ** np.arange(_TURBO.shape[1])
    return np.clip(powers @ _TURBO.T, 0, 1)


_TURBO_TABLE = (turbo(np.linspace(0, 1, 256)) * 255).round().astype(np.uint8)


def overlay(image: Image.Image, anomaly_map: np.ndarray, alpha: float = 0.75) -> Image.Image:
    """Heat map over an image; the colour is as opaque as the anomaly is likely, so sound metal stays visible.

    Args:
        image: any image that `to_rgb` takes, (H, W).
        anomaly_map: (H, W), 0-1.
        alpha: opacity where the map is 1.

    Returns:
        RGB image, (H, W).

    Raises:
        ValueError: if the map has another size than the image.
    """
    _check_size(image, anomaly_map)
    levels = (np.clip(anomaly_map, 0, 1) * 255).round().astype(np.uint8)
    opacity = Image.fromarray((levels * alpha).astype(np.uint8))
    return Image.composite(Image.fromarray(_TURBO_TABLE[levels]), to_rgb(image), opacity)


def outline(image: Image.Image, mask: np.ndarray, colour: tuple[int, int, int] = OUTLINE_COLOUR) -> Image.Image:
    """An image with a line around every region of a mask; the line lies outside, so that no defect pixel is hidden.

    Args:
        image: any image that `to_rgb` takes, (H, W).
        mask: (H, W), 0 or other.
        colour: red, green and blue of the line, 0-255.

    Returns:
        RGB image, (H, W).

    Raises:
        ValueError: if the mask has another size than the image.
    """
    _check_size(image, mask)
    region = Image.fromarray((np.asarray(mask) > 0).astype(np.uint8) * 255)
    width = max(1, round(max(image.size) / 150))
    line = ImageChops.subtract(region.filter(ImageFilter.MaxFilter(2 * width + 1)), region)
    return Image.composite(Image.new("RGB", image.size, colour), to_rgb(image), line)


def _check_size(image: Image.Image, values: np.ndarray) -> None:
    if values.shape != (image.height, image.width):
        raise ValueError(
            f"array of shape {values.shape} over an image of {image.width}x{image.height} px; "
            "pass target_sizes=[(height, width)] to post_process_diagnosis"
        )
