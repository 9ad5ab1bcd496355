import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from defect_hub.train.augmentation import FLIPS, change_light, draw_flips, draw_light, flip_sample, mirror_words

# Words


@pytest.mark.parametrize(
    ("horizontal", "vertical", "expected"),
    [
        (False, False, "a dark pit in the top left of the steel. Right, in the bottom center"),
        (True, False, "a dark pit in the top right of the steel. Right, in the bottom center"),
        (False, True, "a dark pit in the bottom left of the steel. Right, in the top center"),
        (True, True, "a dark pit in the bottom right of the steel. Right, in the top center"),
    ],
)
def test_position_words_are_mirrored(horizontal, vertical, expected):
    text = "a dark pit in the top left of the steel. Right, in the bottom center"
    assert mirror_words(text, horizontal, vertical) == expected


def test_punctuation_and_longer_words_stay():
    assert mirror_words("left, left. leftover topmost middle right;", True, True) == (
        "right, right. leftover topmost middle left;"
    )


# Geometry


def box_of(mask):
    """[x, y, width, height] of what is set."""
    rows, columns = np.nonzero(mask.numpy() == 1)
    return [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]


@pytest.mark.parametrize("variant", range(4))
def test_mask_and_boxes_follow_the_image(variant):
    mask = torch.zeros(6, 8, dtype=torch.int16)
    mask[1:3, 4:5] = 1
    image = torch.stack([100 * mask] * 3).to(torch.uint8)
    boxes = tv_tensors.BoundingBoxes(torch.tensor([box_of(mask)]).float(), format="XYWH", canvas_size=(6, 8))
    sample = {"image": tv_tensors.Image(image), "mask": tv_tensors.Mask(mask), "boxes": boxes}
    flipped = flip_sample(sample, bool(variant % 2), bool(variant // 2))
    assert torch.equal(flipped["mask"], mask.flip(FLIPS[variant]))
    assert torch.equal(flipped["image"][0], 100 * flipped["mask"])
    assert flipped["mask"].dtype == torch.int16
    assert flipped["boxes"].tolist() == [box_of(flipped["mask"])]
    assert boxes.tolist() == [box_of(mask)], "the sample itself stays"


def test_each_flip_is_drawn_in_a_quarter_of_the_items():
    drawn = [draw_flips(7, 0, index) for index in range(400)]
    for flips in ((False, False), (True, False), (False, True), (True, True)):
        assert 60 < drawn.count(flips) < 140
    assert drawn[::-1] == [draw_flips(7, 0, index) for index in reversed(range(400))]
    assert drawn != [draw_flips(7, 1, index) for index in range(400)]
    assert drawn != [draw_flips(8, 0, index) for index in range(400)]


# Light


def test_factors_fill_their_ranges():
    drawn = np.array([draw_light(7, 0, index, 0.2, 0.5) for index in range(500)])
    assert drawn[:, 0].min() >= 0.8
    assert drawn[:, 0].max() <= 1.2
    assert drawn[:, 1].min() >= 0.5
    assert drawn[:, 1].max() <= 1.5
    assert np.ptp(drawn, axis=0) == pytest.approx([0.4, 1.0], rel=0.05)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.1
    assert draw_light(7, 0, 3, 0, 0) == (1, 1)
    assert draw_light(7, 0, 3, 0.2, 0.5) == tuple(drawn[3])
    assert draw_light(7, 1, 3, 0.2, 0.5) != tuple(drawn[3])


@pytest.mark.parametrize(("brightness", "contrast"), [(1.0, 1.0), (0.6, 1.0), (1.5, 1.0), (1.0, 0.4), (1.3, 1.7)])
def test_light_is_a_factor_and_contrast_a_factor_around_the_mean_gray(brightness, contrast):
    image = torch.randint(0, 256, (3, 20, 30), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    brighter = np.clip(image.numpy() * brightness, 0, 255).astype(np.uint8).astype(float)
    gray = np.floor(np.tensordot([0.2989, 0.587, 0.114], brighter, axes=1)).mean()  # ITU-R BT.601
    expected = np.clip(gray + contrast * (brighter - gray), 0, 255)
    found = change_light(image, brightness, contrast)
    assert found.dtype == torch.uint8
    # Whole gray values are cut and not rounded, the first time before the contrast.
    np.testing.assert_allclose(found.numpy(), expected, atol=1 + contrast)
