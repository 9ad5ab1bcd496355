"""The streaming pixel metrics against the references: exact on small data, within 1e-4 once they stream."""

import tracemalloc

import numpy as np
import pytest
import torch

from defect_hub.benchmarks.metrics_speed import elliptical_defects
from defect_hub.evaluate_metrics.kernels import PixelScores, ScoreHistogram, UndefinedMetricError, region_overlaps
from tests.evaluate_metrics.kernels.cases import SCORES, SHAPES, scored_maps
from tests.evaluate_metrics.kernels.references import (
    reference_aupro,
    reference_auroc,
    reference_average_precision,
    reference_f1_max,
    reference_iou_max,
)

NAMES = {"pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_threshold", "pixel_iou_max", "aupro_0.3"}
SMALL, LARGE = {"n": 6, "side": 64}, {"n": 17, "side": 256}  # up to 2^20 scores are kept exactly
TRANSFORMS = [lambda x: x**3, np.exp, np.arctan, lambda x: 7 * x - 40, lambda x: x + 1_000]


def pixel_scores(maps, masks, batch=8) -> PixelScores:
    scores = PixelScores()
    for start in range(0, len(maps), batch):
        scores.update(maps[start : start + batch], masks[start : start + batch])
    return scores


def assert_equal_references(scores: PixelScores, maps, masks, ranking: float, overlap: float) -> None:
    """Compare with the references within two tolerances; F1 and IoU may fall a little below the best, never above."""
    result = scores.compute()
    assert result.keys() == NAMES
    assert result["pixel_auroc"] == pytest.approx(reference_auroc(maps, masks), abs=ranking)
    assert result["pixel_ap"] == pytest.approx(reference_average_precision(maps, masks), abs=ranking)
    assert result["aupro_0.3"] == pytest.approx(reference_aupro(maps, masks), abs=overlap)
    assert -1e-9 <= reference_f1_max(maps, masks) - result["pixel_f1_max"] <= 10 * ranking
    assert -1e-9 <= reference_iou_max(maps, masks) - result["pixel_iou_max"] <= 10 * ranking


@pytest.mark.parametrize("name", SCORES)
def test_small_data_is_exact(name):
    maps, masks = scored_maps(name, n=8, side=64)
    assert_equal_references(pixel_scores(maps, masks), maps.astype(np.float32), masks, ranking=1e-9, overlap=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_small_data_is_exact_for_every_shape_of_defects(shape):
    maps, masks = scored_maps("tied", shape)
    assert_equal_references(pixel_scores(maps, masks), maps, masks, ranking=1e-9, overlap=1e-6)


@pytest.mark.parametrize("name", ["random", "saturated", "float16", "shifted_1000"])
def test_streaming_is_close(name):
    maps, masks = scored_maps(name, n=17, side=256)
    assert_equal_references(pixel_scores(maps, masks), maps, masks, ranking=1e-4, overlap=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCORES)
def test_streaming_is_close_on_every_distribution(name):
    maps, masks = scored_maps(name, n=40, side=256)
    assert_equal_references(pixel_scores(maps, masks), maps, masks, ranking=1e-4, overlap=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_streaming_is_close_for_every_shape_of_defects(shape):
    maps, masks = scored_maps("skewed_12", shape, **LARGE)
    assert_equal_references(pixel_scores(maps, masks), maps, masks, ranking=1e-4, overlap=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_monotone_transform_changes_nothing_in_streams(transform):
    maps, masks = scored_maps(n=40, side=256)
    plain, transformed = pixel_scores(maps, masks).compute(), pixel_scores(transform(maps), masks).compute()
    for name in NAMES - {"pixel_threshold"}:
        assert transformed[name] == pytest.approx(plain[name], abs=1e-4), name


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_monotone_transform_changes_nothing_in_small_data(transform):
    maps, masks = scored_maps("tied")
    plain, transformed = pixel_scores(maps, masks).compute(), pixel_scores(transform(maps), masks).compute()
    for name in NAMES - {"pixel_threshold"}:
        assert transformed[name] == pytest.approx(plain[name], abs=1e-9), name


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_the_threshold_is_a_score_that_reproduces_f1_and_curves(size):
    maps, masks = scored_maps(**size)
    scores = pixel_scores(maps, masks)
    result = scores.compute()
    predicted = maps >= result["pixel_threshold"]
    assert (maps == result["pixel_threshold"]).any()
    assert 2 * (predicted & masks).sum() / (predicted.sum() + masks.sum()) == pytest.approx(
        result["pixel_f1_max"], abs=1e-12
    )
    for curve, on_x, on_y in [
        (scores.roc_curve(), lambda t: (maps[~masks] >= t).mean(), lambda t: (maps[masks] >= t).mean()),
        (scores.pr_curve(), lambda t: (maps[masks] >= t).mean(), lambda t: masks[maps >= t].mean()),
        (
            scores.pro_curve(),
            lambda t: (maps[~masks] >= t).mean(),
            lambda t: np.mean(region_overlaps(maps, masks, t).overlap),
        ),
    ]:
        assert curve.x.size == curve.y.size == curve.threshold.size <= 2000
        assert (np.diff(curve.x) >= 0).all()
        for point in np.linspace(1, curve.x.size - 2, 4).astype(int):
            assert curve.x[point] == pytest.approx(on_x(curve.threshold[point]), abs=1e-6)
            assert curve.y[point] == pytest.approx(on_y(curve.threshold[point]), abs=1e-6)


@pytest.mark.parametrize("limit", [1e-3, 0.05, 0.3, 1.0])
@pytest.mark.parametrize(("size", "tolerance"), [(SMALL, 1e-6), (LARGE, 1e-4)])
def test_aupro_at_any_limit(limit, size, tolerance):
    maps, masks = scored_maps(**size)
    scores = pixel_scores(maps, masks)
    assert scores.aupro(limit) == pytest.approx(reference_aupro(maps, masks, limit), abs=tolerance)
    assert scores.compute(limit=limit)[f"aupro_{limit}"] == scores.aupro(limit)


def test_maps_of_different_sizes_and_counts_of_images_and_regions():
    scores, all_maps, all_masks = PixelScores(), [], []
    for height, width in [(16, 40), (33, 7), (1, 5), (64, 64)]:
        rng = np.random.default_rng(height)
        maps = rng.standard_normal((height, width), dtype=np.float32)
        mask = np.zeros((height, width), bool)
        mask[0, 0] = mask[-1, -2:] = True
        scores.update(maps, mask)
        all_maps.append(maps)
        all_masks.append(mask)
    assert (scores.n_images, scores.n_regions) == (4, 8)
    assert_equal_references(scores, all_maps, all_masks, ranking=1e-9, overlap=1e-6)


def test_a_region_that_goes_on_in_the_next_map_is_two_regions():
    maps, masks = scored_maps(shape="at_the_borders", n=3, side=16)
    scores = pixel_scores(maps, masks)
    # Per map: the top row, the two bottom rows, a piece of the left edge, a pixel of the right edge.
    assert scores.n_regions == 12
    tall = PixelScores()
    tall.update(maps.reshape(-1, 16), masks.reshape(-1, 16))
    assert (tall.n_images, tall.n_regions) == (1, 10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_torch_maps_of_any_precision(dtype):
    maps, masks = scored_maps()
    tensor = torch.from_numpy(maps).to(dtype).requires_grad_()
    scores = PixelScores()
    scores.update(tensor, torch.from_numpy(masks).long())
    assert_equal_references(scores, tensor.detach().float().numpy(), masks, ranking=1e-9, overlap=1e-6)


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("value", [0, 1])
def test_one_class_leaves_every_metric_out_with_a_reason(value, size):
    maps, masks = scored_maps(**size)
    scores = pixel_scores(maps, np.full_like(masks, value))
    result = scores.compute()
    assert result.keys() == {"undefined"}
    assert result["undefined"].keys() == NAMES
    assert all(isinstance(reason, str) and reason for reason in result["undefined"].values())
    for metric in (scores.auroc, scores.average_precision, scores.f1_max, scores.aupro, scores.pro_curve):
        with pytest.raises(UndefinedMetricError, match=r"are (nega|posi)tive"):
            metric()


def test_no_data_has_no_value():
    assert PixelScores().compute().keys() == {"undefined"}
    with pytest.raises(UndefinedMetricError):
        PixelScores().aupro()


@pytest.mark.parametrize(
    ("name", "n", "side", "seed"),
    [
        *(("random", 12, 24, seed) for seed in range(5)),
        ("tied", 12, 24, 0),
        ("random", 20, 256, 0),
        *(pytest.param("saturated", 40, 256, seed, marks=pytest.mark.slow) for seed in range(4)),
    ],
)
def test_merged_parts_equal_one_pass_exactly(name, n, side, seed):
    maps, masks = scored_maps(name, n=n, side=side)
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.integers(0, n + 1, size=rng.integers(1, 5)))
    merged = PixelScores()
    for part in np.split(rng.permutation(n), cuts):
        merged.merge(PixelScores.from_bytes(pixel_scores(maps[part], masks[part], batch=5).to_bytes()))
    whole = pixel_scores(maps, masks)
    assert merged.compute() == whole.compute()
    assert merged.to_bytes() == whole.to_bytes()
    assert (merged.n_images, merged.n_regions) == (whole.n_images, whole.n_regions)


def test_batches_do_not_matter():
    maps, masks = scored_maps(**LARGE)
    states = [pixel_scores(maps, masks, batch).to_bytes() for batch in (1, 7, 17)]
    assert states[0] == states[1] == states[2]


def test_merging_leaves_the_other_state_alone():
    maps, masks = scored_maps()
    one, other = pixel_scores(maps, masks), pixel_scores(-maps, masks)
    before = other.to_bytes()
    one.merge(other)
    one.update(maps, masks)
    assert other.to_bytes() == before
    one.merge(one)
    assert one.n_images == 36


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_state_survives_serialisation_and_goes_on(size):
    maps, masks = scored_maps(**size)
    scores = pixel_scores(maps, masks)
    restored = PixelScores.from_bytes(scores.to_bytes())
    assert restored.to_bytes() == scores.to_bytes()
    assert restored.compute() == scores.compute()
    restored.update(maps, masks)
    scores.update(maps, masks)
    assert restored.to_bytes() == scores.to_bytes()


@pytest.mark.parametrize("size", [{"n": 1, "side": 8}, LARGE])
def test_cut_off_bytes_are_refused_at_any_length(size):
    data = pixel_scores(*scored_maps("random", "noise", **size)).to_bytes()
    for length in np.unique(np.linspace(0, len(data) - 1, 2_000).astype(int)):
        with pytest.raises(ValueError, match="incomplete or damaged"):
            PixelScores.from_bytes(data[:length])


def test_damaged_bytes_are_refused_or_harmless():
    scores = pixel_scores(*scored_maps("random", "noise", n=1, side=8))
    data = scores.to_bytes()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x55
        try:
            restored = PixelScores.from_bytes(bytes(damaged))
        except ValueError:
            continue
        assert restored.to_bytes() == data, position


def test_bytes_of_another_metric_are_refused():
    histogram = ScoreHistogram()
    histogram.update([0.1, 0.9], [0, 1])
    with pytest.raises(ValueError, match="ScoreHistogram"):
        PixelScores.from_bytes(histogram.to_bytes())


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda maps, masks: (np.where(masks, np.nan, maps), masks), "NaN"),
        (lambda maps, masks: (maps, masks * 255), "0 or 1"),
        (lambda maps, masks: (maps, masks * 0.5), "0 or 1"),
        (lambda maps, masks: (maps, masks[:, :-1]), "shape|size"),
        (lambda maps, masks: (maps.ravel(), masks.ravel()), r"H, W|shape"),
        (lambda maps, masks: (maps[None], masks[None]), r"H, W|shape"),
    ],
)
def test_bad_values_are_refused_and_leave_the_state(spoil, reason):
    scores = pixel_scores(*scored_maps())
    before = scores.to_bytes()
    with pytest.raises(ValueError, match=reason):
        scores.update(*spoil(*scored_maps(n=2)))
    assert scores.to_bytes() == before


@pytest.mark.parametrize("limit", [0, -0.3, 1.1, float("nan")])
def test_a_limit_outside_0_to_1_is_refused(limit):
    scores = pixel_scores(*scored_maps())
    with pytest.raises(ValueError, match="limit"):
        scores.aupro(limit)
    with pytest.raises(ValueError, match="limit"):
        scores.compute(limit=limit)


@pytest.mark.slow
def test_memory_is_flat_in_the_number_of_maps():
    def peak_of(n: int) -> float:
        """Return the peak MB of streaming n maps, batches of 8 included."""
        rng = np.random.default_rng(0)
        masks = elliptical_defects(8, 256, rng)
        scores = PixelScores()
        tracemalloc.start()
        for _ in range(0, n, 8):
            scores.update(rng.standard_normal(masks.shape, dtype=np.float32), masks)
        scores.compute()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak / 1e6

    small, large = peak_of(200), peak_of(800)
    assert large <= 50
    assert large <= 1.1 * small  # rarer scores open a few more pages of bins
