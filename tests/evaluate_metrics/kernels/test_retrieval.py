"""Recall@k against scikit-learn and a loop over sorted galleries."""

import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score

from defect_hub.evaluate_metrics.kernels import RetrievalCounts, UndefinedMetricError, retrieval_recall

RNG = np.random.default_rng(0)
Q, G = 60, 40
SIMILARITY = RNG.normal(size=(Q, G))
QUERIES, GALLERY = RNG.integers(0, 8, Q), RNG.integers(0, 8, G)


def by_loop(similarity, queries, gallery, k: int) -> float:
    """Sort each query's gallery, of equal items the wrong ones first, and look at the first k."""
    found = []
    for row, label in zip(similarity, queries, strict=True):
        right = gallery == label
        if right.any():
            found.append(right[np.lexsort((right, -row))][:k].any())
    return float(np.mean(found))


def counts_of(similarity, queries, gallery, ks=(1, 5, 10)) -> RetrievalCounts:
    counts = RetrievalCounts(ks)
    counts.update(similarity, queries, gallery)
    return counts


@pytest.mark.parametrize("decimals", [9, 1, 0])
def test_recall_of_classes_equals_a_loop_with_and_without_ties(decimals):
    similarity = SIMILARITY.round(decimals)
    result = retrieval_recall(similarity, QUERIES, GALLERY)
    for k in (1, 5, 10):
        assert result[f"recall@{k}"] == pytest.approx(by_loop(similarity, QUERIES, GALLERY, k), abs=1e-12)
    other_way = retrieval_recall(similarity.T, GALLERY, QUERIES)
    assert other_way["recall@1"] == pytest.approx(by_loop(similarity.T, GALLERY, QUERIES, 1), abs=1e-12)


@pytest.mark.parametrize("k", [1, 5, 10, 39])
def test_recall_of_pairs_equals_scikit_learn(k):
    pairs = RNG.permutation(G)
    similarity = SIMILARITY[:G] + 1.5 * np.eye(G)[pairs]
    expected = top_k_accuracy_score(pairs, similarity, k=k, labels=np.arange(G))
    assert retrieval_recall(similarity, pairs, np.arange(G), [k])[f"recall@{k}"] == pytest.approx(expected, abs=1e-12)


def test_a_constant_similarity_finds_nothing():
    result = retrieval_recall(np.ones((5, 20)), np.arange(5), np.arange(20))
    assert [result[f"recall@{k}"] for k in (1, 5, 10)] == [0, 0, 0]


def test_the_best_of_several_right_items_counts():
    assert retrieval_recall([[0.1, 0.9, 0.5]], ["pit"], ["pit", "pit", "crack"], [1])["recall@1"] == 1
    assert retrieval_recall([[-np.inf, 0.9, 0.5]], ["pit"], ["pit", "crack", "crack"], [2, 3]) == {
        "recall@2": 0.0,
        "recall@3": 1.0,
        "queries": 1,
        "queries_without_right_item": 0,
    }


def test_queries_without_a_right_item_are_left_out_and_counted():
    gallery = np.where(GALLERY == 3, 4, GALLERY)
    result = retrieval_recall(SIMILARITY, QUERIES, gallery)
    n_without = int((QUERIES == 3).sum())
    assert n_without > 0
    assert (result["queries"], result["queries_without_right_item"]) == (Q - n_without, n_without)
    assert result["recall@1"] == pytest.approx(by_loop(SIMILARITY, QUERIES, gallery, 1))


def test_merged_and_restored_parts_equal_one_pass():
    whole, merged = counts_of(SIMILARITY, QUERIES, GALLERY), RetrievalCounts()
    for part in np.array_split(RNG.permutation(Q), 4):
        merged.merge(RetrievalCounts.from_bytes(counts_of(SIMILARITY[part], QUERIES[part], GALLERY).to_bytes()))
    assert merged.compute() == whole.compute()


def test_torch_and_numpy_agree():
    as_torch = [torch.from_numpy(array) for array in (SIMILARITY, QUERIES, GALLERY)]
    assert retrieval_recall(*as_torch) == retrieval_recall(SIMILARITY, QUERIES, GALLERY)


def test_without_answers_there_is_a_reason():
    reason = "none of the 2 queries has a right item in the gallery"
    assert counts_of(np.ones((2, 3)), [7, 8], [0, 1, 2], [1]).compute() == {
        "undefined": {"recall@1": reason},
        "queries": 0,
        "queries_without_right_item": 2,
    }
    with pytest.raises(UndefinedMetricError, match=reason):
        retrieval_recall(np.ones((2, 3)), [7, 8], [0, 1, 2], [1])
    with pytest.raises(UndefinedMetricError, match="no queries were given"):
        retrieval_recall(np.ones((0, 3)), [], ["a", "b", "c"], [1])


@pytest.mark.parametrize(
    ("similarity", "queries", "gallery", "reason"),
    [
        (np.ones((1, 4)), [0], [0, 1, 2, 3], "recall@5 needs as many gallery items, got 4; give smaller ks"),
        (np.ones((6, 1)), [0], np.arange(6), r"must be \(1, 6\) .* got \(6, 1\); rows are queries"),
        (np.full((1, 6), np.nan), [0], np.arange(6), "NaN"),
        (np.ones((1, 6)), ["0"], np.arange(6), "use one type of label"),
        (np.ones((1, 6)), [0.5], np.arange(6), "query_labels must be integers or strings, got float64"),
    ],
)
def test_bad_input_is_refused_and_leaves_the_state(similarity, queries, gallery, reason):
    counts = counts_of(np.eye(6), np.arange(6), np.arange(6), (1, 5))
    before = counts.compute()
    with pytest.raises(ValueError, match=reason):
        counts.update(similarity, queries, gallery)
    assert counts.compute() == before


def test_bad_ks_are_refused():
    assert RetrievalCounts(np.array([5, 1])).ks == (1, 5)
    for ks in ([], [0, 5], [1.5], "15"):
        with pytest.raises(ValueError, match="each 1 or more"):
            RetrievalCounts(ks)
    with pytest.raises(ValueError, match="ks differ"):
        RetrievalCounts([1]).merge(RetrievalCounts([5]))
