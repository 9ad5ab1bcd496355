import numpy as np
import pytest
import torch
from sklearn import metrics

from defect_hub.evaluate_metrics.kernels.inputs import UndefinedMetricError
from defect_hub.train.evaluation import data_fingerprint, evaluate_diagnosis, pixel_target


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
    pixel_targets = np.concatenate([np.asarray(row["mask"]).ravel() > 127 for row in rows])
    found = scores.metrics()
    assert found["image_auroc"] == pytest.approx(metrics.roc_auc_score(targets, scores.image_scores))
    assert found["pixel_auroc"] == pytest.approx(metrics.roc_auc_score(pixel_targets, pixel_scores), abs=2e-3)
    assert found["image_f1_max"] == pytest.approx(best_f1(scores.image_scores, targets))
    assert found["pixel_f1_max"] == pytest.approx(best_f1(pixel_scores, pixel_targets), abs=2e-3)
    assert scores.descriptions == [report["description"] for report in reports]
    assert found["unparsed"] == 1  # an untrained model says neither yes nor no
    assert found["description_accuracy"] == 0


def test_thresholds_separate_as_well_as_f1_max_says(model, processor, rows):
    scores = evaluate_diagnosis(model, processor, rows, describe=False)
    fingerprint = data_fingerprint(rows)
    thresholds = scores.thresholds(fingerprint)
    assert thresholds["image"] | {"value": 0} == {
        "method": "f1_max",
        "n_normal": rows["is_defective"].count(False),
        "n_anomalous": rows["is_defective"].count(True),
        "data_fingerprint": fingerprint,
        "value": 0,
    }
    verdicts = scores.image_scores >= thresholds["image"]["value"]
    assert metrics.f1_score(scores.is_defective, verdicts) == pytest.approx(scores.metrics()["image_f1_max"])


def test_no_descriptions_no_description_accuracy(model, processor, rows):
    found = evaluate_diagnosis(model, processor, rows, describe=False).metrics()
    assert found.keys() == {"image_auroc", "pixel_auroc", "image_f1_max", "pixel_f1_max"}


def test_one_class_has_no_auroc(model, processor, rows):
    normal = rows.filter(lambda value: value is False, input_columns="is_defective")
    with pytest.raises(UndefinedMetricError):
        evaluate_diagnosis(model, processor, normal, describe=False).metrics()


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
