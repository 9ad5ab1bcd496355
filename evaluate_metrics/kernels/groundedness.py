"""Groundedness: is what a text says of presence, place, number and size of the defects borne out by the mask?

What counts as a claim, and when the mask supports it:

- *presence*: the verdict of `parse_yes_no`. Yes needs a defect pixel, no an empty mask.
- *location*: a cell of the 3x3 grid ("top left", "upper-left corner", "left top"), a row, column or the centre ("on
  the right side", "at the bottom", "in the center"), or a half ("in the left half"), said of a defect. Some region,
  other than a speck, must have at least 5 % of its pixels there: one stray pixel is not enough.
- *count*: "a", "two", "3", "several" before a defect noun, and "consisting of two regions". The mask's 8-connected
  regions are counted; specks, regions of less than 1 % of the area of the largest, may be counted or not. "Several",
  "multiple", "many" and "a few" need at least two. Where a text counts more than one kind of defect, each count may
  not exceed all regions.
- *size*: a size word on a defect ("a small scratch", "covers a large part"), against the defects' share of the image,
  all together: tiny < 0.01 <= small < 0.03 <= medium < 0.10 <= large <= 0.25 < extensive (SteelDefectX, `Scale`).
  "Little" is tiny or small, "big" large or extensive, "huge" extensive.

Places are those of the image, not of the part shown on it. What a text denies ("no scratch on the left") makes no
claim but its verdict. Unlike `unsupported_claims` of the processor, which warns of words that the model's own regions
contradict, this judges by the true mask, needs more than a touch of a place, and also reads sizes, halves and digits.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.kernels.description import check_texts, parse_yes_no, strike_denials
from defect_hub.evaluate_metrics.kernels.english import FILLING, HEAD, MANY, NUMBERS, SINGULARS, Sentence, to_sentences
from defect_hub.evaluate_metrics.kernels.inputs import Values, as_array, check_targets
from defect_hub.evaluate_metrics.kernels.regions import label_regions
from defect_hub.evaluate_metrics.kernels.states import Arrays, MetricState, defined, share

KINDS = ("presence", "location", "count", "size")
LEAST_SHARE = 0.05
"""Share of a region that must lie in a place for the region to be there."""
SPECK = 0.01
"""A region below this share of the largest one's area is a speck."""

_ROWS = {"top": 0, "upper": 0, "middle": 1, "center": 1, "centre": 1, "central": 1, "bottom": 2, "lower": 2}
_COLUMNS = {"left": 0, "middle": 1, "center": 1, "centre": 1, "central": 1, "right": 2}
_ROW, _COLUMN = (rf"(?:{'|'.join(names)})" for names in (_ROWS, _COLUMNS))
_PLACE = re.compile(
    rf"\b(?P<before>(?:in|on|at|near|along|towards?|and) (?:the|its) (?:far )?)?"
    rf"(?:(?P<row>{_ROW}) (?P<column>{_COLUMN})|(?P<column_first>{_COLUMN}) (?P<row_second>{_ROW})"
    # A word alone names a place only behind a preposition: "from left to right" does not.
    rf"|(?(before)(?P<side>{_ROW}|{_COLUMN})(?: (?P<half>half))?|(?!)))\b"
)
_SIZES = {
    "tiny": (0, 1),
    "little": (0, 2),
    "small": (1, 2),
    "medium": (2, 3),
    "medium-sized": (2, 3),
    "large": (3, 4),
    "big": (3, 5),
    "extensive": (4, 5),
    "huge": (4, 5),
}
"""First step of the scale that a word covers, and the step behind its last."""
_SCALE = np.array([0.01, 0.03, 0.10, 0.25])

_COUNTED = re.compile(rf"[Dd](?!kO){FILLING}(?P<head>{HEAD})")
_REGIONS_COUNTED = re.compile(r"(?<=\bof )(\w+) (?:separate )?regions?\b")
_SIZED = re.compile(rf"{FILLING}{HEAD}")
# "Covers a small part of the image"; "the crack is small", "it is small".
_SIZE_BEHIND = re.compile(r"rDzm|^(?:F?[GK]m?|u)bz(?![.mGK])")


@dataclass(frozen=True)
class Claim:
    """What a text says about the defects.

    Attributes:
        kind: "presence", "location", "count" or "size".
        words: the words that say it.
        supported: whether the mask bears it out.
    """

    kind: str
    words: str
    supported: bool


class _Regions:
    """The 8-connected regions of a mask (H, W)."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.labels, self.areas = label_regions(mask)
        self.count = self.areas.size
        self.share = float(self.areas.sum() / mask.size)
        self.is_speck = self.areas < SPECK * self.areas.max(initial=0)

    @property
    def few(self) -> int:
        """Number of regions without specks."""
        return int((~self.is_speck).sum())

    def lie_in(self, rows: tuple[float, float], columns: tuple[float, float]) -> bool:
        """Whether a region lies between these fractions of the height and the width."""
        height, width = self.labels.shape
        (top, bottom), (left, right) = (
            [round(fraction * side) for fraction in span] for span, side in ((rows, height), (columns, width))
        )
        inside = np.bincount(self.labels[top:bottom, left:right].ravel(), minlength=self.count + 1)[1:]
        return bool((inside >= np.maximum(LEAST_SHARE * self.areas, 1))[~self.is_speck].any())

    def have_size(self, word: str, of_several: bool) -> bool:
        """Whether a size word fits the share of the image; of one kind of several, whether there is enough."""
        first, end = _SIZES[word]
        step = int(np.searchsorted(_SCALE, self.share, side="right")) - (self.share == _SCALE[-1])
        return self.count > 0 and bool(first <= step) and bool(step < end or of_several)

    def number(self, word: str, of_several: bool) -> bool:
        """Whether a count word fits; of one kind of several, whether there are enough regions."""
        if word in MANY:
            return self.count >= MANY[word]
        number = int(word) if word.isdigit() else NUMBERS.get(word, 1)
        if word == "at-least-one" or of_several:
            return self.count >= number
        return self.few <= number <= self.count


def grounded_claims(text: str, mask: Values) -> list[Claim]:
    """Find what a text says about the defects of an image, and compare it with the mask.

    Args:
        text: the description.
        mask: (H, W) of 0 and 1 (or bool), 1 on defects.

    Returns:
        The claims by kind, in the order of the text; repeated words are one claim.

    Raises:
        ValueError: the mask is not two-dimensional, is empty of pixels, or has values other than 0 and 1.
    """
    regions = _Regions(_check_mask(mask))
    claims: dict[tuple[str, str], Claim] = {}
    for kind, said, holds in _claims(text):
        claims.setdefault((kind, said), Claim(kind, said, holds(regions)))
    return sorted(claims.values(), key=lambda claim: KINDS.index(claim.kind))


_Condition = Callable[[_Regions], bool]
_Found = Iterator[tuple[str, str, _Condition]]


def _claims(text: str) -> _Found:
    """Kind, words and condition of each claim."""
    verdict = parse_yes_no(text)
    if verdict is not None:
        yield "presence", "yes" if verdict else "no", lambda regions: (regions.count > 0) is verdict
    affirmed = [_affirmed(sentence) for sentence in to_sentences(text)]
    of_several = len({noun for sentence in affirmed for _, _, noun in _counted(sentence) if noun}) > 1
    is_on_defect = False
    for sentence in affirmed:
        # "It lies on the left": what the sentence before spoke of.
        goes_on = is_on_defect and sentence.words[:1] in (["it"], ["they"])
        is_on_defect = goes_on or bool(re.search("[GKA]", sentence.classes))
        if is_on_defect:
            yield from _places(sentence)
            for said, count, _ in _counted(sentence):
                yield "count", said, partial(_Regions.number, word=count, of_several=of_several)
            for said, size in _sized(sentence):
                yield "size", said, partial(_Regions.have_size, word=size, of_several=of_several)


def _affirmed(sentence: Sentence) -> Sentence:
    """The sentence without the clauses that deny something."""
    strike_denials(sentence)
    clauses = re.finditer("[^,C&B]+[,C&B]?", sentence.classes)
    kept = [
        word for clause in clauses if "_" not in clause[0] for word in sentence.words[clause.start() : clause.end()]
    ]
    return Sentence(kept, sentence.is_question)


def _places(sentence: Sentence) -> _Found:
    for match in _PLACE.finditer(sentence.text.replace("-", " ")):
        rows = _span(match["row"] or match["row_second"] or match["side"], _ROWS, bool(match["half"]))
        columns = _span(match["column"] or match["column_first"] or match["side"], _COLUMNS, bool(match["half"]))
        yield "location", match[0].removeprefix("and "), partial(_Regions.lie_in, rows=rows, columns=columns)


def _span(name: str, names: dict[str, int], is_half: bool) -> tuple[float, float]:
    """Fractions of a side of the image at which a place begins and ends; all of it where the word names none."""
    if name not in names:
        return 0, 1
    if is_half and names[name] != 1:
        return names[name] / 4, names[name] / 4 + 1 / 2
    return names[name] / 3, (names[name] + 1) / 3


def _counted(sentence: Sentence) -> Iterator[tuple[str, str, str | None]]:
    """Words, count and the kind of defect, singular, of each counted phrase."""
    for match in _COUNTED.finditer(sentence.classes):
        phrase = sentence.words[match.start() : match.end()]
        is_kind = "K" in match["head"]
        yield " ".join(phrase), phrase[0], SINGULARS.get(phrase[-1], phrase[-1]) if is_kind else None
    for match in _REGIONS_COUNTED.finditer(sentence.text):
        yield match[0], match[1], None


def _sized(sentence: Sentence) -> Iterator[tuple[str, str]]:
    """Words and size word of each sized phrase."""
    for match in [*_SIZED.finditer(sentence.classes), *_SIZE_BEHIND.finditer(sentence.classes)]:
        said = " ".join(sentence.words[match.start() : match.end()])
        for size in re.finditer("z", match[0]):
            yield said, sentence.words[match.start() + size.start()]


class Groundedness(MetricState):
    """Counts of the claims that texts make, and of those that the masks support."""

    def __init__(self) -> None:
        # By kind: claims made, claims supported.
        self._counts = np.zeros((len(KINDS), 2), np.int64)
        self._n_texts = 0
        self._n_silent = 0

    def update(self, texts: Sequence[str], masks: Sequence[Values] | NDArray[Any] | torch.Tensor) -> None:
        """Add texts and the masks of their images; nothing is added if a mask is bad.

        Args:
            texts: the descriptions.
            masks: as many masks (H, W) of 0 and 1 (or bool); sizes may differ.

        Raises:
            ValueError: one string, different lengths, or a mask that `grounded_claims` refuses.
        """
        check_texts(texts)
        if len(texts) != len(masks):
            raise ValueError(f"{len(texts)} texts but {len(masks)} masks")
        found = [grounded_claims(text, mask) for text, mask in zip(texts, masks, strict=True)]
        for claims in found:
            for claim in claims:
                self._counts[KINDS.index(claim.kind)] += (1, claim.supported)
        self._n_texts += len(found)
        self._n_silent += found.count([])

    def merge(self, other: Self) -> None:
        """Add what another state has seen."""
        self._counts += other._counts
        self._n_texts += other._n_texts
        self._n_silent += other._n_silent

    def compute(self) -> dict[str, Any]:
        """Return the shares of claims that are supported, and how much the texts claim.

        Returns:
            "groundedness", of all claims, and "presence", "location", "count", "size", of each kind, in [0, 1];
            "claims_per_text"; "without_claims", the share of texts that claim nothing, in [0, 1].
        """
        made, supported = self._counts.T
        shares = {
            kind: partial(share, supported[index], made[index], f"no text says anything of {kind}")
            for index, kind in enumerate(KINDS)
        }
        return defined(
            {
                "groundedness": partial(share, supported.sum(), made.sum(), "no text claims anything"),
                **shares,
                "claims_per_text": partial(share, made.sum(), self._n_texts, "no texts were given"),
                "without_claims": partial(share, self._n_silent, self._n_texts, "no texts were given"),
            }
        )

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return "counts" (4, 2) int64, claims made and supported by kind, and "texts" (2,): all, without claims."""
        return {"counts": self._counts.copy(), "texts": np.array([self._n_texts, self._n_silent], np.int64)}

    @classmethod
    def from_state_dict(cls, arrays: Arrays) -> Self:
        """Rebuild a state; the inverse of `state_dict`."""
        state = cls()
        state._counts = arrays["counts"].copy()
        state._n_texts, state._n_silent = (int(number) for number in arrays["texts"])
        return state


def _check_mask(mask: Values) -> NDArray[np.bool_]:
    array = as_array(mask)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"a mask must be (H, W), got shape {array.shape}; give one mask for each text")
    return check_targets(array)
