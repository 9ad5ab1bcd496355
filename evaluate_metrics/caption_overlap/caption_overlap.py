"""BLEU, ROUGE-L and CIDEr-D as an `evaluate` module."""

from typing import Any

import evaluate

from defect_hub.evaluate_metrics.cached import CachedMetric, text_info
from defect_hub.evaluate_metrics.captions import caption_overlap

_DESCRIPTION = "Overlap of the words of descriptions with those of references: BLEU-1 to BLEU-4, ROUGE-L and CIDEr-D."
_OUTPUTS = """Returns:
    bleu_1, bleu_2, bleu_3, bleu_4: of the corpus, in [0, 1].
    rouge_l: mean F1 of the longest common subsequence, in [0, 1].
    cider: CIDEr-D, in [0, 10].
    undefined: reasons by name, for those that have no value on these references."""


class CaptionOverlap(CachedMetric):
    """BLEU-1 to BLEU-4 and ROUGE-L, range [0, 1], and CIDEr-D, range [0, 10]."""

    def _info(self) -> evaluate.MetricInfo:
        return text_info(_DESCRIPTION, _OUTPUTS)

    def _compute(self, predictions: list[str], references: list[str] | list[list[str]]) -> dict[str, Any]:
        return caption_overlap(predictions, references)
