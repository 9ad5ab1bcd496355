"""Sentence-BERT similarity as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from defect_hub.evaluate_metrics.cached import CachedMetric
from defect_hub.evaluate_metrics.sentences import DEFAULT_MODEL, sentence_similarity

_DESCRIPTION = "Mean cosine of the Sentence-BERT embeddings of descriptions and their references."
_INPUTS = """
Args:
    predictions: one text per image.
    references: one text per image, or a list of one or more; of several the nearest counts.
    model: (in `compute`) Hub id or folder of a SentenceTransformer, or one that is loaded.
    batch_size, progress: (in `compute`) texts per forward pass; whether to show a bar.
Returns:
    sentence_similarity: a value in [-1, 1].
"""


class SentenceSimilarity(CachedMetric):
    """Sentence-BERT similarity, range [-1, 1]."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"predictions": text, "references": references})
                for references in (datasets.List(text), text)
            ],
        )

    def _compute(
        self,
        predictions: list[str],
        references: list[str] | list[list[str]],
        model: Any = DEFAULT_MODEL,
        batch_size: int = 32,
        progress: bool = False,
    ) -> dict[str, Any]:
        return sentence_similarity(predictions, references, model, batch_size=batch_size, progress=progress)
