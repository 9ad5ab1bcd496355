"""The class accuracy module as a user loads it."""

from pathlib import Path

import evaluate
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from defect_hub.evaluate_metrics.kernels import UndefinedMetricError

MODULE = str(Path(__file__).parents[2] / "evaluate_metrics/class_accuracy")


def test_batches_equal_scikit_learn():
    rng = np.random.default_rng(0)
    targets, metric = rng.integers(0, 4, 50), evaluate.load(MODULE)
    predictions = np.where(rng.random(50) < 0.7, targets, 0)
    metric.add_batch(predictions=predictions[:20], references=targets[:20])
    metric.add_batch(predictions=predictions[20:], references=targets[20:])
    result = metric.compute(class_names=["a", "b", "c", "d"])
    assert result["accuracy"] == pytest.approx(accuracy_score(targets, predictions))
    assert result["mean_class_accuracy"] == pytest.approx(balanced_accuracy_score(targets, predictions))
    assert list(result["per_class_recall"]) == ["a", "b", "c", "d"]
    assert np.sum(result["confusion"]) == 50


def test_bad_input_is_refused():
    metric = evaluate.load(MODULE)
    with pytest.raises(ValueError, match="found -1"):
        metric.compute(predictions=[0, 1], references=[0, -1])
    with pytest.raises(UndefinedMetricError, match="no samples"):
        metric.compute(predictions=[], references=[])
