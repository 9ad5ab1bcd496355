"""The description accuracy module as a user loads it."""

import runpy

import pytest

from tests.evaluate_metrics.modules import METRICS, load

TEXTS = ["Yes, a scratch.", "There is no defect.", "Unclear.", "The image shows a crack."]
LABELS = [1, 0, 1, 0]
EXPECTED = {"description_accuracy": 0.5, "unparsed": 0.25, "recall": 0.5, "specificity": 0.5}


def test_answers_in_batches():
    metric = load("description_accuracy")
    metric.add_batch(predictions=TEXTS[:3], references=LABELS[:3])
    metric.add(prediction=TEXTS[3], reference=LABELS[3])
    assert len(metric) == 4
    assert metric.compute() == EXPECTED


def test_one_class_leaves_the_other_out():
    found = load("description_accuracy").compute(predictions=["No.", "Yes."], references=[True, True])
    assert found == {
        "description_accuracy": 0.5,
        "unparsed": 0.0,
        "recall": 0.5,
        "undefined": {"specificity": "no image is normal"},
    }


def test_no_answers_have_no_accuracy():
    undefined = load("description_accuracy").compute()["undefined"]
    assert undefined["description_accuracy"] == "no texts were given"


def test_bad_labels_are_refused():
    with pytest.raises(ValueError, match="true or false, got 2"):
        load("description_accuracy").add_batch(predictions=["Yes."], references=[2])


def test_app_reads_its_example():
    app = runpy.run_path(str(METRICS / "description_accuracy/app.py"))
    found = app["compute"](app["EXAMPLE"])
    assert found == pytest.approx({"description_accuracy": 2 / 3, "unparsed": 1 / 3, "recall": 0.5, "specificity": 1})
