"""Retrieval recall@k as an `evaluate` module."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from defect_hub.evaluate_metrics.cached import CachedMetric
from defect_hub.evaluate_metrics.kernels import UndefinedMetricError, retrieval_recall
from defect_hub.evaluate_metrics.kernels.retrieval import KS

_DESCRIPTION = "Recall@k: the share of queries with a right item among the k most similar of a gallery."
_INPUTS = """
Args:
    predictions: for each query its similarity to every gallery item (any range, higher is more similar).
    references: label of each query: its class, or the id of its pair.
    gallery_labels: (in `compute`) label of each gallery item; left out, their positions 0, 1, 2 ...
    ks: (in `compute`) numbers of items looked at, 1, 5 and 10 by default.
Returns:
    recall@k: for each k, in [0, 1].
    queries, queries_without_right_item: number of queries counted, and of those left out.
"""


class RetrievalRecall(CachedMetric):
    """Recall@k, range [0, 1]; raises UndefinedMetricError when no query has a right item in the gallery."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.List(datasets.Value("float64")), "references": datasets.Value("int64")}
            ),
        )

    def _compute(
        self,
        predictions: list[list[float]],
        references: list[int],
        gallery_labels: Sequence[int] | None = None,
        ks: Sequence[int] = KS,
    ) -> dict[str, Any]:
        if not predictions:
            raise UndefinedMetricError("no queries were given")
        labels = range(len(predictions[0])) if gallery_labels is None else gallery_labels
        return retrieval_recall(predictions, references, labels, ks)
