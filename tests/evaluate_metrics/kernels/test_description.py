"""The strict yes/no parser on written answers."""

import pytest

from defect_hub.evaluate_metrics.kernels import UndefinedMetricError, description_accuracy, parse_yes_no

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
]
NEITHER = [
    "",
    "   ",
    "...",
    "There is a defect.",
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
    "Sí",
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
    "Answer: yes",
    "1",
    "True",
]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [*((text, True) for text in YES), *((text, False) for text in NO), *((text, None) for text in NEITHER)],
)
def test_verdict(text, verdict):
    assert parse_yes_no(text) is verdict


def test_accuracy_counts_the_unparsed_as_wrong():
    texts = ["Yes, a scratch.", "No, it is clean.", "Yes, a pit.", "The surface is clean."]
    assert description_accuracy(texts, [True, False, False, False]) == {"accuracy": 0.5, "unparsed": 0.25}


def test_accuracy_on_one_class_is_defined():
    assert description_accuracy(["No."], [0]) == {"accuracy": 1.0, "unparsed": 0.0}


def test_bad_input_is_refused():
    with pytest.raises(UndefinedMetricError, match="no descriptions"):
        description_accuracy([], [])
    with pytest.raises(ValueError, match="2 predictions but 1 labels"):
        description_accuracy(["Yes", "No"], [True])
    with pytest.raises(ValueError, match="true or false, got None"):
        description_accuracy(["Yes"], [None])
