"""Verdict, kind and place read off descriptions."""

import pytest

from defect_hub.benchmarks.description_words import word_accuracy

OIL = (
    "Yes, there is a small dark oil spot in the top left of the steel surface. Likely cause: lubricant contamination."
)
WATER = "Yes, there is a small bright water spot in the top left of the steel surface. Likely cause: uneven drying."
NORMAL = "No, the steel surface shows no defect."


def test_each_word_is_counted_on_its_own() -> None:
    elsewhere = OIL.replace("top left", "center")
    shares = word_accuracy([OIL, WATER, elsewhere, NORMAL], [OIL, OIL, OIL, NORMAL], [True, True, True, False])
    assert shares == {"verdict": 1.0, "kind": pytest.approx(2 / 3), "place": pytest.approx(2 / 3)}


def test_a_missed_defect_costs_the_verdict_only() -> None:
    assert word_accuracy([NORMAL, OIL], [OIL, OIL], [True, True]) == {"verdict": 0.5, "kind": 1.0, "place": 1.0}


def test_what_nobody_knows_is_not_scored() -> None:
    answer = "Yes, the magnetic tile shows a defect of the category uneven."
    assert word_accuracy([OIL], [answer], [True]) == {"verdict": 1.0}
