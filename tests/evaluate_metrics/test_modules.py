"""The `evaluate` modules as a user loads them: batches, options, combine, several processes."""

import re
from concurrent.futures import ThreadPoolExecutor

import evaluate
import numpy as np
import pytest
import torch

from defect_hub.evaluate_metrics.kernels import UndefinedMetricError, aupro, auroc
from tests.evaluate_metrics.modules import (
    EXPECTED,
    IMAGE_METRICS,
    LABELS,
    MAPS,
    MASKS,
    METRICS,
    NAMES,
    PIXEL_METRICS,
    SCORES,
    load,
    samples,
)


@pytest.mark.parametrize("name", NAMES)
def test_every_folder_is_a_metric_of_its_name(name, monkeypatch):
    monkeypatch.chdir(METRICS.parent)
    metric = evaluate.load(f"evaluate_metrics/{name}")
    assert isinstance(metric, evaluate.Metric)
    assert metric.name == name
    assert metric.description
    assert "Returns:" in metric.inputs_description


def test_the_expected_values_are_of_the_samples():
    assert EXPECTED["pixel_auroc"]["pixel_auroc"] == auroc(MAPS, MASKS)
    assert EXPECTED["aupro"]["aupro_0.3"] == pytest.approx(aupro(MAPS, MASKS), abs=1e-9)
    assert 0.6 < min(EXPECTED["image_ap"]["image_ap"], EXPECTED["pixel_metrics"]["pixel_auroc"]) < 1


@pytest.mark.parametrize("name", IMAGE_METRICS)
def test_image_metrics_in_batches_equal_the_kernels(name):
    metric = load(name)
    metric.add_batch(predictions=SCORES[:20], references=LABELS[:20])
    metric.add(prediction=SCORES[20], reference=LABELS[20])
    metric.add_batch(predictions=torch.from_numpy(SCORES[21:]), references=torch.from_numpy(LABELS[21:]))
    assert metric.compute() == EXPECTED[name]
    assert metric.compute(predictions=SCORES.tolist(), references=LABELS.tolist()) == EXPECTED[name]


@pytest.mark.parametrize("name", PIXEL_METRICS)
def test_pixel_metrics_stream_arrays_tensors_and_lists(name):
    metric = load(name)
    metric.add_batch(predictions=MAPS[:3], references=MASKS[:3])
    metric.add_batch(predictions=torch.from_numpy(MAPS[3:5]), references=torch.from_numpy(MASKS[3:5]).long())
    metric.add(prediction=MAPS[5].tolist(), reference=MASKS[5].tolist())
    metric.add_batch(predictions=torch.from_numpy(MAPS[6:])[:, None], references=MASKS[6:].astype(np.uint8))
    assert len(metric) == 7
    assert metric.compute() == EXPECTED[name]
    assert len(metric) == 0
    assert metric.compute(predictions=MAPS, references=MASKS) == EXPECTED[name]


@pytest.mark.parametrize("name", PIXEL_METRICS)
def test_images_may_differ_in_size(name):
    # A normal image is cut: the parts hold the same pixels and the same regions.
    assert not MASKS[5].any()
    parts, masks = ([*images[:5], images[5, :25], images[5, 25:], images[6]] for images in (MAPS, MASKS))
    assert load(name).compute(predictions=parts, references=masks) == EXPECTED[name]
    tensors = [torch.from_numpy(part) for part in parts]
    assert load(name).compute(predictions=tensors, references=masks) == EXPECTED[name]


@pytest.mark.parametrize("name", PIXEL_METRICS)
def test_bfloat16_maps_count_as_their_values(name):
    rounded = torch.from_numpy(MAPS).bfloat16()
    expected = load(name).compute(predictions=rounded.float().numpy(), references=MASKS)
    assert load(name).compute(predictions=rounded, references=torch.from_numpy(MASKS)) == expected
    if name in ("pixel_auroc", "pixel_ap"):
        assert expected != EXPECTED[name]


def test_bfloat16_scores_of_images():
    scores = torch.from_numpy(SCORES).bfloat16()
    expected = auroc(scores, LABELS)
    assert load("image_auroc").compute(predictions=scores, references=torch.from_numpy(LABELS)) == {
        "image_auroc": expected
    }


@pytest.mark.parametrize("name", PIXEL_METRICS)
def test_one_process_writes_nothing(name, tmp_path):
    metric = load(name, cache_dir=str(tmp_path))
    metric.add_batch(predictions=MAPS, references=MASKS)
    metric.compute()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", PIXEL_METRICS)
def test_of_a_batch_with_a_bad_value_nothing_is_counted(name):
    metric = load(name)
    metric.add_batch(predictions=MAPS, references=MASKS)
    for predictions, references, reason in (
        ([MAPS[0], np.full((40, 50), np.nan)], MASKS[:2], "NaN"),
        (MAPS[:2], MASKS[:2] * 255, "0 or 1"),
        (MAPS[:2, :, :49], MASKS[:2], "size"),
        (MAPS[:2], MASKS[:1], "2 predictions but 1 references"),
        (MAPS[:2], None, "give references: each sample needs"),
        (None, None, "give predictions and references: each sample needs"),
    ):
        with pytest.raises(ValueError, match=reason):
            metric.add_batch(predictions=predictions, references=references)
    assert len(metric) == 7
    assert metric.compute() == EXPECTED[name]


def test_inputs_options_and_settings_with_typing_errors_are_refused():
    with pytest.raises(ValueError, match=r"unknown inputs \['maps'\]; give predictions and references only"):
        load("pixel_auroc").add_batch(predictions=MAPS, references=MASKS, maps=MAPS)
    with pytest.raises(ValueError, match=r"unknown settings \['limit'\] of Aupro"):
        load("aupro", limit=0.1)
    with pytest.raises(TypeError, match="limits"):
        load("aupro").compute(predictions=MAPS, references=MASKS, limits=0.1)
    with pytest.raises(ValueError, match="limit must be"):
        load("aupro").compute(predictions=MAPS, references=MASKS, limit=30)


@pytest.mark.parametrize("name", ["aupro", "pixel_metrics"])
def test_the_limit_is_part_of_the_name(name):
    found = load(name).compute(predictions=MAPS, references=MASKS, limit=0.1)
    assert found["aupro_0.1"] == pytest.approx(aupro(MAPS, MASKS, limit=0.1), abs=1e-9)
    assert "aupro_0.3" not in found


def test_the_threshold_of_iou_is_given_to_load_or_to_compute():
    expected = EXPECTED["pixel_iou"]
    metric = evaluate.load(str(METRICS / "pixel_iou"))
    assert metric.compute(predictions=MAPS, references=MASKS, threshold=0.6) == expected
    with pytest.raises(ValueError, match=r"threshold: not given; use evaluate.load"):
        metric.add_batch(predictions=MAPS, references=MASKS)
    loaded = load("pixel_iou")
    assert loaded.compute(predictions=MAPS, references=MASKS, threshold=0.9) != expected
    loaded.add_batch(predictions=MAPS, references=MASKS)
    with pytest.raises(ValueError, match="threshold: given after data was added"):
        loaded.compute(threshold=0.9)
    assert loaded.compute() == expected


def test_combine():
    images = evaluate.combine([load(name) for name in IMAGE_METRICS])
    images.add_batch(predictions=SCORES, references=LABELS)
    assert images.compute() == {key: value for name in IMAGE_METRICS for key, value in EXPECTED[name].items()}
    pixels = evaluate.combine({"first": load("pixel_ap"), "second": load("pixel_ap"), "region": load("aupro")})
    for part in (slice(0, 3), slice(3, 7)):
        pixels.add_batch(predictions=MAPS[part], references=MASKS[part])
    ap = EXPECTED["pixel_ap"]["pixel_ap"]
    assert pixels.compute() == {"first_pixel_ap": ap, "second_pixel_ap": ap, **EXPECTED["aupro"]}


@pytest.mark.parametrize("name", ["image_auroc", "image_ap", "f1_max"])
def test_images_of_one_class_have_no_value_and_are_forgotten(name, tmp_path):
    metric = load(name, cache_dir=str(tmp_path))
    for _ in range(2):
        with pytest.raises(UndefinedMetricError, match="all 2 samples are negative"):
            metric.compute(predictions=[0.1, 0.2], references=[0, 0])
    assert metric.compute(predictions=SCORES, references=LABELS) == EXPECTED[name]
    # One lock, released each time: a second would mean that the first was waited for in vain.
    assert [path.suffix for path in tmp_path.rglob("*.*")] == [".lock"]


@pytest.mark.parametrize("name", ["pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro"])
def test_pixels_of_one_class_have_no_value_and_are_forgotten(name):
    metric = load(name)
    for mask, reason in ((0, "negative"), (1, "positive")):
        metric.add_batch(predictions=MAPS, references=np.full_like(MASKS, mask))
        with pytest.raises(UndefinedMetricError, match=reason):
            metric.compute()
    with pytest.raises(UndefinedMetricError, match="no samples"):
        metric.compute()
    assert metric.compute(predictions=MAPS, references=MASKS) == EXPECTED[name]


@pytest.mark.parametrize("name", ["pixel_metrics", "pixel_iou"])
def test_metrics_without_a_value_are_absent_with_a_reason(name):
    found = load(name).compute(predictions=MAPS, references=np.zeros_like(MASKS))
    absent = EXPECTED[name].keys() - found.keys()
    assert absent == found["undefined"].keys() >= ({"recall"} if name == "pixel_iou" else {"pixel_auroc", "aupro_0.3"})
    assert all(found["undefined"].values())


@pytest.mark.parametrize("name", EXPECTED)
def test_several_processes_equal_one(name, tmp_path):
    """Threads stand for the processes; `test_processes` has real ones."""

    n = 3

    def part(process_id: int) -> list[dict | None]:
        metric = load(name, num_process=n, process_id=process_id, cache_dir=str(tmp_path), timeout=60)
        predictions, references = (values[process_id::n] for values in samples(name))
        metric.add_batch(predictions=predictions, references=references)
        return [metric.compute(), metric.compute(predictions=predictions[:], references=references)]

    with ThreadPoolExecutor(n) as pool:
        first, *others = pool.map(part, range(n))
    assert first == [EXPECTED[name]] * 2
    assert others == [[None, None]] * (n - 1)
    assert not [path for path in tmp_path.rglob("*.a*") if path.suffix != ".lock"]


@pytest.mark.parametrize("name", ["pixel_metrics", "image_auroc"])
@pytest.mark.parametrize("with_samples", [0, 1])
def test_a_process_without_samples_adds_nothing(name, with_samples, tmp_path):
    def part(process_id: int) -> dict | None:
        metric = load(name, num_process=2, process_id=process_id, cache_dir=str(tmp_path), timeout=20)
        if process_id == with_samples:
            predictions, references = samples(name)
            metric.add_batch(predictions=predictions, references=references)
        return metric.compute()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(part, range(2))) == [EXPECTED[name], None]


@pytest.mark.parametrize("name", NAMES)
def test_without_samples_every_module_says_so(name, tmp_path):
    metric = load(name, cache_dir=str(tmp_path))
    options = {"base_url": "http://127.0.0.1:9", "model": "none", "record": tmp_path / "record", "progress": False}
    for given in ({"predictions": [], "references": []}, {}):
        metric.add_batch(predictions=[], references=[])
        try:
            found = metric.compute(**given, **(options if name == "judge_score" else {}))
        except UndefinedMetricError as error:
            assert re.fullmatch("no (samples|queries) were given", str(error))
        else:
            # Nothing but counts has a value of nothing.
            assert found.pop("undefined")
            assert not [key for key, value in found.items() if isinstance(value, float)]
    assert len(list(tmp_path.rglob("*.arrow"))) == 0


@pytest.mark.parametrize("name", [*IMAGE_METRICS, "calibration_error"])
def test_scores_are_checked_before_they_wait_among_good_ones(name, tmp_path):
    metric = load(name, cache_dir=str(tmp_path))
    expected = metric.compute(predictions=SCORES, references=LABELS)
    metric.add_batch(predictions=SCORES, references=LABELS)
    for predictions, references, reason in (
        ([0.5, np.nan], [0, 1], "NaN"),
        ([0.5, 0.5], [0, 255], "0 or 1"),
        ([0.5, 0.5], [1], "2 scores but 1 targets"),
    ):
        with pytest.raises(ValueError, match=reason):
            metric.add_batch(predictions=predictions, references=references)
    for prediction, reference in ((np.nan, 1), (0.5, 255), (0.5, None)):
        with pytest.raises(ValueError, match=r"NaN|0 or 1"):
            metric.add(prediction=prediction, reference=reference)
    assert metric.compute() == expected


@pytest.mark.parametrize("name", EXPECTED)
def test_compute_of_a_bad_batch_starts_afresh(name, tmp_path):
    metric = load(name, cache_dir=str(tmp_path))
    predictions, references = samples(name)
    for added in (0, 5):
        metric.add_batch(predictions=predictions[:added], references=references[:added])
        with pytest.raises(ValueError, match="NaN"):
            metric.compute(predictions=np.full_like(predictions, np.nan), references=references)
        assert metric.compute(predictions=predictions, references=references) == EXPECTED[name]
    assert not list(tmp_path.rglob("*.arrow"))


def test_a_failure_leaves_the_file_of_another_module_of_the_same_folder(tmp_path):
    first, second = (load("image_auroc", cache_dir=str(tmp_path)) for _ in range(2))
    first.compute(predictions=SCORES, references=LABELS)
    second.add_batch(predictions=SCORES, references=LABELS)
    with pytest.raises(ValueError, match="NaN"):
        first.compute(predictions=[np.nan], references=[1])
    assert second.compute() == EXPECTED["image_auroc"]


def test_a_bad_batch_does_not_hold_on_to_the_threshold():
    expected = EXPECTED["pixel_iou"]
    metric = load("pixel_iou")
    bad = {"predictions": np.full_like(MAPS, np.nan), "references": MASKS}
    with pytest.raises(ValueError, match="NaN"):
        metric.compute(**bad, threshold=0.9)
    assert metric.compute(predictions=MAPS, references=MASKS) == expected
    unset = evaluate.load(str(METRICS / "pixel_iou"))
    with pytest.raises(ValueError, match="NaN"):
        unset.compute(**bad, threshold=0.9)
    assert unset.compute(predictions=MAPS, references=MASKS, threshold=0.6) == expected
    with pytest.raises(ValueError, match="NaN"):
        metric.add_batch(**bad)
    found = metric.compute(predictions=MAPS, references=MASKS, threshold=0.9)
    assert found == load("pixel_iou").compute(predictions=MAPS, references=MASKS, threshold=0.9) != expected


def test_processes_of_different_thresholds_are_refused(tmp_path):
    def part(process_id: int) -> dict | None:
        settings = {"threshold": 0.5 + process_id, "num_process": 2, "process_id": process_id}
        metric = evaluate.load(str(METRICS / "pixel_iou"), cache_dir=str(tmp_path), **settings)
        return metric.compute(predictions=MAPS, references=MASKS)

    with ThreadPoolExecutor(2) as pool, pytest.raises(ValueError, match=r"threshold 1.5 .* 0.5"):
        list(pool.map(part, range(2)))


@pytest.mark.parametrize("name", ["image_auroc", "pixel_auroc"])
def test_a_missing_process_is_an_error_not_a_partial_result(name, tmp_path):
    metric = load(name, num_process=2, process_id=0, cache_dir=str(tmp_path), timeout=0.1)
    predictions, references = samples(name)
    with pytest.raises(ValueError, match=r"processes \[1\] of 2 did not hand over"):
        metric.compute(predictions=predictions, references=references)
    with pytest.raises(ValueError, match="process_id"):
        load(name, num_process=2, process_id=2)


def test_combine_takes_single_samples():
    images = evaluate.combine([load("image_auroc"), load("image_ap")])
    for score, label in zip(SCORES[:10], LABELS[:10], strict=True):
        images.add(prediction=score, reference=int(label))
    assert images.compute()["image_auroc"] == auroc(SCORES[:10], LABELS[:10])
    pixels = evaluate.combine([load("pixel_auroc"), load("aupro")])
    pixels.add(prediction=MAPS[0], reference=MASKS[0])
    assert pixels.compute()["pixel_auroc"] == auroc(MAPS[0], MASKS[0])
