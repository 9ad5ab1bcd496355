"""Sentences composed from class names and structured attributes; no word that an attribute does not support."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

DIAGNOSIS_QUESTION = "Is there any defect in this image?"
NORMAL_SENTENCE = "A steel surface without defects."

# Class names that cannot stand after "a" or before a plural s.
COUNTABLE_NOUNS = {
    "crazing": "crazing area",
    "dark scratches": "dark scratch",
    "finishing roll printing": "finishing roll printing mark",
    "iron scale compression": "iron scale compression mark",
    "iron sheet ash": "iron sheet ash mark",
    "oxide scale of plate system": "plate system oxide scale mark",
    "oxide scale of temperature system": "temperature system oxide scale mark",
    "patches": "patch",
    "pitted surface": "pitted surface area",
    "punching": "punching hole",
    "red iron sheet": "red iron sheet area",
    "rolled in scale": "rolled in scale mark",
    "secondary rust skin": "secondary rust skin area",
    "uneven": "uneven area",
    "waist folding": "waist fold",
    "white rust": "white rust area",
}
IRREGULAR_PLURALS = {"foot": "feet", "half": "halves", "knife": "knives", "leaf": "leaves", "tooth": "teeth"}
# A plural is formed on the word before these: "losses of material". Not before "in" alone: "rolled in scale mark".
NOUN_ENDS = re.compile(r" (?:of|on|around|at|along|near|from|in the|to the|with) ")
# Words whose first sound is not that of their first letter.
SOUNDED_AS_CONSONANT = re.compile(r"(?:uni(?!n|m|d)|us[aebi]|uti|eu|one\b|once\b)")
SILENT_H = re.compile(r"(?:hour|honest|heir|honou?r)")
SIZE_WORDS = {"tiny", "small", "medium", "large", "extensive", "big", "little", "huge", "minor", "major"}
DIRECTION_PHRASES = {
    "horizontal": "running horizontally",
    "vertical": "running vertically",
    "diagonal": "running diagonally",
}
DESCRIPTIONS = (
    "{Subject} {verb} visible {place}{direction}. The contrast with the surrounding steel is {saliency}.",
    "The steel surface shows {subject} {place}{direction}, with {saliency} contrast.",
    "The image shows {subject}{direction}. {They_lie} {place}, with {saliency} contrast.",
    "{Place}, there {verb} {subject}{direction}; the contrast is {saliency}.",
)
NORMAL_DESCRIPTIONS = (
    "The rolled steel surface is free of defects.",
    "The steel surface shows only its rolling texture. No defect is visible.",
    "No defect is visible on this steel surface.",
    "The image shows a normal steel surface without any defect.",
)


def t0(class_name: str, object_name: str = "steel surface") -> str:
    """Text level T0 of SteelDefectX: "A photo of steel surface defect: <class>."."""
    return f"A photo of {object_name} defect: {class_name}."


def cell_words(cell: str) -> str:
    """Words of a grid cell: "middle-left" becomes "middle left"."""
    return cell.replace("-", " ")


def with_article(phrase: str) -> str:
    """The phrase behind "a" or "an"."""
    start = phrase.lower()
    vowel = bool(SILENT_H.match(start)) or (start[:1] in tuple("aeiou") and not SOUNDED_AS_CONSONANT.match(start))
    return f"{'an' if vowel else 'a'} {phrase}"


def plural(noun: str) -> str:
    """Plural of a noun phrase, formed on its last word or on the one before "of", "on", "around", ..."""
    if end := NOUN_ENDS.search(noun):
        return plural(noun[: end.start()]) + noun[end.start() :]
    before, space, last = noun.rpartition(" ")
    if last in IRREGULAR_PLURALS:
        return f"{before}{space}{IRREGULAR_PLURALS[last]}"
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def countable_noun(class_name: str) -> str:
    """A class name in lower case, or what stands for it where it cannot follow "a" or take a plural s."""
    return COUNTABLE_NOUNS.get(class_name.lower(), class_name.lower())


def _noun_words(
    attributes: Mapping[str, Any], *, with_shape: bool = False, noun: str | None = None
) -> tuple[list[str], str]:
    """The words before the class name, and the class name as a countable noun."""
    name = (noun or attributes["Defect type"]).lower()
    own_words = set(name.split())
    words = [] if own_words & SIZE_WORDS else [attributes["Scale"]]
    if attributes["Polarity"] != "neutral" and not {"dark", "bright"} & own_words:
        words.append(attributes["Polarity"])
    if with_shape and attributes["Shape"] != "unclear":
        words.append(attributes["Shape"])
    return words, noun or countable_noun(name)


def defect_phrase(attributes: Mapping[str, Any], *, with_shape: bool = False, noun: str | None = None) -> str:
    """Count, scale, polarity and class name as a noun phrase, e.g. "two small dark inclusions".

    Args:
        attributes: The nine structured attributes.
        with_shape: Also name the shape, before the class name.
        noun: Countable singular noun to use instead of the class name.

    Returns:
        The phrase; the polarity word is left out where it is neutral or the class name has one already, so is the
        scale where the class name has a word of size.
    """
    words, noun = _noun_words(attributes, with_shape=with_shape, noun=noun)
    count = attributes["Number of Defects"]
    if count == "one":
        return with_article(" ".join([*words, noun]))
    return " ".join(["several" if count == "multiple" else count, *words, plural(noun)])


def attribute_line(attributes: Mapping[str, Any]) -> str:
    """The nine attributes on one line: "Defect type: Inclusion; Shape: linear; ...; Saliency: high"."""
    position = ", ".join(f"{cell} {fraction:.2f}" for cell, fraction in attributes["Position"])
    return "; ".join(f"{key}: {position if key == 'Position' else value}" for key, value in attributes.items())


def _place(attributes: Mapping[str, Any]) -> str:
    (cell, fraction), *_ = attributes["Position"]
    return f"{'' if fraction == 1 else 'mainly '}in the {cell_words(cell)}"


def template_sentence(
    attributes: Mapping[str, Any], object_name: str = "steel surface", noun: str | None = None
) -> str:
    """Text level T4: the release's template, with the grammar that the words and the count ask for.

    Args:
        attributes: The nine structured attributes.
        object_name: What the image shows.
        noun: Countable singular noun to use instead of the class name.

    Returns:
        The sentences. What is "unclear", "none" or "neutral" is left out, so is the place where "Position" is empty.
    """
    single = attributes["Number of Defects"] == "one"
    words, noun = _noun_words(attributes, noun=noun)
    subject = with_article(" ".join([*words, noun])) if single else " ".join([*words, plural(noun)])
    it, has, extends = ("It", "has", "extends") if single else ("They", "have", "extend")
    defect, exhibits = ("The defect", "exhibits") if single else ("The defects", "exhibit")
    sentences = [f"{subject[0].upper()}{subject[1:]} {'is' if single else 'are'} observed on the {object_name}."]
    if attributes["Shape"] != "unclear":
        sentences.append(f"{it} {has} {with_article(attributes['Shape'])} shape.")
    if attributes["Direction"] != "none":
        sentences.append(f"{it} {extends} in {with_article(attributes['Direction'])} direction.")
    regions = f"{attributes['Number of Defects']} region{'' if single else 's'}{_location(attributes)}"
    if attributes["Spatial Distribution"] == "unclear":
        sentences.append(f"{defect} consist{'s' if single else ''} of {regions}.")
    else:
        verb = "is" if single else "are"
        sentences.append(f"{defect} {verb} {attributes['Spatial Distribution']}, consisting of {regions}.")
    sentences.append(f"{defect} {exhibits} {attributes['Saliency']} saliency.")
    return " ".join(sentences)


def _location(attributes: Mapping[str, Any]) -> str:
    """The one or two cells that hold most of the defect; "mainly" where others hold some too."""
    cells = [f"the {cell_words(cell)}" for cell, _ in attributes["Position"]]
    if not cells:
        return ""
    return f", {'mainly ' if len(cells) > 2 else ''}located at {' and '.join(cells[:2])}"


def without_doubled_polarity(text: str) -> str:
    """Mend released template sentences that repeat the polarity of a class name: "A tiny bright Bright scratch"."""
    return re.sub(r"\b(bright|dark) (?=\1\b)", "", text, flags=re.IGNORECASE)


def natural_description(attributes: Mapping[str, Any] | None, variant: int) -> str:
    """One or two plain sentences on the image.

    Args:
        attributes: The nine structured attributes; None describes a normal surface.
        variant: Any integer >= 0; equal variants give the same wording.

    Returns:
        The sentences: count, scale, polarity, shape, class, direction, top cell and saliency.
    """
    if attributes is None:
        return NORMAL_DESCRIPTIONS[variant % len(NORMAL_DESCRIPTIONS)]
    subject = defect_phrase(attributes, with_shape=True)
    single = attributes["Number of Defects"] == "one"
    place = _place(attributes)
    direction = DIRECTION_PHRASES.get(attributes["Direction"])
    return DESCRIPTIONS[variant % len(DESCRIPTIONS)].format(
        subject=subject,
        Subject=subject[0].upper() + subject[1:],
        verb="is" if single else "are",
        They_lie="It lies" if single else "They lie",
        place=place,
        Place=place[0].upper() + place[1:],
        direction=f", {direction}" if direction else "",
        saliency=attributes["Saliency"],
    )


def diagnosis_turns(
    object_name: str, attributes: Mapping[str, Any] | None, cause: str | None, noun: str | None = None
) -> list[dict[str, str]]:
    """One question and its answer, as trained and generated.

    Args:
        object_name: What the image shows, e.g. "steel surface".
        attributes: The nine structured attributes; None means no defect.
        cause: Likely cause of the class, appended where known.
        noun: Countable singular noun to use instead of the class name.

    Returns:
        `[{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]`.
    """
    if attributes is None:
        answer = f"No, the {object_name} shows no defect."
    else:
        verb = "is" if attributes["Number of Defects"] == "one" else "are"
        cell = cell_words(attributes["Position"][0][0])
        answer = f"Yes, there {verb} {defect_phrase(attributes, noun=noun)} in the {cell} of the {object_name}."
        if cause:
            answer += f" Likely cause: {cause}."
    return [{"from": "human", "value": DIAGNOSIS_QUESTION}, {"from": "gpt", "value": answer}]
