import numpy as np
import pytest
from PIL import Image

from defect_hub.modeling.visualization import outline, overlay, turbo


def gray(height: int = 30, width: int = 40, value: int = 120) -> Image.Image:
    return Image.fromarray(np.full((height, width), value, np.uint8))


def test_turbo_runs_from_blue_over_green_to_red() -> None:
    blue, green, red = turbo(np.array([0.1, 0.5, 0.9]))
    assert (blue.argmax(), green.argmax(), red.argmax()) == (2, 1, 0)
    assert turbo(np.array([[-3.0, 7.0]])) == pytest.approx(turbo(np.array([[0.0, 1.0]])))
    colours = turbo(np.linspace(0, 1, 256))
    assert 0 <= colours.min() <= colours.max() <= 1
    assert np.abs(np.diff(colours, axis=0)).max() < 0.05  # no false edges


def test_overlay_leaves_sound_pixels_as_they_are_and_colours_the_others() -> None:
    anomaly_map = np.zeros((30, 40), np.float32)
    anomaly_map[5:10, 20:25] = 1
    result = np.asarray(overlay(gray(), anomaly_map))
    assert result.shape == (30, 40, 3)
    changed = (result != 120).any(axis=2)
    assert np.array_equal(changed, anomaly_map == 1)
    pixel = result[7, 22].astype(int)
    assert pixel[0] > pixel[1] + 40
    assert pixel[0] > pixel[2] + 40
    assert np.array_equal(np.asarray(overlay(gray(), anomaly_map, alpha=0)), np.full((30, 40, 3), 120))


def test_outline_surrounds_the_mask_and_hides_none_of_it() -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[10:20, 10:20] = 255
    mask[0, 0] = 255
    line = (np.asarray(outline(gray(), mask, (0, 255, 0))) == (0, 255, 0)).all(axis=2)
    assert not (line & (mask > 0)).any()
    assert line[9, 9:21].all()
    assert line[9:21, 20].all()
    assert line[1, 1]
    assert line.sum() == 12 * 12 - 10 * 10 + 3


def test_empty_mask_draws_nothing() -> None:
    assert np.asarray(outline(gray(), np.zeros((30, 40), np.uint8))).max() == 120


def test_sixteen_bit_images_are_scaled_not_clipped() -> None:
    image = Image.fromarray(np.full((30, 40), 257 * 100, np.uint16))
    assert np.asarray(overlay(image, np.zeros((30, 40)))).max() == 100


@pytest.mark.parametrize("draw", [overlay, outline])
def test_a_map_of_another_size_is_an_error(draw) -> None:
    with pytest.raises(ValueError, match=r"shape \(40, 30\) over an image of 40x30 px"):
        draw(gray(), np.zeros((40, 30)))
