"""The polarity of thin structures: drawn lines, generated and real scratches."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from defect_hub.dataset_scripts.polarity import line_polarity
from defect_hub.dataset_scripts.steelsynth.defects import DRAWERS
from defect_hub.dataset_scripts.steelsynth.surface import rolled_surface

SIDE = 160
Y, X = np.mgrid[:SIDE, :SIDE]


def surface(seed: int = 0) -> np.ndarray:
    """Noise under an uneven light."""
    return 90 + 0.4 * X + 25 * (Y > 130) + np.random.default_rng(seed).normal(0, 4, (SIDE, SIDE))


def as_image(values: np.ndarray) -> np.ndarray:
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("degrees", [0, 30, 45, 90, 120, 135])
@pytest.mark.parametrize("width", [1, 4, 12])
def test_sign_of_a_line_in_any_direction(degrees: int, width: int) -> None:
    angle = np.radians(degrees)
    line = abs((X - 70) * np.sin(angle) - (Y - 80) * np.cos(angle)) <= width / 2
    assert line_polarity(as_image(surface() + 30 * line)) > 0.1
    assert line_polarity(as_image(surface() - 30 * line)) < -0.1


def test_an_inverted_image_has_the_opposite_polarity() -> None:
    image = as_image(surface() + 40 * (X == 50))
    assert line_polarity(255 - image) == pytest.approx(-line_polarity(image), abs=1e-5)


def test_nothing_but_texture_is_ambiguous() -> None:
    # Without the step of the light.
    assert abs(line_polarity(as_image(90 + 0.4 * X + np.random.default_rng(1).normal(0, 4, (SIDE, SIDE))))) < 0.05
    assert line_polarity(np.full((SIDE, SIDE), 77, np.uint8)) == 0


def test_black_lines_along_the_border_do_not_count() -> None:
    values = surface() + 30 * (X == 60)
    values[:3] = 0
    assert line_polarity(as_image(values)) > 0.1


def test_boxes_choose_where_to_look() -> None:
    image = as_image(surface() + 40 * (X == 30) - 60 * (X == 120))
    bright, dark = [20, 5, 20, 140], [110, 5, 20.5, 140.0]
    assert line_polarity(image, np.array([bright])) > 0.3
    assert line_polarity(image, np.array([dark])) < -0.3
    assert line_polarity(image, np.array([bright, dark])) < 0
    with pytest.raises(ValueError, match="no box touches the image"):
        line_polarity(image, np.array([[SIDE, 0, 10, 10]]))


@pytest.mark.parametrize(("class_name", "sign"), [("Bright scratch", 1), ("Dark scratches", -1)])
def test_generated_scratches(class_name: str, sign: int) -> None:
    values = []
    for seed in range(40):
        rng = np.random.default_rng([77, seed])
        base = rolled_surface(rng, 256)
        values.append(sign * line_polarity(as_image(base + DRAWERS[class_name](rng, base).delta)))
    # A wrong sign may occur where the value is small only.
    assert sum(value > 0 for value in values) >= 39
    assert min(values) > -0.05


def polarities(paths: Sequence[Path]) -> np.ndarray:
    return np.array([line_polarity(np.asarray(Image.open(path).convert("L"))) for path in paths])


@pytest.mark.real_data
def test_real_scratches(raw_data: Path) -> None:
    """To the eye, all scratches of NEU are bright and all of X-SDD are dark."""
    neu = polarities(sorted((raw_data / "NEU-DET").glob("*/scratches_*.jpg")))
    xsdd = polarities(sorted((raw_data / "X-SDD").glob("X-SDD/datas/surface scratch/*")))
    assert (len(neu), len(xsdd)) == (151, 134)
    assert neu.min() > 0.1
    assert xsdd.max() < -0.2
