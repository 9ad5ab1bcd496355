"""Overlap of the words of a description with those of references: BLEU, ROUGE-L and CIDEr-D."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any

from defect_hub.evaluate_metrics.extras import needed_for
from defect_hub.evaluate_metrics.kernels import UndefinedMetricError
from defect_hub.evaluate_metrics.kernels.states import defined
from defect_hub.evaluate_metrics.texts import References, check_texts, words

ORDERS = (1, 2, 3, 4)
Tokens = list[list[str]]
TokensOfReferences = list[list[list[str]]]


def caption_overlap(predictions: Sequence[str], references: References) -> dict[str, Any]:
    """BLEU-1 to BLEU-4, ROUGE-L and CIDEr-D of N descriptions.

    All three see the same words: lower case, letters and digits of any script, no punctuation (`texts.words`).

    Args:
        predictions: N texts.
        references: N texts, or N sequences of one or more texts.

    Returns:
        "bleu_1" to "bleu_4" in [0, 1]: of the whole corpus, not a mean over texts; no smoothing; against the
        reference of the nearest length (Papineni et al., 2002).
        "rouge_l" in [0, 1]: mean F1 of the longest common subsequence, of the best reference (Lin, 2004).
        "cider" in [0, 10]: CIDEr-D with n = 1 to 4 and sigma = 6 (Vedantam et al., 2015).
        "undefined": reasons by name, of metrics for which even a copy of a reference would score 0.

    Raises:
        ImportError: a library of `defect-hub[metrics]` is missing.
        ValueError: see `check_texts`.
    """
    expected = [[words(text) for text in given] for given in check_texts(predictions, references)]
    found = [words(text) for text in predictions]
    metrics: dict[str, Callable[..., float]] = {f"bleu_{order}": partial(_bleu, order) for order in ORDERS}
    metrics |= {"rouge_l": _rouge_l, "cider": _cider}
    return defined({name: partial(_of_some, metric, found, expected) for name, metric in metrics.items()})


def _of_some(metric: Callable[..., float], found: Tokens, expected: TokensOfReferences) -> float:
    if not found:
        raise UndefinedMetricError("no descriptions were given")
    return metric(found, expected)


def _bleu(order: int, found: Tokens, expected: TokensOfReferences) -> float:
    with needed_for("BLEU", "sacrebleu"):
        from sacrebleu.metrics import BLEU
    if all(len(text) < order for texts in expected for text in texts):
        raise UndefinedMetricError(f"no reference has {order} words")
    # `force`: the texts are tokenised on purpose.
    metric = BLEU(tokenize="none", force=True, smooth_method="none", max_ngram_order=order)
    # Its references go by column, with None where a text has fewer.
    columns = zip_longest(*([" ".join(text) for text in texts] for texts in expected))
    score = metric.corpus_score([" ".join(text) for text in found], [list(column) for column in columns]).score
    return min(score / 100, 1.0)  # a copy of the references is 100.00000000000004 there


class _Split:
    """Splits words at spaces; the tokenizer of rouge-score itself drops all letters but a to z."""

    def tokenize(self, text: str) -> list[str]:
        return text.split()


def _rouge_l(found: Tokens, expected: TokensOfReferences) -> float:
    with needed_for("ROUGE-L", "rouge-score"):
        from rouge_score.rouge_scorer import RougeScorer
    scorer = RougeScorer(["rougeL"], tokenizer=_Split())
    scores = [
        scorer.score_multi([" ".join(text) for text in texts], " ".join(prediction))["rougeL"].fmeasure
        for prediction, texts in zip(found, expected, strict=True)
    ]
    return sum(scores) / len(scores)


def _cider(found: Tokens, expected: TokensOfReferences) -> float:
    with needed_for("CIDEr", "pycocoevalcap"):
        from pycocoevalcap.cider.cider_scorer import CiderScorer
    scorer = CiderScorer(n=4, sigma=6.0)
    for prediction, texts in zip(found, expected, strict=True):
        scorer += (" ".join(prediction), [" ".join(text) for text in texts])
    score = float(scorer.compute_score()[0])
    # An n-gram that occurs with every image has weight log(1) = 0; of one image, that is every n-gram.
    if not any(0 < images < len(found) for images in scorer.document_frequency.values()):
        raise UndefinedMetricError(
            "CIDEr weighs words by how few images have them in their references; "
            f"of {len(found)} image(s) all have the same words"
        )
    return score
