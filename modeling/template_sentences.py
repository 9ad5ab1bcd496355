"""Words and sentences composed from the attributes of a mask; no word that an attribute does not support."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

DIAGNOSIS_QUESTION = "Is there any defect in this image?"
IRREGULAR_PLURALS = {"foot": "feet", "half": "halves", "knife": "knives", "leaf": "leaves", "tooth": "teeth"}
# A plural is formed on the word before these: "losses of material". Not before "in" alone: "rolled in scale mark".
NOUN_ENDS = re.compile(r" (?:of|on|around|at|along|near|from|in the|to the|with) ")
# Words whose first sound is not that of their first letter.
SOUNDED_AS_CONSONANT = re.compile(r"(?:uni(?!n|m|d)|us[aebi]|uti|eu|one\b|once\b)")
SILENT_H = re.compile(r"(?:hour|honest|heir|honou?r)")
SIZE_WORDS = {"tiny", "small", "medium", "large", "extensive", "big", "little", "huge", "minor", "major"}


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


def defect_words(attributes: Mapping[str, Any], noun: str, *, with_shape: bool = False) -> str:
    """Scale, polarity and noun, e.g. "small dark inclusion".

    Args:
        attributes: Of `mask_attributes`; "Polarity" may be missing.
        noun: Countable singular noun.
        with_shape: Also name the shape, before the noun.

    Returns:
        The words; the polarity is left out where it is neutral or the noun has one already, so is the scale where the
        noun has a word of size.
    """
    own_words = set(noun.lower().split())
    words = [] if own_words & SIZE_WORDS else [attributes["Scale"]]
    if attributes.get("Polarity", "neutral") != "neutral" and not {"dark", "bright"} & own_words:
        words.append(attributes["Polarity"])
    if with_shape and attributes["Shape"] != "unclear":
        words.append(attributes["Shape"])
    return " ".join([*words, noun])


def template_sentence(attributes: Mapping[str, Any], object_name: str, noun: str) -> str:
    """SteelDefectX's sentence template, with the grammar that the words and the count ask for.

    Args:
        attributes: Of `mask_attributes`; "Polarity" and "Saliency" may be missing.
        object_name: What the image shows.
        noun: Countable singular noun of the defect.

    Returns:
        The sentences. What is "unclear", "none", "neutral" or missing is left out, so is the place where "Position" is
        empty.
    """
    single = attributes["Number of Defects"] == "one"
    words = defect_words(attributes, noun)
    subject = with_article(words) if single else plural(words)
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
    if "Saliency" in attributes:
        sentences.append(f"{defect} {exhibits} {attributes['Saliency']} saliency.")
    return " ".join(sentences)


def _location(attributes: Mapping[str, Any]) -> str:
    """The one or two cells that hold most of the defect; "mainly" where others hold some too."""
    cells = [f"the {cell_words(cell)}" for cell, _ in attributes["Position"]]
    if not cells:
        return ""
    return f", {'mainly ' if len(cells) > 2 else ''}located at {' and '.join(cells[:2])}"


def normal_answer(object_name: str) -> str:
    """What is said of an image without defect, e.g. "No, the magnetic tile shows no defect."."""
    return f"No, the {object_name} shows no defect."


def unplaced_answer(object_name: str, noun: str) -> str:
    """What is said of an image whose defect no pixel shows, e.g. "Yes, the magnetic tile shows a defect."."""
    return f"Yes, the {object_name} shows {with_article(noun)}."
