import math
import statistics
from datetime import UTC, datetime
from fractions import Fraction
from importlib.metadata import version

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_recall_curve
from transformers import AutoModel, AutoProcessor

from defect_hub.evaluate_metrics.kernels import PixelScores
from defect_hub.train.calibration import (
    apart,
    calibrate,
    calibrate_trained,
    choose_thresholds,
    images_needed,
    set_image_score,
    weights_digest,
)
from defect_hub.train.data import draw_references, load_split
from defect_hub.train.evaluation import DiagnosisScores, Reference, data_fingerprint, evaluate_diagnosis


@pytest.fixture
def processor(tiny_checkpoint):
    """One that a test may change."""
    return AutoProcessor.from_pretrained(tiny_checkpoint)


@pytest.fixture
def model(tiny_checkpoint):
    return AutoModel.from_pretrained(tiny_checkpoint, dtype="float32").eval()


def synthetic(labels, image_scores, maps=None, masks=None):
    labels = np.asarray(labels, dtype=bool)
    maps = np.asarray(image_scores, np.float32)[:, None, None] * np.ones((1, 8, 8)) if maps is None else maps
    pixels = PixelScores()
    pixels.update(maps, np.zeros(maps.shape, bool) if masks is None else masks)
    return DiagnosisScores(np.asarray(image_scores, np.float32), labels, pixels)


def best_by_curve(scores, targets):
    precision, recall, thresholds = precision_recall_curve(targets, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return f1.max(), thresholds


def test_f1_thresholds_reach_the_best_of_scikit_learns_curve():
    rng = np.random.default_rng(0)
    labels = rng.random(60) < 0.4
    maps, masks = rng.random((60, 8, 8)).astype(np.float32), rng.random((60, 8, 8)) < 0.1
    maps[masks] += 0.2
    scores = synthetic(labels, 0.3 * labels + 0.7 * rng.random(60), maps, masks & labels[:, None, None])
    found = choose_thresholds(scores, None, int((~labels).sum()))
    for level, values, targets in (
        ("image", scores.image_scores, labels),
        ("pixel", maps.ravel(), (masks & labels[:, None, None]).ravel()),
    ):
        best, thresholds = best_by_curve(values, targets)
        assert np.isclose(thresholds, found[level], rtol=0, atol=1e-9).any()
        assert f1_score(targets, values >= np.float32(found[level])) == pytest.approx(best)


@pytest.mark.parametrize("quantile", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_images_needed_is_the_fewest_for_which_the_rank_exists(quantile):
    exact, n = Fraction(str(quantile)), images_needed(quantile)
    assert math.ceil(exact * (n + 1)) <= n
    assert math.ceil(exact * n) > n - 1
    assert images_needed(0.99) == 99


@pytest.mark.parametrize("n", [19, 20, 57, 100, 150, 399])
@pytest.mark.parametrize("quantile", [0.8, 0.95])
def test_quantile_thresholds(n, quantile):
    values = np.random.default_rng(n).random(n).astype(np.float32)
    found = choose_thresholds(synthetic(np.zeros(n), values), quantile, n)
    alarms = values >= np.float32(found["image"])
    assert alarms.mean() <= 1 - quantile + 1e-12
    rank = math.ceil(Fraction(str(quantile)) * (n + 1))
    ordered = np.sort(values)
    assert alarms.sum() == n - rank
    assert np.float32(found["image"]) > ordered[rank - 1] >= np.quantile(values, quantile, method="higher")
    below = np.quantile(np.repeat(values, 64), quantile, method="inverted_cdf")
    assert np.float32(found["pixel"]) == np.nextafter(below, np.float32(1))


def test_the_promise_holds_for_images_that_come_later():
    rng, n, quantile, alarms = np.random.default_rng(1), 40, 0.9, []
    for _ in range(400):
        scores = rng.random(n + 1).astype(np.float32)
        threshold = choose_thresholds(synthetic(np.zeros(n), scores[:n]), quantile, n)["image"]
        alarms.append(scores[n] >= np.float32(threshold))
    # Exactly (n + 1 - rank) / (n + 1) = 4 / 41 for exchangeable scores; four standard errors either side.
    assert np.mean(alarms) == pytest.approx(4 / 41, abs=0.06)


def test_normal_images_at_the_top_of_the_scale_are_refused():
    with pytest.raises(ValueError, match="image threshold by quantile: normal images reach the score 1"):
        choose_thresholds(synthetic(np.zeros(20), np.ones(20)), 0.9, 20)


def test_f1_without_masks_is_refused():
    scores = synthetic([0, 1], [0.1, 0.9])
    with pytest.raises(ValueError, match=r"pixel threshold by F1: all 128 samples.*--method quantile"):
        choose_thresholds(scores, None, 1)


def drawn(rows, indices):
    references = [Reference.of(rows[index]) for index in indices]
    return dict.fromkeys(set(rows["object_name"]), references)


def test_thresholds_are_those_of_all_draws_together(model, processor, rows, steelsynth):
    train = load_split(str(steelsynth), "train")
    normal = [index for index, value in enumerate(train["is_defective"]) if value is False]
    draws = [drawn(train, normal[:2]), drawn(train, normal[2:4])]
    passes = calibrate(model, processor, rows, draws, data="steelsynth", split="val")
    assert [len(passes[name]) for name in ("zero_shot", "few_shot")] == [1, 2]
    assert all(draw.num_references == 2 for draw in passes["few_shot"])
    leaf = processor.calibration["few_shot"]["image"]
    pooled = np.concatenate([draw.image_scores for draw in passes["few_shot"]])
    labels = np.concatenate([draw.is_defective for draw in passes["few_shot"]])
    best, _ = best_by_curve(pooled, labels)
    assert f1_score(labels, pooled >= np.float32(leaf["value"])) == pytest.approx(best)
    n_normal = rows["is_defective"][:].count(False)
    single = [choose_thresholds(draw, None, n_normal) for draw in passes["few_shot"]]
    for level in ("image", "pixel"):
        assert processor.calibration["few_shot"][level]["std"] == statistics.stdev(draw[level] for draw in single)
        assert processor.calibration["zero_shot"][level]["std"] is None
    ids = train["image_id"]
    (name,) = set(rows["object_name"])
    assert {key: value for key, value in leaf.items() if key not in ("value", "std", "date")} == {
        "method": "f1_max",
        "quantile": None,
        "n_normal": n_normal,
        "n_anomalous": len(rows) - n_normal,
        "num_references": 2,
        "num_draws": 2,
        "references": [{name: [ids[index] for index in part]} for part in (normal[:2], normal[2:4])],
        "data_fingerprint": data_fingerprint(rows),
        "data": "steelsynth",
        "split": "val",
        "image_score": model.config.image_score,
        "weights_digest": weights_digest(model),
        "version": version("defect-hub"),
    }
    assert abs((datetime.now(UTC).date() - datetime.fromisoformat(leaf["date"]).date()).days) <= 1
    assert processor.calibration["zero_shot"]["image"]["references"] == [{}]


def test_quantile_leaves_out_defective_images_and_references(model, processor, rows):
    normal = [index for index, value in enumerate(rows["is_defective"]) if value is False]
    draw = drawn(rows, normal[:1])
    passes = calibrate(model, processor, rows, [draw], quantile=0.5)
    (zero,), (few,) = passes["zero_shot"], passes["few_shot"]
    assert not zero.is_defective.any()
    assert len(zero.image_scores) == len(normal)
    assert len(few.image_scores) == len(normal) - 1
    leaf = processor.calibration["few_shot"]["image"]
    assert (leaf["method"], leaf["quantile"], leaf["n_normal"], leaf["n_anomalous"]) == (
        "quantile",
        0.5,
        len(normal) - 1,
        0,
    )
    assert apart(rows, draw)["image_id"][:] == [
        row for index, row in enumerate(rows["image_id"]) if index != normal[0]
    ]


def test_a_published_copy_of_a_reference_is_left_out_too(rows):
    source = rows[0]["sha256"]
    renamed = rows.select([0, 1]).remove_columns("sha256").add_column("sha256", ["a", "b"])
    if "source_sha256" in renamed.column_names:
        renamed = renamed.remove_columns("source_sha256")
    renamed = renamed.add_column("source_sha256", [source, "c"])
    reference = Reference("ok.png", frozenset([source]), rows[0]["image"])
    assert apart(renamed, {"steel": [reference]})["sha256"][:] == ["b"]


@pytest.mark.parametrize(
    ("kept", "quantile", "message"),
    [
        (False, None, r"threshold by F1: needs normal and defective images, found \d and 0\..*--method quantile"),
        (True, None, r"threshold by F1: needs normal and defective images, found 0 and \d"),
        (False, 0.99, r"quantile 0\.99: needs at least 99 normal images, found (\d).*at most 0\.\d+ with these"),
    ],
)
def test_too_few_images_are_refused_and_nothing_changes(model, processor, rows, kept, quantile, message):
    before = processor.calibration
    part = rows.filter(lambda value: value is kept, input_columns="is_defective")
    with pytest.raises(ValueError, match=message):
        calibrate(model, processor, part, quantile=quantile)
    assert processor.calibration is before


def test_another_image_score_voids_the_thresholds(model, processor):
    before = processor.calibration
    set_image_score(model, processor, model.config.image_score)
    assert processor.calibration is before
    set_image_score(model, processor, "cls")
    assert model.config.image_score == "cls"
    assert processor.calibration is None


def test_thresholds_of_a_protocol_not_measured_stay(model, processor, rows):
    few_shot = processor.calibration["few_shot"]
    calibrate(model, processor, rows)
    assert processor.calibration["few_shot"] is few_shot
    assert processor.calibration["zero_shot"]["image"]["data_fingerprint"] == data_fingerprint(rows)


def test_a_filled_memory_bank_that_nobody_names_is_not_used(tiny_checkpoint, processor, rows):
    model = AutoModel.from_pretrained(tiny_checkpoint, memory_capacity=2).eval()
    normal = rows.filter(lambda value: value is False, input_columns="is_defective")
    model.remember(processor.pixel_values(list(normal.select(range(2))["image"])))
    few_shot = processor.calibration["few_shot"]
    assert calibrate(model, processor, normal, quantile=0.5).keys() == {"zero_shot"}
    assert processor.calibration["zero_shot"]["image"]["num_references"] == 0
    assert processor.calibration["few_shot"] is few_shot


def test_trained_weights_get_both_protocols_and_lose_earlier_thresholds(model, processor, rows, steelsynth):
    train = load_split(str(steelsynth), "train")
    processor.calibration["other"] = {}
    few = rows.select(range(6))
    calibrate_trained(model, processor, few, train, num_references=2, seed=3)
    assert processor.calibration.keys() == {"zero_shot", "few_shot"}
    [indices] = draw_references(train, 2, 1, seed=3)
    scores = evaluate_diagnosis(model, processor, few, list(train.select(indices)["image"]), describe=False)
    n_normal = int((~scores.is_defective).sum())
    expected = choose_thresholds(scores, None, n_normal)
    found = {level: leaf["value"] for level, leaf in processor.calibration["few_shot"].items()}
    assert found == pytest.approx(expected)
    calibrate_trained(model, processor, few, train, num_references=0, seed=3)
    assert processor.calibration.keys() == {"zero_shot"}


def of_objects(rows, names):
    return rows.remove_columns("object_name").add_column("object_name", names)


@pytest.mark.parametrize("tiles", ["normal", "one normal", "defective"])
def test_each_object_is_calibrated_with_references_of_its_own(model, processor, rows, steelsynth, capsys, tiles):
    """Plates and tiles; of the latter there are many, one or no normal training images."""
    train = load_split(str(steelsynth), "train")
    kept = {"normal": 99, "one normal": 1, "defective": 0}[tiles]
    names, tile_count = [], 0
    for number, defective in enumerate(train["is_defective"]):
        tile = number % 2 == 0 and (defective or tile_count < kept)
        tile_count += tile and not defective
        names.append("tile" if tile else "plate")
    train = of_objects(train, names)
    rows = of_objects(rows, ["tile" if number % 3 else "plate" for number in range(len(rows))])
    assert {True, False} == {
        d for d, name in zip(rows["is_defective"], rows["object_name"], strict=True) if name == "plate"
    }
    calibrate_trained(model, processor, rows, train, num_references=2, seed=3)
    leaf = processor.calibration["few_shot"]["image"]
    [used] = leaf["references"]
    object_of = dict(
        zip(train["image_id"], zip(train["object_name"], train["is_defective"], strict=True), strict=True)
    )
    assert {name: len(ids) for name, ids in used.items()} == {"plate": 2} | ({"tile": min(kept, 2)} if kept else {})
    assert all(object_of[image] == (name, False) for name, ids in used.items() for image in ids)
    plates = rows["object_name"][:].count("plate")
    assert leaf["n_normal"] + leaf["n_anomalous"] == (len(rows) if kept else plates)
    zero_shot = processor.calibration["zero_shot"]["image"]
    assert zero_shot["n_normal"] + zero_shot["n_anomalous"] == len(rows)
    said = "few-shot thresholds: without tile, of which there is no normal training image"
    assert (said in capsys.readouterr().out) is (kept == 0)


def test_no_few_shot_thresholds_where_objects_with_references_lack_a_class(model, processor, rows, steelsynth, capsys):
    train = load_split(str(steelsynth), "train")
    train = of_objects(train, ["tile" if defective else "plate" for defective in train["is_defective"]])
    rows = of_objects(rows, ["tile" if defective else "plate" for defective in rows["is_defective"]])
    calibrate_trained(model, processor, rows, train, num_references=2, seed=3)
    assert processor.calibration.keys() == {"zero_shot"}
    assert "few-shot thresholds: none, as the objects with references have" in capsys.readouterr().out


def test_weights_digest_is_of_the_weights_alone(model, tiny_checkpoint):
    digest = weights_digest(model)
    assert weights_digest(AutoModel.from_pretrained(tiny_checkpoint, dtype="bfloat16")) == digest
    model.config.image_score = "max"
    assert weights_digest(model) == digest
    with torch.no_grad():
        next(iter(model.parameters())).mul_(1.5)
    assert weights_digest(model) != digest


def test_bfloat16_weights_give_float32_thresholds_nearby(model, processor, tiny_checkpoint, rows):
    calibrate(model, processor, rows, quantile=0.5)
    expected = processor.calibration["zero_shot"]
    half = AutoModel.from_pretrained(tiny_checkpoint, dtype="bfloat16").eval()
    (scores,) = calibrate(half, processor, rows, quantile=0.5)["zero_shot"]
    assert scores.image_scores.dtype == np.float32
    # A bfloat16 has 8 bits: of twelve scores in [0, 1], some would coincide.
    assert not np.array_equal(scores.image_scores, torch.from_numpy(scores.image_scores).bfloat16().float().numpy())
    for level, leaf in processor.calibration["zero_shot"].items():
        assert leaf["value"] == pytest.approx(expected[level]["value"], abs=0.05)
