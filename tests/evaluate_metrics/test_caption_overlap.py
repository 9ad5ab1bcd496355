"""The module caption_overlap and its Space."""

import runpy
from pathlib import Path

import evaluate
import pytest

from defect_hub.evaluate_metrics.captions import caption_overlap

FOLDER = Path(__file__).parents[2] / "evaluate_metrics" / "caption_overlap"
PREDICTIONS = ["A dark scratch in the top left.", "", "裂纹在左上角"]
ONE = ["A dark scratch at the top left.", "A round hole in the middle.", "裂纹在左上角附近"]
SEVERAL = [[ONE[0], "Scratch, top left"], [ONE[1]], [ONE[2], "crack", "a crack"]]


@pytest.mark.parametrize("references", [ONE, SEVERAL], ids=["one", "several"])
def test_batches_equal_the_function(references):
    metric = evaluate.load(str(FOLDER))
    metric.add_batch(predictions=PREDICTIONS[:2], references=references[:2])
    metric.add(prediction=PREDICTIONS[2], reference=references[2])
    assert metric.compute() == caption_overlap(PREDICTIONS, references)


def test_one_image_has_no_cider():
    found = evaluate.load(str(FOLDER)).compute(predictions=ONE[:1], references=ONE[:1])
    assert "cider" not in found
    assert list(found["undefined"]) == ["cider"]


def test_app_computes_its_example():
    app = runpy.run_path(str(FOLDER / "app.py"))
    predictions, references = map(list, zip(*app["EXAMPLE"], strict=True))
    found = app["compute"](app["EXAMPLE"])
    assert found == caption_overlap(predictions, references)
    assert "undefined" not in found
