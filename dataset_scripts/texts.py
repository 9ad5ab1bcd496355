"""Sentences composed from class names and structured attributes; no word that an attribute does not support."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from defect_hub.modeling.template_sentences import (
    DIAGNOSIS_QUESTION,
    cell_words,
    defect_words,
    normal_answer,
    plural,
    template_sentence,
    with_article,
)

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


def t4(attributes: Mapping[str, Any], object_name: str = "steel surface", noun: str | None = None) -> str:
    """Text level T4: the release's template, with the class name where no noun stands for it."""
    return template_sentence(attributes, object_name, noun or countable_noun(attributes["Defect type"]))


def countable_noun(class_name: str) -> str:
    """A class name in lower case, or what stands for it where it cannot follow "a" or take a plural s."""
    return COUNTABLE_NOUNS.get(class_name.lower(), class_name.lower())


def defect_phrase(attributes: Mapping[str, Any], *, with_shape: bool = False, noun: str | None = None) -> str:
    """Count, scale, polarity and class name as a noun phrase, e.g. "two small dark inclusions".

    Args:
        attributes: The nine structured attributes.
        with_shape: Also name the shape, before the class name.
        noun: Countable singular noun to use instead of the class name.

    Returns:
        The phrase, with the words of `defect_words`.
    """
    words = defect_words(attributes, noun or countable_noun(attributes["Defect type"]), with_shape=with_shape)
    count = attributes["Number of Defects"]
    if count == "one":
        return with_article(words)
    return f"{'several' if count == 'multiple' else count} {plural(words)}"


def attribute_line(attributes: Mapping[str, Any]) -> str:
    """The nine attributes on one line: "Defect type: Inclusion; Shape: linear; ...; Saliency: high"."""
    position = ", ".join(f"{cell} {fraction:.2f}" for cell, fraction in attributes["Position"])
    return "; ".join(f"{key}: {position if key == 'Position' else value}" for key, value in attributes.items())


def _place(attributes: Mapping[str, Any]) -> str:
    (cell, fraction), *_ = attributes["Position"]
    return f"{'' if fraction == 1 else 'mainly '}in the {cell_words(cell)}"


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
        answer = normal_answer(object_name)
    else:
        verb = "is" if attributes["Number of Defects"] == "one" else "are"
        cell = cell_words(attributes["Position"][0][0])
        answer = f"Yes, there {verb} {defect_phrase(attributes, noun=noun)} in the {cell} of the {object_name}."
        if cause:
            answer += f" Likely cause: {cause}."
    return [{"from": "human", "value": DIAGNOSIS_QUESTION}, {"from": "gpt", "value": answer}]
