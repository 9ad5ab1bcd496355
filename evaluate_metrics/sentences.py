"""Sentence-BERT similarity: do a description and a reference mean the same, whatever their words?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from defect_hub.evaluate_metrics.extras import needed_for
from defect_hub.evaluate_metrics.kernels import UndefinedMetricError
from defect_hub.evaluate_metrics.kernels.states import defined
from defect_hub.evaluate_metrics.texts import References, check_texts, words

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
"""Small and widely used. SteelDefectX compares sentences with Sentence-BERT too, but names no checkpoint."""


def sentence_similarity(
    predictions: Sequence[str],
    references: References,
    model: str | Path | SentenceTransformer = DEFAULT_MODEL,
    *,
    batch_size: int = 32,
    progress: bool = False,
) -> dict[str, Any]:
    """Mean cosine of the sentence embeddings of N descriptions and their references (Reimers and Gurevych, 2019).

    Args:
        predictions: N texts. One without words counts 0: its embedding would be that of nothing, and not far from any.
        references: N texts, or N sequences of one or more texts; of several the nearest counts.
        model: Hub id or folder of a SentenceTransformer, or one that is loaded.
        batch_size: texts per forward pass.
        progress: whether to show a bar.

    Returns:
        "sentence_similarity" in [-1, 1], in practice seldom below 0; or, of no texts, "undefined" with the reason.

    Raises:
        ImportError: sentence-transformers is missing.
        ValueError: see `check_texts`, or the model cannot be loaded.
    """
    expected = check_texts(predictions, references)

    def mean_cosine() -> float:
        if not expected:
            raise UndefinedMetricError("no descriptions were given")
        loaded = _load(model) if isinstance(model, str | Path) else model
        # Descriptions and class texts repeat: each text is embedded once.
        texts = list(dict.fromkeys([*predictions, *(text for given in expected for text in given)]))
        embeddings = loaded.encode(
            texts,
            batch_size=batch_size,
            show_progress_bar=progress,
            convert_to_numpy=True,
            normalize_embeddings=True,
        )
        vectors = dict(zip(texts, np.asarray(embeddings, dtype=np.float64), strict=True))
        cosines = [
            max(float(vectors[text] @ vectors[prediction]) for text in given) if words(prediction) else 0.0
            for prediction, given in zip(predictions, expected, strict=True)
        ]
        return float(np.clip(np.mean(cosines), -1, 1))

    return defined({"sentence_similarity": mean_cosine})


def _load(name: str | Path) -> SentenceTransformer:
    with needed_for("Sentence-BERT", "sentence-transformers"):
        from sentence_transformers import SentenceTransformer
    try:
        return SentenceTransformer(str(name))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"model: cannot load {str(name)!r} ({reason}); "
            "give a Hub id (the first time with network) or the folder of a SentenceTransformer"
        ) from error
