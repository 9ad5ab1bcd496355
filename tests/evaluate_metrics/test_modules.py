"""The `evaluate` modules as a user loads them: add_batch, combine, two processes."""

import multiprocessing
from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch

from defect_hub.evaluate_metrics.kernels import UndefinedMetricError, auroc, f1_max

METRICS = Path(__file__).parents[2] / "evaluate_metrics"
RNG = np.random.default_rng(0)
SCORES = RNG.random(60)
LABELS = (SCORES + RNG.normal(0, 0.3, 60)) > 0.6
MAPS = RNG.random((6, 40, 50), dtype=np.float32).astype(np.float16)
MASKS = MAPS + RNG.normal(0, 0.3, MAPS.shape) > 0.9
TEXTS = ["Yes, a scratch."] * 40 + ["No defect."] * 10 + ["Unclear."] * 10


def load(name: str, **kwargs) -> evaluate.EvaluationModule:
    return evaluate.load(str(METRICS / name), **kwargs)


def _compute_part(name, cache_dir, process_id, experiment_id, results):
    """Compute on every second sample; run in one process of two."""
    metric = load(
        name, num_process=2, process_id=process_id, experiment_id=experiment_id, cache_dir=cache_dir, timeout=60
    )
    predictions, references = (MAPS, MASKS) if name == "pixel_auroc" else (SCORES, LABELS)
    metric.add_batch(predictions=predictions[process_id::2], references=references[process_id::2])
    results.put((process_id, metric.compute()))


def test_load_by_the_relative_path_of_a_clone(monkeypatch):
    monkeypatch.chdir(METRICS.parent)
    metric = evaluate.load("evaluate_metrics/pixel_auroc")
    assert metric.compute(predictions=[[[0.1, 0.9]]], references=[[[0, 1]]]) == {"pixel_auroc": 1.0}


def test_image_metrics_in_batches_equal_the_kernels():
    for name, expected in (
        ("image_auroc", {"image_auroc": auroc(SCORES, LABELS)}),
        ("f1_max", dict(zip(("f1_max", "threshold"), f1_max(SCORES, LABELS), strict=True))),
    ):
        metric = load(name)
        metric.add_batch(predictions=SCORES[:20], references=LABELS[:20])
        metric.add_batch(predictions=SCORES[20:], references=LABELS[20:])
        assert metric.compute() == expected


def test_pixel_auroc_streams_batches_maps_and_tensors_of_any_size():
    metric = load("pixel_auroc")
    metric.add_batch(predictions=MAPS[:3], references=MASKS[:3])
    metric.add_batch(predictions=torch.from_numpy(MAPS[3:5]), references=torch.from_numpy(MASKS[3:5]))
    metric.add(prediction=MAPS[5, :7].tolist(), reference=MASKS[5, :7].tolist())
    metric.add(prediction=MAPS[5, 7:], reference=MASKS[5, 7:])
    assert len(metric) == 7
    assert metric.compute()["pixel_auroc"] == pytest.approx(auroc(MAPS, MASKS), abs=1e-12)
    assert len(metric) == 0


def test_pixel_auroc_writes_nothing(tmp_path):
    metric = load("pixel_auroc", cache_dir=str(tmp_path))
    metric.add_batch(predictions=MAPS, references=MASKS)
    metric.compute()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_description_accuracy():
    expected = {"description_accuracy": pytest.approx(10 / 60), "unparsed": pytest.approx(10 / 60)}
    assert load("description_accuracy").compute(predictions=TEXTS, references=[False] * 60) == expected


def test_combine():
    both = evaluate.combine([load("image_auroc"), load("f1_max")])
    both.add_batch(predictions=SCORES, references=LABELS)
    assert both.compute().keys() == {"image_auroc", "f1_max", "threshold"}
    pixels = evaluate.combine([load("pixel_auroc"), load("pixel_auroc")])
    assert pixels.compute(predictions=MAPS, references=MASKS).keys() == {
        "pixel_auroc_0_pixel_auroc",
        "pixel_auroc_1_pixel_auroc",
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["image_auroc", "pixel_auroc"])
def test_two_processes_equal_one(name, tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=_compute_part, args=(name, str(tmp_path), process_id, "two", results))
        for process_id in (0, 1)
    ]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    scores, targets = (MAPS, MASKS) if name == "pixel_auroc" else (SCORES, LABELS)
    assert found == {0: {name: pytest.approx(auroc(scores, targets), abs=1e-12)}, 1: None}


def test_a_missing_process_is_an_error_not_a_partial_result(tmp_path):
    metric = load(
        "pixel_auroc", num_process=2, process_id=0, experiment_id="alone", cache_dir=str(tmp_path), timeout=0.2
    )
    metric.add_batch(predictions=MAPS, references=MASKS)
    with pytest.raises(ValueError, match="Expected to find locked file"):
        metric.compute()


def test_one_class_and_bad_inputs_are_refused():
    with pytest.raises(UndefinedMetricError, match="all 2 samples are negative"):
        load("image_auroc").compute(predictions=[0.1, 0.2], references=[0, 0])
    metric = load("pixel_auroc")
    with pytest.raises(ValueError, match="4 scores but 2 targets"):
        metric.add_batch(predictions=np.zeros((1, 2, 2)), references=np.zeros((1, 1, 2)))
    with pytest.raises(ValueError, match=r"unknown inputs \['maps'\]"):
        metric.add_batch(predictions=MAPS, references=MASKS, maps=MAPS)
