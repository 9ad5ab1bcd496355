"""BLEU, ROUGE-L and CIDEr-D against independent references: NLTK, and the papers' formulas written out here."""

import math
import sys
from collections import Counter
from functools import cache

import numpy as np
import pytest
from nltk.translate.bleu_score import corpus_bleu

from defect_hub.evaluate_metrics.captions import caption_overlap
from defect_hub.evaluate_metrics.texts import words

WORDS = ["a", "small", "dark", "round", "linear", "scratch", "hole", "dent", "in", "top", "left", "corner", "metal"]
RNG = np.random.default_rng(0)


def sentence(low: int = 4, high: int = 14) -> str:
    return " ".join(RNG.choice(WORDS, RNG.integers(low, high)))


def texts_of(n: int, n_references: int) -> tuple[list[str], list[list[str]]]:
    """Return predictions that share words with 1 to `n_references` references; every ninth is empty."""
    references = [[sentence() for _ in range(RNG.integers(1, n_references + 1))] for _ in range(n)]
    predictions = []
    for number, given in enumerate(references):
        kept = given[0].split()[: RNG.integers(2, 12)]
        predictions.append("" if number % 9 == 8 else " ".join([*kept, sentence(1, 4)]))
    return predictions, references


@cache
def ngrams(text: str, n: int) -> Counter:
    tokens = text.split()
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def bleu_by_definition(predictions, references, order):
    """BLEU of a corpus (Papineni et al., 2002, section 2.3)."""
    pairs = list(zip(predictions, references, strict=True))
    logs = 0.0
    for n in range(1, order + 1):
        matched = sum(
            min(count, max(ngrams(one, n)[gram] for one in given))
            for text, given in pairs
            for gram, count in ngrams(text, n).items()
        )
        logs += math.log(matched / sum(ngrams(text, n).total() for text in predictions)) / order
    length = sum(len(text.split()) for text in predictions)
    nearest = sum(
        min((len(one.split()) for one in given), key=lambda size: (abs(size - len(text.split())), size))
        for text, given in pairs
    )
    return math.exp(logs + min(0, 1 - nearest / length))


def rouge_l_by_definition(predictions, references):
    """Mean over texts of the best F1 of the longest common subsequence (Lin, 2004, with beta = 1)."""

    def common(a, b):
        row = [0] * (len(b) + 1)
        for x in a:
            diagonal = 0
            for j, y in enumerate(b, 1):
                diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
        return row[-1]

    def f1(a, b):
        return 2 * common(a, b) / (len(a) + len(b))

    pairs = zip(predictions, references, strict=True)
    return np.mean([max(f1(text.split(), one.split()) for one in given) for text, given in pairs])


def cider_d_by_definition(predictions, references, sigma=6.0):
    """CIDEr-D of Vedantam et al. (2015), equations 1 to 4, with counts for term frequencies as in their code."""

    def norm(vector):
        return math.sqrt(sum(value**2 for value in vector.values()))

    scores = []
    for prediction, given in zip(predictions, references, strict=True):
        total = 0.0
        for n in (1, 2, 3, 4):
            images_with = Counter(
                gram for image in references for gram in {g for one in image for g in ngrams(one, n)}
            )

            def weighted(text, n=n, images_with=images_with):
                return {
                    gram: count * math.log(len(references) / max(1, images_with[gram]))
                    for gram, count in ngrams(text, n).items()
                }

            candidate = weighted(prediction)
            for one in given:
                target = weighted(one)
                clipped = sum(
                    min(value, target[gram]) * target[gram] for gram, value in candidate.items() if gram in target
                )
                if norm(candidate) and norm(target):
                    gap = len(prediction.split()) - len(one.split())
                    cosine = clipped / (norm(candidate) * norm(target))
                    total += math.exp(-(gap**2) / (2 * sigma**2)) * cosine / len(given)
        scores.append(10 * total / 4)
    return np.mean(scores)


@pytest.mark.parametrize("n_references", [1, 4])
@pytest.mark.parametrize("n", [3, 40])
def test_equals_independent_references(n, n_references):
    predictions, references = texts_of(n, n_references)
    found = caption_overlap(predictions, references)
    expected = {f"bleu_{order}": bleu_by_definition(predictions, references, order) for order in (1, 2, 3, 4)}
    expected["rouge_l"] = rouge_l_by_definition(predictions, references)
    expected["cider"] = cider_d_by_definition(predictions, references)
    assert found == pytest.approx(expected, abs=1e-12)
    assert found["cider"] > 0.1


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_bleu_equals_nltk(order):
    """On predictions of four words or more: of shorter ones NLTK counts n-grams that they do not have."""
    predictions, references = texts_of(60, 3)
    long = [number for number, text in enumerate(predictions) if len(text.split()) >= 4]
    predictions, references = [predictions[i] for i in long], [references[i] for i in long]
    tokens = [[text.split() for text in given] for given in references]
    expected = corpus_bleu(tokens, [text.split() for text in predictions], weights=[1 / order] * order)
    assert caption_overlap(predictions, references)[f"bleu_{order}"] == pytest.approx(expected, abs=1e-12)


def test_one_reference_may_be_a_plain_text():
    predictions, references = texts_of(5, 1)
    assert caption_overlap(predictions, [given[0] for given in references]) == caption_overlap(predictions, references)


def test_copies_reach_the_top_of_each_range():
    references = ["a dark scratch in the top left corner", "one small round hole near the lower edge"]
    tops = {"bleu_1": 1, "bleu_2": 1, "bleu_3": 1, "bleu_4": 1, "rouge_l": 1, "cider": 10}
    assert caption_overlap(references, references) == pytest.approx(tops)
    # Case, punctuation, white space and the form of a character do not count.
    other = ["A dark, scratch;\nin the  TOP left corner.", "“One” small round hole near the lower ｅdge!"]
    assert caption_overlap(other, references) == pytest.approx(tops)


def test_empty_and_foreign_predictions_score_nothing():
    references = ["a dark scratch in the top left", "a round hole near the edge"]
    for predictions in (["", ""], ["...", "\n"], ["不", "ß"]):
        assert set(caption_overlap(predictions, references).values()) == {0.0}


def test_texts_of_other_scripts_count():
    references = ["на поверхности видна тёмная царапина", "钢板左上角有一条划痕", "Kratzer größer als üblich hier"]
    found = caption_overlap(references, references)
    assert found == pytest.approx(dict.fromkeys(found, 1) | {"cider": 10})
    half = caption_overlap(["тёмная царапина", "左上角有划痕", "größer"], references)
    assert 0.3 < half["rouge_l"] < 0.9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Top-left: 2 dark_spots (0.5 mm)!", "top left 2 dark spots 0 5 mm"),
        ("ÜBER-groß, naïve ﬁle", "über groß naïve file"),
        ("裂纹abc2 ひび", "裂 纹 abc2 ひ び"),
        ("", ""),
    ],
)
def test_words(text, expected):
    assert words(text) == expected.split()


def test_one_image_has_no_cider():
    found = caption_overlap(["a dark scratch in a corner"], ["a dark scratch in a corner"])
    assert "cider" not in found
    assert "of 1 image(s) all have the same words" in found["undefined"]["cider"]
    assert found["bleu_4"] == pytest.approx(1)


def test_one_template_for_all_images_has_no_cider():
    same = ["a scratch on steel"] * 3
    assert "3 image(s)" in caption_overlap(same, same)["undefined"]["cider"]
    assert caption_overlap(same, [*same[:2], "a hole in wood"])["cider"] > 0


def test_references_too_short_for_an_order_have_no_bleu_of_it():
    found = caption_overlap(["deep scratch", "hole"], ["deep scratch", "hole"])
    assert found["undefined"] == {f"bleu_{n}": f"no reference has {n} words" for n in (3, 4)}
    assert (found["bleu_1"], found["bleu_2"]) == pytest.approx((1, 1))
    # Short predictions alone are bad ones.
    assert caption_overlap(["deep scratch", "hole"], ["a deep long scratch", "one hole"])["bleu_4"] == 0


def test_no_texts_have_no_metric():
    found = caption_overlap([], [])
    assert found.keys() == {"undefined"}
    assert set(found["undefined"].values()) == {"no descriptions were given"}


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a"], [], "1 predictions but 0 references"),
        ("a dent", ["a dent"], "got one text"),
        (["a"], "a", "got one text"),
        ([None], ["a"], r"predictions\[0\] must be a text, got None"),
        (["a", "b"], ["a", []], r"references\[1\] is empty"),
        (["a"], [["a", "..."]], r"references\[0\] must hold texts with words, got '...'"),
        (["a"], [[b"a"]], r"references\[0\] must hold texts"),
    ],
)
def test_bad_inputs_are_refused(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        caption_overlap(predictions, references)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("sacrebleu.metrics", "BLEU needs sacrebleu"),
        ("rouge_score.rouge_scorer", "ROUGE-L needs rouge-score"),
        ("pycocoevalcap.cider.cider_scorer", "CIDEr needs pycocoevalcap"),
    ],
)
def test_a_missing_library_is_one_line_with_the_remedy(monkeypatch, module, message):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"^{message}: pip install 'defect-hub\[metrics\]'$"):
        caption_overlap(["a b c d", "e"], ["a b c d", "f"])
