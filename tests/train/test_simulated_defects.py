import math
import re

import numpy as np
import pytest
from scipy import ndimage

from defect_hub.train import simulated_defects
from defect_hub.train.simulated_defects import perlin_noise, perlin_region, poisson_blend, simulate_defect


def picture(seed, size=96):
    """Smooth light with fine grain."""
    rng = np.random.default_rng(seed)
    light = ndimage.gaussian_filter(rng.normal(size=(size, size)), 20) * 400
    gray = (120 + light + rng.normal(scale=3, size=(size, size))).clip(0, 255)
    return np.repeat(gray.astype(np.uint8)[:, :, None], 3, axis=2)


def drawn(count):
    """Defects with the images that they were drawn on."""
    images = [picture(seed) for seed in range(count)]
    return [
        (image, simulate_defect(image, images[seed - 1], "magnetic tile", np.random.default_rng([5, seed])))
        for seed, image in enumerate(images)
    ]


# Blending


def dense_blend(target, source, region):
    """Equation 7 of Perez et al. 2003, pixel by pixel: |N_p| f_p - sum of f_q = sum of f*_q + sum of v_pq."""
    height, width = region.shape
    inner = [(y, x) for y in range(height) for x in range(width) if region[y, x]]
    matrix, right = np.zeros((len(inner), len(inner))), np.zeros((len(inner), target.shape[2]))
    for row, (y, x) in enumerate(inner):
        for q in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if not (0 <= q[0] < height and 0 <= q[1] < width):
                continue
            matrix[row, row] += 1
            right[row] += source[y, x] - source[q]
            if region[q]:
                matrix[row, inner.index(q)] -= 1
            else:
                right[row] += target[q]
    result = target.copy()
    for value, (y, x) in zip(np.linalg.solve(matrix, right), inner, strict=True):
        result[y, x] = value
    return result


@pytest.mark.parametrize("at_the_border", [False, True])
def test_blending_solves_the_poisson_equation(at_the_border):
    rng = np.random.default_rng(int(at_the_border))
    target, source = rng.uniform(0, 255, (2, 11, 13, 3))
    region = rng.random((11, 13)) < 0.6
    if not at_the_border:
        region[[0, -1]] = region[:, [0, -1]] = False
    np.testing.assert_allclose(poisson_blend(target, source, region), dense_blend(target, source, region), atol=1e-9)


def test_blending_takes_gradients_and_no_offsets():
    target = picture(0).astype(float)
    region = np.zeros(target.shape[:2], dtype=bool)
    region[20:60, 30:50] = True
    np.testing.assert_allclose(poisson_blend(target, target + 70, region), target, atol=1e-9)
    blended = poisson_blend(target, target * 3, region)
    assert np.array_equal(blended[~region], target[~region])
    assert not np.allclose(blended[region], target[region])


# Noise


def test_perlin_noise_pixel_by_pixel():
    """Gradients of the lattice are drawn as the module draws them; all else is computed anew."""
    noise = perlin_noise(np.random.default_rng(3), 12, 20, cells=4)
    angles = np.random.default_rng(3).uniform(0, 2 * np.pi, (5, 5))
    for y in range(12):
        for x in range(20):
            row, column, value = math.floor(y / 3), math.floor(x / 5), 0.0
            for i in (row, row + 1):
                for j in (column, column + 1):
                    dy, dx = y / 3 - i, x / 5 - j
                    weight = math.prod(1 - (6 * abs(t) ** 5 - 15 * t**4 + 10 * abs(t) ** 3) for t in (dy, dx))
                    value += weight * (math.cos(angles[i, j]) * dx + math.sin(angles[i, j]) * dy)
            assert noise[y, x] == pytest.approx(math.sqrt(2) * value, abs=1e-12)
    large = perlin_noise(np.random.default_rng(0), 200, 200, cells=9)
    assert 0.5 < np.abs(large).max() <= 1


def test_regions_are_connected_irregular_and_inside():
    areas = []
    for seed in range(20):
        region = perlin_region(np.random.default_rng(seed), 40, 60)
        assert ndimage.label(region)[1] == 1
        areas.append(region.mean())
    assert len(set(areas)) == 20
    assert 0.02 < np.mean(areas) < 0.8


# Defects


def test_only_the_mask_changes_and_visibly():
    for image, defect in drawn(12):
        assert defect.image.dtype == np.uint8
        assert np.array_equal(defect.image[~defect.mask], image[~defect.mask])
        change = np.abs(defect.image[defect.mask].astype(int) - image[defect.mask])
        assert change.mean() >= simulated_defects.MIN_CHANGE
        assert ndimage.label(defect.mask, np.ones((3, 3)))[1] == 1


def test_answers_say_what_was_drawn():
    kinds = set()
    for _, defect in drawn(30):
        said = re.fullmatch(
            r"Yes, there is a (tiny|small|medium|large)( dark| bright)? (foreign|rough) patch in the "
            r"((?:top|middle|bottom) (?:left|center|right)|center) of the magnetic tile\.",
            defect.answer,
        )
        assert said, defect.answer
        scale, polarity, kind, place = said.groups()
        rows, columns = (np.array_split(np.arange(96), 3) for _ in range(2))
        shares = {
            f"{down} {across}": defect.mask[np.ix_(r, c)].sum()
            for down, r in zip(("top", "middle", "bottom"), rows, strict=True)
            for across, c in zip(("left", "center", "right"), columns, strict=True)
        }
        assert max(shares, key=shares.get).replace("middle center", "center") == place
        low, high = {"tiny": (0, 0.01), "small": (0.01, 0.03), "medium": (0.03, 0.1), "large": (0.1, 0.25)}[scale]
        assert low <= defect.mask.mean() < high
        gray = defect.image.mean(axis=2)
        difference = gray[defect.mask].mean() - gray[~defect.mask].mean()
        assert {" dark": difference < -4, " bright": difference > 4, None: abs(difference) < 6}[polarity]
        kinds.add(kind)
    assert kinds == {"foreign", "rough"}


def test_the_generator_decides_everything():
    image, donor = picture(0), picture(1)
    first, same, other = (simulate_defect(image, donor, "tile", np.random.default_rng(seed)) for seed in (4, 4, 5))
    assert np.array_equal(first.image, same.image)
    assert np.array_equal(first.mask, same.mask)
    assert first.answer == same.answer
    assert not np.array_equal(first.mask, other.mask)


def test_what_nobody_would_see_is_no_defect(monkeypatch):
    monkeypatch.setattr(simulated_defects, "MIN_CHANGE", 256)
    assert simulate_defect(picture(0), picture(1), "tile", np.random.default_rng(0)) is None


@pytest.mark.parametrize("size", [8, 24])
def test_small_images(size):
    image = picture(0)[:size, :size]
    found = [simulate_defect(image, image, "tile", np.random.default_rng(seed)) for seed in range(20)]
    assert all(defect is None or defect.mask.any() for defect in found)
