"""Sentences composed from attributes."""

from typing import Any

import pytest

from defect_hub.dataset_scripts.texts import (
    DIAGNOSIS_QUESTION,
    attribute_line,
    defect_phrase,
    diagnosis_turns,
    natural_description,
    plural,
    t0,
    template_sentence,
)


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


def test_plural() -> None:
    nouns = ["patch", "scratch", "inclusion", "assay", "body", "mass"]
    assert [plural(noun) for noun in nouns] == ["patches", "scratches", "inclusions", "assays", "bodies", "masses"]


def test_template_sentence() -> None:
    assert template_sentence(attributes()) == (
        "A steel surface with a small linear dark scratch, running vertically, isolated, "
        "mainly in the top left, with high saliency."
    )
    assert template_sentence(BLOWHOLES) == (
        "A steel surface with three tiny dark spot-like blowholes, isolated, in the center, with high saliency."
    )


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
