"""Captions for phrase grounding: a sentence that names every object of an image, and which phrase names which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from defect_hub.dataset_scripts.texts import countable_noun
from defect_hub.modeling.mask_attributes import CELLS
from defect_hub.modeling.template_sentences import cell_words, plural, with_article

PLACES = ("over the whole image", *(f"in the {cell_words(cell)}" for cell in CELLS))
"""Where an object lies; a caption names wide objects first, then those of the cells in reading order."""
MOST_PLACES = 3
"""A category in more places than this is one phrase, so that a net of cracks does not make a long caption."""
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


@dataclass(frozen=True, slots=True)
class Phrase:
    """A part of a caption and what it names.

    Attributes:
        start: Place of its first character in the caption.
        end: Place after its last character.
        objects: Places of the named objects in the given sequence, ascending.
    """

    start: int
    end: int
    objects: Sequence[int]


@dataclass(frozen=True, slots=True)
class Caption:
    """A sentence on an image; each object is in one phrase, and phrases do not overlap."""

    text: str
    phrases: Sequence[Phrase]


def grounding_caption(
    objects: Sequence[tuple[Sequence[float], str]], image_size: tuple[int, int], nouns: Mapping[str, str]
) -> Caption | None:
    """A caption that names every object once, for phrase grounding.

    Args:
        objects: ([x, y, width, height] in pixels, category) of each.
        image_size: (width, height) in pixels.
        nouns: Countable noun of a category, where its name is none ("crazing": "crazing area").

    Returns:
        E.g. "Two mouse bites in the bottom left and a spur in the center.": categories from the largest total area to
        the smallest, each by place. None without objects.

    Source: the form that GLIP (Li et al. 2022) and Grounding DINO (Liu et al. 2024) are trained on.
    """
    if not objects:
        return None
    named = [
        phrase
        for category, places in _by_category_and_place(objects, image_size).items()
        for phrase in _noun_phrases(nouns.get(category) or countable_noun(category), places)
    ]
    text, phrases = "", []
    for number, (words, members) in enumerate(named):
        if number:
            text += " and " if number == len(named) - 1 else ", "
        phrases.append(Phrase(len(text), len(text) + len(words), members))
        text += words
    return Caption(f"{text[0].upper()}{text[1:]}.", phrases)


def _by_category_and_place(
    objects: Sequence[tuple[Sequence[float], str]], image_size: tuple[int, int]
) -> dict[str, dict[int, list[int]]]:
    """Positions of the objects by category, from the largest total area on, and index in `PLACES`."""
    groups: dict[str, dict[int, list[int]]] = {}
    areas: dict[str, float] = {}
    for position, ((x, y, width, height), category) in enumerate(objects):
        place = _place(x, y, width, height, image_size)
        groups.setdefault(category, {}).setdefault(place, []).append(position)
        areas[category] = areas.get(category, 0.0) + width * height
    return {category: groups[category] for category in sorted(groups, key=lambda category: -areas[category])}


def _place(x: float, y: float, width: float, height: float, image_size: tuple[int, int]) -> int:
    image_width, image_height = image_size
    if width > image_width / 2 and height > image_height / 2:
        return 0
    column, row = int(3 * (x + width / 2) / image_width), int(3 * (y + height / 2) / image_height)
    return 1 + 3 * min(row, 2) + min(column, 2)


def _noun_phrases(noun: str, places: Mapping[int, list[int]]) -> Iterator[tuple[str, list[int]]]:
    """(words, positions of objects) of each phrase on a category."""
    if len(places) > MOST_PLACES:
        members = sorted(position for group in places.values() for position in group)
        yield f"{_counted(noun, len(members))} in several places", members
        return
    for place, members in sorted(places.items()):
        yield f"{_counted(noun, len(members))} {PLACES[place]}", members


def _counted(noun: str, count: int) -> str:
    if count == 1:
        return with_article(noun)
    return f"{NUMBERS[count - 2] if count - 2 < len(NUMBERS) else count} {plural(noun)}"
