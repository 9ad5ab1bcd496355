"""The streaming histogram against the exact metrics."""

import pickle
import tracemalloc

import numpy as np
import pytest
import torch

from defect_hub.evaluate_metrics.kernels import ScoreHistogram, UndefinedMetricError, auroc, average_precision, f1_max
from tests.evaluate_metrics.kernels.cases import SCORES, scored

N = 400_000
EXACT = {"tied", "two_levels", "constant", "float16", "eight_bit"}
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
def test_streaming_is_close_to_exact(name):
    scores, targets = scored(name, N)
    histogram = histogram_of(scores, targets)
    tolerance = 1e-12 if name in EXACT else 1e-4

    assert histogram.auroc() == pytest.approx(auroc(scores, targets), abs=tolerance)
    assert histogram.average_precision() == pytest.approx(average_precision(scores, targets), abs=tolerance)
    # The cut falls between bins: a true F1, at most a little below the best.
    assert -1e-12 <= f1_max(scores, targets)[0] - histogram.f1_max()[0] <= 10 * tolerance


@pytest.mark.parametrize("cut", range(1, EDGES.size))
def test_order_and_thresholds_are_exact_at_the_edges_of_float32(cut):
    histogram = histogram_of(EDGES, np.arange(EDGES.size) >= cut)
    assert histogram.auroc() == 1
    assert histogram.f1_max() == (1, EDGES[cut])


@pytest.mark.parametrize("name", SCORES)
def test_f1_threshold_is_a_score_that_reproduces_the_f1(name):
    scores, targets = scored(name, 20_000)
    f1, threshold = histogram_of(scores, targets).f1_max()
    predicted = scores.astype(np.float32) >= threshold
    assert (scores.astype(np.float32) == threshold).any()
    assert 2 * (predicted & targets).sum() / (predicted.sum() + targets.sum()) == pytest.approx(f1, abs=1e-12)


@pytest.mark.parametrize("transform", [lambda x: x**3, lambda x: 7 * x - 40, lambda x: np.exp(x / 4), np.arctan])
def test_a_monotone_transform_changes_nothing(transform):
    scores, targets = scored("random", N)
    plain, transformed = histogram_of(scores, targets), histogram_of(transform(scores), targets)
    assert transformed.auroc() == pytest.approx(plain.auroc(), abs=1e-5)
    assert transformed.average_precision() == pytest.approx(plain.average_precision(), abs=1e-4)


@pytest.mark.parametrize("name", ["random", "tied", "saturated", "negative"])
def test_merged_parts_equal_one_pass(name):
    scores, targets = scored(name, 30_000)
    whole, merged = histogram_of(scores, targets), ScoreHistogram()
    for part in np.array_split(np.random.default_rng(1).permutation(scores.size), 3):
        merged.merge(histogram_of(scores[part], targets[part]))
    for key, value in whole.state_dict().items():
        np.testing.assert_array_equal(merged.state_dict()[key], value)
    assert merged.average_precision() == whole.average_precision()


def test_state_survives_serialisation_and_is_a_snapshot():
    scores, targets = scored("random", 10_000)
    histogram, restored = histogram_of(scores, targets), ScoreHistogram()
    restored.load_state_dict(pickle.loads(pickle.dumps(histogram.state_dict())))
    before = histogram.auroc()
    restored.update(-scores, targets)
    assert histogram.auroc() == before
    assert restored.auroc() != before


def test_a_foreign_state_is_refused():
    state = ScoreHistogram().state_dict()
    with pytest.raises(ValueError, match="`lowest` must be uint16"):
        ScoreHistogram().load_state_dict({**state, "lowest": state["lowest"][:10]})
    with pytest.raises(ValueError, match="`counts` must be int64"):
        ScoreHistogram().load_state_dict({})


def test_torch_maps_in_batches_equal_one_array():
    scores, targets = scored("random", 8 * 64 * 64)
    streamed = ScoreHistogram()
    for maps, masks in zip(
        torch.from_numpy(scores).reshape(4, 2, 64, 64), torch.from_numpy(targets).reshape(4, 2, 64, 64), strict=True
    ):
        streamed.update(maps.requires_grad_(), masks.long())
    assert streamed.auroc() == histogram_of(scores, targets).auroc()


def test_memory_does_not_grow_with_the_number_of_scores():
    scores, targets = scored("random", 1 << 22)
    histogram = ScoreHistogram()
    tracemalloc.start()
    histogram.update(scores[: 1 << 20], targets[: 1 << 20])
    peak_small = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    histogram.update(scores, targets)
    peak_large = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_large < 1.1 * peak_small < 20e6


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
    with pytest.raises(ValueError, match=reason):
        histogram.update(scores, targets)
    assert histogram.state_dict()["counts"].sum() == 2


@pytest.mark.parametrize("metric", ["auroc", "average_precision", "f1_max"])
@pytest.mark.parametrize(("targets", "reason"), [([0, 0], "negative"), ([1, 1], "positive"), ([], "no samples")])
def test_one_class_is_an_error_with_a_reason(metric, targets, reason):
    histogram = histogram_of(np.linspace(0, 1, len(targets)), targets)
    with pytest.raises(UndefinedMetricError, match=reason):
        getattr(histogram, metric)()
