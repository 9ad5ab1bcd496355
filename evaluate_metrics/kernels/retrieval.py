"""Retrieval recall: is an item of the right class, or the pair itself, among the first k?"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.kernels.inputs import UndefinedMetricError, Values, as_array, check_scores
from defect_hub.evaluate_metrics.kernels.states import Arrays, MetricState, defined

KS = (1, 5, 10)


class RetrievalCounts(MetricState):
    """Recall@k: the share of queries with at least one right item among the k most similar; states add up.

    This is the recall of image-text retrieval papers (R@k), not the share of all right items that is found. A wrong
    item as similar as the best right one counts as ahead of it: ties never help, and a constant similarity finds
    nothing among k or more wrong items.

    Attributes:
        ks: the numbers of items looked at, ascending.
    """

    def __init__(self, ks: Sequence[int] = KS) -> None:
        """Args: ks: whole numbers, each at least 1; ValueError otherwise."""
        if not len(ks) or not all(isinstance(k, int | np.integer) and k >= 1 for k in ks):
            raise ValueError(f"ks must be at least one whole number of items, each 1 or more, got {tuple(ks)}")
        self.ks = tuple(sorted({int(k) for k in ks}))
        self._found = np.zeros(len(self.ks), np.int64)
        # Queries with and without a right item.
        self._queries = np.zeros(2, np.int64)

    def update(self, similarity: Values, query_labels: Values, gallery_labels: Values) -> None:
        """Add queries against the whole gallery; nothing is added if a value is bad.

        Texts that look for images and images that look for texts are two directions: transpose the similarity and swap
        the labels for the other one.

        Args:
            similarity: (Q, G), higher is more similar, any range.
            query_labels: (Q,) integers or strings.
            gallery_labels: (G,) likewise; an item is right when its label equals the query's. Labels are classes, or
                ids of pairs.

        Raises:
            ValueError: shapes do not fit, a similarity is NaN, labels are of two types, or the gallery holds fewer
                items than the largest k.
        """
        queries, gallery = _labels("query_labels", query_labels), _labels("gallery_labels", gallery_labels)
        values = check_scores(as_array(similarity))
        if values.shape != (queries.size, gallery.size):
            raise ValueError(
                f"similarity must be ({queries.size}, {gallery.size}) for {queries.size} queries and {gallery.size} "
                f"gallery items, got {values.shape}; rows are queries"
            )
        if queries.size and (queries.dtype.kind == "U") != (gallery.dtype.kind == "U"):
            raise ValueError(
                f"query_labels are {queries.dtype}, gallery_labels {gallery.dtype}; use one type of label"
            )
        if gallery.size < self.ks[-1]:
            raise ValueError(f"recall@{self.ks[-1]} needs as many gallery items, got {gallery.size}; give smaller ks")
        values = values.astype(np.float64)
        right = queries[:, None] == gallery
        answerable = right.any(axis=1)
        best = np.where(right, values, -np.inf).max(axis=1, keepdims=True)
        ahead = np.count_nonzero(~right & (values >= best), axis=1)[answerable]
        self._found += np.count_nonzero(ahead[:, None] < np.array(self.ks), axis=0)
        self._queries += [ahead.size, queries.size - ahead.size]

    def merge(self, other: Self) -> None:
        """Add the counts of another state; raises ValueError when its ks differ."""
        if other.ks != self.ks:
            raise ValueError(f"ks differ: {self.ks} here, {other.ks} there; merge states of the same ks")
        self._found += other._found
        self._queries += other._queries

    def recall(self, k: int) -> float:
        """Share of the queries with a right item in the gallery that find one among the first k, in [0, 1].

        Raises:
            UndefinedMetricError: no query has a right item, or no queries were given.
        """
        answerable, unanswerable = self._queries
        if not answerable:
            none = f"none of the {unanswerable} queries has a right item in the gallery"
            raise UndefinedMetricError(none if unanswerable else "no queries were given")
        return float(self._found[self.ks.index(k)] / answerable)

    def compute(self) -> dict[str, Any]:
        """Return "recall@k" for each k, see `MetricState.compute`.

        "queries" is the number of queries counted, "queries_without_right_item" that of the queries left out.
        """
        return defined({f"recall@{k}": partial(self.recall, k) for k in self.ks}) | {
            "queries": int(self._queries[0]),
            "queries_without_right_item": int(self._queries[1]),
        }

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return ks (K,), queries found (K,), and queries (2,) with and without a right item; int64."""
        return {"ks": np.array(self.ks), "found": self._found.copy(), "queries": self._queries.copy()}

    @classmethod
    def from_state_dict(cls, arrays: Arrays) -> Self:
        """Rebuild a state; the inverse of `state_dict`."""
        state = cls(arrays["ks"].tolist())
        state._found += arrays["found"]
        state._queries += arrays["queries"]
        return state


def retrieval_recall(
    similarity: Values, query_labels: Values, gallery_labels: Values, ks: Sequence[int] = KS
) -> dict[str, Any]:
    """Recall@k of data in memory, see `RetrievalCounts` for arguments, errors and the handling of ties.

    Returns:
        "recall@k" for each k, in [0, 1]; "queries" and "queries_without_right_item", their numbers.

    Raises:
        UndefinedMetricError: no query has a right item, or no queries were given.
    """
    counts = RetrievalCounts(ks)
    counts.update(similarity, query_labels, gallery_labels)
    # Without queries this raises, unlike `compute`.
    counts.recall(counts.ks[0])
    return counts.compute()


def _labels(field: str, labels: Values) -> NDArray[Any]:
    """Return labels as a flat array; raises ValueError for what is neither integer nor string."""
    array = as_array(labels).reshape(-1)
    if not array.size:
        return np.empty(0, np.int64)
    if array.dtype.kind not in "biuU":
        raise ValueError(
            f"{field} must be integers or strings, got {array.dtype}; give class ids, class names or pair ids"
        )
    return array
