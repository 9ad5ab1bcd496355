import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import supervision
import torch
from datasets import List, load_dataset
from torchvision.ops import box_convert
from torchvision.transforms import v2
from transformers import DetrImageProcessor, RTDetrImageProcessor

from defect_hub.detection import to_bounding_boxes, to_coco_target, to_supervision
from tests.dataset_scripts.built_folders import CLASSES, png, row, write_built

BOXES = [("pore", [1.5, 2.25, 10, 20]), ("crack", [30, 4, 34, 44]), ("pore", [0, 0, 64, 48])]
XYXY = [[1.5, 2.25, 11.5, 22.25], [30, 4, 64, 48], [0, 0, 64, 48]]


@pytest.fixture
def rows(tmp_path: Path) -> Any:
    """A row of three boxes and one of none, as `load_dataset` yields them."""
    shard = [row(7, BOXES, image=png((64, 48))), row(8, [], image=png((64, 48), 1))]
    built = write_built(tmp_path / "built", {"train": shard})
    return load_dataset(str(built), split="train", cache_dir=str(tmp_path / "cache"))


def test_supervision_gets_corners_and_classes(rows: Any) -> None:
    detections = to_supervision(rows[0], rows.features["objects"]["category"].feature.names)
    assert detections == supervision.Detections(
        np.array(XYXY, np.float32),
        class_id=np.array([1, 0, 1]),
        data={"class_name": np.array(["pore", "crack", "pore"])},
    )
    assert detections.xyxy.dtype == np.float32
    assert detections.area.tolist() == [200, 34 * 44, 64 * 48]
    assert to_supervision(rows[0]).data == {}
    empty = to_supervision(rows[1], CLASSES)
    assert (len(empty), empty.xyxy.shape, empty.class_id.shape) == (0, (0, 4), (0,))
    assert len(supervision.Detections.merge([empty, detections])) == 3


def test_without_supervision_the_remedy_is_named(rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        to_supervision(rows[0])


def test_torchvision_moves_boxes_with_the_image(rows: Any) -> None:
    boxes, labels = to_bounding_boxes(rows[0])
    assert torch.equal(box_convert(boxes.as_subclass(torch.Tensor), "xywh", "xyxy"), torch.tensor(XYXY))
    assert (boxes.dtype, labels.dtype, labels.tolist()) == (torch.float32, torch.int64, [1, 0, 1])
    image, turned = v2.RandomHorizontalFlip(p=1)(rows[0]["image"], boxes)
    assert turned.canvas_size == image.size[::-1] == (48, 64)
    assert turned.tolist() == [[52.5, 2.25, 10, 20], [0, 4, 34, 44], [0, 0, 64, 48]]
    boxes, labels = to_bounding_boxes(rows[1])
    assert (boxes.shape, labels.shape) == ((0, 4), (0,))
    assert v2.Resize((96, 128))(boxes).canvas_size == (96, 128)


@pytest.mark.parametrize("kind", [DetrImageProcessor, RTDetrImageProcessor])
def test_image_processors_of_transformers_take_the_targets(rows: Any, kind: Any) -> None:
    size = {"height": 96, "width": 128}
    processor = kind(size=size, do_pad=False, format="coco_detection")
    images, targets = [item["image"] for item in rows], [to_coco_target(item) for item in rows]
    found = processor(images=images, annotations=targets, return_tensors="pt")["labels"]
    scale = torch.tensor([64, 48, 64, 48])
    expected = box_convert(torch.tensor(XYXY), "xyxy", "cxcywh") / scale
    assert torch.allclose(found[0]["boxes"], expected, atol=1e-6)
    assert found[0]["class_labels"].tolist() == [1, 0, 1]
    assert (found[0]["image_id"].item(), found[1]["image_id"].item()) == (7, 8)
    assert torch.allclose(found[0]["area"], 4 * torch.tensor([200.0, 34 * 44, 64 * 48]))
    assert found[1]["boxes"].shape == (0, 4)


def test_rows_follow_the_convention_of_detection_sets_on_the_hub(rows: Any) -> None:
    """What transformers' example run_object_detection.py makes of a row is what `to_coco_target` gives it."""
    features = rows.features["objects"]
    assert {"id", "bbox", "category", "area"} <= features.keys()
    assert all(isinstance(feature, List) for feature in features.values())
    assert rows.features["objects"]["category"].feature.names == list(CLASSES)
    for item in rows:
        objects, image_id = item["objects"], item["image_number"]
        made = [
            {"image_id": image_id, "category_id": category, "iscrowd": 0, "area": area, "bbox": list(bbox)}
            for category, area, bbox in zip(objects["category"], objects["area"], objects["bbox"], strict=True)
        ]
        given = to_coco_target(item)
        assert given["image_id"] == image_id
        assert [{key: entry[key] for key in entry if key != "id"} for entry in given["annotations"]] == made


def test_crowds_are_not_targets_of_a_detector(tmp_path: Path) -> None:
    crowd = row(0, BOXES, image=png((64, 48)))
    crowd["objects"]["iscrowd"] = [False, True, False]
    target = to_coco_target(crowd)
    assert [entry["iscrowd"] for entry in target["annotations"]] == [0, 1, 0]
    (found,) = DetrImageProcessor()(images=np.zeros((48, 64, 3), np.uint8), annotations=target, return_tensors="pt")[
        "labels"
    ]
    assert found["class_labels"].tolist() == [1, 1]
