"""A word for the mean colour of defect pixels."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

ACHROMATIC = 12.0
"""Below this CIELAB chroma a colour counts as black, gray or white."""
NEARLY_BLACK = 10.0
"""Below this CIELAB lightness no hue is seen."""
DARK, LIGHT, PALE = 55.0, 65.0, 75.0
"""CIELAB lightness below which orange is brown, from which red may be pink, and brown may be beige."""
HUES = (
    (15.0, "pink"),
    (50.0, "red"),
    (80.0, "orange"),
    (112.0, "yellow"),
    (170.0, "green"),
    (225.0, "turquoise"),
    (310.0, "blue"),
    (340.0, "purple"),
    (360.0, "pink"),
)
"""Colour words with the upper bounds of their CIELAB hue angles, in degrees."""

# sRGB to CIE XYZ relative to the white point D65 (IEC 61966-2-1).
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
TO_XYZ /= TO_XYZ.sum(axis=1, keepdims=True)


def colour_word(rgb: NDArray[np.uint8]) -> str | None:
    """Name the mean colour of pixels.

    Args:
        rgb: (N, 3) sRGB, 0 to 255; N >= 1.

    Returns:
        "red", "orange", "brown", "beige", "yellow", "green", "turquoise", "blue", "purple" or "pink"; None for black,
        gray and white, of which the polarity says enough.

    Raises:
        ValueError: There are no pixels.
    """
    if not len(rgb):
        raise ValueError("no pixels, no colour")
    lightness, a, b = _lab(rgb.mean(axis=0, dtype=np.float64))
    chroma, hue = math.hypot(a, b), math.degrees(math.atan2(b, a)) % 360
    if chroma < ACHROMATIC or lightness < NEARLY_BLACK:
        return None
    pale, light = lightness >= PALE, lightness >= LIGHT
    if 50 <= hue < 112 and chroma < 30 and pale:
        return "beige"
    # Brown is dark or dull orange, dull red and dull yellow; pink is light red.
    dull_red, dull_yellow = 15 <= hue < 50 and chroma < 40 and not light, 85 <= hue < 112 and chroma < 30
    if (50 <= hue < 85 and (lightness < DARK or chroma < 45)) or dull_red or dull_yellow:
        return "brown"
    if (hue < 50 or hue >= 340) and chroma < 60 and light:
        return "pink"
    return next(word for bound, word in HUES if hue < bound)


def _lab(rgb: NDArray[np.float64]) -> tuple[float, float, float]:
    """CIELAB of one sRGB colour (3,), 0 to 255, under D65."""
    values = rgb / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ linear
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29).tolist()
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)
