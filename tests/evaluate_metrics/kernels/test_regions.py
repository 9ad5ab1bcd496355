"""Per-region overlap, exact, against the published procedure."""

import numpy as np
import pytest
import torch
from skimage.measure import label, regionprops

from defect_hub.benchmarks.published_pro import published_aupro
from defect_hub.evaluate_metrics.kernels import PixelScores, UndefinedMetricError, aupro, pro_curve, region_overlaps
from tests.evaluate_metrics.kernels.cases import SCORES, SHAPES, scored_maps
from tests.evaluate_metrics.kernels.references import brute_force_aupro, reference_aupro, reference_pro_curve


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["random", "tied", "infinite", "constant"])
def test_the_references_agree(name, shape):
    maps, masks = scored_maps(name, shape, n=2, side=12)
    expected = brute_force_aupro(maps, masks)
    assert reference_aupro(maps, masks) == pytest.approx(expected, abs=1e-12)
    assert published_aupro(maps, masks) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", SCORES)
def test_aupro_equals_the_published_procedure(name):
    maps, masks = scored_maps(name, n=8, side=64)
    assert aupro(maps, masks) == pytest.approx(reference_aupro(maps, masks), abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["random", "tied"])
def test_aupro_for_every_shape_of_defects(name, shape):
    maps, masks = scored_maps(name, shape)
    assert aupro(maps, masks) == pytest.approx(reference_aupro(maps, masks), abs=1e-6)


@pytest.mark.parametrize("limit", [1e-4, 0.05, 0.1, 0.3, 0.5, 1])
@pytest.mark.parametrize("name", ["random", "tied", "two_levels", "constant"])
def test_aupro_at_any_limit(name, limit):
    maps, masks = scored_maps(name)
    assert aupro(maps, masks, limit=limit) == pytest.approx(reference_aupro(maps, masks, limit), abs=1e-6)


def test_hand_computed_aupro():
    # Ten normal pixels and two regions of one pixel: overlap 0 up to a false positive rate of 0.1, then 0.5, from 0.2
    # on 1.
    scores = np.array([[1.0, 0.9, 0.8, 0.7, 0.6, 0.5], [0.4, 0.3, 0.2, 0.1, 0.05, 0.01]])
    masks = np.zeros((2, 6), bool)
    masks[0, 1] = masks[0, 3] = True
    assert aupro(scores, masks) == pytest.approx((0.1 * 0 + 0.1 * 0.5 + 0.1 * 1) / 0.3)


def test_small_regions_weigh_as_much_as_large_ones():
    scores, masks = np.zeros((20, 20), np.float32), np.zeros((20, 20), bool)
    masks[:10] = masks[15, 15] = True
    scores[:10] = 1
    assert aupro(scores, masks) == pytest.approx(reference_aupro([scores], [masks]))
    assert aupro(scores, masks) < 0.6


def test_touching_corners_make_one_region_and_two_maps_two():
    masks = np.zeros((2, 8, 8), bool)
    masks[:, 1:3, 1:3] = masks[:, 3:5, 3:5] = True
    masks[1, 6, 1] = True
    found = region_overlaps(np.zeros(masks.shape), masks, threshold=1)
    assert sorted(zip(found.image, found.area, strict=True)) == [(0, 8), (1, 1), (1, 8)]


@pytest.mark.parametrize("shape", SHAPES)
def test_region_overlaps_equal_scikit_image(shape):
    maps, masks = scored_maps(shape=shape)
    expected = [
        (image, int(region.num_pixels), float(region.image_intensity[region.image].mean()))
        for image, (scores, mask) in enumerate(zip(maps, masks, strict=True))
        for region in regionprops(label(mask, connectivity=2), intensity_image=(scores >= 1.2).astype(float))
    ]
    found = region_overlaps(maps, masks, threshold=1.2)
    np.testing.assert_allclose(
        sorted(zip(found.image, found.area, found.overlap, strict=True)), sorted(expected), atol=1e-9
    )


@pytest.mark.parametrize("name", SCORES)
def test_pro_curve_holds_true_points(name):
    maps, masks = scored_maps(name)
    curve = pro_curve(maps, masks)
    assert curve.x.shape == curve.y.shape == curve.threshold.shape
    assert curve.x.size <= 2000
    assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == pytest.approx((0, 0, 1, 1))
    assert (np.diff(curve.x) >= 0).all()
    assert (np.diff(curve.y) >= 0).all()
    for x, y, threshold in list(zip(curve.x, curve.y, curve.threshold, strict=True))[1 :: max(1, curve.x.size // 7)]:
        assert x == pytest.approx((maps[~masks] >= threshold).mean(), abs=1e-9)
        assert y == pytest.approx(np.mean(region_overlaps(maps, masks, threshold).overlap), abs=1e-9)


def test_pro_curve_of_few_scores_is_complete():
    maps, masks = scored_maps("tied")
    curve, (x, y) = pro_curve(maps, masks), reference_pro_curve(maps, masks)
    assert set(zip(x.round(9), y.round(9), strict=True)) == set(zip(curve.x.round(9), curve.y.round(9), strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_torch_maps_of_any_precision(dtype):
    maps, masks = scored_maps()
    tensor = torch.from_numpy(maps).to(dtype).requires_grad_()
    expected = reference_aupro(tensor.detach().double().numpy(), masks)
    assert aupro(tensor, torch.from_numpy(masks)) == pytest.approx(expected, abs=1e-6)
    assert aupro(tensor, torch.from_numpy(masks).long()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("transform", [lambda x: x**3, np.exp, np.arctan, lambda x: 7 * x - 40, lambda x: x + 1_000])
def test_a_monotone_transform_changes_nothing(transform):
    maps, masks = scored_maps(side=64)
    maps = maps.astype(np.float64)
    assert aupro(transform(maps), masks) == pytest.approx(aupro(maps, masks), abs=1e-6)


def test_one_map_equals_a_batch_of_one():
    maps, masks = scored_maps("random", "noise", n=1)
    assert aupro(maps[0], masks[0]) == aupro(maps, masks)


@pytest.mark.parametrize(("value", "reason"), [(0, "are negative"), (1, "are positive")])
@pytest.mark.parametrize("metric", [aupro, pro_curve])
def test_one_class_is_an_error_with_a_reason(metric, value, reason):
    maps, masks = scored_maps()
    with pytest.raises(UndefinedMetricError, match=reason):
        metric(maps, np.full_like(masks, value))


@pytest.mark.parametrize("metric", [aupro, pro_curve, lambda maps, masks: region_overlaps(maps, masks, 0.5)])
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda maps, masks: (np.where(masks, np.nan, maps), masks), "NaN"),
        (lambda maps, masks: (maps, masks * 255), "0 or 1"),
        (lambda maps, masks: (maps, masks * 0.5), "0 or 1"),
        (lambda maps, masks: (maps, masks[:, :-1]), "shape|sizes?"),
        (lambda maps, masks: (maps[:-1], masks), "maps|shape"),
        (lambda maps, masks: (maps.ravel(), masks.ravel()), r"H, W|shape"),
    ],
)
def test_bad_values_are_refused(metric, spoil, reason):
    with pytest.raises(ValueError, match=reason):
        metric(*spoil(*scored_maps()))


@pytest.mark.parametrize("limit", [0, -0.3, 1.1, float("nan")])
def test_a_limit_outside_0_to_1_is_refused(limit):
    with pytest.raises(ValueError, match="limit"):
        aupro(*scored_maps(), limit=limit)


def test_a_huge_region_weighs_as_much_as_a_pixel():
    mask = np.zeros((3000, 4000), bool)
    mask[:-2] = True
    mask[-1, -1] = True
    scores = np.where(mask, 2.0, 1.0)
    scores[-1, -1] = 0
    assert aupro(scores, mask) == pytest.approx(0.5, abs=1e-9)


def test_the_limit_is_part_of_the_name():
    scores, masks = np.array([[0.1, 0.9]]), np.array([[0, 1]])
    pixels = PixelScores()
    pixels.update(scores, masks)
    assert {"aupro_0.3", "aupro_0.30000001", "aupro_1.0"} <= {
        name for limit in (0.3, 0.30000001, 1) for name in pixels.compute(limit)
    }


def test_nothing_at_all_is_undefined():
    with pytest.raises(UndefinedMetricError, match="no samples"):
        aupro([], [])
    pixels = PixelScores()
    pixels.update([], [])
    assert pixels.n_images == 0


def test_more_regions_than_can_be_summed_are_refused(monkeypatch):
    monkeypatch.setattr("defect_hub.evaluate_metrics.kernels.regions.MAX_REGIONS", 2)
    mask = np.array([[1, 0, 1, 0, 0]])
    pixels, more = PixelScores(), PixelScores()
    for state in (pixels, more):
        state.update(mask * 1.0, mask)
    before = pixels.to_bytes()
    with pytest.raises(ValueError, match="4 defective regions; at most 2"):
        pixels.merge(more)
    assert pixels.to_bytes() == before
    with pytest.raises(ValueError, match="4 defective regions"):
        aupro(np.stack([mask, mask]) * 1.0, np.stack([mask, mask]))
