"""Colour words of reference colours, plain and noisy."""

import numpy as np
import pytest
from matplotlib.colors import CSS4_COLORS, to_rgb

from defect_hub.dataset_scripts.colours import colour_word

WORDS = {
    None: ["black", "dimgray", "gray", "silver", "lightgray", "white", "whitesmoke", "slategray"],
    "red": ["red", "darkred", "firebrick", "crimson"],
    "orange": ["orange", "darkorange", "chocolate"],
    "brown": ["saddlebrown", "sienna", "rosybrown"],
    "beige": ["beige", "wheat", "bisque", "cornsilk"],
    "yellow": ["yellow", "gold", "khaki", "goldenrod"],
    "green": ["green", "lime", "forestgreen", "olivedrab", "palegreen"],
    "turquoise": ["turquoise", "cyan", "teal", "cadetblue"],
    "blue": ["blue", "navy", "royalblue", "skyblue", "steelblue"],
    "purple": ["purple", "indigo", "violet", "darkorchid"],
    "pink": ["pink", "hotpink", "deeppink", "lightpink", "salmon"],
}
COLOURS = [(name, word) for word, names in WORDS.items() for name in names]


def reference(name: str) -> np.ndarray:
    return np.round(np.array(to_rgb(CSS4_COLORS[name])) * 255)


@pytest.mark.parametrize(("name", "word"), COLOURS)
def test_plain_colours(name: str, word: str | None) -> None:
    assert colour_word(reference(name).astype(np.uint8)[None]) == word


@pytest.mark.parametrize(("name", "word"), COLOURS)
def test_noise_changes_no_word(name: str, word: str | None) -> None:
    noise = np.random.default_rng(0).normal(0, 8, (500, 3))
    assert colour_word((reference(name) + noise).round().clip(0, 255).astype(np.uint8)) == word


def test_gray_pixels_with_strong_noise_have_no_colour() -> None:
    for gray in (5, 60, 128, 200, 250):
        pixels = np.random.default_rng(gray).normal(gray, 30, (2000, 3)).clip(0, 255).astype(np.uint8)
        assert colour_word(pixels) is None


@pytest.mark.parametrize(
    ("rgb", "word"),
    [
        ((120, 78, 52), "brown"),
        ((92, 60, 40), "brown"),
        ((110, 103, 78), "brown"),
        ((24, 10, 6), None),
        ((230, 215, 185), "beige"),
    ],
)
def test_rust_wood_and_paper(rgb: tuple[int, int, int], word: str | None) -> None:
    assert colour_word(np.array([rgb, rgb], np.uint8)) == word


def test_no_pixels() -> None:
    with pytest.raises(ValueError, match="no pixels"):
        colour_word(np.empty((0, 3), np.uint8))


def test_lightness_and_hue_are_those_of_cielab() -> None:
    """The borders lie where an independent conversion puts them."""
    color = pytest.importorskip("skimage.color")
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (3000, 3), dtype=np.uint8)
    lab = color.rgb2lab(pixels[None] / 255)[0]
    chroma, hue = np.hypot(lab[:, 1], lab[:, 2]), np.degrees(np.arctan2(lab[:, 2], lab[:, 1])) % 360
    words = np.array([str(colour_word(pixel[None])) for pixel in pixels])
    sure = (abs(chroma - 12) > 0.2) & (abs(lab[:, 0] - 10) > 0.2)
    assert ((words == "None") == ((chroma < 12) | (lab[:, 0] < 10)))[sure].all()
    coloured = words != "None"
    assert set(words[coloured & (hue > 113) & (hue < 169)]) == {"green"}
    assert set(words[coloured & (hue > 236) & (hue < 309)]) == {"blue"}
