import numpy as np
import pytest
import torch
from sklearn import metrics
from transformers import AutoModel

from defect_hub.evaluate_metrics.kernels import UndefinedMetricError, aupro
from defect_hub.train.evaluation import (
    Prediction,
    Reference,
    data_fingerprint,
    evaluate_diagnosis,
    evaluate_objects,
    joined,
    pixel_target,
    score_split,
)


@pytest.fixture(scope="module")
def references(rows):
    return [row["image"] for row in rows if not row["is_defective"]][:2]


def best_f1(scores, targets):
    """By trying every score as the threshold."""
    precision, recall, _ = metrics.precision_recall_curve(targets, scores)
    return np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))


@pytest.mark.parametrize("few_shot", [False, True])
def test_metrics_equal_scikit_learn(model, processor, rows, references, few_shot):
    shared = references if few_shot else None
    scores = evaluate_diagnosis(model, processor, rows, shared, batch_size=5, max_new_tokens=4)
    reports = []
    for row in rows:  # one by one, by the way of a user
        inputs = processor(images=[row["image"]], object_names=row["object_name"], reference_images=shared)
        outputs = model.diagnose(**inputs, max_new_tokens=4)
        assert outputs.num_references == (2 if few_shot else 0)
        sizes = [(row["height"], row["width"])]
        reports += processor.post_process_diagnosis(outputs, sizes, threshold=0.5, pixel_threshold=0.5)
    targets = np.array(rows["is_defective"])
    image_scores = np.array([report["score"] for report in reports])
    np.testing.assert_allclose(scores.image_scores, image_scores, atol=1e-5)
    np.testing.assert_array_equal(scores.is_defective, targets)
    pixel_scores = np.concatenate([report["anomaly_map"].ravel() for report in reports])
    masks = [np.asarray(row["mask"]) > 127 for row in rows]
    pixel_targets = np.concatenate([mask.ravel() for mask in masks])
    found = scores.metrics()
    assert found["image_auroc"] == pytest.approx(metrics.roc_auc_score(targets, scores.image_scores))
    assert found["image_ap"] == pytest.approx(metrics.average_precision_score(targets, scores.image_scores))
    # The maps of a batch differ from those one by one in their last bits.
    assert found["pixel_auroc"] == pytest.approx(metrics.roc_auc_score(pixel_targets, pixel_scores), abs=2e-3)
    assert found["pixel_ap"] == pytest.approx(metrics.average_precision_score(pixel_targets, pixel_scores), abs=2e-3)
    assert found["aupro_0.3"] == pytest.approx(aupro([report["anomaly_map"] for report in reports], masks), abs=2e-3)
    assert found["pixel_iou_max"] == pytest.approx(found["pixel_f1_max"] / (2 - found["pixel_f1_max"]))
    assert found["image_f1_max"] == pytest.approx(best_f1(scores.image_scores, targets))
    assert found["pixel_f1_max"] == pytest.approx(best_f1(pixel_scores, pixel_targets), abs=2e-3)
    generated = [report["text_source"] == "language model" for report in reports]
    assert any(generated)
    assert scores.descriptions == [
        report["description"] if own else "" for report, own in zip(reports, generated, strict=True)
    ]
    assert found["unparsed"] == 1  # an untrained model says neither yes nor no
    assert found["description_accuracy"] == 0


@pytest.mark.parametrize("mode", ["max", "cls", "mean"])
def test_each_kind_of_image_score_comes_from_one_pass(tiny_checkpoint, processor, rows, mode):
    other = AutoModel.from_pretrained(tiny_checkpoint, image_score=mode).eval()
    scores = evaluate_diagnosis(other, processor, rows.select(range(4)), describe=False)
    assert scores.by_mode.keys() == {"max", "cls", "mean"}
    np.testing.assert_allclose(scores.by_mode[mode], scores.image_scores, rtol=1e-6)


def test_spread_over_single_references(model, processor, rows, references, monkeypatch):
    assert evaluate_diagnosis(model, processor, rows.select(range(2)), describe=False).score_stds is None
    alone = torch.tensor([[0.1, 0.3], [0.5, 0.5]])
    plain = model.diagnose

    def diagnose(**inputs):
        outputs = plain(**inputs)
        outputs["reference_scores"] = alone[: len(outputs.image_scores)]
        return outputs

    monkeypatch.setattr(model, "diagnose", diagnose)
    scores = evaluate_diagnosis(model, processor, rows.select(range(2)), references, describe=False)
    np.testing.assert_allclose(scores.score_stds, np.std(alone.numpy(), axis=1, ddof=1), atol=1e-6)
    assert scores.num_references == len(references)
    assert joined([scores, scores]).score_stds.shape == (4,)


def test_each_object_has_its_own_references(model, processor, rows, references):
    names = ["plate" if index % 2 else "tile" for index in range(len(rows))]
    apart = rows.remove_columns("object_name").add_column("object_name", names)
    shown = [Reference(str(index), frozenset(), image) for index, image in enumerate(references)]
    seen = []
    scores = evaluate_objects(
        model,
        processor,
        apart,
        {"plate": shown[:1], "tile": shown[1:], "none": shown},
        False,
        lambda *a: seen.append(a),
    )
    assert [row["object_name"] for row, *_ in seen] == sorted(names)
    plates = apart.select([index for index, name in enumerate(names) if name == "plate"])
    alone = evaluate_diagnosis(model, processor, plates, references[:1], describe=False)
    np.testing.assert_allclose(scores.image_scores[: len(plates)], alone.image_scores)


IMAGE_METRICS = {"image_auroc", "image_ap", "image_f1_max"}
PIXEL_METRICS = {"pixel_auroc", "pixel_ap", "pixel_f1_max", "pixel_iou_max", "aupro_0.3"}


def test_no_descriptions_no_description_accuracy(model, processor, rows):
    found = evaluate_diagnosis(model, processor, rows, describe=False)
    assert found.metrics().keys() == IMAGE_METRICS | PIXEL_METRICS
    assert found.undefined() == {}


def test_metrics_of_one_class_are_left_out_with_the_reason(model, processor, rows):
    normal = rows.filter(lambda value: value is False, input_columns="is_defective")
    scores = evaluate_diagnosis(model, processor, normal, max_new_tokens=4)
    assert scores.metrics() == {"description_accuracy": 0, "description_specificity": 0, "unparsed": 1}
    assert scores.undefined().keys() == IMAGE_METRICS | PIXEL_METRICS | {"description_recall"}
    assert scores.undefined()["image_auroc"] == f"all {len(normal)} samples are negative (normal)"
    with pytest.raises(
        UndefinedMetricError, match=r"aupro_0\.3: all \d+ samples are negative \(normal\)\. Evaluate on"
    ):
        scores.metric("aupro_0.3")


def test_without_pixel_annotation_image_metrics_remain(model, processor, rows):
    bare = rows.map(lambda row: {"mask": None}, features=rows.features)
    scores = evaluate_diagnosis(model, processor, bare, describe=False)
    assert scores.metrics().keys() == IMAGE_METRICS
    assert scores.undefined().keys() == PIXEL_METRICS


def test_a_split_without_known_labels_is_refused(model, processor, rows):
    unknown = rows.map(lambda row: {"is_defective": None}, features=rows.features)
    with pytest.raises(ValueError, match="is_defective: unknown for every image"):
        evaluate_diagnosis(model, processor, unknown, describe=False)


def test_observer_sees_each_image_with_its_map_and_target(rows):
    seen = []

    def predict(batch):
        values = torch.tensor([float(row["height"]) for row in batch])
        return Prediction(values, torch.stack([torch.tensor([[value, 0.0]]) for value in values]), [])

    scores = score_split(predict, rows, 5, lambda *found: seen.append(found))
    assert [row["image_id"] for row, *_ in seen] == rows["image_id"][:]
    for (row, score, anomaly_map, target), expected in zip(seen, scores.image_scores, strict=True):
        assert score == expected
        assert anomaly_map.shape == (row["height"], row["width"])
        assert anomaly_map[0, 0] == row["height"]
        np.testing.assert_array_equal(target, pixel_target(row))


def test_joined_parts_are_the_whole(model, processor, rows):
    whole = evaluate_diagnosis(model, processor, rows, batch_size=4, max_new_tokens=4)
    parts = [rows.select(range(4)), rows.select(range(4, len(rows)))]
    both = joined([evaluate_diagnosis(model, processor, part, batch_size=4, max_new_tokens=4) for part in parts])
    assert both.metrics() == whole.metrics()
    assert both.descriptions == whole.descriptions
    np.testing.assert_array_equal(both.image_scores, whole.image_scores)


def test_evaluation_leaves_no_trace_in_the_weights(model, processor, rows):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate_diagnosis(model, processor, rows.select(range(3)), describe=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_fingerprint_depends_on_the_images_alone(rows):
    assert data_fingerprint(rows) == data_fingerprint(rows.shuffle(seed=1).select_columns("sha256"))
    assert data_fingerprint(rows) != data_fingerprint(rows.select(range(len(rows) - 1)))


def test_pixel_target(rows):
    defective = next(row for row in rows if row["is_defective"])
    assert pixel_target(defective).shape == (defective["height"], defective["width"])
    assert pixel_target(defective).any()
    assert pixel_target(defective | {"mask": None}) is None
    clean = pixel_target({"mask": None, "is_defective": False, "height": 3, "width": 5})
    assert clean.shape == (3, 5)
    assert not clean.any()
