"""Class descriptions taken apart and put together; released attributes against measured ones."""

import json
from pathlib import Path
from typing import Any

import pytest

from defect_hub.dataset_scripts.class_descriptions import (
    ClassDescription,
    attribute_disagreements,
    compose_class_description,
    parse_class_description,
)
from defect_hub.dataset_scripts.readers.errors import DataError


def test_parts_of_a_description() -> None:
    sentence = "A photo of Oil spot, which shows smooth dark spots with soft edges caused by lubricant contamination."
    parts = ClassDescription("Oil spot", "smooth dark spots with soft edges", "lubricant contamination")
    assert parse_class_description(sentence) == parts
    assert compose_class_description(parts) == sentence


def test_descriptions_of_a_release_survive_the_round_trip(release_template: Path) -> None:
    sentences = json.loads((release_template / "class_descriptions.json").read_text())
    del sentences["Normal surface"]
    for name, sentence in sentences.items():
        parts = parse_class_description(sentence)
        assert parts.name == name
        assert compose_class_description(parts) == sentence


@pytest.mark.parametrize(
    "sentence",
    [
        "A photo of Crease, which shows a folded line caused by yielding",
        "A photo of Crease which shows a folded line caused by yielding.",
        "A photo of a Crease, that shows a folded line, caused by yielding.",
        "a photo of Crease, showing a folded line due to yielding.",
        " A photo of Crease, which show a folded\n line  Caused by yielding. ",
    ],
)
def test_small_variations_are_accepted(sentence: str) -> None:
    assert parse_class_description(sentence) == ClassDescription("Crease", "a folded line", "yielding")


@pytest.mark.parametrize(
    ("sentence", "visual", "cause"),
    [
        ("marks caused by rolls caused by wear caused by dust", "marks caused by rolls caused by wear", "dust"),
        ("folds caused by deformation due to low carbon", "folds", "deformation due to low carbon"),
        ("folds due to wear caused by dust", "folds due to wear", "dust"),
        (
            "lines, thin. and long caused by rolls (e.g. No. 2 and 3)",
            "lines, thin. and long",
            "rolls (e.g. No. 2 and 3)",
        ),
    ],
)
def test_the_last_cause_counts(sentence: str, visual: str, cause: str) -> None:
    parts = parse_class_description(f"A photo of Crease, which shows {sentence}.")
    assert (parts.visual_attributes, parts.cause) == (visual, cause)


@pytest.mark.parametrize(
    ("sentence", "name"),
    [
        ("A photo of Oil spot, which shows smooth dark spots.", "Oil spot"),
        ("A photo of Oil spot.", "Oil spot"),
        ("A photo of Oil spot, which shows dark spots caused by .", "Oil spot"),
        ("Oil spots are dark.", "'Oil spots are dark.'"),
        ("", "''"),
    ],
)
def test_other_sentences_are_refused(sentence: str, name: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_class_description(sentence, "raw/class_descriptions.json")
    assert str(caught.value) == (
        f"raw/class_descriptions.json: {name}: is not a class description. "
        'Write "A photo of <class>, which shows <visual attributes> caused by <cause>."'
    )


MEASURED: dict[str, Any] = {
    "Defect type": "Inclusion",
    "Shape": "linear",
    "Direction": "vertical",
    "Spatial Distribution": "clustered",
    "Number of Defects": "two",
    "Position": [["center", 0.6], ["top-left", 0.2], ["top-right", 0.2]],
    "Scale": "small",
    "Polarity": "dark",
    "Saliency": "high",
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"Shape": "diffuse", "Direction": "none", "Spatial Distribution": "unclear"},
        {"Position": [["center", 0.6], ["top-right", 0.2], ["top-left", 0.2]]},
        {"Position": [["center", 0.6004], ["top-right", 0.2], ["top-left", 0.1996]]},
        {"Position": [["center", 0.6], ["top-left", 0.2], ["top-right", 0.2], ["bottom-left", 0.0004]]},
    ],
)
def test_agreement(changes: dict[str, Any]) -> None:
    assert attribute_disagreements(MEASURED | changes, MEASURED) == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"Number of Defects": "three"}, "Number of Defects: released three, measured two"),
        ({"Scale": "medium"}, "Scale: released medium, measured small"),
        ({"Polarity": "neutral"}, "Polarity: released neutral, measured dark"),
        ({"Saliency": "low"}, "Saliency: released low, measured high"),
        (
            {"Position": [["center", 0.8], ["top-left", 0.2]]},
            "Position: released center 0.800, top-right 0.000, measured center 0.600, top-right 0.200",
        ),
        (
            {"Position": [["top-left", 0.2], ["center", 0.6], ["top-right", 0.2]]},
            "Position: released order top-left, center, top-right, measured order center, top-left, top-right",
        ),
        (
            {"Position": []},
            "Position: released center 0.000, top-left 0.000, top-right 0.000, "
            "measured center 0.600, top-left 0.200, top-right 0.200",
        ),
    ],
)
def test_disagreement(changes: dict[str, Any], line: str) -> None:
    assert attribute_disagreements(MEASURED | changes, MEASURED) == [line]


def test_position_tolerance() -> None:
    shipped = MEASURED | {"Position": [["center", 0.62], ["top-left", 0.18], ["top-right", 0.2]]}
    assert attribute_disagreements(shipped, MEASURED, position_tolerance=0.03) == []
    assert len(attribute_disagreements(shipped, MEASURED, position_tolerance=0.01)) == 1
