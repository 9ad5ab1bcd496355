"""Description accuracy: does the text say yes or no, and is that right? A text that does not say it is wrong.

The grammar, after markup, quotes and capitals are taken away. Four things are looked for:

- *Opening*: the text begins with "yes" or "no". "No" is one before a comma, a stop, a line break or a subject ("No,
  ...", "No there is none"), not before a noun: "No scratches" speaks of scratches only, "No. 3" is a number. It may be
  introduced ("Answer:", "The verdict is"), and follow the question whether there is any defect.
- *Denial*: a negated general noun, "There is no defect", "free of flaws", "defect-free", "does not show any damage".
  It is *partial* where it leaves something open: a kind ("no scratch"), a place ("no defect on the left"), the rest
  ("no other defect").
- *Statement*: a defect noun in a frame of presence, "there is a scratch", "the tile has / shows / is shown with two
  cracks", "a pit is visible", "the pin is bent", "Yes, no scratch but a dent". Nothing may be made of the noun: "a
  scratch test" is none.
- *Doubt*: a hedge, a question, a foreign word, a word that takes something back, two negations in a clause, a negated
  defect in any other form.

No verdict with a doubt. Yes: an opening or a statement, and no denial but a partial one. No: an opening or a denial,
and no statement or other mention of a defect. Nouns that also name parts of good products (hole, knot, cut, fold,
mark, spot, line: "a nut with a hole") state no defect, but contradict a leading "No".
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.kernels.english import (
    FILLING,
    GENERAL,
    HEAD,
    NOUNS,
    Sentence,
    both_numbers,
    class_of,
    to_sentences,
    words,
)
from defect_hub.evaluate_metrics.kernels.inputs import UndefinedMetricError
from defect_hub.evaluate_metrics.kernels.states import Arrays, MetricState, defined, share

# --- Patterns of classes ---

_EXAMPLES = rf"(?:,?F{NOUNS})?"
_SIGN_OF = r"[qsj]*(?:kOD?[qsj]*)?"
# What is denied; nothing may be made of it: "no defect detection".
_ALL = rf"{_SIGN_OF}{NOUNS}(?![.mzGKAfql]){_EXAMPLES}"
_DENIED = (
    # "No defect", "free of any visible flaws", "no signs of damage", "no cracks or other defects".
    rf"nD?{_ALL}",
    rf"Ebt[Dj]*{_ALL}",
    # "Does not show any damage", "I do not see a flaw"; "can not see defects" may be a want of sight.
    rf"(?<!c)t[hv][Dj]*{_ALL}",
    rf"ctv[Dj]{_ALL}",
    rf"ht[Dj]{_ALL}",
    # "Defects are not visible"; "the defect is not visible" is something else.
    rf"^[jq]*{NOUNS}(?:[bp]t|cte)s",
    # "No part of it shows a defect", "none of the areas shows a defect".
    rf"(?:n|xOF)m(?:Ou|O[uF]\.)?h[Dj]*{_ALL}",
    # "Defect-free", but not "a defect-free area".
    r"f(?!m)",
)
_OTHERS = re.compile(rf"[nx][qsj]*o(?:[qsj]*{NOUNS})?")
_GENERAL_DENIAL = re.compile("|".join(f"(?:{pattern})" for pattern in _DENIED))
# "The line is not a scratch", "a defect-free area", "crack-free": of one thing only.
_LOCAL_DENIAL = re.compile(rf"tD{NOUNS}|fm|L")


def _presence(head: str) -> re.Pattern[str]:
    """The frames that say that something is there."""
    phrase = rf"(?:{FILLING}kOD?)?{FILLING}{head}"
    return re.compile(
        rf"Eb{phrase}"  # there is a ...
        rf"|(?<![Tc])h{phrase}"  # it shows a ...
        rf"|^[uFdD].*[.mszql,]w{phrase}"  # the image shows a tile with a ...
        # A ... in the corner is visible; in the corner a ... can be seen.
        rf"|(?:^|[,&B])(?:P[^,bpch]*?)?{phrase}(?:[PO][^,bpch]*)?(?:[bp][.y]?s|c[.y]?es)"
        rf"|^{phrase}r"  # a ... runs
        rf"|^F{head}[bp][.y]?s"  # the ... is located
        rf"|Ic?[.y]?v{phrase}"  # I see a ...
        rf"|^ub{phrase}"  # this is a ...
        r"|b[.y]?A(?![.mzGKAql])"  # it is broken
    )


_STATEMENT = _presence(HEAD)
# "Yes, no scratch but a dent"; "no defect but a dent" contradicts itself.
_BUT_ANOTHER = re.compile(rf"[^GfLB]*K,?B{FILLING}{HEAD}(?:P[^bpch]*)?$")
# "A hole" may belong to the part, but not after "No, ...".
_SUGGESTION = _presence("m")
# "Yes, nothing", "yes, not at all"; "no, several", "no, it is".
_AFTER_YES = re.compile(".*[ntx]")
_AFTER_NO = re.compile("d")
_ELLIPSIS = re.compile(r"(?:it|there|this) (?:is|are|has|does|do)")

# --- Before the opening ---

_INTRODUCTION = re.compile(r"(?:(?:the|my) )?(?:final )?(?:answer|verdict)(?:(?: is)?$| is (?=(?:yes|no)\b))")
# Not "Is there a scratch?" or "Is it free of defects?", to which a no and a yes say something else.
_ASKS_FOR_ANY = re.compile(
    rf"(?:(?:is|are) there|does (?:the|this) image (?:show|have|contain)) (?:any|an?) (?:visible )?"
    rf"(?:{'|'.join(both_numbers(GENERAL))})(?: visible)?(?: in (?:the|this) (?:image|picture|photo))?"
)

# --- Doubt ---

_HEDGES = words(
    """
    maybe perhaps possibly probably presumably unlikely might may would could seem seems seemingly suspect suspected
    suspicious potential potentially possible apparently arguably think thinks believe believes guess suppose
    supposedly assume assumed unsure uncertain unclear inconclusive borderline ambiguous questionable if whether
    unless chance probability likelihood doubt doubts doubtful idea clue sorry unable please thanks thank said say
    says claim claims claimed told reported reportedly alleged according asked question false untrue incorrect wait
    correction nope nah actually resembles resemble expected when once until almost nearly mostly virtually
    practically largely essentially partly partially reference template previous previously former formerly repaired
    removed simulated fake before
    """
)
# "Its likely cause", "probably caused by", "may be due to": the defect is certain, the cause is not.
_CAUSE = re.compile(
    r"\b(?:likely|probable|possible) causes?\b|\b(?:likely|probably|possibly|perhaps) (?:caused|due|from)\b"
    r"|\b(?:may|might|could) (?:be|have been) (?:caused|due)\b"
)
_DOUBT = re.compile(
    rf"\b(?:{'|'.join(_HEDGES)})\b|\blikely\b|(?<!\bno )(?<!\bany )\bapparent\b"
    # "The scratches appear mainly in the top left" says that they lie there.
    r"|\bappear(?:s|ed)?\b(?!(?: mainly)? (?:in|on|at|near|along|across|over)\b| ,|$)"
    r"|\blooks? (?:like|as)\b|\bthere (?:should|must|ought)\b|\b(?:hard|difficult|impossible) to\b|\bas an ai\b"
    r"|\b(?:ruled?|ruling) out\b|\bexcluded?\b|\bnever mind\b|\bon the contrary\b|\b(?:nothing|anything) but\b"
    r"|\bnot (?:\w+ )?(?:sure|certain|confident|clear|true|correct|right|so|really|exactly|the case|only|just)\b"
    r"|\bfar from\b|\b(?:other|another|first|second) (?:image|picture|photo)\b|^no (?:problem|issue)s?(?: ,|$)"
    # Nothing was decided.
    r"|\btoo [\w-]+ to\b|\bcan not (?:see anything|tell|judge|decide|determine|assess|help)\b"
    r"|\b(?:can|will) (?:help|look)\b"
)
_FOREIGN = re.compile(
    r"\b(?:ja|nein|nicht|kein|keine|oui|non|pas|aucun|si|sí|hay|ningún|ninguna|ci|sono|não|há|ist)\b(?!-)"
    r"|[^\W\d_a-z\u00c0-\u024f]"
)
_SOUND = "(?:normal|clean|intact|perfect|fine|ok|okay|good|undamaged|unremarkable|acceptable)"
_SOUNDNESS = re.compile(rf"\b(?:is|are|looks?|remains?|in) (?:\w+ )?{_SOUND}\b|\bnothing (?:is )?(?:wrong|unusual)\b")
_UNSOUND = re.compile(rf"\bnot (?:\w+ )?{_SOUND}\b")


def _without_introduction(sentences: Sequence[Sentence]) -> list[Sentence]:
    """Leave out "Answer:", "The verdict is", and the question repeated before the answer."""
    answers = []
    for sentence in sentences:
        introduction = None if sentence.is_question else _INTRODUCTION.match(sentence.text)
        rest = sentence.words[len(introduction[0].split()) :] if introduction else sentence.words
        if rest:
            answers.append(Sentence(rest, sentence.is_question))
    asks = len(answers) > 1 and bool(_ASKS_FOR_ANY.fullmatch(answers[0].text))
    return answers[1:] if asks and answers[1].words[0] in ("yes", "no") else answers


def _take_opening(first: Sentence) -> bool | None:
    """Remove a leading "yes" or "no" that is an answer, and say which."""
    word = first.words[0]
    is_answer = word == "yes" or (first.classes[1:2] in ("", *",EuI") or first.words[1:2] == ["the"])
    if word not in ("yes", "no") or not is_answer:
        return None
    rest = first.words[2 if first.classes[1:2] == "," else 1 :]
    first.words, first.classes = rest, "".join(map(class_of, rest))
    return word == "yes"


def strike_denials(sentence: Sentence) -> tuple[bool, bool]:
    """Strike out what a sentence denies; return whether it denies all defects, and whether it denies some."""
    sentence.strike(_OTHERS)
    denials = sentence.strike(_GENERAL_DENIAL)
    local = bool(sentence.strike(_LOCAL_DENIAL))
    # "No defect that matters" leaves others.
    relative = [sentence.words[denial.end() : denial.end() + 1] in (["that"], ["which"]) for denial in denials]
    general = [
        bool(re.search("[Gf]", denial[0])) and not is_relative
        for denial, is_relative in zip(denials, relative, strict=True)
    ]
    return any(general), local or not all(general)


@dataclass
class _Reading:
    """What the sentences after the opening say."""

    denies: bool = False
    denies_in_part: bool = False
    states: bool = False
    suggests: bool = False
    mentions: bool = False
    calls_sound: bool = False
    is_doubtful: bool = False

    def add(self, sentence: Sentence) -> None:
        restricted = bool(re.search("[lR]", sentence.classes))
        clauses = re.split("[,C&B]", sentence.classes)
        self.is_doubtful |= any(len(re.findall("[ntxfL]", clause)) > 1 for clause in clauses)
        general, local = strike_denials(sentence)
        self.denies |= general and not restricted
        self.denies_in_part |= local or (general and restricted)
        mentions = bool(re.search("[GKA]", sentence.classes))
        # A negation that was not understood.
        self.is_doubtful |= mentions and bool(re.search("[ntx]", sentence.classes))
        self.is_doubtful |= bool(_UNSOUND.search(sentence.text))
        self.mentions |= mentions
        self.states |= bool(_STATEMENT.search(sentence.classes))
        self.suggests |= bool(_SUGGESTION.search(sentence.classes))
        self.calls_sound |= bool(_SOUNDNESS.search(sentence.text)) and not restricted


def parse_yes_no(text: str) -> bool | None:
    """Read the verdict of a description.

    Args:
        text: an answer to "is there a defect?".

    Returns:
        True for yes, False for no, None where the text does not say it or not clearly; the grammar is that of this
        module's first lines.
    """
    sentences = _without_introduction(to_sentences(text))
    if not sentences or _is_doubtful(sentences):
        return None
    opening = _take_opening(sentences[0])
    if any(sentence.words[:1] in (["yes"], ["no"]) and sentence.classes[1:2] in ("", ",") for sentence in sentences):
        return None  # "Yes. No, ..."
    reading = _Reading(states=bool(opening and _BUT_ANOTHER.match(sentences[0].classes)))
    for sentence in sentences:
        reading.add(sentence)
    if opening and _AFTER_YES.match(sentences[0].classes):
        return None
    if opening is False and _is_no_answer(sentences):
        return None
    return _verdict(opening, reading)


def _is_no_answer(after_no: Sequence[Sentence]) -> bool:
    """Whether what follows makes a leading "no" another word: "No, many", "No, it is", "No. 3 is"."""
    first = after_no[0]
    is_number = not first.words and len(after_no) > 1 and after_no[1].words[0].isdigit()
    return is_number or bool(_AFTER_NO.match(first.classes) or _ELLIPSIS.fullmatch(first.text))


def _is_doubtful(sentences: Sequence[Sentence]) -> bool:
    """Whether there is a hedge, a foreign word, or a question that asks for the verdict or opens the text."""
    for index, sentence in enumerate(sentences):
        text = _CAUSE.sub("", sentence.text)
        asks = sentence.is_question and (index == 0 or re.search("[GKA]", sentence.classes))
        says_yes_again = "yes" in sentence.words[int(index == 0) :]
        if asks or says_yes_again or _DOUBT.search(text) or _FOREIGN.search(text):
            return True
    return False


def _verdict(opening: bool | None, reading: _Reading) -> bool | None:
    if reading.is_doubtful or (reading.denies and reading.states):
        return None
    if opening or (opening is None and reading.states):
        contradicted = reading.denies or reading.calls_sound or (reading.denies_in_part and not reading.states)
        return None if contradicted else True
    if reading.denies or (opening is False and not reading.suggests):
        return None if reading.states or reading.mentions else False
    return None


def _labels(is_defective: Iterable[bool | int]) -> list[bool]:
    labels = list(is_defective)
    unknown = [label for label in labels if label not in (0, 1)]
    if unknown:
        raise ValueError(f"is_defective must be true or false, got {unknown[0]!r}")
    return [bool(label) for label in labels]


def check_texts(texts: Sequence[str]) -> None:
    """Refuse one string, whose letters would be taken for texts, with a ValueError."""
    if isinstance(texts, str):
        raise ValueError(f"texts must be a list of strings, got the string {texts[:40]!r}; put it in a list")


class DescriptionVerdicts(MetricState):
    """Counts of verdicts by class: how often is the yes or no of a text right?"""

    def __init__(self) -> None:
        # By label (normal, defective) and verdict (no, yes, none).
        self._counts = np.zeros((2, 3), np.int64)

    def update(self, texts: Sequence[str], is_defective: Sequence[bool | int]) -> None:
        """Add texts and what their images show.

        Args:
            texts: the descriptions.
            is_defective: what each image shows (bool, or 0 and 1), as many.

        Raises:
            ValueError: one string, different lengths, or a label that is not true or false (for example an unknown
                one).
        """
        check_texts(texts)
        if len(texts) != len(is_defective):
            raise ValueError(f"{len(texts)} predictions but {len(is_defective)} labels")
        labels = _labels(is_defective)
        verdicts = [parse_yes_no(text) for text in texts]
        for verdict, label in zip(verdicts, labels, strict=True):
            self._counts[int(label), 2 if verdict is None else int(verdict)] += 1

    def merge(self, other: Self) -> None:
        """Add what another state has seen."""
        self._counts += other._counts

    def compute(self) -> dict[str, Any]:
        """Return the shares, all in [0, 1]; a text without a verdict is wrong.

        Returns:
            "accuracy" and "unparsed", the share without a verdict, of all texts; "recall", the share of yes on
            defective images; "specificity", the share of no on normal ones.
        """
        (normal_no, _, _), (_, defective_yes, _) = self._counts
        normal, defective = self._counts.sum(axis=1)
        unparsed = self._counts[:, 2].sum()
        return defined(
            {
                "accuracy": partial(share, normal_no + defective_yes, normal + defective, "no texts were given"),
                "unparsed": partial(share, unparsed, normal + defective, "no texts were given"),
                "recall": partial(share, defective_yes, defective, "no image is defective"),
                "specificity": partial(share, normal_no, normal, "no image is normal"),
            }
        )

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return "counts" (2, 3) int64: normal, defective by no, yes, no verdict."""
        return {"counts": self._counts.copy()}

    @classmethod
    def from_state_dict(cls, arrays: Arrays) -> Self:
        """Rebuild a state; the inverse of `state_dict`."""
        state = cls()
        state._counts = arrays["counts"].copy()
        return state


def description_accuracy(predictions: Sequence[str], is_defective: Sequence[bool | int]) -> dict[str, float]:
    """Share of the descriptions whose verdict is right; one without a verdict counts as wrong.

    Args:
        predictions: the texts.
        is_defective: what each image shows (bool, or 0 and 1), as many.

    Returns:
        "accuracy" in [0, 1], and "unparsed", the share without a verdict, in [0, 1].

    Raises:
        UndefinedMetricError: no texts.
        ValueError: see `DescriptionVerdicts.update`.
    """
    verdicts = DescriptionVerdicts()
    verdicts.update(predictions, is_defective)
    if not len(predictions):
        raise UndefinedMetricError("no descriptions were given")
    values = verdicts.compute()
    return {"accuracy": values["accuracy"], "unparsed": values["unparsed"]}
