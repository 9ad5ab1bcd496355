"""Sentences composed from attributes."""

import re
from importlib.resources import files
from typing import Any

import pytest
import yaml

from defect_hub.dataset_scripts.texts import (
    DIAGNOSIS_QUESTION,
    attribute_line,
    defect_phrase,
    diagnosis_turns,
    natural_description,
    t0,
    t4,
    without_doubled_polarity,
)
from defect_hub.modeling.mask_attributes import SHAPES


def attributes(**changes: Any) -> dict[str, Any]:
    return {
        "Defect type": "Dark scratches",
        "Shape": "linear",
        "Direction": "vertical",
        "Spatial Distribution": "isolated",
        "Number of Defects": "one",
        "Position": [["top-left", 0.75], ["middle-left", 0.25]],
        "Scale": "small",
        "Polarity": "dark",
        "Saliency": "high",
    } | {key.replace("_", " "): value for key, value in changes.items()}


BLOWHOLES = attributes(
    Defect_type="Blowhole", Scale="tiny", Position=[["center", 1.0]], Direction="none", Shape="spot-like"
) | {"Number of Defects": "three"}


def test_t0() -> None:
    assert t0("Oil spot") == "A photo of steel surface defect: Oil spot."


def test_diagnosis_of_a_scratch() -> None:
    turns = diagnosis_turns("steel surface", attributes(), "mechanical abrasion or roller damage")
    assert turns == [
        {"from": "human", "value": DIAGNOSIS_QUESTION},
        {
            "from": "gpt",
            "value": "Yes, there is a small dark scratch in the top left of the steel surface. "
            "Likely cause: mechanical abrasion or roller damage.",
        },
    ]


def test_diagnosis_of_several_defects_without_cause() -> None:
    answer = diagnosis_turns("magnetic tile", BLOWHOLES, None)[1]["value"]
    assert answer == "Yes, there are three tiny dark blowholes in the center of the magnetic tile."


def test_diagnosis_of_a_normal_surface() -> None:
    assert diagnosis_turns("magnetic tile", None, None)[1]["value"] == "No, the magnetic tile shows no defect."


@pytest.mark.parametrize(
    ("name", "count", "polarity", "scale", "phrase"),
    [
        ("Bright scratch", "one", "bright", "tiny", "a tiny bright scratch"),
        ("Bright scratch", "two", "bright", "tiny", "two tiny bright scratches"),
        ("Dark scratches", "one", "bright", "tiny", "a tiny dark scratch"),
        ("Patches", "multiple", "dark", "large", "several large dark patches"),
        ("Patches", "one", "neutral", "extensive", "an extensive patch"),
        ("Rolled in scale", "multiple", "dark", "small", "several small dark rolled in scale marks"),
        ("Uneven", "one", "neutral", "large", "a large uneven area"),
        ("Crack", "five", "dark", "small", "five small dark cracks"),
    ],
)
def test_phrases(name: str, count: str, polarity: str, scale: str, phrase: str) -> None:
    row = attributes(Defect_type=name, Polarity=polarity, Scale=scale) | {"Number of Defects": count}
    assert defect_phrase(row) == phrase


def test_a_noun_takes_the_place_of_the_class_name() -> None:
    row = attributes(Defect_type="contamination", Polarity="dark", Scale="large")
    assert defect_phrase(row, noun="contaminated spot") == "a large dark contaminated spot"
    assert defect_phrase(row, noun="dark large breakage") == "a dark large breakage"
    many = row | {"Number of Defects": "two"}
    assert t4(many, "bottle", noun="foreign body").startswith("Large dark foreign bodies are observed on the bottle.")
    answer = diagnosis_turns("bottle", row, None, noun="contaminated spot")[1]["value"]
    assert answer == "Yes, there is a large dark contaminated spot in the top left of the bottle."


def test_template_sentence_of_one_defect() -> None:
    assert t4(attributes()) == (
        "A small dark scratch is observed on the steel surface. It has a linear shape. "
        "It extends in a vertical direction. The defect is isolated, consisting of one region, "
        "located at the top left and the middle left. The defect exhibits high saliency."
    )


def test_template_sentence_of_several_defects() -> None:
    row = BLOWHOLES | {"Shape": "irregular", "Spatial Distribution": "clustered", "Polarity": "neutral"}
    assert t4(row, "magnetic tile") == (
        "Tiny blowholes are observed on the magnetic tile. They have an irregular shape. The defects are clustered, "
        "consisting of three regions, located at the center. The defects exhibit high saliency."
    )


def test_template_sentence_leaves_out_what_is_unclear() -> None:
    row = attributes(Shape="unclear", Direction="none", Spatial_Distribution="unclear", Position=[])
    assert t4(row) == (
        "A small dark scratch is observed on the steel surface. The defect consists of one region. "
        "The defect exhibits high saliency."
    )
    assert "The defects consist of two regions." in t4(row | {"Number of Defects": "two"})


def test_template_sentence_says_mainly_where_other_cells_hold_some() -> None:
    row = attributes(Position=[["center", 0.6], ["top-right", 0.3], ["top-left", 0.1]])
    assert "consisting of one region, mainly located at the center and the top right." in t4(row)


CLASSES = yaml.safe_load((files("defect_hub.dataset_scripts.steeldefectx") / "classes.yaml").read_text("utf-8"))
FAULTS = re.compile(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]|\b(\w+) \1\b|\(s\)|bright dark|dark bright|[a-z,] [A-Z]|  ")


@pytest.mark.parametrize("name", [row["name"] for row in CLASSES["classes"]])
@pytest.mark.parametrize("count", ["one", "two", "five", "multiple"])
def test_template_sentences_are_english(name: str, count: str) -> None:
    many = count != "one"
    plurals = [" are observed", "They have ", "The defects are scattered", " regions", "The defects exhibit "]
    singulars = [" is observed", "It has ", "The defect is isolated", "one region,", "The defect exhibits "]
    for polarity in ("bright", "dark", "neutral"):
        for shape in SHAPES:
            row = attributes(Defect_type=name, Polarity=polarity, Scale="extensive", Shape=shape)
            row |= {"Number of Defects": count, "Spatial Distribution": "scattered" if many else "isolated"}
            sentence = t4(row)
            assert not FAULTS.search(sentence), sentence
            assert all((word in sentence) == many for word in plurals)
            assert all((word in sentence) != many for word in singulars)
            subject = sentence.split(" are observed" if many else " is observed")[0]
            assert subject.startswith("Extensive " if many else "An extensive ")
            assert subject.endswith("s") == many


def test_doubled_polarity_is_mended() -> None:
    slip = "A tiny bright Bright scratch is observed on the bright steel. Dark dark scratches."
    assert without_doubled_polarity(slip) == "A tiny Bright scratch is observed on the bright steel. dark scratches."
    clear = "A dark Bright scratch is bright brightly."
    assert without_doubled_polarity(clear) == clear


def test_attribute_line() -> None:
    assert attribute_line(attributes()) == (
        "Defect type: Dark scratches; Shape: linear; Direction: vertical; Spatial Distribution: isolated; "
        "Number of Defects: one; Position: top-left 0.75, middle-left 0.25; Scale: small; "
        "Polarity: dark; Saliency: high"
    )


def test_natural_descriptions_vary_but_say_the_same() -> None:
    sentences = {natural_description(attributes(), variant) for variant in range(8)}
    assert len(sentences) == 4
    for sentence in sentences:
        assert "a small linear dark scratch" in sentence.lower()
        assert "mainly in the top left" in sentence.lower()
        assert "running vertically" in sentence
        assert sentence[0].isupper()
        assert sentence.endswith(".")


def test_normal_descriptions_deny_a_defect() -> None:
    sentences = {natural_description(None, variant) for variant in range(8)}
    assert len(sentences) == 4
    assert all({"free", "No", "without"} & set(sentence.split()) for sentence in sentences)
