import hashlib
import io
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from defect_hub.dataset_scripts.readers.boxes import Box, BoxList
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.records import make_record
from defect_hub.dataset_scripts.samples import Sample, Source
from defect_hub.dataset_scripts.schema import TEXT_LEVELS, record_features
from defect_hub.modeling.mask_attributes import CELLS, mask_attributes

SIZE = (90, 60)


def spots(image_size: tuple[int, int], *, marked: dict[str, list[tuple[int, int]]]) -> dict[str, NDArray[np.bool_]]:
    """A region reader: spots of 6x6 px at the given (x, y), by category."""
    regions = {}
    for category, places in marked.items():
        regions[category] = np.zeros(image_size[::-1], dtype=bool)
        for x, y in places:
            regions[category][y : y + 6, x : x + 6] = True
    return regions


def objects_of(*objects: tuple[list[float], str, float]) -> dict[str, list[Any]]:
    """The column of objects from (bbox, category, area) of each."""
    return {
        "bbox": [bbox for bbox, _, _ in objects],
        "category": [category for _, category, _ in objects],
        "area": [area for _, _, area in objects],
        "iscrowd": [False] * len(objects),
        "is_novel": [None] * len(objects),
    }


def boxes(image_size: tuple[int, int]) -> BoxList:
    """A box reader."""
    assert image_size == SIZE
    return BoxList([Box("crack", 5, 5, 10, 4), Box("dent", 40, 30, 30, 20)])


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
    found = make_record(sample)
    record = found.row
    assert set(record) == set(record_features(["Blowhole"])) - {"image_number"}
    assert (found.warnings, found.disagreements) == ([], None)
    assert record["sha256"] == record["source_sha256"] == hashlib.sha256(sample.image.read_bytes()).hexdigest()
    assert record["annotation"] == "mask"
    assert record["mask"]["bytes"] == sample.mask.read_bytes()  # type: ignore[union-attr]
    assert (record["width"], record["height"]) == (90, 60)
    assert record["image"] == {"path": "a.png", "bytes": sample.image.read_bytes()}
    assert record["objects"] == objects_of(([5, 5, 4, 5], "Blowhole", 20))
    assert np.asarray(Image.open(io.BytesIO(record["mask"]["bytes"]))).sum() == 20 * 255
    assert record["attributes"]["position"] == [{"cell": "top-left", "fraction": 1.0}]
    assert record["t0"] == "A photo of magnetic tile defect: Blowhole."
    assert record["t1"] is None
    assert record["t4"].startswith("A tiny dark blowhole is observed on the magnetic tile.")
    answer = "Yes, there is a tiny dark blowhole in the top left of the magnetic tile."
    assert [turn["value"] for turn in record["conversation"][:2]] == ["Is there any defect in this image?", answer]
    assert "blowhole" in record["t2"]
    assert record["t2"] in [turn["value"] for turn in record["conversation"][2:]]


def test_given_texts_and_attributes_win(sample: Sample) -> None:
    parts = {"name": "Blowhole", "visual_attributes": "round holes", "cause": "dust"}
    given = make_record(replace(sample, texts={"t4": "As released."}, class_description=parts)).row
    assert given["t4"] == "As released."
    assert given["t3"].startswith("Defect type: Blowhole; ")
    assert given["class_description"] == parts
    assert given["conversation"][1]["value"].endswith("Likely cause: dust.")


def test_normal_image(sample: Sample) -> None:
    record = make_record(replace(sample, mask=None, class_name="Free", is_defective=False)).row
    assert (record["mask"], record["attributes"], record["objects"]) == (None, None, objects_of())
    assert record["t4"] == "A magnetic tile without defects."
    assert record["conversation"][1]["value"] == "No, the magnetic tile shows no defect."


def test_normal_image_with_a_marked_mask_is_refused(sample: Sample) -> None:
    with pytest.raises(DataError, match="mask: marks defects on an image of class Free"):
        make_record(replace(sample, class_name="Free", is_defective=False))


def test_empty_mask_of_a_defect_means_not_annotated(sample: Sample) -> None:
    assert sample.mask is not None
    Image.new("L", (90, 60)).save(sample.mask)
    found = make_record(sample)
    record, warnings = found.row, found.warnings
    assert (record["mask"], record["attributes"], record["is_defective"]) == (None, None, True)
    assert len(warnings) == 1
    assert "MT/a: empty mask" in warnings[0]
    answer = "Yes, the magnetic tile shows a defect of the category blowhole."
    assert record["conversation"][1]["value"] == answer


def test_unknown_state_claims_nothing(sample: Sample) -> None:
    record = make_record(replace(sample, mask=None, is_defective=None)).row
    assert (record["is_defective"], record["conversation"]) == (None, [])
    assert {record[level] for level in TEXT_LEVELS} == {None}


def test_objects_are_eight_connected(sample: Sample) -> None:
    mask = np.zeros((60, 90), np.uint8)
    mask[[1, 2, 3], [1, 2, 3]] = 255
    mask[6, 6] = 255
    Image.fromarray(mask).save(sample.mask)  # type: ignore[arg-type]
    objects = make_record(sample).row["objects"]
    assert (objects["bbox"], objects["area"]) == ([[1, 1, 3, 3], [6, 6, 1, 1]], [3, 1])


def test_resized_images_masks_and_boxes_agree(sample: Sample) -> None:
    record = make_record(replace(sample, size=(180, 180))).row
    image = Image.open(io.BytesIO(record["image"]["bytes"]))
    assert (image.format, image.mode, image.size) == ("PNG", "L", (180, 180))
    assert (record["width"], record["height"], record["image"]["path"]) == (180, 180, "a.png")
    assert record["sha256"] == hashlib.sha256(record["image"]["bytes"]).hexdigest()
    assert record["source_sha256"] == hashlib.sha256(sample.image.read_bytes()).hexdigest()
    mask = np.asarray(Image.open(io.BytesIO(record["mask"]["bytes"]))) > 0
    assert np.array_equal(mask.nonzero()[0][[0, -1]], [15, 29])
    assert np.array_equal(np.unique(mask.nonzero()[1])[[0, -1]], [10, 17])
    boxed = make_record(replace(sample, size=(180, 180), mask=None, boxes=[Box("Blowhole", 5, 5, 4, 5)])).row
    assert boxed["annotation"] == "boxes"
    assert boxed["mask"] is None
    assert boxed["objects"] == objects_of(([10, 15, 8, 15], "Blowhole", 120))
    for key in ("number_of_defects", "position", "scale", "polarity", "saliency"):
        assert boxed["attributes"][key] == record["attributes"][key]
    assert boxed["attributes"]["shape"] == "unclear"


def test_boxes_of_another_class_give_objects_and_no_attributes(sample: Sample) -> None:
    record = make_record(replace(sample, mask=None, boxes=[Box("Crack", 5, 5, 4, 5)])).row
    assert record["objects"]["category"] == ["Crack"]
    assert record["attributes"] is None


def test_given_attributes_are_compared_with_the_mask(sample: Sample) -> None:
    gray, mask = (np.asarray(Image.open(path)) for path in (sample.image, sample.mask))  # type: ignore[arg-type]
    given = mask_attributes(gray, mask > 127, "Blowhole")
    assert make_record(replace(sample, attributes=given)).disagreements == []
    found = make_record(replace(sample, attributes={**given, "Scale": "large"}))
    assert found.disagreements == ["Scale: released large, measured tiny"]
    assert found.row["attributes"]["scale"] == "large"


def test_colour_is_kept_where_there_is_any(sample: Sample) -> None:
    Image.new("RGB", (90, 60), (200, 10, 10)).save(sample.image)
    record = make_record(replace(sample, mask=None, size=(32, 32))).row
    assert Image.open(io.BytesIO(record["image"]["bytes"])).getpixel((3, 3)) == (200, 10, 10)


def test_regions_of_several_categories(sample: Sample) -> None:
    read = partial(spots, marked={"crack": [(5, 5)], "dent": [(70, 50), (40, 30)]})
    source = replace(SOURCE, nouns={"dent": "dented area"})
    record = make_record(
        replace(sample, mask=None, regions=read, class_name=None, is_defective=None, source=source)
    ).row
    assert (record["label"], record["is_defective"], record["annotation"]) == ("dent", True, "mask")
    found = list(zip(record["objects"]["category"], record["objects"]["bbox"], strict=True))
    assert found == [("crack", [5, 5, 6, 6]), ("dent", [40, 30, 6, 6]), ("dent", [70, 50, 6, 6])]
    mask = np.asarray(Image.open(io.BytesIO(record["mask"]["bytes"])))
    assert np.array_equal(mask > 0, np.logical_or(*spots(SIZE, **read.keywords).values()))
    assert record["attributes"]["number_of_defects"] == "two"
    assert "two" in record["t2"]
    assert "dented areas" in record["t2"]
    assert "crack" in record["t2"]
    assert "two" in record["t4"].lower()


def test_a_given_class_leads_the_regions(sample: Sample) -> None:
    read = partial(spots, marked={"crack": [(5, 5)], "dent": [(70, 50), (40, 30)]})
    record = make_record(replace(sample, mask=None, regions=read, class_name="crack")).row
    assert record["label"] == "crack"
    assert record["attributes"]["position"] == [{"cell": "top-left", "fraction": 1.0}]


def test_an_annotation_that_marks_nothing(sample: Sample) -> None:
    empty = replace(sample, mask=None, regions=partial(spots, marked={}), class_name=None, is_defective=None)
    found = make_record(empty)
    assert (found.row["label"], found.row["is_defective"], found.row["mask"]) == ("unknown", None, None)
    assert len(found.warnings) == 1
    normal = make_record(replace(empty, empty_class="normal"))
    assert (normal.row["label"], normal.row["is_defective"], normal.row["annotation"]) == ("normal", False, "mask")
    assert not np.asarray(Image.open(io.BytesIO(normal.row["mask"]["bytes"]))).any()
    assert normal.row["t2"]
    assert list(normal.warnings) == []


def test_boxes_may_be_read_with_the_image(sample: Sample) -> None:
    record = make_record(replace(sample, mask=None, boxes=boxes, class_name=None, is_defective=None)).row
    assert (record["label"], record["is_defective"], record["annotation"]) == ("dent", True, "boxes")
    assert record["objects"]["category"] == ["crack", "dent"]
    assert "dent" in record["t2"]
    assert "crack" in record["t2"]
    with pytest.raises(DataError, match="boxes: marks defects on an image of class Free"):
        make_record(replace(sample, mask=None, boxes=boxes, class_name="Free", is_defective=False))


def test_boxes_that_mark_nothing(sample: Sample) -> None:
    normal = make_record(replace(sample, mask=None, boxes=[], class_name="Free", is_defective=False))
    assert (normal.row["is_defective"], normal.row["annotation"], normal.row["mask"]) == (False, "boxes", None)
    assert normal.row["t2"] == make_record(replace(sample, mask=None, class_name="Free", is_defective=False)).row["t2"]
    defective = make_record(replace(sample, mask=None, boxes=[]))
    assert (defective.row["label"], defective.row["annotation"]) == ("Blowhole", "none")
    assert defective.warnings == ["MT/a: empty list of boxes of a defect (Blowhole), taken as no annotation"]


def test_descriptions_of_normal_and_not_located_images(sample: Sample) -> None:
    normal = make_record(replace(sample, mask=None, class_name="Free", is_defective=False)).row
    assert "magnetic tile" in normal["t2"]
    assert normal["conversation"][3]["value"].startswith("No")
    unlocated = make_record(replace(sample, mask=None)).row
    assert "blowhole" in unlocated["t2"]
    assert not any(cell.replace("-", " ") in unlocated["t2"] for cell in CELLS)


def test_pixel_hash_is_that_of_the_gray_values(sample: Sample) -> None:
    record = make_record(sample).row
    Image.open(sample.image).save(sample.image.with_suffix(".bmp"))
    copy = make_record(replace(sample, image=sample.image.with_suffix(".bmp"))).row
    assert copy["sha256"] != record["sha256"]
    assert copy["pixel_sha256"] == record["pixel_sha256"]
    assert make_record(replace(sample, official_split="train")).row["official_split"] == "train"
