"""The `evaluate` module of COCO's metrics: batches, two processes, its app and its card."""

import multiprocessing
import runpy
from pathlib import Path

import evaluate
import gradio as gr
import pytest
from datasets import Dataset

from defect_hub.evaluate_metrics.coco import CocoDetections
from tests.evaluate_metrics.detections import KEYS, KINDS, draw, with_pycocotools

FOLDER = Path(__file__).parents[2] / "evaluate_metrics" / "coco_ap"
PREDICTIONS, REFERENCES = draw(KINDS["plain"])


def load(**settings) -> evaluate.EvaluationModule:
    return evaluate.load(str(FOLDER), **settings)


def test_batches_equal_pycocotools():
    metric = load(class_names=list("abcde"))
    metric.add_batch(predictions=PREDICTIONS[:7], references=REFERENCES[:7])
    metric.add(prediction=PREDICTIONS[7], reference=REFERENCES[7])
    metric.add_batch(predictions=PREDICTIONS[8:], references=REFERENCES[8:])
    expected, per_class = with_pycocotools(PREDICTIONS, REFERENCES, 5)
    result = metric.compute()
    assert {key: result[key] for key in KEYS} == pytest.approx(expected, abs=1e-9)
    assert result["class_ap"] == pytest.approx(dict(zip("abcde", per_class, strict=True)), abs=1e-9)
    assert len(metric) == 0


def test_takes_the_rows_of_a_data_set():
    rows = [
        {"image_id": str(row["image_id"]), "objects": {key: value.tolist() for key, value in row["objects"].items()}}
        for row in REFERENCES
    ]
    data = Dataset.from_list(rows)
    state = CocoDetections()
    state.update(PREDICTIONS, rows)
    metric = load()
    assert metric.compute(predictions=PREDICTIONS, references=list(data)) == state.compute()


def _compute_part(folder, process_id, results):
    """Compute on every second image, the first of all seen by both; run in one process of two."""
    metric = load(num_process=2, process_id=process_id, experiment_id="two", cache_dir=folder, timeout=60)
    for start in range(process_id, len(PREDICTIONS), 2):
        metric.add_batch(predictions=PREDICTIONS[start : start + 1], references=REFERENCES[start : start + 1])
    metric.add_batch(predictions=PREDICTIONS[:1], references=REFERENCES[:1])
    results.put((process_id, metric.compute()))


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=_compute_part, args=(str(tmp_path), process_id, results)) for process_id in (0, 1)
    ]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    assert found == {0: load().compute(predictions=PREDICTIONS, references=REFERENCES), 1: None}


def test_bad_options_are_refused_at_once():
    with pytest.raises(ValueError, match="box format 'yolo' is unknown"):
        load(prediction_format="yolo")
    with pytest.raises(ValueError, match="unknown settings"):
        load(class_name=["scratch"])


def test_app_computes_its_example_and_shows_errors():
    app = runpy.run_path(str(FOLDER / "app.py"))
    result = app["compute"](app["EXAMPLE"])
    # The box of the scratch fits to an IoU of 0.856, up to the threshold 0.85; the inclusion's to 0.32.
    assert result["class_ap"] == pytest.approx({"inclusion": 0, "scratch": 0.8})
    assert result["ap_50"] == pytest.approx(0.5)
    (function,) = app["demo"].fns.values()
    with pytest.raises(gr.Error, match="x2 >= x1"):
        function.fn([["1.png", "scratch", 60, 20, 10, 45, "0.9"]])
    with pytest.raises(gr.Error, match="could not convert"):
        function.fn([["1.png", "scratch", 10, 20, 60, 45, "true"]])
