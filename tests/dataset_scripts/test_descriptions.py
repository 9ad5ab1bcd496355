"""Composed descriptions and conversations: grammar, agreement with the attributes, variety."""

import itertools
import random
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from defect_hub.dataset_scripts.descriptions import Finding, converse, describe
from defect_hub.dataset_scripts.texts import DIAGNOSIS_QUESTION
from defect_hub.modeling.mask_attributes import CELLS, DIRECTIONS, SHAPES, mask_attributes

OBJECTS = {
    "magnetic tile": "a",
    "woven fabric": "a",
    "rail": "a",
    "printed circuit board": "a",
    "hourglass": "an",
    "unit": "a",
    "umbrella": "an",
    "underwater ship hull": "an",
}
PLURALS = {
    "crack": "cracks",
    "dark scratch": "dark scratches",
    "foreign body": "foreign bodies",
    "broken tooth": "broken teeth",
    "large breakage": "large breakages",
    "missing leg": "missing legs",
    "uneven area": "uneven areas",
    "loss of material": "losses of material",
    "patch": "patches",
}
POSITIONS = (
    [["center", 1.0]],
    [["top-left", 0.75], ["middle-left", 0.25]],
    [["bottom-right", 0.8], ["center", 0.15], ["top-left", 0.05]],
    [["top-center", 0.4], ["top-left", 0.35], ["top-right", 0.25]],
    [["middle-right", 0.4], ["center", 0.2], ["top-left", 0.2], ["top-right", 0.2]],
    [[cell, 1 / 9] for cell in CELLS],
    [["bottom-left", 0.23], *([cell, 0.11] for cell in CELLS[:7])],
)
CONTRASTS = [("neutral", "low"), *itertools.product(("dark", "bright"), ("low", "medium", "high"))]
COUNTS = ("one", "two", "three", "four", "five", "multiple")
SCALES = ("tiny", "small", "medium", "large", "extensive")

FAULTS = re.compile(
    r"  | [,.;:]|\.\.|\b(\w+) \1\b|\b[Aa] (?:[aeio]|u(?!ni))|\b[Aa] hour|\b[Aa]n (?![aeio]|hour|u(?!ni))|\ban? several"
    r"|\b(?:They|[Tt]he \w*defects) \w+s\b|\bIt (?:are|have|run|cover|look|lie)\b|\{|\}|None|\bone (?!loss)\w+s\b",
)
SINGULAR_VERBS = "is|has|runs|extends|covers|contrasts|looks|spreads|hardly differs|lies|appears"
PLURAL_VERBS = "are|have|run|extend|together cover|contrast|look|spread|hardly differ|lie|appear"


def attributes(**changes: Any) -> dict[str, Any]:
    return {
        "Defect type": "crack",
        "Shape": "linear",
        "Direction": "vertical",
        "Spatial Distribution": "isolated",
        "Number of Defects": "one",
        "Position": [["top-left", 0.75], ["middle-left", 0.25]],
        "Scale": "small",
        "Polarity": "dark",
        "Saliency": "high",
    } | {key.replace("_", " "): value for key, value in changes.items()}


def faults(text: str, object_name: str) -> list[str]:
    """What is wrong with the English of a text, by rules that know nothing of how it was made."""
    found = [match.group() for match in FAULTS.finditer(text)]
    article = OBJECTS[object_name]
    found += [wrong for wrong in re.findall(rf"\b[Aa]n? {object_name}", text) if wrong.split()[0].lower() != article]
    sentences = text.split(". ")
    found += [sentence for sentence in sentences if not sentence[:1].isupper()]
    if not text.endswith(".") or not 1 <= len(sentences) <= 3:
        found.append(f"{len(sentences)} sentences, end {text[-1:]!r}")
    return found


def agreement_faults(text: str, noun: str, many: bool) -> list[str]:
    """Verbs and forms of the noun that contradict the number."""
    names = rf"(?:They|It|The defects?|[Tt]he (?:{noun}|{PLURALS[noun]}))"
    found = re.findall(rf"{names} (?:{SINGULAR_VERBS if many else PLURAL_VERBS})\b", text)
    found += re.findall(rf"\b{noun if many else PLURALS[noun]}\b", text)
    wrong_start = r"\b(?:[Tt]here is|They is|It are)\b" if many else r"\b(?:[Tt]here are|They|defects|them|their)\b"
    return found + re.findall(wrong_start, text)


@pytest.mark.parametrize(
    "wrong",
    [
        "This is a image of a rail.",
        "This is an unit.",
        "There is a several cracks.",
        "there is a crack.",
        "There is a crack",
        "There is a  crack.",
        "There is a dark dark crack.",
        "The defects runs.",
        "It are linear.",
        "There is an rail.",
        "One. Two. Three. Four.",
    ],
)
def test_the_grammar_rules_see_faults(wrong: str) -> None:
    assert faults(wrong, "rail" if "rail" in wrong else "unit")


def test_the_agreement_rules_see_faults() -> None:
    assert agreement_faults("There are a crack.", "crack", many=False)
    assert agreement_faults("There is two cracks.", "crack", many=True)
    assert agreement_faults("The cracks is dark.", "crack", many=True)
    assert not agreement_faults("There are two cracks. They run.", "crack", many=True)


def cases() -> list[tuple[str, str, dict[str, Any], str | None]]:
    """Every combination of shape, direction, count, scale and contrast; the rest is drawn."""
    rng = random.Random(0)
    found = []
    grid = itertools.product((*SHAPES, "unclear"), DIRECTIONS, COUNTS, SCALES, CONTRASTS)
    for shape, direction, count, scale, (polarity, saliency) in grid:
        row = attributes(Shape=shape, Direction=direction, Scale=scale, Polarity=polarity, Saliency=saliency)
        row |= {"Number of Defects": count, "Position": rng.choice(POSITIONS)}
        drawn = rng.choice(list(OBJECTS)), rng.choice(list(PLURALS)), rng.choice((None, None, "red", "brown"))
        found.append((drawn[0], drawn[1], row, drawn[2]))
    return found


def has_word(text: str, word: str) -> bool:
    return re.search(rf"\b{word}\b", text, re.IGNORECASE) is not None


def check_statements(text: str, noun: str, row: dict[str, Any], colour: str | None) -> None:
    count, plain = row["Number of Defects"], text.replace(PLURALS[noun], "").replace(noun, "")
    assert has_word(text, noun if count == "one" else PLURALS[noun]), text
    assert count == "one" or has_word(text, {"multiple": "several"}.get(count, count)), text
    cells = [cell.replace("-", " ") for cell, _ in row["Position"]]
    assert f"the {cells[0]}" in text.lower(), text
    named = set(re.findall(r"the ((?:top|middle|bottom) (?:left|center|right)|center)\b", text.lower()))
    assert named <= set(cells[:2]), text
    assert (cells[1:2] != [] and cells[1] in named) == (
        len(cells) > 1 and row["Position"][1][1] >= 0.25 and not has_word(text, "spreads?")
    ), text
    repeats = {"patch-like": "patch"}.get(row["Shape"]) == noun
    shapes = {shape for shape in SHAPES if re.search(rf"(?<![\w-]){shape}(?![\w-])", plain)}
    assert shapes == ({row["Shape"]} - {"unclear"} if not repeats else set()), text
    of_largest = count != "one" and not (count == "multiple" and row["Shape"] in ("spot-like", "fragmented"))
    which = "larger of the two" if count == "two" else "largest of them"
    assert (f"the {which} is {row['Shape']}" in text.lower()) == bool(of_largest and shapes), text
    assert all(len(re.findall(rf"(?<![\w-]){shape}(?![\w-])", plain)) == 1 for shape in shapes), text
    directions = {direction for direction in DIRECTIONS[:3] if direction in plain.lower()}
    assert directions == {row["Direction"]} - {"none"}, text
    assert ({scale for scale in SCALES if has_word(plain, scale)} == {row["Scale"]}) == ("large" not in noun), text
    light, dark = has_word(plain, "bright(er)?(?! as)") and "as bright as" not in plain, has_word(plain, "dark(er)?")
    assert not (light and row["Polarity"] != "bright"), text
    assert not (dark and row["Polarity"] != "dark"), text
    said = light or dark or "dark" in noun
    if row["Polarity"] != "neutral":
        degrees = {"low": "slightly|weakly", "medium": "clearly", "high": "much|strongly"}
        assert {word for word in degrees if has_word(plain, degrees[word])} == {row["Saliency"]}, text
    assert said == (row["Polarity"] != "neutral" or "dark" in noun), text
    assert colour is None or has_word(plain, colour) == ("dark" not in noun), text


def test_every_description_is_english_and_says_what_the_attributes_say() -> None:
    for variant, (object_name, noun, row, colour) in enumerate(cases()):
        text = describe(object_name, [Finding(noun, row, colour)], variant)
        assert faults(text, object_name) == [], text
        assert agreement_faults(text, noun, row["Number of Defects"] != "one") == [], text
        check_statements(text, noun, row, colour)


def test_several_findings_are_named_with_their_own_count_and_place() -> None:
    rows = cases()[::5]
    for variant, pair in enumerate(itertools.pairwise(rows)):
        (object_name, noun, row, colour), (_, other_noun, other_row, _) = pair
        findings = [Finding(noun, row, colour), Finding(other_noun, other_row), Finding("stain", None)]
        text = describe(object_name, findings, variant)
        assert faults(text, object_name) == [], text
        for name, values in ((noun, row), (other_noun, other_row)):
            count, cell = values["Number of Defects"], values["Position"][0][0].replace("-", " ")
            number = "an?" if count == "one" else {"multiple": "several"}.get(count, count)
            named = name if count == "one" else PLURALS[name]
            assert re.search(rf"\b{number} (?:[\w-]+ ){{0,3}}{named} (?:spread |in |mainly ).*the {cell}", text, re.I)
        assert "at least one stain" in text


def test_kinds_of_defects_are_counted_right() -> None:
    for number, word in ((2, "two"), (3, "three"), (5, "five"), (6, "several")):
        findings = [Finding(f"mark{index}", attributes()) for index in range(number)]
        texts = [describe("rail", findings, variant) for variant in range(60)]
        assert {found for text in texts for found in re.findall(r"(\w+) kinds of", text)} == {word}


def test_unlocated_findings_make_no_claim_on_place_or_count() -> None:
    for variant in range(200):
        text = describe("pavement surface", [Finding("crack", None)], variant)
        assert "at least one crack" in text.lower()
        assert not any(has_word(text, word) for word in ("in the", "cracks", *CELLS, *SCALES, *SHAPES)), text


def test_the_place_of_a_mask_is_told_as_it_is() -> None:
    gray = np.full((90, 90), 200, np.uint8)
    mask = np.zeros((90, 90), bool)
    mask[45, :] = True
    gray[mask] = 10
    text = describe("rail", [Finding("crack", mask_attributes(gray, mask, "crack"))], 1)
    assert "in the middle left and the center" in text
    mask[:] = False
    mask[5:10, 5:10] = mask[70:80, 70:80] = True
    for variant in range(50):
        text = describe("rail", [Finding("spot", mask_attributes(gray, mask, "spot"))], variant)
        assert "two" in text.lower()
        assert "in the bottom right" in text
        assert "top left" not in text
    mask[:] = True
    text = describe("rail", [Finding("rusty area", mask_attributes(gray, mask, "rusty area"))], 0)
    assert "over most of the" in text
    assert "surroundings" not in text


def test_words_before_a_noun_are_said_once() -> None:
    row = attributes(Shape="spot-like", Direction="none", Polarity="bright", Scale="large")
    for variant in range(100):
        text = describe("rail", [Finding("bright spot", row)], variant)
        assert "spot-like" not in text
        assert text.count("bright") == text.count("bright spot")
        text = describe("rail", [Finding("large breakage", row, "red")], variant)
        assert "a large breakage" in text.lower()
        assert text.lower().count("large") == text.lower().count("large breakage")
        assert "red in color" in text


def test_texts_depend_on_the_variant_alone() -> None:
    findings = [Finding("crack", attributes())]
    for variant in (0, 7, 2**64 - 1, 2**256):
        text = describe("rail", findings, variant)
        assert text == describe("rail", findings, variant)
        assert converse("rail", findings, text, variant) == converse("rail", findings, text, variant)


@pytest.mark.parametrize(
    ("findings", "texts", "beginnings"),
    [
        ([Finding("crack", attributes())], 300, 12),
        ([Finding("crack", attributes() | {"Number of Defects": "two", "Position": POSITIONS[5]})], 150, 8),
        ([Finding("crack", attributes()), Finding("stain", attributes(Shape="irregular"))], 80, 8),
        ([Finding("crack", None)], 12, 6),
        ([], 15, 6),
    ],
)
def test_a_thousand_images_do_not_read_alike(findings: list[Finding], texts: int, beginnings: int) -> None:
    seen = Counter(describe("rail", findings, variant) for variant in range(1000))
    assert len(seen) >= texts
    assert max(seen.values()) <= 2.5 * 1000 / texts
    neutral = (re.sub("image|photo", "picture", text).replace("an picture", "a picture") for text in seen)
    assert len({tuple(text.split()[:4]) for text in neutral}) >= beginnings


def test_normal_descriptions() -> None:
    for object_name, variant in itertools.product(OBJECTS, range(100)):
        text = describe(object_name, [], variant)
        assert faults(text, object_name) == []
        assert object_name in text
        assert {"No", "no", "free", "without"} & set(text.split())


def answers(turns: list[dict[str, str]]) -> list[str]:
    assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
    return [turn["value"] for turn in turns[1::2]]


def test_conversations_are_english_and_follow_the_findings() -> None:
    for variant, (object_name, noun, row, colour) in enumerate(cases()[::3]):
        verdict, described, place, count = answers(
            turns := converse(object_name, [Finding(noun, row, colour)], "A {text}.", variant)
        )
        many = row["Number of Defects"] != "one"
        for text in (verdict, place, count):
            assert faults(text, object_name) == [], text
            assert agreement_faults(text, noun, many) == [], text
        assert described == "A {text}."
        assert verdict.startswith("Yes")
        assert f"the {row['Position'][0][0].replace('-', ' ')}" in place
        number = {"multiple": "several"}.get(row["Number of Defects"], row["Number of Defects"])
        assert f"{number} {PLURALS[noun] if many else noun}." in count
        questions = [turn["value"] for turn in turns[::2]]
        assert DIAGNOSIS_QUESTION not in questions
        assert len(set(questions)) == 4


def test_conversation_on_a_normal_image() -> None:
    for variant in range(100):
        verdict, described, condition = answers(converse("unit", [], "A unit.", variant))
        assert verdict.startswith("No")
        assert described == "A unit."
        assert "defect" in condition
        assert faults(verdict, "unit") == faults(condition, "unit") == []


def test_conversation_without_place() -> None:
    for variant in range(100):
        one = converse("rail", [Finding("crack", None)], "Text.", variant)
        assert [text[:4] for text in answers(one)][:1] == ["Yes,"]
        assert answers(one)[2].endswith(" crack.")
        both = converse("rail", [Finding("crack", attributes()), Finding("stain", None)], "Text.", variant)
        assert answers(both)[2] == "The categories are crack and stain."
        for turns in (one, both):
            assert len(turns) == 6
            assert not re.search(r"[Ww]here|how many|[Cc]ount|number|region", " ".join(t["value"] for t in turns[::2]))


@pytest.mark.parametrize("findings", [[], [Finding("crack", attributes())], [Finding("crack", None)]])
def test_each_question_has_five_wordings(findings: list[Finding]) -> None:
    talks = [converse("rail", findings, "Text.", variant) for variant in range(300)]
    for index in range(0, len(talks[0]), 2):
        assert len({turns[index]["value"] for turns in talks}) >= 5
