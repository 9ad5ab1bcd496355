"""The groundedness module and its app as a user meets them."""

import runpy

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from tests.evaluate_metrics.modules import METRICS, load

MASK = np.zeros((90, 90), np.uint8)
MASK[5:20, 5:20] = 1
TEXTS = ["Yes, there is a small scratch in the top left.", "There are two small scratches on the right.", "Grey."]


def test_batches_of_texts_and_masks():
    metric = load("groundedness")
    metric.add_batch(predictions=TEXTS[:2], references=np.stack([MASK, MASK]))
    metric.add(prediction=TEXTS[2], reference=MASK[:50].tolist())
    assert len(metric) == 3
    assert metric.compute() == {
        "groundedness": 0.75,
        "presence": 1.0,
        "location": 0.5,
        "count": 0.5,
        "size": 1.0,
        "claims_per_text": 8 / 3,
        "without_claims": 1 / 3,
    }


def test_a_bad_mask_is_refused_and_nothing_counted():
    metric = load("groundedness")
    with pytest.raises(ValueError, match="0 or 1"):
        metric.add_batch(predictions=TEXTS[:2], references=[MASK, 255 * MASK])
    assert set(metric.compute()) == {"undefined"}


@pytest.fixture(scope="module")
def app() -> dict:
    return runpy.run_path(str(METRICS / "groundedness/app.py"))


def test_app_lists_the_claims(app, tmp_path):
    Image.fromarray(255 * MASK).save(tmp_path / "mask.png")
    claims, result = app["compute"](TEXTS[1], str(tmp_path / "mask.png"))
    assert claims == [
        ["presence", "yes", "yes"],
        ["location", "on the right", "no"],
        ["count", "two small scratches", "no"],
        ["size", "two small scratches", "yes"],
    ]
    assert result["groundedness"] == 0.5


def test_app_tells_what_is_missing(app, tmp_path):
    (tmp_path / "mask.png").write_text("no image")
    with pytest.raises(gr.Error, match="Upload a mask"):
        app["compute"]("Yes.", None)
    with pytest.raises(gr.Error, match="cannot identify"):
        app["compute"]("Yes.", str(tmp_path / "mask.png"))


def test_app_brings_an_example(app, tmp_path):
    mask = app["write_example"](tmp_path)[1]
    claims, _ = app["compute"](app["TEXT"], mask)
    assert {supported for _, _, supported in claims} == {"yes", "no"}
    assert {kind for kind, _, _ in claims} == {"presence", "location", "count", "size"}
