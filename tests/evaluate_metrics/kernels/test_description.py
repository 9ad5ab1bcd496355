"""The strict yes/no parser on written answers, and on all that our own generators compose."""

import itertools
import random

import pytest

from defect_hub.dataset_scripts.descriptions import Finding, converse, describe
from defect_hub.dataset_scripts.steelsynth.defects import DRAWERS
from defect_hub.dataset_scripts.steelsynth.generate import NORMAL, generate_sample
from defect_hub.dataset_scripts.tadd.subsets import load_subsets
from defect_hub.dataset_scripts.texts import (
    NORMAL_SENTENCE,
    diagnosis_turns,
    natural_description,
    t4,
    with_article,
)
from defect_hub.evaluate_metrics.kernels import (
    DescriptionVerdicts,
    UndefinedMetricError,
    description_accuracy,
    parse_yes_no,
)
from defect_hub.modeling.mask_attributes import CELLS, DIRECTIONS, DISTRIBUTIONS, SHAPES, mask_attributes

YES = [
    "Yes",
    "yes.",
    "YES, there is a small dark scratch in the top left of the steel surface.",
    "  \n Yes: two pits.",
    "**Yes**, there is a crack.",
    '"Yes," the surface is scratched.',
    "“Yes” – a blowhole.",
    "<b>Yes</b>, an inclusion.",
    "- Yes, there is a patch.",
    "> yes",
    "Yes there are several defects",
    "Yes, there is a scratch. No other defects are visible.",
    "Yes, there is a crack. Its likely cause is not known.",
    "Yes, no other defect.",
    "There is a defect.",
    "There are two defects.",
    "The image shows a scratch.",
    "The image shows a small scratch in the center.",
    "A scratch is visible.",
    "There is a scratch but no crack.",
    "There is no scratch, but there is a dent.",
    "Yes, there is an anomaly in the image, at the bottom left of the image.",
    "This is a picture of a capsule. There is a long white crack in the top of the red area of this picture.",
    "There is a damaged area in the lower-right surface of the candle of this picture.",
    "There are four diagonal white scratches in the right half of the board of this picture.",
    "There is a small white damage in the upper-left corner of the cashew of this picture.",
    "There are three breaks in the top-centre, bottom-left and bottom-right of the grid of this picture.",
    "There is a crater-shaped break in the far left of the white chewing gum of this picture.",
    "There is a bent defect in the leftmost tentacle of the PCB board of this picture.",
    "The pin is bent.",
    "I can see a crack.",
    "Defects were found.",
    "Two defects are visible in this image.",
    "The surface has several scratches and a dent.",
    "Yes, there is a crack, probably caused by overload.",
    "Yes. The part should be rejected.",
    "There's a defect.",
    "Yes, there is a scratch in the middle. The rest of the surface is clean.",
    "The tile is defective.",
    "This surface is damaged.",
    "There is one defect in this image.",
    "Yes, the surface has a scratch, the rest is free of defects.",
    "The image shows a defect.",
    "Yes it does.",
    "Ｙｅｓ",
    "There is at least one defect.",
    "The surface doesn't have any scratches, but it has a dent.",
    "The crack is located in the top left.",
    "No cracks, but a dent is visible.",
    "There is a scratch, nothing else.",
]
NO = [
    "No",
    "no.",
    "No, the steel surface shows no defect.",
    "No defect is visible.",
    "NO!",
    "`No`",
    "# No\nThe surface is clean.",
    "No; nothing unusual.",
    "There is no defect.",
    "There are no visible defects in this image.",
    "No defects were found.",
    "No, the surface is free of defects.",
    "The surface is free of defects.",
    "defect-free",
    "The surface is defect-free.",
    "There isn't any defect.",
    "There aren't any defects.",
    "No defect.",
    "No defects.",
    "No, no defect is visible.",
    "No, there is no defect.",
    "No, there is none.",
    "The image does not show any defects.",
    "I do not see any damage.",
    "I can't find any defects.",
    "The product has no flaws.",
    "No visible damage or defects.",
    "No scratches, cracks or other defects can be seen.",
    "There are no signs of damage.",
    "There is no evidence of a defect.",
    "Without any defects.",
    "Neither defects nor anomalies are visible.",
    "The tile in this photo looks normal, and no part of it shows a defect.",
    "This is a white pill. There are no visible defects such as cracks, discolorations, or deformities.",
    "The surface is flawless.",
    "No anomalies detected",
    "Defects are not visible.",
    "There are zero defects.",
    "No, it is clean.",
    "No, the line is not a scratch.",
    "This image shows a defect-free surface.",
    "No - the surface looks fine.",
    "No, the dark lines belong to the texture.",
    "The rolled steel surface is free of defects.",
    "No there is not.",
    "Not a single defect is visible.",
    "I am certain there is no defect.",
    "This is a white pill with red spots. There is no defect.",
    "No. This is a pill with red dots.",
    "There is neither a crack nor any other defect.",
    "0 defects.",
    "It has neither defects nor scratches.",
]
NEITHER = [
    "No. The image is too dark to tell.",
    "Yes. The image is too dark to tell.",
    "No, I can't see anything in this image.",
    "No, I cannot judge that from this picture.",
    "No problem, I will look at the image.",
    "Yes, I can help with that.",
    "",
    "",
    "...",
    "Maybe yes",
    "I think yes.",
    "Yesterday there was one.",
    "None",
    "Not sure",
    "Nope",
    "Nothing unusual",
    "Normal surface",
    "Yeah",
    "Ja",
    '"Ja"',
    "Sí",
    "Oui",
    "是",
    "Yes. No, the surface is fine.",
    "Yes, no.",
    "Yes and no",
    "yes/no",
    "Yes or no?",
    "No... yes, there is a scratch.",
    "No, but yes",
    "Yes, there is a scratch. No, there is none.",
    "No, it is clean. Wait; yes, a scratch.",
    "No doubt there is a scratch.",
    "No idea.",
    "No problem.",
    "1",
    "True",
    "There is no defect, but there is a scratch.",
    "Yes, there is no defect.",
    "No, there is a scratch.",
    "No, a scratch.",
    "not without defects",
    "The surface is not without defects.",
    "No, there is no defect-free area.",
    "The surface is not free of defects.",
    "Maybe there is a defect.",
    "There might be a defect.",
    "There appears to be a defect.",
    "I think there is a defect.",
    "A defect cannot be ruled out.",
    "I'm not sure there is a defect.",
    "Is there any defect in this image?",
    "is there any defect in this image",
    "There is any defect in this image",
    "Possibly a scratch.",
    "There could be no defect.",
    "It looks like a scratch.",
    "There is no doubt that there is a defect.",
    "No hay ningún defecto.",
    "Ja, there is a defect.",
    "No, hay un defecto.",
    "No scratches.",
    "There are no cracks.",
    "There is no defect in the top left.",
    "There is a scratch test.",
    "There is a defect-free area.",
    "The defect detection is running.",
    "There are few defects.",
    "There is hardly any defect.",
    "Yes, the surface is clean.",
    "Yes, the surface is not damaged.",
    "There is nothing but scratches.",
    "There is not only a scratch but a dent.",
    "No one sees a defect.",
    "No, the surface is not clean.",
    "No, not without scratches.",
    "I cannot see the image.",
    "As an AI, I cannot detect defects.",
    "If there is a defect, it is small.",
    "There is no defect except a scratch.",
    "Apart from a scratch, there is no defect.",
    "A nut with a hole in the center.",
    "This is a PCB with four holes.",
    "The image shows a steel surface.",
    "No significant defects.",
    "Yes?",
    "There is a defect, right?",
    "There is either a defect or not.",
    "No defect that matters.",
    "There were defects before the repair.",
    "There is a chance of defects.",
    "Look for defects.",
    "The defect is not visible.",
    "There is no defect. Yes, there is.",
    'The label says "no defect".',
    "There are not two defects.",
    "There is not more than one defect.",
    "Yes, and no defects at all.",
    "Yes, none.",
    "No, many.",
    "Yes, perhaps.",
    "No, probably not.",
    "There is no defect-free part.",
    "No part is without a defect.",
    "It is not true that there is a defect.",
    "There is a defect. That is not true.",
    "There is no defect, a scratch is visible.",
    "There is no defect and scratches are visible.",
    "No defect but a scratch.",
    "No, there are holes.",
    "No, it does.",
    "It shows where defects can occur.",
    "It has a coating preventing cracks.",
    "Defects were found before the repair.",
    "No, it's not defect-free.",
    "There seem to be no defects.",
    "There isn't a defect-free spot on it.",
    "The surface is almost free of defects.",
    "The surface is far from defect-free.",
    "There is a risk of a defect.",
    "When there is a crack, the part must be rejected.",
    "There is a scratch-resistant coating.",
    "There is a defect in the other image.",
    "I do not think there is a defect.",
    "The surface is scratch-free.",
    "Yes, the surface is scratch-free.",
    "It is impossible to see a defect.",
    "There is not one defect but two.",
]

# Around what may stand before the answer, and around "but" and "what looks like".
INTRODUCED = [
    ("Answer: yes", True),
    ("Final answer: No", False),
    ("**Verdict:** Yes, there is a pit.", True),
    ("The verdict is no, the surface is free of defects.", False),
    ("Answer: No scratches.", None),
    ("Answer: No other defect.", None),
    ("Answer: No. 3", None),
    ("Answer: yes or no", None),
    ("Answer yes or no.", None),
    ("Answer no.", None),
    ("Answer: Yes. The answer is no.", None),
    ("Yes. The answer is no.", None),
    ("No. Final answer: yes.", None),
    ("The answer is not yes.", None),
    ("The answer is no secret.", None),
    ("The answer is yes?", None),
    ("The answer is no, but there is a scratch.", None),
    ("The answer is no for the left half.", None),
    ("I doubt the answer is no.", None),
    ("The answer", None),
    ("Are there any defects in the picture?\nNo.", False),
    ("Is there a defect? Answer: Yes, a dent.", True),
    ("Does the image show any anomalies? No, it does not.", False),
    ("Is there no defect? Yes.", None),
    ("Is there a scratch? No.", None),
    ("Is the surface free of defects? Yes.", None),
    ("Is the surface clean? No.", None),
    ("Isn't there any defect? No.", None),
    ("Is there any defect on the left? No.", None),
    ("Is there any other defect? No.", None),
    ("Is there any defect in the reference? No.", None),
    ("Is there any defect? Is there a scratch? No.", None),
    ("Is there any defect? No. Is there a scratch? Yes.", None),
    ("Is there any defect? Yes or no?", None),
    ("Is there any defect? No other defect.", None),
    ("Is there any defect? No, there is a scratch.", None),
    ("Is there any defect? No idea.", None),
]
CONTRASTED = [
    ("Yes, no cracks, but two dents in the corner.", True),
    ("Yes, it is not a scratch but a crack.", True),
    ("Yes, neither a scratch nor a dent but a crack.", True),
    ("Yes, no scratch but no dent.", None),
    ("Yes, no scratch but a dent test.", None),
    ("Yes, no defect but a scratch.", None),
    ("Yes, it is not a defect but a stain.", None),
    ("Yes, it is defect-free but a dent.", None),
    ("No, no scratch but a dent.", None),
    ("No scratch but a dent detector.", None),
    ("There is not only a scratch but also a dent.", True),
    ("No, not only a scratch but also a dent.", None),
    ("Not only is there no defect, but also no dust.", None),
    ("It has not only no scratch but also no dent.", None),
    ("It is not only free of defects but also clean.", False),
    ("There might be not only a scratch but also a dent.", None),
    ("No, what looks like a crack is only a shadow.", False),
    ("Yes. What looks like a scratch is a reflection.", None),
    ("What looks like a scratch is a reflection.", None),
    ("What looks like a defect is a reflection.", None),
    ("No. What looks like a scratch is a crack.", None),
    ("No. What looks like a scratch is one.", None),
    ("No. What looks like a scratch is not a reflection.", None),
    ("No. What looks like a reflection is a scratch.", None),
    ("No. What looks like a scratch is a reflection of a crack.", None),
    ("No. What looks like a scratch is a reflection, but there is a dent.", None),
    ("There is a dent. What looks like a scratch is a reflection.", True),
    ("No. 3 is good.", None),
    ("No. 12", None),
    ("No. 2 scratches are visible.", None),
    ("No, there is a knot.", None),
    ("No. There are cuts in the leather.", None),
    ("No, the cloth has a fold.", None),
    ("There is a knot.", None),
    ("Yes, a knot.", True),
    ("No, there is no cut.", False),
]

# Nouns that also name parts of good products.
AMBIGUOUS = {"small hole", "hole", "knot", "cut", "fold"}
POSITIONS = (
    [["center", 1.0]],
    [["top-left", 0.75], ["middle-left", 0.25]],
    [["top-center", 0.4], ["top-left", 0.35], ["top-right", 0.25]],
    [["middle-right", 0.4], ["center", 0.2], ["top-left", 0.2], ["top-right", 0.2]],
    [[cell, 1 / 9] for cell in CELLS],
)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [*((text, True) for text in YES), *((text, False) for text in NO), *((text, None) for text in NEITHER)],
)
def test_verdict(text, verdict):
    assert parse_yes_no(text) is verdict


@pytest.mark.parametrize(("text", "verdict"), [*INTRODUCED, *CONTRASTED])
def test_verdict_behind_an_introduction_and_in_a_contrast(text, verdict):
    assert parse_yes_no(text) is verdict


@pytest.mark.parametrize(
    "text", ["scratch " * 4000, "in the a b c " * 2000, "<" * 20000, "no " * 4000, "not only " * 4000]
)
def test_long_texts_take_no_long_time(text):
    assert parse_yes_no(text) is None


def drawn_attributes(draw: random.Random, noun: str) -> dict:
    return {
        "Defect type": noun,
        "Shape": draw.choice(SHAPES),
        "Direction": draw.choice(DIRECTIONS),
        "Spatial Distribution": draw.choice(DISTRIBUTIONS),
        "Number of Defects": draw.choice(["one", "two", "five", "multiple"]),
        "Position": draw.choice(POSITIONS),
        "Scale": draw.choice(["tiny", "small", "medium", "large", "extensive"]),
        "Polarity": draw.choice(["dark", "bright", "neutral"]),
        "Saliency": draw.choice(["low", "medium", "high"]),
    }


@pytest.mark.parametrize("name", load_subsets())
def test_all_that_the_tadd_builder_composes_is_read(name):
    subset, draw = load_subsets()[name], random.Random(name)
    labels = sorted(set(subset.labels) - {"normal"})
    object_names = sorted({*subset.objects.values(), subset.object_name})
    for label, variant in itertools.product(labels, range(8)):
        object_name = draw.choice(object_names)
        noun = subset.nouns.get(label, label)
        attributes = drawn_attributes(draw, label)
        findings = [Finding(noun, attributes if variant else None)]
        text = describe(object_name, findings, draw.randrange(10**6))
        answers = converse(object_name, findings, text, draw.randrange(10**6))
        answer = diagnosis_turns(object_name, attributes, "uneven cooling", noun=noun)[1]["value"]
        assert [parse_yes_no(answers[1]["value"]), parse_yes_no(answer)] == [True, True]
        for description in (text, t4(attributes, object_name, noun=noun)):
            verdict = parse_yes_no(description)
            assert verdict or (verdict is None and noun in AMBIGUOUS), description


@pytest.mark.parametrize("name", load_subsets())
def test_all_that_the_tadd_builder_composes_of_normal_images_is_read(name):
    subset = load_subsets()[name]
    for object_name, variant in itertools.product({*subset.objects.values(), subset.object_name}, range(20)):
        text = describe(object_name, [], variant)
        texts = [text, converse(object_name, [], text, variant)[1]["value"]]
        texts += [
            diagnosis_turns(object_name, None, None)[1]["value"],
            f"{with_article(object_name)} without defects.",
        ]
        for description in texts:
            assert parse_yes_no(description) is False, description


def test_all_that_steelsynth_composes_is_read():
    classes = set()
    for index in range(100):
        sample = generate_sample(seed=5, index=index, size=64)
        classes.add(sample.class_name)
        is_defective = sample.class_name != NORMAL
        attributes = mask_attributes(sample.image, sample.mask, sample.class_name) if is_defective else None
        texts = [natural_description(attributes, variant) for variant in range(4)]
        texts.append(diagnosis_turns("steel surface", attributes, "overload")[1]["value"])
        texts.append(t4(attributes) if attributes else NORMAL_SENTENCE)
        for text in texts:
            assert parse_yes_no(text) is is_defective, text
    assert classes == {NORMAL, *DRAWERS}


def test_accuracy_counts_the_unparsed_as_wrong():
    texts = ["Yes, a scratch.", "No, it is clean.", "Yes, a pit.", "The surface is clean."]
    assert description_accuracy(texts, [True, False, False, False]) == {"accuracy": 0.5, "unparsed": 0.25}


def test_accuracy_on_one_class_is_defined():
    assert description_accuracy(["No."], [0]) == {"accuracy": 1.0, "unparsed": 0.0}


def test_verdicts_by_class():
    verdicts = DescriptionVerdicts()
    verdicts.update(["Yes.", "No.", "Perhaps.", "There is a crack.", "There is no defect."], [1, 1, 1, 1, 0])
    assert verdicts.compute() == {"accuracy": 0.6, "unparsed": 0.2, "recall": 0.5, "specificity": 1.0}


def test_verdicts_without_a_class_or_texts_say_so():
    verdicts = DescriptionVerdicts()
    assert set(verdicts.compute()["undefined"]) == {"accuracy", "unparsed", "recall", "specificity"}
    verdicts.update(["Yes."], [True])
    assert verdicts.compute() == {
        "accuracy": 1.0,
        "unparsed": 0.0,
        "recall": 1.0,
        "undefined": {"specificity": "no image is normal"},
    }


def test_states_add_up_and_travel():
    texts = [*YES, *NO, *NEITHER]
    labels = [index % 2 for index in range(len(texts))]
    whole, parts = DescriptionVerdicts(), [DescriptionVerdicts() for _ in range(3)]
    whole.update(texts, labels)
    for start, part in enumerate(parts):
        part.update(texts[start::3], labels[start::3])
    total = DescriptionVerdicts.from_bytes(parts[2].to_bytes())
    for part in parts[:2]:
        total.merge(part)
    assert total.compute() == whole.compute()


def test_a_bad_batch_changes_nothing():
    verdicts = DescriptionVerdicts()
    verdicts.update(["Yes."], [1])
    before = verdicts.to_bytes()
    for texts, labels in ((["Yes."], [2]), (["Yes.", "No."], [1]), (["Yes.", None], [1, 1]), ("ab", [1, 1])):
        with pytest.raises(ValueError, match=r"true or false|2 predictions but 1|must be a string|a list of strings"):
            verdicts.update(texts, labels)
    assert verdicts.to_bytes() == before


def test_bad_input_is_refused():
    with pytest.raises(UndefinedMetricError, match="no descriptions"):
        description_accuracy([], [])
    with pytest.raises(ValueError, match="2 predictions but 1 labels"):
        description_accuracy(["Yes", "No"], [True])
    with pytest.raises(ValueError, match="true or false, got None"):
        description_accuracy(["Yes"], [None])
