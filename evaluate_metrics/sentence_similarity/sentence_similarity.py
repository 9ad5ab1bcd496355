"""Sentence-BERT similarity as an `evaluate` module."""

from typing import Any

import evaluate

from defect_hub.evaluate_metrics.cached import CachedMetric, text_info
from defect_hub.evaluate_metrics.sentences import DEFAULT_MODEL, sentence_similarity

_DESCRIPTION = "Mean cosine of the Sentence-BERT embeddings of descriptions and their references."
_OUTPUTS = """    model: (in `compute`) Hub id or folder of a SentenceTransformer, or one that is loaded.
    batch_size, progress: (in `compute`) texts per forward pass; whether to show a bar.
Returns:
    sentence_similarity: a value in [-1, 1]; of several references the nearest counts.
    undefined: the reason, if no texts were given."""


class SentenceSimilarity(CachedMetric):
    """Sentence-BERT similarity, range [-1, 1]."""

    def _info(self) -> evaluate.MetricInfo:
        return text_info(_DESCRIPTION, _OUTPUTS)

    def _compute(
        self,
        predictions: list[str],
        references: list[str] | list[list[str]],
        model: Any = DEFAULT_MODEL,
        batch_size: int = 32,
        progress: bool = False,
    ) -> dict[str, Any]:
        return sentence_similarity(predictions, references, model, batch_size=batch_size, progress=progress)
