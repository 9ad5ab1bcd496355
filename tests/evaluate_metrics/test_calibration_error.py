"""The calibration error module as a user loads it."""

from pathlib import Path

import evaluate
import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

MODULE = str(Path(__file__).parents[2] / "evaluate_metrics/calibration_error")


def test_batches_equal_scikit_learn():
    rng = np.random.default_rng(0)
    probabilities, metric = rng.random(50), evaluate.load(MODULE)
    targets = rng.random(50) < probabilities
    metric.add_batch(predictions=probabilities[:20], references=targets[:20])
    metric.add_batch(predictions=probabilities[20:], references=targets[20:])
    result = metric.compute(bins=1)
    assert result["brier"] == pytest.approx(brier_score_loss(targets, probabilities), abs=1e-7)
    assert result["ece"] == pytest.approx(abs(probabilities.mean() - targets.mean()), abs=1e-7)


def test_logits_are_refused():
    with pytest.raises(ValueError, match="apply a sigmoid to logits"):
        evaluate.load(MODULE).compute(predictions=[-2.0, 3.0], references=[0, 1])
