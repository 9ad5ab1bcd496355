"""Free descriptions and question/answer turns composed from what an annotation says, in varied English.

Every statement follows from the structured attributes of the defect pixels or boxes; places are those of the image.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from defect_hub.modeling.template_sentences import SIZE_WORDS, cell_words, plural, with_article

SECOND_CELL = 0.25
"""From this share of the defect on, the second cell of "Position" is named too."""
MAINLY = 0.5
"""From this share on, the defect lies mainly in its top cell."""
MANY_CELLS = 7
EVEN_SHARE = 0.3
"""A defect in at least this number of cells, none with more than this share, spreads over most of the picture."""
REACHING_CELLS = 3
"""From this number of cells on, a defect is not called small, whatever its area: a thin crack may cross the image."""
WHOLE_IMAGE_SHARE = 0.12
"""Below this share of the top cell, an extensive defect may fill the image and have no surroundings."""

TONE_WORDS = {"dark", "bright", "light", "pale", "colored", "coloured", "black", "white", "gray", "grey", "silver"}
TONE_WORDS |= {"beige", "red", "orange", "brown", "yellow", "green", "turquoise", "cyan", "blue", "purple", "pink"}
"""Words of a noun that leave no room for a word of colour or brightness before it."""
SLENDER_SHAPES = {"linear", "curved", "elongated", "network-like"}
SHAPE_NOUNS = {"linear": {"line", "linear"}, "circular": {"circle", "circular"}}
"""Words of a noun that say the same as a shape word; else its beginning does ("spot" for "spot-like")."""
DEGREES = {"low": "slightly", "medium": "clearly", "high": "much"}
STRENGTHS = {"low": "weakly", "medium": "clearly", "high": "strongly"}
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
# Attributes that stand before the noun; the others follow in a sentence.
PLANS = ("size shape", "size tone", "size direction", "shape tone", "direction tone")
SHORT_PLANS = ("size tone", "size shape", "tone")
PICTURES = ("picture", "image", "photo")

# {subject} is the defect with its count and adjectives, {be} agrees with it; {place} is "mainly in the top left".
PLACED = (
    "This is {a_picture} of {an_object}. There {be} {subject} {place} of the {picture}.",
    "The {picture} shows {an_object} with {subject} {place}.",
    "{Subject} {be} visible on this {object}, {place} of the {picture}.",
    "This {object} shows {subject}, located {place} of the {picture}.",
    "This {object} is defective: there {be} {subject} {place} of the {picture}.",
    "{Subject} can be seen {place} of this {picture} of {an_object}.",
    "The {object} in this {picture} has {subject} {place}.",
    "This {picture} is of {an_object}. It shows {subject} {place}.",
    "There {be} {subject} on this {object}, {place} of the {picture}.",
    "{An_object} is shown. {Subject} {be} found {place} of the {picture}.",
)
# Only for places that begin with "in": "Mainly in the top left, ..." reads badly.
FRONTED = (
    "{Place} of this {picture} of {an_object}, there {be} {subject}.",
    "{Place} of the {picture}, the {object} has {subject}.",
)
# For defects whose place needs a sentence of its own, and for several kinds of defects.
UNPLACED = (
    "This is {a_picture} of {an_object} with {subject}.",
    "The {picture} shows {an_object} with {subject}.",
    "{Subject} {be} visible on this {object}.",
    "This {object} has {subject}.",
    "There {be} {subject} on the {object} in this {picture}.",
    "The {object} in this {picture} shows {subject}.",
    "This {object} is defective: it has {subject}.",
    "On this {object} there {be} {subject}.",
)
SEVERAL_KINDS = (
    "This is {a_picture} of {an_object} with {kinds} kinds of defects: {subject}.",
    "The {picture} shows {an_object} with {kinds} kinds of defects. There {be} {subject}.",
    "This {object} has {subject}.",
    "Defects of {kinds} kinds are visible on this {object}: {subject}.",
    "{An_object} is shown in this {picture}. It has {subject}.",
    "The {picture} of {an_object} shows {subject}.",
    "The {object} in this {picture} is defective in {kinds} ways. There {be} {subject}.",
    "There are {kinds} kinds of defects on this {object}: {subject}.",
)
NORMAL = (
    "This is {a_picture} of {an_object} without any visible defect.",
    "The {picture} shows {an_object} in normal condition. No defect is visible.",
    "This {object} is free of visible defects.",
    "{An_object} is shown in this {picture}. There is no defect on it.",
    "No defect can be seen on the {object} in this {picture}.",
    "The {object} in this {picture} looks normal, and no part of it shows a defect.",
    "This is {a_picture} of a normal {object}. It has no visible defect.",
    "The {picture} is of {an_object} in good condition, with no sign of a defect.",
)

VERDICT_QUESTIONS = (
    "Does this {object} have a defect?",
    "Can you see any defect on the {object}?",
    "Is something wrong with the {object} in this image?",
    "Does the image show any sign of damage or another defect?",
    "Is this {object} defective?",
    "Are there any anomalies in this picture?",
    "Does anything in the image look faulty?",
)
YES = ("Yes, there {be} {subject}.", "Yes, the {object} has {subject}.", "Yes, it shows {subject}.")
NO = ("No, the {object} has no visible defect.", "No, no defect is visible.", "No, the {object} looks normal.")
DESCRIPTION_QUESTIONS = (
    "Describe the image.",
    "What does this picture show?",
    "Please describe this {object} and its condition.",
    "Give a short description of the picture.",
    "Tell me what can be seen in this image.",
    "How would you describe the {object} in this image?",
)
PLACE_QUESTIONS = (
    "Where in the image is it?",
    "Which part of the image is affected?",
    "Where does the {object} show damage?",
    "In which region of the picture should one look?",
    "Say where in the picture the problem lies.",
    "Where is the damage located?",
)
COUNT_QUESTIONS = (
    "What kind of defect is it, and how many can be counted?",
    "Name the kind and the number of defects.",
    "Which defects are there, and how many of each?",
    "Count the defects by category.",
    "What is wrong with the {object}, and in how many places?",
)
KIND_QUESTIONS = (
    "What kind of defect is it?",
    "Which category does the defect belong to?",
    "Name the kind of defect.",
    "What type of defect does the {object} have?",
    "How would you classify what is wrong with the {object}?",
)
KIND_ANSWERS = (
    "The category is {noun}.",
    "The defect is classified as {noun}.",
    "The kind of defect is {noun}.",
)
QUALITY_QUESTIONS = (
    "What is the quality of this {object}?",
    "In what condition is the {object}?",
    "How does the {object} look?",
    "How would you rate the condition of this {object}?",
    "What would an inspector note about this {object}?",
)
QUALITY_ANSWERS = (
    "It is in normal condition, without visible defects.",
    "The {object} looks normal, and nothing on it stands out as a defect.",
    "Its condition is good: no defect is visible.",
    "The {object} shows its normal appearance and no defect.",
)

Pick = Callable[[Sequence[str]], str]


@dataclass(frozen=True)
class Finding:
    """What an annotation says of one category in an image.

    Attributes:
        noun: Countable singular noun, e.g. "large breakage".
        attributes: The nine structured attributes of this category's pixels or boxes; None: not located.
        colour: Colour word of the defect pixels; None where it says nothing more than the polarity.
    """

    noun: str
    attributes: Mapping[str, Any] | None
    colour: str | None = None


@dataclass(frozen=True)
class _Defect:
    """A located finding with what its wording needs."""

    noun: str
    attributes: Mapping[str, Any]
    colour: str | None
    many: bool
    own_words: frozenset[str]

    @property
    def name(self) -> str:
        return plural(self.noun) if self.many else self.noun


@dataclass(frozen=True)
class _Place:
    """Where a defect lies: behind a noun or, where it spreads, behind "spreads"."""

    phrase: str
    spreads: bool


def describe(object_name: str, findings: Sequence[Finding], variant: int) -> str:
    """One to three plain sentences on an image.

    Args:
        object_name: What the image shows, a countable singular noun, e.g. "magnetic tile".
        findings: What is known of each category of defect; none of them: a normal image.
        variant: Any integer >= 0; equal variants give the same wording.

    Returns:
        The sentences. Of each located category: noun, count (up to five, else "several") and place; of a single one
        also what is known of size, shape, direction, colour and contrast. Of a category that is not located: its noun.
    """
    pick = _picker("describe", variant)
    picture = pick(PICTURES)
    if not findings:
        return _fill(pick(NORMAL), object_name, picture)
    if len(findings) > 1:
        return _describe_several(object_name, findings, picture, pick)
    defect = _located(findings[0])
    if defect is None:
        return _fill(pick(UNPLACED), object_name, picture, _counted(findings[0]))
    return _describe_one(object_name, defect, picture, pick)


def converse(object_name: str, findings: Sequence[Finding], description: str, variant: int) -> list[dict[str, str]]:
    """Three or four questions with answers, to follow the fixed question of the diagnosis.

    Args:
        object_name: What the image shows, a countable singular noun.
        findings: As for `describe`.
        description: Answer to the request for a description.
        variant: Any integer >= 0; equal variants give the same questions.

    Returns:
        `[{"from": "human", "value": ...}, {"from": "gpt", "value": ...}, ...]`: the verdict, which begins with "Yes"
        or "No", and the description; then, for a normal image, its condition, for located defects the places and the
        numbers, otherwise the categories.
    """
    pick = _picker("converse", variant)

    def ask(questions: Sequence[str]) -> str:
        return pick(questions).format(object=object_name)

    described = (ask(DESCRIPTION_QUESTIONS), description)
    if findings:
        pairs = [(ask(VERDICT_QUESTIONS), _yes(object_name, findings, pick)), described]
        pairs += _particulars(findings, ask, pick)
    else:
        no, quality = (pick(answers).format(object=object_name) for answers in (NO, QUALITY_ANSWERS))
        pairs = [(ask(VERDICT_QUESTIONS), no), described, (ask(QUALITY_QUESTIONS), quality)]
    turns = []
    for question, answer in pairs:
        turns += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return turns


def _yes(object_name: str, findings: Sequence[Finding], pick: Pick) -> str:
    subject = _list([_counted(finding) for finding in findings])
    return _fill(pick(YES), object_name, subject=subject, many=_is_plural(findings[0]))


def _particulars(findings: Sequence[Finding], ask: Pick, pick: Pick) -> list[tuple[str, str]]:
    """Questions on place and number where all findings are located, else on the category."""
    defects = [defect for finding in findings if (defect := _located(finding))]
    if len(defects) == len(findings):
        counts = _list([_phrase(defect, one="one") for defect in defects])
        return [
            (ask(PLACE_QUESTIONS), _places_answer(defects, pick)),
            (ask(COUNT_QUESTIONS), f"There {_be(defects[0].many)} {counts}."),
        ]
    if len(findings) == 1:
        return [(ask(KIND_QUESTIONS), pick(KIND_ANSWERS).format(noun=findings[0].noun))]
    return [(ask(KIND_QUESTIONS), f"The categories are {_and([finding.noun for finding in findings])}.")]


def _picker(purpose: str, variant: int) -> Pick:
    """A choice among options, another one at each call, that depends on nothing but purpose and variant."""
    state = int.from_bytes(hashlib.sha256(f"{purpose} {variant}".encode()).digest(), "big")

    def pick(options: Sequence[str]) -> str:
        nonlocal state
        state, index = divmod(state, len(options))
        return options[index]

    return pick


def _located(finding: Finding) -> _Defect | None:
    attributes = finding.attributes
    if attributes is None:
        return None
    own_words = frozenset(re.findall("[a-z]+", finding.noun.lower()))
    return _Defect(finding.noun, attributes, finding.colour, attributes["Number of Defects"] != "one", own_words)


def _describe_one(object_name: str, defect: _Defect, picture: str, pick: Pick) -> str:
    place = _place(defect.attributes, picture)
    adjectives, predicates = _details(defect, picture, pick)
    subject = _phrase(defect, adjectives)
    placed = (*PLACED, *FRONTED) if place.phrase.startswith("in ") else PLACED
    patterns = UNPLACED if place.spreads else placed
    text = _fill(pick(patterns), object_name, picture, subject, defect.many, place.phrase)
    pronoun = "They" if defect.many else "It"
    names = [f"The {defect.name}", "The defects" if defect.many else "The defect"]
    # "It" might mean the object where that comes last.
    if defect.many or not text.endswith(f"{object_name}."):
        names.append(pronoun)
    groups = [predicates] if predicates else []
    if place.spreads:
        groups.insert(0, [f"{_verb('spread', defect.many)} {place.phrase}"])
    elif len(predicates) > 2 and ". " not in text:
        groups = [predicates[:2], predicates[2:]]
    # There are at most two groups, often fewer.
    sentences = [
        f"{name} {_and(_shared_verb(group))}." for name, group in zip((pick(names), pronoun), groups, strict=False)
    ]
    tail = _largest(defect)
    if tail and sentences:
        sentences[-1] = f"{sentences[-1][:-1]}{pick(('; ', ', and '))}{tail}."
    elif tail:
        sentences.append(f"{_capital(tail)}.")
    return " ".join([text, *sentences])


def _describe_several(object_name: str, findings: Sequence[Finding], picture: str, pick: Pick) -> str:
    items = []
    for finding in findings:
        item = _counted(finding)
        if defect := _located(finding):
            place = _place(defect.attributes, picture)
            subject = _phrase(defect, _adjectives(defect, set(pick(SHORT_PLANS).split())))
            item = f"{subject} {'spread ' if place.spreads else ''}{place.phrase.replace(',', '')}"
        items.append(item)
    kinds = NUMBERS.get(len(findings), "several")
    return _fill(pick(SEVERAL_KINDS), object_name, picture, _list(items), _is_plural(findings[0]), kinds=kinds)


def _fill(
    pattern: str,
    object_name: str,
    picture: str = "",
    subject: str = "",
    many: bool = False,
    place: str = "",
    kinds: str = "",
) -> str:
    an_object = with_article(object_name)
    return pattern.format(
        object=object_name,
        an_object=an_object,
        An_object=_capital(an_object),
        picture=picture,
        a_picture=with_article(picture),
        subject=subject,
        Subject=_capital(subject),
        be=_be(many),
        place=place,
        Place=_capital(place),
        kinds=kinds,
    )


def _is_plural(finding: Finding) -> bool:
    return finding.attributes is not None and finding.attributes["Number of Defects"] != "one"


def _be(many: bool) -> str:
    return "are" if many else "is"


def _verb(infinitive: str, many: bool) -> str:
    return infinitive if many else f"{infinitive}s"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _and(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _shared_verb(predicates: Sequence[str]) -> Sequence[str]:
    """ "is linear", "is darker" become "is linear", "darker", if all of them have that verb."""
    verb = predicates[0].split()[0]
    if verb in ("is", "are") and all(predicate.startswith(f"{verb} ") for predicate in predicates):
        return [predicates[0], *(predicate.removeprefix(f"{verb} ") for predicate in predicates[1:])]
    return predicates


def _list(items: Sequence[str]) -> str:
    """Items joined so that an "and" inside one of them does no harm."""
    if len(items) < 2 or (len(items) == 2 and not any(" and " in item for item in items)):
        return " and ".join(items)
    return f"{', '.join(items[:-1])}, and {items[-1]}"


def _counted(finding: Finding) -> str:
    defect = _located(finding)
    return _phrase(defect) if defect else f"at least one {finding.noun}"


def _phrase(defect: _Defect, adjectives: Sequence[str] = (), one: str | None = None) -> str:
    """Count, adjectives and noun; `one` stands for the article."""
    phrase = " ".join([*adjectives, defect.name])
    count = defect.attributes["Number of Defects"]
    if defect.many:
        return f"{'several' if count == 'multiple' else count} {phrase}"
    return f"{one} {phrase}" if one else with_article(phrase)


def _place(attributes: Mapping[str, Any], picture: str) -> _Place:
    """Where the defect lies; nothing but the ranked cells decides."""
    cells = [(cell_words(cell), fraction) for cell, fraction in attributes["Position"]]
    (top, share), *further = cells
    if not further:
        return _Place(f"in the {top}", False)
    second, second_share = further[0]
    if len(cells) >= MANY_CELLS and share <= EVEN_SHARE:
        return _Place(f"over most of the {picture}, with the largest share in the {top}", True)
    if second_share >= SECOND_CELL:
        return _Place(f"{'' if len(cells) == 2 else 'mainly '}in the {top} and the {second}", False)
    if share >= MAINLY:
        return _Place(f"mainly in the {top}", False)
    return _Place(f"over several parts of the {picture}, with the largest share in the {top}", True)


def _places_answer(defects: Sequence[_Defect], pick: Pick) -> str:
    answers = []
    for defect in defects:
        place = _place(defect.attributes, "image")
        verb = _verb("spread" if place.spreads else pick(("lie", "appear")), defect.many)
        answers.append(f"the {defect.name} {verb} {place.phrase}")
    return f"{_capital('; '.join(answers))}."


def _adjectives(defect: _Defect, kinds: set[str]) -> list[str]:
    """Adjectives of these kinds (size, direction, shape, tone, color), but none that repeats or misleads."""
    if defect.own_words & SIZE_WORDS:
        return []  # "red large breakage" reads badly.
    found = []
    if "size" in kinds and _has_plain_size(defect):
        found.append(_size(defect))
    slender = not defect.many and defect.attributes["Shape"] in SLENDER_SHAPES
    if "direction" in kinds and slender and _has_direction(defect):
        found.append(defect.attributes["Direction"])
    if "shape" in kinds and _has_shape(defect) and not _shape_is_of_largest(defect):
        found.append(defect.attributes["Shape"])
    if _has_colour(defect):
        found.append(str(defect.colour))
    elif "tone" in kinds and defect.attributes["Polarity"] != "neutral" and not defect.own_words & TONE_WORDS:
        found.append(defect.attributes["Polarity"])
    return found


def _size(defect: _Defect) -> str:
    return "medium-sized" if defect.attributes["Scale"] == "medium" else defect.attributes["Scale"]


def _has_plain_size(defect: _Defect) -> bool:
    """Whether the scale, a share of the image, fits before the noun: "three large spots" need not be large each."""
    scale, shape = defect.attributes["Scale"], defect.attributes["Shape"]
    near = len(defect.attributes["Position"]) < REACHING_CELLS
    if defect.many:
        return scale in ("tiny", "small") and (near or shape not in SLENDER_SHAPES)
    return near or scale in ("large", "extensive")


def _has_direction(defect: _Defect) -> bool:
    return defect.attributes["Direction"] not in ("none", *defect.own_words)


def _has_shape(defect: _Defect) -> bool:
    shape = defect.attributes["Shape"]
    said = SHAPE_NOUNS.get(shape, {shape.removesuffix("-like")})
    return shape != "unclear" and not said & defect.own_words


def _has_colour(defect: _Defect) -> bool:
    return defect.colour is not None and not defect.own_words & TONE_WORDS


def _shape_is_of_largest(defect: _Defect) -> bool:
    """Whether the shape word is that of the largest component; many small ones share theirs."""
    shape, count = (defect.attributes[key] for key in ("Shape", "Number of Defects"))
    return defect.many and not (count == "multiple" and shape in ("spot-like", "fragmented"))


def _largest(defect: _Defect) -> str:
    """A clause on the shape of the largest of several defects; empty where there is nothing to say."""
    if not (_shape_is_of_largest(defect) and _has_shape(defect)):
        return ""
    which = "larger of the two" if defect.attributes["Number of Defects"] == "two" else "largest of them"
    return f"the {which} is {defect.attributes['Shape']}"


def _details(defect: _Defect, picture: str, pick: Pick) -> tuple[list[str], list[str]]:
    """What is known besides count and place, as adjectives of the noun and as predicates."""
    attributes, many = defect.attributes, defect.many
    adjectives = _adjectives(defect, set(pick(PLANS).split()))
    predicates = []
    shape, direction = attributes["Shape"], attributes["Direction"]
    if _has_shape(defect) and shape not in adjectives and not _shape_is_of_largest(defect):
        shaped = f"{'have' if many else 'has'} {with_article(shape)} shape"
        predicates.append(pick((shaped, f"{_be(many)} {shape}")))
    if _has_direction(defect) and direction not in adjectives:
        predicates.append(_direction(defect, pick))
    if not defect.own_words & SIZE_WORDS and _size(defect) not in adjectives:
        part = f"{with_article(_size(defect))} part of the {picture}"
        predicates.append(f"together cover {part}" if many else f"covers {part}")
    if _has_colour(defect) and defect.colour not in adjectives:
        predicates.append(f"{_be(many)} {defect.colour} in color")
    predicates += _contrast(defect, attributes["Polarity"] in adjectives, pick)
    return adjectives, predicates


def _direction(defect: _Defect, pick: Pick) -> str:
    slender = defect.attributes["Shape"] in SLENDER_SHAPES
    verb = _verb(pick(("run", "extend")), defect.many) if slender else f"{_be(defect.many)} oriented"
    return f"{verb} {'mainly ' if defect.many else ''}{defect.attributes['Direction']}ly"


def _contrast(defect: _Defect, polarity_said: bool, pick: Pick) -> list[str]:
    """At most one predicate on the brightness."""
    attributes, many = defect.attributes, defect.many
    surroundings = f"{'their' if many else 'its'} surroundings"
    if attributes["Polarity"] == "neutral":
        if attributes["Scale"] == "extensive" and attributes["Position"][0][1] < WHOLE_IMAGE_SHARE:
            return []
        hardly = f"hardly {_verb('differ', many)} in brightness from {surroundings}"
        return [pick((hardly, f"{_be(many)} about as bright as {surroundings}"))]
    if polarity_said or defect.own_words & TONE_WORDS:
        return [f"{_verb('contrast', many)} {STRENGTHS[attributes['Saliency']]} with {surroundings}"]
    compared = f"{DEGREES[attributes['Saliency']]} {'darker' if attributes['Polarity'] == 'dark' else 'brighter'} than"
    around = f"{_verb('look', many)} {compared} the area around {'them' if many else 'it'}"
    return [pick((f"{_be(many)} {compared} {surroundings}", around))]
