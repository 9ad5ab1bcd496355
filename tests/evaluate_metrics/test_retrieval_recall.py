"""The retrieval recall module as a user loads it."""

from pathlib import Path

import evaluate
import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

MODULE = str(Path(__file__).parents[2] / "evaluate_metrics/retrieval_recall")
SIMILARITY = np.random.default_rng(0).normal(size=(30, 12)) + np.eye(12)[np.arange(30) % 12]
PAIRS = np.arange(30) % 12


def test_batches_of_pairs_equal_scikit_learn():
    metric = evaluate.load(MODULE)
    metric.add_batch(predictions=SIMILARITY[:10], references=PAIRS[:10])
    metric.add_batch(predictions=SIMILARITY[10:], references=PAIRS[10:])
    result = metric.compute()
    for k in (1, 5, 10):
        assert result[f"recall@{k}"] == pytest.approx(top_k_accuracy_score(PAIRS, SIMILARITY, k=k))
    assert result["queries"] == 30


def test_labels_of_the_gallery():
    metric = evaluate.load(MODULE)
    result = metric.compute(predictions=SIMILARITY, references=PAIRS % 2, gallery_labels=np.arange(12) % 2, ks=[1])
    assert result["recall@1"] == pytest.approx(np.mean(SIMILARITY.argmax(1) % 2 == PAIRS % 2))


def test_bad_input_is_refused():
    metric = evaluate.load(MODULE)
    with pytest.raises(ValueError, match="recall@10 needs as many gallery items"):
        metric.compute(predictions=SIMILARITY[:, :5], references=PAIRS)
    with pytest.raises(ValueError, match="12 gallery items"):
        metric.compute(predictions=SIMILARITY[:, :5], references=PAIRS, gallery_labels=range(12))
