"""Intervals from sketches against a loop that draws whole images."""

import tracemalloc

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.metrics import average_precision_score, roc_auc_score

from defect_hub.evaluate_metrics.kernels import ImageSketches, PixelScores, UndefinedMetricError
from defect_hub.evaluate_metrics.kernels.bootstrap import resample_counts
from defect_hub.evaluate_metrics.kernels.regions import label_regions
from tests.evaluate_metrics.kernels.references import reference_aupro

N, SIZE, RESAMPLES = 18, 32, 20
NAMES = ["pixel_auroc", "pixel_ap", "aupro_0.3"]
TRANSFORMS = {
    "plain": lambda x: x,
    "skewed": lambda x: (1 / (1 + np.exp(-x))) ** 12,
    "eight_bit": lambda x: np.clip(x * 8 + 128, 0, 255).astype(np.uint8),
    "two_levels": lambda x: x > 1,
}


def data(n: int = N, size: int = SIZE, seed: int = 0):
    """Smooth noise of a level per image, two of three images with one or two raised rectangles."""
    rng = np.random.default_rng(seed)
    maps = 3 * gaussian_filter(rng.normal(size=(n, size, size)), (0, 1, 1)) + rng.normal(0, 0.5, (n, 1, 1))
    masks = np.zeros(maps.shape, bool)
    for i in range(n):
        for _ in range(i % 3):
            (height, width), (y, x) = rng.integers(3, size // 3, 2), rng.integers(0, size * 2 // 3, 2)
            masks[i, y : y + height, x : x + width] = True
        maps[i] += 3 * rng.random() * masks[i]
    return maps.astype(np.float32), masks


def sketches_of(maps, masks) -> ImageSketches:
    sketches = ImageSketches()
    sketches.update(maps, masks)
    return sketches


def by_loop(maps, masks, order) -> np.ndarray:
    """Return the metrics of each resample of whole images, (RESAMPLES, 3)."""
    results = []
    for counts in np.concatenate(list(resample_counts(np.arange(N), N, RESAMPLES, 0))):
        images = np.repeat(order, counts)
        scores, targets = maps[images].ravel(), masks[images].ravel()
        results.append(
            (
                roc_auc_score(targets, scores),
                average_precision_score(targets, scores),
                reference_aupro(maps[images], masks[images], 0.3),
            )
        )
    return np.array(results)


def uniform(n: int, size: int, shift: float):
    """White noise, in every second map a raised square of 12 pixels."""
    maps, masks = np.random.default_rng(1).random((n, size, size)), np.zeros((n, size, size), bool)
    masks[1::2, 20:32, 30:42] = True
    return (maps + shift * masks).astype(np.float32), masks


def by_weights(maps, masks, order) -> np.ndarray:
    """Return what `by_loop` does, from pixels sorted once; the scores must differ."""
    by_score = np.argsort(-maps.ravel())
    image, defective = by_score // maps[0].size, masks.ravel()[by_score]
    shares = np.zeros(maps.shape)
    for part, mask in zip(shares, masks, strict=True):
        labels, areas = label_regions(mask)
        part[mask] = 1 / areas[labels[mask] - 1]
    shares = shares.ravel()[by_score]
    place = np.argsort(order)
    results = []
    for counts in np.concatenate(list(resample_counts(np.arange(len(maps)), len(maps), RESAMPLES, 0))):
        weights = counts[place][image].astype(float)
        found, alarms = np.cumsum(weights * defective), np.cumsum(weights * ~defective)
        if not found[-1]:
            continue
        rate, overlap = alarms / alarms[-1], np.cumsum(weights * shares)
        precision = found / np.maximum(found + alarms, 1)
        x, y = np.append(0, rate), np.append(0, overlap / overlap[-1])
        area = np.trapezoid(np.append(y[x < 0.3], np.interp(0.3, x, y)), np.append(x[x < 0.3], 0.3))
        roc = (weights * ~defective * found).sum() / alarms[-1] / found[-1]
        results.append((roc, (weights * defective * precision).sum() / found[-1], area / 0.3))
    return np.array(results)


def test_both_references_agree():
    maps, masks = data()
    np.testing.assert_allclose(by_weights(maps, masks, range(N)), by_loop(maps, masks, range(N)), atol=1e-9)


@pytest.mark.parametrize("kind", ["uniform", "raised", "smooth"])
@pytest.mark.parametrize(("n", "size"), [(10, 128), (10, 256), pytest.param(100, 128, marks=pytest.mark.slow)])
def test_ends_on_maps_of_realistic_size(kind, n, size):
    maps, masks = data(n, size) if kind == "smooth" else uniform(n, size, 0.5 * (kind == "raised"))
    sketches = sketches_of(maps, masks)
    order = sorted(range(n), key=lambda i: sketches.state_dict()["sketches"][i].tobytes())
    drawn = by_weights(maps, masks, order)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    exact = PixelScores()
    exact.update(maps, masks)
    for values, bound in ((None, 0.06), (exact.compute(), 0.03)):
        found = sketches.intervals(RESAMPLES, values=values).values()
        ends = np.array([(interval.low, interval.high) for interval in found])
        assert (np.abs(ends - np.stack([low, high], axis=1)) < bound * (high - low)[:, None]).all()


def test_ends_move_with_the_exact_values():
    sketches = sketches_of(*data())
    plain = sketches.intervals(resamples=20)
    values = {"pixel_ap": plain["pixel_ap"].value - 0.01, "aupro_0.3": 2, "another": 1}
    shifted = sketches.intervals(resamples=20, values=values)
    assert shifted["pixel_auroc"] == plain["pixel_auroc"]
    for end in ("value", "low", "high"):
        assert getattr(shifted["pixel_ap"], end) == pytest.approx(getattr(plain["pixel_ap"], end) - 0.01)
    assert (shifted["aupro_0.3"].low, shifted["aupro_0.3"].high) == (1, 1)


def test_infinite_scores_are_the_highest_and_lowest():
    maps, masks = data()
    infinite = np.where(maps > 2, np.inf, np.where(maps < -2, -np.inf, maps))
    found = sketches_of(infinite, masks).intervals(resamples=20)
    value = roc_auc_score(masks.ravel(), np.unique(infinite, return_inverse=True)[1].ravel())
    assert found["pixel_auroc"].value == pytest.approx(value, abs=2e-3)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_intervals_equal_a_loop_over_whole_images(name):
    maps, masks = data()
    maps = TRANSFORMS[name](maps).astype(np.float32)
    sketches = sketches_of(maps, masks)
    order = sorted(range(N), key=lambda i: sketches.state_dict()["sketches"][i].tobytes())
    low, high = np.quantile(by_loop(maps, masks, order), [0.05, 0.95], axis=0)
    found = sketches.intervals(resamples=RESAMPLES, confidence=0.9)
    assert list(found) == NAMES
    for i, interval in enumerate(found.values()):
        tolerance = (1e-6 if name in ("eight_bit", "two_levels") else 0.01) * (high[i] - low[i])
        assert abs(interval.low - low[i]) < tolerance
        assert abs(interval.high - high[i]) < tolerance
        assert interval.resamples == RESAMPLES


def test_value_is_close_to_the_metric_of_the_data():
    maps, masks = data(60, 64)
    found = sketches_of(maps, masks).intervals(resamples=20)
    assert found["pixel_auroc"].value == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-3)
    assert found["pixel_ap"].value == pytest.approx(average_precision_score(masks.ravel(), maps.ravel()), abs=1e-3)
    assert found["aupro_0.3"].value == pytest.approx(reference_aupro(maps, masks, 0.3), abs=1e-3)


def test_another_limit_of_aupro_is_part_of_the_name():
    maps, masks = data()
    found = sketches_of(maps, masks).intervals(resamples=20, limit=0.05)
    assert found["aupro_0.05"].value == pytest.approx(reference_aupro(maps, masks, 0.05), abs=2e-3)
    with pytest.raises(ValueError, match="limit must be a false positive rate"):
        sketches_of(maps, masks).intervals(limit=30)


def test_order_splits_merges_and_serialisation_change_nothing():
    maps, masks = data()
    expected = sketches_of(maps, masks).compute()
    merged = ImageSketches()
    for part in np.array_split(np.random.default_rng(1).permutation(N), 4):
        merged.merge(ImageSketches.from_bytes(sketches_of(maps[part], masks[part]).to_bytes()))
    assert merged.compute() == expected


def test_images_of_several_sizes_and_tensors():
    maps, masks = data()
    mixed = ImageSketches()
    mixed.update([maps[0], maps[1, :9]], [masks[0], masks[1, :9]])
    mixed.update(torch.from_numpy(maps[2:4])[:, None], torch.from_numpy(masks[2:4])[:, None])
    pixels = [np.concatenate([a[0].ravel(), a[1, :9].ravel(), a[2:4].ravel()]) for a in (masks, maps)]
    assert mixed.intervals(resamples=50)["pixel_auroc"].value == pytest.approx(roc_auc_score(*pixels), abs=2e-3)


def test_one_class_has_a_reason():
    maps, masks = data()
    for state, reason in (
        (ImageSketches(), "no samples were given"),
        (sketches_of(maps[:2], np.zeros_like(masks[:2])), "all 2048 samples are negative"),
        (sketches_of(maps[:2], np.ones_like(masks[:2])), "all 2048 samples are positive"),
        (ImageSketches.from_bytes(ImageSketches().to_bytes()), "no samples were given"),
    ):
        result = state.compute()
        assert list(result) == ["undefined"]
        assert list(result["undefined"]) == NAMES
        assert all(text.startswith(reason) for text in result["undefined"].values())
        with pytest.raises(UndefinedMetricError, match=reason):
            state.intervals()


def test_resamples_without_defects_are_left_out():
    maps, masks = data()
    masks[2:] = False
    found = sketches_of(maps, masks).intervals(resamples=200)
    # One image of N has a defect: 1 - (1 - 1 / N)^N of the resamples hold it, 6.8 of 200 are a standard deviation.
    assert found["pixel_ap"].resamples == pytest.approx(200 * (1 - (1 - 1 / N) ** N), abs=25)


def test_bad_input_is_refused_and_leaves_the_state():
    maps, masks = data(4)
    sketches = sketches_of(maps, masks)
    before = sketches.intervals(resamples=20)
    broken = maps.copy()
    broken[3, 0, 0] = np.nan
    for bad_maps, bad_masks, reason in (
        (broken, masks, "NaN"),
        (maps, masks * 255, "targets must be 0 or 1"),
        (maps, masks[:, :9], "both must be"),
    ):
        with pytest.raises(ValueError, match=reason):
            sketches.update(bad_maps, bad_masks)
    assert sketches.intervals(resamples=20) == before


def test_memory_is_a_sketch_per_image_whatever_its_size():
    tracemalloc.start()
    sketches = ImageSketches()
    for seed in range(5):
        sketches.update(*data(4, 256, seed))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 20 * 8000
