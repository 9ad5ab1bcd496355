"""The streaming histogram against the exact metrics: equal up to 2^20 scores, close beyond."""

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
import torch

from defect_hub.evaluate_metrics.kernels import (
    PixelScores,
    ScoreHistogram,
    UndefinedMetricError,
    auroc,
    average_precision,
    f1_max,
)
from tests.evaluate_metrics.kernels.cases import SCORES, scored

STREAMED = (1 << 20) + 50_000
QUICK = {"random", "saturated", "minus_saturated", "one_outlier", "float16", "infinite"}
TIED = {"tied", "two_levels", "constant", "float16", "eight_bit"}
EDGES = np.float32(
    [
        -np.inf,
        -3e38,
        -1,
        -0.5,
        -1e-38,
        0,
        1e-38,
        0.49999997,
        0.5,
        0.501,
        0.75,
        0.99999988,
        0.99999994,
        1,
        1.01,
        3e38,
        np.inf,
    ]
)


def histogram_of(scores, targets) -> ScoreHistogram:
    histogram = ScoreHistogram()
    histogram.update(scores, targets)
    return histogram


@pytest.mark.parametrize("name", SCORES)
def test_small_data_is_exact(name):
    scores, targets = scored(name, 30_000)
    scores = scores.astype(np.float32)
    histogram = histogram_of(scores, targets)
    assert histogram.auroc() == pytest.approx(auroc(scores, targets), abs=1e-12)
    assert histogram.average_precision() == pytest.approx(average_precision(scores, targets), abs=1e-12)
    assert histogram.f1_max() == pytest.approx(f1_max(scores, targets), abs=1e-12)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SCORES]
)
def test_streaming_is_close_to_exact(name):
    scores, targets = scored(name, STREAMED)
    histogram = histogram_of(scores, targets)
    tolerance = 1e-12 if name in TIED else 1e-4

    assert histogram.auroc() == pytest.approx(auroc(scores, targets), abs=tolerance)
    assert histogram.average_precision() == pytest.approx(average_precision(scores, targets), abs=tolerance)
    # The cut falls between bins: a true F1, at most a little below the best.
    assert -1e-12 <= f1_max(scores, targets)[0] - histogram.f1_max()[0] <= 10 * tolerance


@pytest.mark.parametrize("cut", range(1, EDGES.size, 4))
@pytest.mark.parametrize("copies", [1, STREAMED // EDGES.size + 1])
def test_order_and_thresholds_are_exact_at_the_edges_of_float32(cut, copies):
    histogram = histogram_of(np.repeat(EDGES, copies), np.repeat(np.arange(EDGES.size) >= cut, copies))
    assert histogram.auroc() == 1
    assert histogram.f1_max() == (1, EDGES[cut])


@pytest.mark.parametrize("n", [20_000, STREAMED])
@pytest.mark.parametrize("name", ["random", "saturated", "shifted_1000", "infinite"])
def test_f1_threshold_is_a_score_that_reproduces_the_f1(name, n):
    scores, targets = scored(name, n)
    f1, threshold = histogram_of(scores, targets).f1_max()
    predicted = scores >= threshold
    assert (scores == threshold).any()
    assert 2 * (predicted & targets).sum() / (predicted.sum() + targets.sum()) == pytest.approx(f1, abs=1e-12)


@pytest.mark.parametrize(
    "transform",
    [lambda x: x**3, lambda x: 7 * x - 40, lambda x: np.exp(x / 4), np.arctan, lambda x: x + 1_000],
)
def test_a_monotone_transform_changes_nothing(transform):
    scores, targets = scored("random", STREAMED)
    plain, transformed = histogram_of(scores, targets), histogram_of(transform(scores), targets)
    assert transformed.auroc() == pytest.approx(plain.auroc(), abs=1e-4)
    assert transformed.average_precision() == pytest.approx(plain.average_precision(), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "n"), [("random", 30_000), ("tied", 30_000), ("random", STREAMED), ("saturated", STREAMED)]
)
def test_merged_parts_equal_one_pass_exactly(name, n):
    scores, targets = scored(name, n)
    whole, merged = histogram_of(scores, targets), ScoreHistogram()
    for part in np.array_split(np.random.default_rng(1).permutation(n), 3):
        merged.merge(ScoreHistogram.from_bytes(histogram_of(scores[part], targets[part]).to_bytes()))
    assert merged.to_bytes() == whole.to_bytes()
    assert merged.compute() == whole.compute()


def test_a_restored_state_is_a_snapshot():
    scores, targets = scored("random", 10_000)
    histogram = histogram_of(scores, targets)
    before = histogram.to_bytes()
    restored = ScoreHistogram.from_state_dict(histogram.state_dict())
    assert restored.to_bytes() == before
    restored.update(-scores, targets)
    assert histogram.to_bytes() == before
    assert restored.auroc() != histogram.auroc()


def test_the_state_of_another_metric_is_refused():
    with pytest.raises(ValueError, match="expected the state of a ScoreHistogram, got that of a PixelScores"):
        ScoreHistogram.from_bytes(PixelScores().to_bytes())


def test_torch_maps_in_batches_equal_one_array():
    scores, targets = scored("random", 8 * 64 * 64)
    streamed = ScoreHistogram()
    for maps, masks in zip(
        torch.from_numpy(scores).reshape(4, 2, 64, 64), torch.from_numpy(targets).reshape(4, 2, 64, 64), strict=True
    ):
        streamed.update(maps.requires_grad_(), masks.long())
    assert streamed.auroc() == histogram_of(scores, targets).auroc()


def test_memory_does_not_grow_with_the_number_of_scores():
    scores, targets = scored("random", 1 << 19)
    histogram = ScoreHistogram()
    for _ in range(3):
        histogram.update(scores, targets)
    peaks = []
    tracemalloc.start()
    for _ in range(4):
        tracemalloc.reset_peak()
        histogram.update(scores, targets)
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert max(peaks) < 50e6
    assert peaks[-1] <= 1.05 * peaks[0]


@pytest.mark.parametrize(
    ("scores", "targets", "reason"),
    [
        ([0.1, float("nan")], [0, 1], "NaN"),
        ([0.1, 0.2], [0, 255], "targets must be 0 or 1"),
        ([0.1], [0, 1], "1 scores but 2 targets"),
    ],
)
def test_bad_values_are_refused_and_leave_the_state(scores, targets, reason):
    histogram = histogram_of([0.1, 0.9], [0, 1])
    before = histogram.to_bytes()
    with pytest.raises(ValueError, match=reason):
        histogram.update(scores, targets)
    assert histogram.to_bytes() == before


@pytest.mark.parametrize("metric", ["auroc", "average_precision", "f1_max"])
@pytest.mark.parametrize(("targets", "reason"), [([0, 0], "negative"), ([1, 1], "positive"), ([], "no samples")])
def test_one_class_is_an_error_with_a_reason(metric, targets, reason):
    histogram = histogram_of(np.linspace(0, 1, len(targets)), targets)
    with pytest.raises(UndefinedMetricError, match=reason):
        getattr(histogram, metric)()


def test_compute_leaves_out_what_has_no_value():
    assert histogram_of([0.1, 0.9], [0, 1]).compute() == {
        "auroc": 1,
        "average_precision": 1,
        "f1_max": 1,
        "threshold": np.float32(0.9),
    }
    result = histogram_of([0.1, 0.9], [0, 0]).compute()
    assert result.keys() == {"undefined"}
    assert result["undefined"].keys() == {"auroc", "average_precision", "f1_max", "threshold"}


def test_a_state_can_be_added_to_itself():
    scores, targets = scored("random", STREAMED)
    histogram, twice = histogram_of(scores, targets), histogram_of(np.tile(scores, 2), np.tile(targets, 2))
    histogram.update(scores[:10_000], targets[:10_000])
    twice.update(np.tile(scores[:10_000], 2), np.tile(targets[:10_000], 2))
    histogram.merge(histogram)
    assert histogram.to_bytes() == twice.to_bytes()


def test_states_of_two_metrics_do_not_add_up():
    histogram, pixels = histogram_of([0.1, 0.9], [0, 1]), PixelScores()
    with pytest.raises(ValueError, match="a PixelScores cannot be added to a ScoreHistogram"):
        histogram.merge(pixels)
    with pytest.raises(ValueError, match="a ScoreHistogram cannot be added to a PixelScores"):
        pixels.merge(histogram)
    assert (histogram.n_scores, pixels.n_scores) == (2, 0)


def test_memory_at_worst():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 1 << 32, 3 * (1 << 19), dtype=np.uint32).view(np.float32)
    scores = bits[np.isfinite(bits)]
    targets = rng.random(scores.size) < 0.1
    tracemalloc.start()
    histogram = histogram_of(scores, targets)
    held = tracemalloc.get_traced_memory()[0]
    histogram.compute()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 40e6
    assert peak < 110e6


@pytest.mark.parametrize("name", ["random", "saturated", "tied", "one_outlier"])
@pytest.mark.parametrize("quantile", [0.001, 0.5, 0.9, 0.99, 1.0])
def test_negative_quantile_is_numpys_without_interpolation(name, quantile):
    scores, targets = scored(name, 30_000)
    scores = scores.astype(np.float32)
    negatives = scores[~targets.astype(bool)]
    expected = np.quantile(negatives, quantile, method="inverted_cdf")
    assert histogram_of(scores, targets).negative_quantile(quantile) == expected


@pytest.mark.parametrize("quantile", [0.5, 0.99])
def test_negative_quantile_of_binned_scores_is_at_most_a_bin_above(quantile):
    scores, targets = scored("random", STREAMED)
    negatives = scores[~targets.astype(bool)].astype(np.float32)
    expected = np.quantile(negatives, quantile, method="inverted_cdf")
    found = histogram_of(scores, targets).negative_quantile(quantile)
    assert expected <= found <= expected + abs(expected) * 2**-11


def test_negative_quantile_of_a_rank_is_that_score():
    scores = np.linspace(0, 1, 49, dtype=np.float32)
    histogram = histogram_of(scores, np.zeros(49))
    # As floats, 49 / 49 * k is not always k.
    assert [histogram.negative_quantile(Fraction(rank, 49)) for rank in range(1, 50)] == scores.tolist()


def test_negative_quantile_needs_negatives_and_a_share():
    with pytest.raises(UndefinedMetricError, match="no negative"):
        ScoreHistogram().negative_quantile(0.5)
    with pytest.raises(UndefinedMetricError, match="no negative"):
        histogram_of([0.5], [1]).negative_quantile(0.5)
    with pytest.raises(ValueError, match=r"quantile must be in \(0, 1\], got 1.5"):
        histogram_of([0.5], [0]).negative_quantile(1.5)
