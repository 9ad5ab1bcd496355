import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.records import Sample, Source, make_record, mask_objects
from defect_hub.dataset_scripts.schema import record_features

SOURCE = Source("MT", "magnetic tile", "electronics", "other", False, "seed42", "composed")


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    image = np.full((60, 90), 150, np.uint8)
    mask = np.zeros((60, 90), np.uint8)
    mask[5:10, 5:9] = 255
    image[5:10, 5:9] = 50
    Image.fromarray(image).save(tmp_path / "a.png")
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    return Sample("MT/a", tmp_path / "a.png", tmp_path / "masks" / "a.png", "Blowhole", SOURCE, True)


def test_defective_record_is_complete(sample: Sample) -> None:
    record, warnings = make_record(sample)
    assert set(record) == set(record_features(["Blowhole"]))
    assert warnings == []
    assert (record["width"], record["height"]) == (90, 60)
    assert record["image"] == {"path": "a.png", "bytes": sample.image.read_bytes()}
    assert record["objects"] == [{"bbox": [5, 5, 4, 5], "category": "Blowhole", "area": 20, "iscrowd": False}]
    assert np.asarray(Image.open(io.BytesIO(record["mask"]["bytes"]))).sum() == 20 * 255
    assert record["attributes"]["position"] == [{"cell": "top-left", "fraction": 1.0}]
    assert record["descriptions"]["T0"] == "A photo of magnetic tile defect: Blowhole."
    assert record["descriptions"]["T1"] is None
    assert record["descriptions"]["T4"].startswith("A magnetic tile with a tiny dark ")
    answer = "Yes, there is a tiny dark blowhole in the top left of the magnetic tile."
    assert [turn["value"] for turn in record["conversation"]] == ["Is there any defect in this image?", answer]


def test_given_texts_and_attributes_win(sample: Sample) -> None:
    given, _ = make_record(replace(sample, texts={"T4": "As released."}, cause="dust"))
    assert given["descriptions"]["T4"] == "As released."
    assert given["descriptions"]["T3"].startswith("Defect type: Blowhole; ")
    assert given["conversation"][1]["value"].endswith("Likely cause: dust.")


def test_normal_image(sample: Sample) -> None:
    record, _ = make_record(replace(sample, mask=None, class_name="Free", is_defective=False))
    assert (record["mask"], record["attributes"], record["objects"]) == (None, None, [])
    assert record["descriptions"]["T4"] == "A magnetic tile without defects."
    assert record["conversation"][1]["value"] == "No, the magnetic tile shows no defect."


def test_normal_image_with_a_marked_mask_is_refused(sample: Sample) -> None:
    with pytest.raises(DataError, match="mask: marks defects on an image of class Free"):
        make_record(replace(sample, class_name="Free", is_defective=False))


def test_empty_mask_of_a_defect_means_not_annotated(sample: Sample) -> None:
    assert sample.mask is not None
    Image.new("L", (90, 60)).save(sample.mask)
    record, warnings = make_record(sample)
    assert (record["mask"], record["attributes"], record["is_defective"]) == (None, None, True)
    assert len(warnings) == 1
    assert "MT/a: empty mask" in warnings[0]
    answer = "Yes, the magnetic tile shows a defect of the category blowhole."
    assert record["conversation"][1]["value"] == answer


def test_unknown_state_claims_nothing(sample: Sample) -> None:
    record, _ = make_record(replace(sample, mask=None, is_defective=None))
    assert (record["is_defective"], record["conversation"]) == (None, [])
    assert set(record["descriptions"].values()) == {None}


def test_objects_are_eight_connected() -> None:
    mask = np.zeros((8, 8), bool)
    mask[[1, 2, 3], [1, 2, 3]] = True
    mask[6, 6] = True
    objects = mask_objects(mask, "Crack")
    assert [(item["bbox"], item["area"]) for item in objects] == [([1, 1, 3, 3], 3), ([6, 6, 1, 1], 1)]
