"""Bootstrap intervals against a loop over the same resamples with scikit-learn."""

import time
import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from defect_hub.evaluate_metrics.kernels import (
    ImageSketches,
    UndefinedMetricError,
    bootstrap,
    bootstrap_difference,
    bootstrap_mean,
)
from defect_hub.evaluate_metrics.kernels.bootstrap import resample_counts
from tests.evaluate_metrics.kernels.cases import scored


def drawn_counts(n: int, resamples: int, seed: int = 0) -> np.ndarray:
    return np.concatenate(list(resample_counts(np.arange(n), n, resamples, seed)))


def by_loop(scores, targets, resamples: int) -> np.ndarray:
    """Return the metrics of every resample of both classes, (used, 3)."""
    # scikit-learn sums differences of infinities and float16 thresholds badly: it gets the ranks, which order equally.
    ranks = np.unique(scores, return_inverse=True)[1]
    results = []
    for counts in drawn_counts(targets.size, resamples):
        images = np.repeat(np.arange(targets.size), counts)
        y, s = targets[images], ranks[images]
        if y.all() or not y.any():
            continue
        precision, recall, _ = precision_recall_curve(y, s)
        f1 = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
        results.append((roc_auc_score(y, s), average_precision_score(y, s), f1))
    return np.array(results)


@pytest.mark.parametrize("name", ["random", "tied", "two_levels", "constant", "infinite", "float16", "eight_bit"])
def test_intervals_equal_a_loop_with_scikit_learn(name):
    # Five percent positives of 40: many resamples have none.
    scores, targets = scored(name, 40, seed=3)
    assert 0 < targets.sum() < 5
    expected = by_loop(scores, targets, 40)
    low, high = np.quantile(expected, [0.05, 0.95], axis=0)
    found = bootstrap(scores, targets, resamples=40, confidence=0.9)
    assert list(found) == ["auroc", "average_precision", "f1_max"]
    for i, interval in enumerate(found.values()):
        assert (interval.low, interval.high) == pytest.approx((low[i], high[i]), abs=1e-9)
        assert interval.resamples == len(expected) < 40


def test_value_is_the_metric_of_the_data_and_lies_inside():
    scores, targets = scored("random", 400)
    found = bootstrap(scores, targets, resamples=300)
    assert found["auroc"].value == pytest.approx(roc_auc_score(targets, scores), abs=1e-12)
    assert found["average_precision"].value == pytest.approx(average_precision_score(targets, scores), abs=1e-12)
    for interval in found.values():
        assert interval.low < interval.value < interval.high
        assert interval.confidence == 0.95


def test_chosen_metrics_seeds_and_tensors():
    scores, targets = scored("tied", 300)
    both = bootstrap(torch.from_numpy(scores), torch.from_numpy(targets), ["f1_max", "auroc"], resamples=50)
    assert both == {name: bootstrap(scores, targets, resamples=50)[name] for name in ("f1_max", "auroc")}
    assert bootstrap(scores, targets, ["auroc"], resamples=50, seed=1)["auroc"].low != both["auroc"].low


def test_interval_of_a_mean_has_the_width_of_the_normal_one():
    values = np.random.default_rng(0).random(2000) < 0.8
    interval = bootstrap_mean(values, resamples=4000)
    error = np.sqrt(values.mean() * (1 - values.mean()) / 2000)
    assert interval.value == values.mean()
    assert (interval.high - interval.low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.08)
    means = drawn_counts(2000, 4000) @ values / 2000
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=1e-12)


def test_draws_are_uniform_and_full():
    counts = drawn_counts(50, 4000)
    assert (counts.sum(axis=1) == 50).all()
    # Each image's count is binomial with mean 1 and variance 49 / 50.
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.08)
    np.testing.assert_allclose(counts.var(axis=0), 0.98, atol=0.15)


@pytest.mark.parametrize(("targets", "reason"), [([0, 0], "negative"), ([1, 1], "positive"), ([], "no samples")])
def test_one_class_is_an_error_with_a_reason(targets, reason):
    with pytest.raises(UndefinedMetricError, match=reason):
        bootstrap(np.linspace(0, 1, len(targets)), targets)


def test_resamples_of_one_class_only_are_an_error_with_a_reason():
    seed = next(seed for seed in range(20) if drawn_counts(2, 1, seed).max() == 2)
    with pytest.raises(UndefinedMetricError, match="no resample holds both classes"):
        bootstrap([0.1, 0.9], [0, 1], resamples=1, seed=seed)


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        bootstrap([0.1, np.nan], [0, 1])
    with pytest.raises(ValueError, match=r"got \['accuracy'\]"):
        bootstrap([0.1, 0.2], [0, 1], ["accuracy"])
    with pytest.raises(ValueError, match=r"at least one among .* got \[\]"):
        bootstrap([0.1, 0.2], [0, 1], metrics=())
    with pytest.raises(ValueError, match="resamples must be at least 1"):
        bootstrap([0.1, 0.2], [0, 1], resamples=0)
    with pytest.raises(ValueError, match=r"between 0 and 1, got 95; 0\.95 is usual"):
        bootstrap([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1], confidence=95)
    with pytest.raises(ValueError, match="values must be finite"):
        bootstrap_mean([0.1, np.nan])
    with pytest.raises(UndefinedMetricError, match="no values"):
        bootstrap_mean([])


def test_a_bad_confidence_is_refused_before_resampling():
    # All these draws would take hours.
    with pytest.raises(ValueError, match="confidence must be between 0 and 1"):
        bootstrap([0.1, 0.2], [0, 1], resamples=10**10, confidence=1)
    with pytest.raises(ValueError, match="confidence must be between 0 and 1"):
        bootstrap_mean([0.1, 0.2], resamples=10**10, confidence=0)
    with pytest.raises(ValueError, match="confidence must be between 0 and 1"):
        ImageSketches().intervals(resamples=10**10, confidence=95)


def test_a_thousand_resamples_of_5000_images_are_fast_and_small():
    scores, targets = scored("random", 5000)
    bootstrap(scores, targets, resamples=10)
    # Of this process alone: 0.4 to 0.8 s were measured.
    start = time.process_time()
    bootstrap(scores, targets, resamples=1000)
    assert time.process_time() - start < 2
    tracemalloc.start()
    bootstrap(scores, targets, resamples=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_maps_are_refused_since_images_are_drawn():
    maps = np.random.default_rng(0).random((4, 3, 3))
    with pytest.raises(ValueError, match="one per image; ImageSketches gives intervals of anomaly maps"):
        bootstrap(maps, maps > 0.5)
    with pytest.raises(ValueError, match=r"values must be \(N,\), one per image, got shape \(4, 3, 3\)"):
        bootstrap_mean(maps)
    with pytest.raises(ValueError, match="a sequence of names, got 'auroc'"):
        bootstrap([0.1, 0.9], [0, 1], "auroc")


def test_the_difference_of_two_detectors_equals_a_loop_over_the_same_images():
    rng = np.random.default_rng(0)
    targets = rng.random(80) < 0.3
    # Distinct scores, and few: the draws must not depend on their number.
    scores, other = rng.normal(size=80) + targets, np.round(10 * rng.normal(size=80) + 3 * targets, -1)
    found = bootstrap_difference(scores, other, targets, resamples=50)
    drawn = []
    for counts in np.concatenate(list(resample_counts(np.arange(80), 80, 50, 0))):
        images = np.repeat(np.arange(80), counts)
        measured = [roc_auc_score(targets[images], each[images]) for each in (scores, other)]
        drawn.append(measured[0] - measured[1])
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found["auroc"].low, found["auroc"].high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
    assert found["auroc"].value == pytest.approx(roc_auc_score(targets, scores) - roc_auc_score(targets, other))


def test_a_detector_does_not_differ_from_itself_on_another_scale():
    scores, targets = scored("random", 200)
    for interval in bootstrap_difference(scores, 7 * scores - 40, targets, resamples=100).values():
        assert (interval.low, interval.value, interval.high) == (0, 0, 0)


def test_detectors_on_other_images_are_refused():
    with pytest.raises(ValueError, match="3 scores but 2 targets"):
        bootstrap_difference([0.1, 0.9], [0.1, 0.9, 0.5], [0, 1])
