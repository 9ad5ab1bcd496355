"""Accuracy, mean class accuracy and the confusion matrix against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, recall_score

from defect_hub.evaluate_metrics.kernels import ConfusionMatrix, UndefinedMetricError, class_accuracy

C = 7


def sample(n: int = 500, seed: int = 0):
    """Class ids of a long-tailed problem; class 5 has no samples but is predicted."""
    rng = np.random.default_rng(seed)
    targets = rng.choice([0, 1, 2, 3, 4, 6], n, p=[0.5, 0.25, 0.1, 0.08, 0.05, 0.02])
    return np.where(rng.random(n) < 0.6, targets, rng.integers(0, C, n)), targets


def matrix_of(predictions, targets, classes=C) -> ConfusionMatrix:
    matrix = ConfusionMatrix(classes)
    matrix.update(predictions, targets)
    return matrix


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_metrics_equal_scikit_learn():
    predictions, targets = sample()
    result = matrix_of(predictions, targets).compute()
    assert result["accuracy"] == pytest.approx(accuracy_score(targets, predictions), abs=1e-12)
    assert result["mean_class_accuracy"] == pytest.approx(balanced_accuracy_score(targets, predictions), abs=1e-12)
    assert result["confusion"] == confusion_matrix(targets, predictions, labels=range(C)).tolist()
    recalls = recall_score(targets, predictions, labels=range(C), average=None, zero_division=0)
    assert result["per_class_recall"] == {str(i): pytest.approx(recalls[i]) for i in range(C) if i != 5}
    assert class_accuracy(predictions, targets) == result


def test_scores_count_by_their_highest_class_the_first_of_equals():
    rng = np.random.default_rng(0)
    logits, targets = torch.from_numpy(rng.normal(size=(200, C))), torch.from_numpy(rng.integers(0, C, 200))
    expected = matrix_of(logits.argmax(1), targets).compute()
    assert matrix_of(logits.requires_grad_(), targets).compute() == expected
    assert class_accuracy(logits, targets) == expected
    assert matrix_of([[0.5, 0.5]], [1], 2).compute()["confusion"] == [[0, 0], [1, 0]]


def test_names_of_classes_name_the_recalls():
    result = class_accuracy([0, 0, 1], [0, 1, 1], ["scratch", "pit", "crack"])
    assert result["per_class_recall"] == {"scratch": 1.0, "pit": 0.5}
    assert result["classes"] == ["scratch", "pit", "crack"]
    assert result["confusion"] == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]


def test_merged_and_restored_parts_equal_one_pass():
    predictions, targets = sample()
    whole, merged = matrix_of(predictions, targets), ConfusionMatrix(C)
    for part in np.array_split(np.random.default_rng(1).permutation(targets.size), 4):
        merged.merge(ConfusionMatrix.from_bytes(matrix_of(predictions[part], targets[part]).to_bytes()))
    assert merged.compute() == whole.compute()


def test_without_samples_there_is_a_reason():
    matrix = matrix_of([], [], ["a", "b"])
    assert matrix.compute() == {
        "undefined": dict.fromkeys(("accuracy", "mean_class_accuracy", "per_class_recall"), "no samples were given"),
        "confusion": [[0, 0], [0, 0]],
        "classes": ["a", "b"],
    }
    with pytest.raises(UndefinedMetricError, match="no samples"):
        class_accuracy([], [])
    with pytest.raises(UndefinedMetricError, match="no samples"):
        matrix.mean_class_accuracy()


def test_one_class_is_defined():
    result = class_accuracy([0, 1], [0, 0])
    assert (result["accuracy"], result["mean_class_accuracy"]) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("predictions", "targets", "reason"),
    [
        ([0, 3], [0, 1], "predictions must be class ids from 0 to 2, found 3"),
        ([0, 1], [0, -1], r"targets .* found -1 \(1 of 2 are outside\); leave out samples of unknown class"),
        ([0.0, 1.0], [0, 1], r"predictions must be class ids \(integers\), got float64"),
        (["a", "b"], [0, 1], "map names to ids first"),
        ([0, 1], [0], "2 predictions but 1 targets"),
        (np.zeros((2, 4)), [0, 1], r"or \(B, 3\) scores, got shape \(2, 4\)"),
        (np.full((2, 3), np.nan), [0, 1], "NaN"),
        ([0, 1], [[0, 1]], r"targets must be \(B,\) class ids, got shape \(1, 2\)"),
    ],
)
def test_bad_input_is_refused_and_leaves_the_state(predictions, targets, reason):
    matrix = matrix_of([0, 1], [0, 1], 3)
    before = matrix.compute()
    with pytest.raises(ValueError, match=reason):
        matrix.update(predictions, targets)
    assert matrix.compute() == before


def test_bad_classes_are_refused():
    for classes in (0, [], ["pit", "pit"]):
        with pytest.raises(ValueError, match="classes must be"):
            ConfusionMatrix(classes)
    with pytest.raises(ValueError, match="classes differ"):
        ConfusionMatrix(["a", "b"]).merge(ConfusionMatrix(["b", "a"]))


def test_a_string_is_no_list_of_classes():
    with pytest.raises(ValueError, match=r"got 'ab'; write \['ab'\]"):
        ConfusionMatrix("ab")


def test_the_number_of_classes_may_be_one_of_numpy():
    assert ConfusionMatrix(np.int64(3)).names == ["0", "1", "2"]


def test_a_huge_id_needs_classes():
    assert len(class_accuracy([4095], [0])["classes"]) == 4096
    for predictions, targets in (([10**6], [0]), ([0], [4096])):
        with pytest.raises(ValueError, match=r"highest class id is .* or give classes"):
            class_accuracy(predictions, targets)


def test_bad_ids_are_refused_without_classes_too():
    with pytest.raises(ValueError, match=r"targets .* found -1"):
        class_accuracy([0, 0], [0, -1])
    with pytest.raises(ValueError, match="map names to ids first"):
        class_accuracy(["pit"], ["crack"])
    with pytest.raises(ValueError, match="0 predictions but 1 targets"):
        class_accuracy([], [0])
