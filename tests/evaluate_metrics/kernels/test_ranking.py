"""Exact metrics against scikit-learn, and their edges."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from defect_hub.evaluate_metrics.kernels import UndefinedMetricError, auroc, average_precision, f1_max
from tests.evaluate_metrics.kernels.cases import SCORES, scored


@pytest.mark.parametrize("name", SCORES)
def test_metrics_equal_scikit_learn(name):
    scores, targets = scored(name, 20_000)
    # scikit-learn sums differences of infinities and float16 thresholds badly: it gets the ranks, which order equally.
    ranks = np.unique(scores, return_inverse=True)[1]

    assert auroc(scores, targets) == pytest.approx(roc_auc_score(targets, ranks), abs=1e-12)
    assert average_precision(scores, targets) == pytest.approx(average_precision_score(targets, ranks), abs=1e-12)
    precision, recall, _ = precision_recall_curve(targets, ranks)
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    assert f1_max(scores, targets)[0] == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("name", SCORES)
def test_f1_threshold_reproduces_the_f1(name):
    scores, targets = scored(name, 5_000)
    f1, threshold = f1_max(scores, targets)
    predicted = scores >= threshold
    assert 2 * (predicted & targets).sum() / (predicted.sum() + targets.sum()) == pytest.approx(f1, abs=1e-12)


def test_hand_computed_values_with_a_tie():
    scores, targets = [3.0, 2.0, 2.0, 1.0], [1, 0, 1, 0]
    assert auroc(scores, targets) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert average_precision(scores, targets) == pytest.approx((1 + 2 / 3) / 2)
    assert f1_max(scores, targets) == (pytest.approx(0.8), 2.0)


def test_f1_threshold_is_the_highest_of_equals():
    assert f1_max([4.0, 3.0, 2.0, 1.0], [1, 0, 0, 1]) == (pytest.approx(2 / 3), 4.0)


def test_torch_and_numpy_agree_in_any_shape():
    scores, targets = scored("random", 4_096)
    as_torch = torch.from_numpy(scores).reshape(1, 64, 64), torch.from_numpy(targets).reshape(1, 64, 64)
    assert auroc(*as_torch) == auroc(scores, targets)
    assert auroc(as_torch[0].bfloat16(), as_torch[1]) == pytest.approx(auroc(scores, targets), abs=1e-2)


@pytest.mark.parametrize("metric", [auroc, average_precision, f1_max])
@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        ([0, 0, 0], "all 3 samples are negative"),
        ([True, True, True], "all 3 samples are positive"),
        ([], "no samples"),
    ],
)
def test_one_class_is_an_error_with_a_reason(metric, targets, reason):
    with pytest.raises(UndefinedMetricError, match=reason):
        metric(np.arange(len(targets), dtype=np.float32), targets)


@pytest.mark.parametrize("metric", [auroc, average_precision, f1_max])
@pytest.mark.parametrize(
    ("scores", "targets", "reason"),
    [
        ([0.1, float("nan")], [0, 1], "1 of 2 scores are NaN"),
        ([0.1, 0.2], [0, 255], "targets must be 0 or 1"),
        ([0.1, 0.2], [0.0, 0.5], "targets must be 0 or 1"),
        ([0.1, 0.2, 0.3], [0, 1], "3 scores but 2 targets"),
        (["a", "b"], [0, 1], "real numbers"),
    ],
)
def test_bad_values_are_refused(metric, scores, targets, reason):
    with pytest.raises(ValueError, match=reason):
        metric(scores, targets)
