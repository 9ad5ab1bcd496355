"""COCO metrics of detections against pycocotools, and precision and recall against counting box by box."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pycocotools.coco import COCO

from defect_hub.dataset_scripts.export import export_detection
from defect_hub.dataset_scripts.mmio.build import build_mmio
from defect_hub.dataset_scripts.mmio.collection import collect
from defect_hub.evaluate_metrics.coco import CocoDetections
from tests.evaluate_metrics.detections import KEYS, KINDS, Item, at_best_f1, draw, evaluated, with_pycocotools

BOX = [10.0, 20.0, 30.0, 40.0]
OBJECTS = {"bbox": [BOX], "category": [0], "area": [1200.0]}
DETECTION = {"boxes": [[10.0, 20.0, 40.0, 60.0]], "scores": [0.9], "labels": [0]}
NOTHING: Item = {"boxes": [], "scores": [], "labels": []}


def of(predictions: list[Item], references: list[Item], **settings: Any) -> CocoDetections:
    state = CocoDetections(**settings)
    state.update(predictions, references)
    return state


def one(prediction: Item = DETECTION, objects: Item = OBJECTS, image_id: int | str = 1) -> tuple[list, list]:
    return [prediction], [{"image_id": image_id, "objects": objects}]


def with_objects(**changes: Any) -> tuple[list, list]:
    return one(objects=OBJECTS | changes)


def with_detection(**changes: Any) -> tuple[list, list]:
    return one(DETECTION | changes)


def equal_states(first: CocoDetections, second: CocoDetections) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return all(np.array_equal(one[name], other[name], equal_nan=one[name].dtype.kind == "f") for name in one | other)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", KINDS)
def test_equals_pycocotools(name, seed):
    kind = KINDS[name]
    predictions, references = draw(kind, seed)
    expected, per_class = with_pycocotools(predictions, references, kind.classes)
    names = [f"class {number}" for number in range(kind.classes)]
    result = of(predictions, references, class_names=names).compute()
    assert {key: result[key] for key in KEYS if key in result} == pytest.approx(expected, abs=1e-9)
    assert set(KEYS) - expected.keys() == set(KEYS) & set(result.get("undefined", ()))
    classes = {f"class {number}": value for number, value in enumerate(per_class) if value > -1}
    assert result["class_ap"] == pytest.approx(classes, abs=1e-9)


@pytest.mark.parametrize("name", KINDS)
def test_precision_and_recall_equal_counting_at_every_score(name):
    predictions, references = draw(KINDS[name], seed=7)
    expected = at_best_f1(predictions, references)
    result = of(predictions, references).compute()
    for key in ("precision", "recall", "f1", "threshold"):
        if expected:
            assert result[key] == pytest.approx(expected[key], abs=1e-9)
        else:
            assert key not in result and result["undefined"][key]


def test_random_data_reaches_every_branch():
    """The kinds would prove little if their detections were all wrong or all right."""
    result = of(*draw(KINDS["crowds"])).compute()
    assert 0.1 < result["ap"] < 0.9 and 0.2 < result["precision"] < 0.99 and 0.2 < result["recall"] < 0.99
    assert max((row["labels"] == 0).sum() for row in draw(KINDS["many detections"])[0]) > 100
    assert {0, 1} <= {min(len(row["objects"]["bbox"]), 1) for row in draw(KINDS["plain"])[1]}


def test_a_later_match_at_a_stricter_iou_does_not_count_at_half():
    """The second detection fits better; at IoU 0.5 the first takes the object, at 0.75 the second."""
    boxes = [[0, 0, 100, 60], [0, 0, 100, 95]]
    prediction = {"boxes": boxes, "scores": [0.9, 0.8], "labels": [0, 0]}
    objects = {"bbox": [[0, 0, 100, 100]], "category": [0], "area": [10_000]}
    result = of(*one(prediction, objects)).compute()
    assert result["precision"] == 1 and result["threshold"] == 0.9
    assert result["ap_50"] == pytest.approx(1) and result["ap_75"] == pytest.approx(0.5)


def test_false_alarms_on_normal_images_count():
    clean = of(*one())
    noisy = of(*one())
    noisy.update(*one(DETECTION | {"scores": [0.95]}, {"bbox": [], "category": [], "area": []}, image_id=2))
    assert clean.compute()["ap"] == pytest.approx(1)
    assert noisy.compute()["ap"] == pytest.approx(0.5)
    assert noisy.compute()["precision"] == pytest.approx(0.5) and noisy.n_images == 2


@pytest.mark.parametrize("name", ["plain", "ties in scores", "crowds", "many detections, ties, crowds"])
def test_order_batches_and_merges_do_not_matter(name):
    predictions, references = draw(KINDS[name])
    single = of(predictions, references)
    order = np.random.default_rng(1).permutation(len(predictions))
    shuffled = CocoDetections()
    for number in order:
        shuffled.update([predictions[number]], [references[number]])
    parts = [of(predictions[start::3], references[start::3]) for start in range(3)]
    merged = CocoDetections.from_bytes(parts[2].to_bytes())
    for part in parts[:2]:
        merged.merge(CocoDetections.from_bytes(part.to_bytes()))
    assert equal_states(single, shuffled) and equal_states(single, merged)
    assert single.compute() == shuffled.compute() == merged.compute()


def test_merge_with_nothing_and_state_of_nothing():
    predictions, references = draw(KINDS["plain"])
    state, empty = of(predictions, references), CocoDetections()
    before = state.compute()
    state.merge(CocoDetections.from_bytes(empty.to_bytes()))
    assert state.compute() == before
    empty.merge(state)
    assert empty.compute() == before


def test_a_restored_state_keeps_its_settings():
    settings = {
        "class_names": ["a", "b"],
        "novel_names": ["b"],
        "prediction_format": "xywh",
        "reference_format": "xyxy",
    }
    state = CocoDetections.from_bytes(CocoDetections(**settings).to_bytes())
    assert {name: getattr(state, name) for name in settings} == settings


def test_images_repeated_by_a_sampler_count_once():
    predictions, references = draw(KINDS["plain"])
    references = [row | {"image_id": f"image {row['image_id']}"} for row in references]
    state = of(predictions, references)
    before = state.compute()
    state.update(predictions[:5] + predictions[:5], references[:5] + references[:5])
    state.merge(of(predictions[3:9], references[3:9]))
    assert state.n_images == len(predictions) and state.compute() == before


def test_one_image_with_two_results_is_refused_and_nothing_added():
    state = of(*one(image_id="a"))
    before = state.compute()
    other = one(DETECTION | {"scores": [0.8]}, image_id="a")
    with pytest.raises(
        ValueError, match="image 'a' was added before with other boxes; each image needs an id of its own"
    ):
        state.update([DETECTION, *other[0]], [*one(image_id="b")[1], *other[1]])
    with pytest.raises(ValueError, match="image 'a' was added before"):
        state.merge(of(*other))
    assert state.n_images == 1 and state.compute() == before


def test_takes_tensors_of_any_type_and_lists():
    arrays, references = draw(KINDS["plain"])
    tensors = [{name: torch.from_numpy(np.asarray(value)) for name, value in row.items()} for row in arrays]
    lists = [{name: value.tolist() for name, value in row.items()} for row in arrays]
    rows = [
        {"image_id": r["image_id"], "objects": {k: v.tolist() for k, v in r["objects"].items()}} for r in references
    ]
    expected = of(arrays, references).compute()
    assert of(tensors, rows).compute() == of(lists, rows).compute() == expected
    half = one({"boxes": torch.tensor(DETECTION["boxes"], dtype=torch.bfloat16), "scores": [0.5], "labels": [0]})
    assert of(*half).compute()["ap"] == pytest.approx(1)


def test_formats_are_what_they_are_said_to_be():
    predictions, references = draw(KINDS["plain"])
    as_xywh = [
        row | {"boxes": np.hstack([row["boxes"][:, :2], np.float64(row["boxes"])[:, 2:] - row["boxes"][:, :2]])}
        for row in predictions
    ]
    expected = of(predictions, references).compute()
    assert of(as_xywh, references, prediction_format="xywh").compute() == expected
    corners = [
        {
            **row,
            "objects": {
                **row["objects"],
                "bbox": row["objects"]["bbox"] + np.pad(row["objects"]["bbox"][:, :2], ((0, 0), (2, 0))),
            },
        }
        for row in references
    ]
    assert of(predictions, corners, reference_format="xyxy").compute()["ap"] == pytest.approx(expected["ap"], abs=1e-6)
    with pytest.raises(ValueError, match="box format 'cxcywh' is unknown; choose one of xyxy, xywh"):
        CocoDetections(prediction_format="cxcywh")


@pytest.mark.parametrize("share", [0, 2, 5])
def test_base_and_novel_classes(share):
    predictions, references = draw(KINDS["plain"])
    for row in references:
        row["objects"]["is_novel"] = row["objects"]["category"] < share
    names = list("abcde")
    result = of(predictions, references, class_names=names).compute()
    for group, part in (("novel", names[:share]), ("base", names[share:])):
        if part:
            assert result[f"ap_{group}"] == pytest.approx(np.mean([result["class_ap"][name] for name in part]))
        else:
            assert result["undefined"][f"ap_{group}"] == f"no reference has a box of a {group} class"
    for row in references:
        row["objects"]["is_novel"] = [None] * len(row["objects"]["category"])
    unknown = of(predictions, references, class_names=names).compute()
    assert not {"ap_base", "ap_novel"} & {*unknown, *unknown.get("undefined", ())}
    if share:
        named = of(predictions, references, class_names=names, novel_names=names[:share]).compute()
        assert {key: named.get(key) for key in ("ap_base", "ap_novel")} == {
            key: result.get(key) for key in ("ap_base", "ap_novel")
        }


def test_what_has_no_value_is_absent_with_a_reason():
    result = of(*one(), class_names=["crack"]).compute()
    assert result["class_ap"] == {"crack": pytest.approx(1)}
    assert result["undefined"] == {
        "ap_small": "no reference has a small box",
        "ar_small": "no reference has a small box",
        "ap_large": "no reference has a large box",
        "ar_large": "no reference has a large box",
    }
    result = of(*one(NOTHING)).compute()
    assert result["ap"] == result["ar_100"] == 0
    assert result["undefined"]["precision"] == "no detection is of a class that has boxes"
    assert CocoDetections().compute()["undefined"]["ap"] == "no reference has a box that is not a crowd"


BAD = [
    (with_detection(boxes=[[40, 20, 10, 60]]), "image 1: prediction boxes as xyxy must have x2 >= x1 .* number 0 is"),
    (with_detection(boxes=[[10, 60, 40, 20]]), "as xyxy must have"),
    (with_detection(boxes=[[10, 20, np.nan, 60]]), "image 1: prediction boxes must be finite and within 1e5 px"),
    (with_detection(boxes=[[10, 20, 2e5, 60]]), "within 1e5 px; number 0 is"),
    (with_detection(boxes=[[1, 2, 3, 4, 5]]), r"must be of shape \(N, 4\), got \(1, 5\)"),
    (with_detection(boxes=[[1, 2, 3, 4], [1, 2]]), "prediction boxes must be an array of numbers"),
    (with_detection(scores=[0.9, 0.8]), "image 1: 2 scores but 1 boxes"),
    (with_detection(scores=[np.inf]), "image 1: scores must be finite; number 0 is inf"),
    (with_detection(labels=["crack"]), "image 1: labels must be an array of numbers"),
    (with_detection(labels=[2]), "image 1: labels must be whole numbers from 0 to 1, one for each class name"),
    (with_detection(labels=[-1]), "labels must be whole"),
    (with_detection(labels=[0.5]), "labels must be whole"),
    (with_objects(bbox=[[10, 20, -3, 40]]), "image 1: reference boxes as xywh must have no negative"),
    (with_objects(bbox=[[10, 20, 0, 40]]), "image 1: reference boxes must have a width and a height above 0"),
    (with_objects(bbox=[[0.1, 0.2, 0.3, 0.4]]), "must be in pixels; multiply relative ones"),
    (with_objects(area=[-1]), "image 1: area must be from 0 to 1e10 px"),
    (with_objects(area=[np.nan]), "area must be"),
    (with_objects(category=[7]), "image 1: category must be whole numbers from 0 to 1"),
    (with_objects(iscrowd=[2]), "image 1: iscrowd must be 0 or 1"),
    (with_objects(is_novel=[0.5]), "image 1: is_novel must be 0, 1 or None"),
    (with_objects(is_novel=[]), "image 1: 0 is_novel but 1 boxes"),
    (one(objects={"bbox": [BOX], "category": [0]}), "image 1: 'area' is missing; found 'bbox', 'category'"),
    (one({"boxes": [], "scores": []}), "image 1: 'labels' is missing"),
    (one(image_id=1.5), "image_id must be a whole number or a text, got 1.5"),  # type: ignore[arg-type]
    (one(image_id=2**63), "image_id 9223372036854775808 does not fit in 64 bits; give it as a text"),
    (one(image_id="1\0"), r"image_id: '1\\x00' ends in a null character"),
    (one(image_id="1"), "image_id: numbers and texts are mixed"),
    (([DETECTION], [{"image_id": 1}]), "a reference lacks objects; found image_id"),
    (([DETECTION], []), "2 predictions but 1 references"),
]


@pytest.mark.parametrize(("data", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_refused_and_nothing_added(data, message):
    state = of(*one(image_id=2), class_names=["crack", "dent"])
    before = state.to_bytes()
    predictions, references = data
    with pytest.raises(ValueError, match=message):
        state.update([DETECTION, *predictions], [{"image_id": 0, "objects": OBJECTS}, *references])
    assert state.to_bytes() == before


def test_bad_settings_and_states():
    with pytest.raises(ValueError, match="a name occurs twice"):
        CocoDetections(["crack", "crack"])
    with pytest.raises(ValueError, match=r"class_names: .* ends in a null character"):
        CocoDetections(["crack", "dent\0"])
    for names in (("ab",), ("", "ab"), (["a", "b"], "ab")):
        with pytest.raises(ValueError, match="_names must be a list of names"):
            CocoDetections(*names)
    with pytest.raises(ValueError, match="novel_names: dent not among class_names"):
        CocoDetections(["crack"], novel_names=["dent"])
    with pytest.raises(ValueError, match="different class_names or novel_names"):
        CocoDetections(["crack"]).merge(CocoDetections(["dent"]))
    with pytest.raises(ValueError, match="incomplete or damaged"):
        CocoDetections.from_bytes(of(*one()).to_bytes()[:-40])


def test_a_missing_library_is_named_before_any_detection(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(ImportError, match=r"COCO AP needs faster-coco-eval: pip install 'defect-hub\[metrics\]'"):
        CocoDetections()


@pytest.mark.slow
@pytest.mark.real_data
def test_real_boxes_against_their_coco_file(raw_data: Path, tmp_path: Path):
    """NEU-DET as built; its boxes, shifted, as detections; the reference reads the COCO file of the export."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "NEU-DET").symlink_to(raw_data / "NEU-DET")
    build_mmio(collect(tmp_path / "raw"), tmp_path / "built", workers=2)
    export_detection(tmp_path / "built", tmp_path / "exported")
    annotations = tmp_path / "exported" / "annotations" / "test.json"
    columns = ["image_id", "image_number", "objects"]
    rows = [
        row
        for shard in sorted((tmp_path / "built").glob("data/**/*test*.parquet"))
        for row in pq.read_table(shard, columns=columns).to_pylist()
    ]
    names = [item["name"] for item in json.loads(annotations.read_text("utf-8"))["categories"]]

    random = np.random.default_rng(0)
    predictions, results = [], []
    for row in rows:
        boxes = np.array(row["objects"]["bbox"]).reshape(-1, 4)
        near = np.repeat(boxes, 2, axis=0)
        near = near + random.normal(0, 0.1, near.shape) * near[:, [2, 3, 2, 3]]
        near[:, 2:] = np.maximum(near[:, 2:], 1)
        labels = np.repeat(np.array(row["objects"]["category"], int), 2)
        scores = random.random(len(near))
        predictions.append(
            {"boxes": np.hstack([near[:, :2], near[:, :2] + near[:, 2:]]), "scores": scores, "labels": labels}
        )
        for box, score, label in zip(near.tolist(), scores.tolist(), labels.tolist(), strict=True):
            results.append({"image_id": row["image_number"], "category_id": label + 1, "bbox": box, "score": score})
    truth = COCO(str(annotations))
    expected, per_class = evaluated(truth, truth.loadRes(results))
    state = CocoDetections(names)
    for start in range(0, len(rows), 16):
        batch = [{"image_id": row["image_number"], "objects": row["objects"]} for row in rows[start : start + 16]]
        state.update(predictions[start : start + 16], batch)
    result = state.compute()
    assert len(rows) == len(truth.imgs) > 150 and len(truth.anns) > 400
    assert 0.1 < expected["ap"] < 0.9
    assert {key: result[key] for key in KEYS if key in result} == pytest.approx(expected, abs=1e-6)
    assert result["class_ap"] == pytest.approx(
        {names[number]: value for number, value in enumerate(per_class) if value > -1}, abs=1e-6
    )
    assert {"ap_base", "ap_novel"} <= {*result, *result.get("undefined", ())}
