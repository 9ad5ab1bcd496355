import json
import pickle
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from defect_hub.dataset_scripts.assemble import Recipe, write_dataset
from defect_hub.dataset_scripts.export import export_detection
from defect_hub.dataset_scripts.mmio.categories import Category, label_space
from defect_hub.dataset_scripts.mmio.cross_check import compare_boxes
from defect_hub.dataset_scripts.mmio.release import Origin, Release, read_mmio_release
from defect_hub.dataset_scripts.readers.boxes import Box
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.records import make_record

SIZE = (100, 80)
NAMES = ["crack", "hole", "stain"]
SUPER = {"crack": "metallurgy", "hole": "textiles", "stain": "textiles"}

# A COCO box: category and x, y, width, height. A YOLO line is text; of an image of 100 x 80 px.
A = ("crack", 10, 20, 30, 40)
A_YOLO = "0 0.25 0.5 0.3 0.5"
B = ("hole", 50, 8, 20, 16)
B_YOLO = "1 0.6 0.2 0.2 0.2"
AT_A = "crack at (10.0, 20.0), 30.0 x 40.0 px"
AT_B = "hole at (50.0, 8.0), 20.0 x 16.0 px"

# Name: boxes in COCO, lines in YOLO, the lines of the comparison. None: no entry, no file.
COMPARED: dict[str, tuple[list[tuple[Any, ...]] | None, list[str] | None, list[str]]] = {
    "equal": ([A, B], [A_YOLO, B_YOLO], []),
    "other_order": ([A, B], [B_YOLO, A_YOLO], []),
    "rounded": ([("hole", 33.333333, 6.666667, 14.285714, 8.888889)], ["1 0.404762 0.138889 0.142857 0.111111"], []),
    "twins": ([A, ("hole", *A[1:])], ["1" + A_YOLO[1:], A_YOLO], []),
    "polygon": ([A], ["0 0.1 0.25 0.4 0.25 0.4 0.75 0.1 0.75"], []),
    "empty": ([], [], []),
    "empty_without_file": ([], None, []),
    "without_yolo": ([A], None, ["boxes: no file in YOLO"]),
    "without_coco": (None, [A_YOLO], ["boxes: no entry in COCO"]),
    "empty_without_coco": (None, [], ["boxes: no entry in COCO"]),
    "only_in_coco": ([A, B], [A_YOLO], ["boxes: 2 in COCO, 1 in YOLO", f"boxes: box 2, {AT_B} is only in COCO"]),
    "only_in_yolo": ([A], [B_YOLO, A_YOLO], ["boxes: 1 in COCO, 2 in YOLO", f"boxes: box 1, {AT_B} is only in YOLO"]),
    "none_in_yolo": ([A], [], ["boxes: 1 in COCO, 0 in YOLO", f"boxes: box 1, {AT_A} is only in COCO"]),
    "none_in_coco": ([], [A_YOLO], ["boxes: 0 in COCO, 1 in YOLO", f"boxes: box 1, {AT_A} is only in YOLO"]),
    "twice_in_coco": ([A, A], [A_YOLO], ["boxes: 2 in COCO, 1 in YOLO", f"boxes: box 2, {AT_A} is only in COCO"]),
    "other_category": ([A, B], [A_YOLO, "2" + B_YOLO[1:]], [f"boxes: box 2, {AT_B} in COCO is stain in YOLO"]),
    "elsewhere": (
        [A],
        ["0 0.75 0.5 0.3 0.5"],
        [
            f"boxes: box 1, {AT_A} is only in COCO",
            "boxes: box 1, crack at (60.0, 20.0), 30.0 x 40.0 px is only in YOLO",
        ],
    ),
    # Right edge at 41: IoU 30/31.
    "wider": ([A], ["0 0.255 0.5 0.31 0.5"], [f"boxes: box 1, {AT_A} in COCO is off by 1.00 px in YOLO"]),
    # 4 x 4 px moved by 1 px each way: IoU 9/23, corners 1 px apart.
    "small_moved": (
        [("stain", 10, 20, 4, 4)],
        ["2 0.13 0.2875 0.04 0.05"],
        ["boxes: box 1, stain at (10.0, 20.0), 4.0 x 4.0 px in COCO is off by 1.00 px in YOLO"],
    ),
    "moved_and_renamed": (
        [A],
        ["1 0.255 0.5 0.31 0.5"],
        [
            f"boxes: box 1, {AT_A} in COCO is hole in YOLO",
            f"boxes: box 1, {AT_A} in COCO is off by 1.00 px in YOLO",
        ],
    ),
    # Cut off at the left edge in YOLO alone.
    "cut_off": (
        [("crack", -10, 20, 30, 40)],
        ["0 0.1 0.5 0.2 0.5"],
        ["boxes: box 1, crack at (-10.0, 20.0), 30.0 x 40.0 px in COCO is off by 10.00 px in YOLO"],
    ),
    "crowd": (
        [("stain", *A[1:], {"iscrowd": 1})],
        [],
        [
            "boxes: 1 in COCO, 0 in YOLO",
            "boxes: box 1, stain (crowd) at (10.0, 20.0), 30.0 x 40.0 px is only in COCO",
        ],
    ),
}
# Name: boxes in COCO, lines in YOLO, further keys of the COCO entry, parts of the one problem of the image.
BROKEN: dict[str, tuple[list[tuple[Any, ...]], list[str] | None, dict[str, Any], list[str]]] = {
    "id_too_large": ([A], ["3 0.25 0.5 0.3 0.5"], {}, ["id_too_large.txt", "line 1", "3", "has no name"]),
    "id_negative": ([A], ["-1 0.25 0.5 0.3 0.5"], {}, ["id_negative.txt", "line 1", "-1", "has no name"]),
    "id_fraction": ([A], ["0.5 0.25 0.5 0.3 0.5"], {}, ["id_fraction.txt", "line 1", "0.5", "no integer"]),
    "yolo_nan": ([A], [A_YOLO, "0 nan 0.5 0.3 0.5"], {}, ["yolo_nan.txt", "line 2", "nan"]),
    "yolo_word": ([A], ["crack 0.25 0.5 0.3 0.5"], {}, ["yolo_word.txt", "line 1", "crack"]),
    "yolo_short": ([A], ["0 0.25 0.5 0.3"], {}, ["yolo_short.txt", "line 1", "3 numbers"]),
    "other_size": (
        [A],
        [A_YOLO],
        {"width": 80, "height": 100},
        ["train.json", "entry of other_size.png", "80x100 px where its image has 100x80 px"],
    ),
    "coco_nan": ([("crack", float("nan"), 1, 2, 3)], [A_YOLO], {}, ["train.json", "annotation", "nan"]),
    "coco_short": ([("crack", 1, 2, 3)], [A_YOLO], {}, ["train.json", "annotation", "[1, 2, 3]"]),
    "coco_id": (
        [("crack", *A[1:], {"category_id": 9})],
        [A_YOLO],
        {},
        ["train.json", "annotation", "unknown category (9)"],
    ),
    "label": ([A], [A_YOLO], {"label": "dint"}, ["train.json", "label.png", "dint"]),
    "flag": ([A], [A_YOLO], {"is_defective": "yes"}, ["train.json", "flag.png", "is_defective", "yes"]),
    "text": ([A], [A_YOLO], {"scene": 7}, ["train.json", "text.png", "scene", "7"]),
    "level": ([], [A_YOLO], {"annotation": "none"}, ["level.txt", "train.json", "nobody placed any"]),
}


def coco_file(
    images: Mapping[str, tuple[Sequence[tuple[Any, ...]], Mapping[str, Any]]], first: int = 1, names: Any = NAMES
) -> dict[str, Any]:
    """Content of a COCO file whose ids count from `first`; images: boxes and further keys by file name."""
    ids = {name: number for number, name in enumerate(names, start=first)}
    annotations: list[dict[str, Any]] = []
    for number, (boxes, _) in enumerate(images.values(), start=first):
        for name, *bbox in boxes:
            more = bbox.pop() if isinstance(bbox[-1], dict) else {}
            item = {"image_id": number, "category_id": ids[name], "bbox": bbox, "iscrowd": 0, **more}
            annotations.append({"id": len(annotations) + first, **item})
    return {
        "images": [
            {"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1], **extra}
            for number, (name, (_, extra)) in enumerate(images.items(), start=first)
        ],
        "annotations": annotations,
        "categories": [{"id": ids[name], "name": name, "supercategory": SUPER.get(name, "")} for name in names],
    }


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


def write_text(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def write_image(path: Path, gray: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", SIZE, gray).save(path)


def write_compared(raw: Path, names: Sequence[str] = tuple(COMPARED)) -> None:
    """`Images/train` with the images of the table and both of their annotations."""
    for number, name in enumerate(names):
        write_image(raw / "Images" / "train" / f"{name}.png", number)
        if (lines := COMPARED[name][1]) is not None:
            write_text(raw / "labels" / "train" / f"{name}.txt", lines)
    entries = {f"{name}.png": (boxes, {}) for name in names if (boxes := COMPARED[name][0]) is not None}
    write_json(raw / "annotations" / "instances_train.json", coco_file(entries))


def built(release: Release) -> tuple[dict[str, Any], list[DataError]]:
    """The records of all samples by stem, and the problems of samples that give none."""
    records, problems = {}, []
    for sample in release.samples:
        try:
            records[sample.image.stem] = make_record(sample)
        except DataError as error:
            problems.append(error)
    return records, problems


def test_every_difference_is_found_and_nothing_else(tmp_path: Path) -> None:
    write_compared(tmp_path)
    write_image(tmp_path / "Images" / "train" / "bare.png")
    release = read_mmio_release(tmp_path)
    records, problems = built(release)
    assert problems == [] and list(release.problems) == []
    expected = {name: lines for name, (_, _, lines) in COMPARED.items()}
    found = {name: list(record.disagreements or ()) for name, record in records.items()}
    assert found == {**expected, "bare": []}
    assert release.notes == ["1 images have no annotation: Images/train/bare.png"]


def test_every_problem_is_found_and_nothing_else(tmp_path: Path) -> None:
    for name, (_, lines, _, _) in BROKEN.items():
        write_image(tmp_path / "Images" / "train" / f"{name}.png")
        write_text(tmp_path / "labels" / "train" / f"{name}.txt", lines or [])
    for name in ("equal", "twin_entry"):
        write_image(tmp_path / "Images" / "train" / f"{name}.png")
        write_text(tmp_path / "labels" / "train" / f"{name}.txt", [A_YOLO])
    write_image(tmp_path / "Images" / "lost.png")
    write_image(tmp_path / "Images" / "val" / "same.png")
    write_image(tmp_path / "Images" / "validation" / "same.png")
    write_text(tmp_path / "labels" / "train" / "no_image.txt", [A_YOLO])
    write_text(tmp_path / "labels" / "no_split.txt", [A_YOLO])
    entries = {f"{name}.png": (boxes, extra) for name, (boxes, _, extra, _) in BROKEN.items()}
    entries |= {"equal.png": ([A], {}), "twin_entry.png": ([A], {}), "no_file.png": ([A], {})}
    content = coco_file(entries)
    content["annotations"].append({"id": 999, "image_id": 999, "category_id": 1, "bbox": [1, 2, 3, 4]})
    write_json(tmp_path / "annotations" / "train.json", content)
    more = {"twin_entry.png": ([B], {}), "equal.png": ([A], {})}
    write_json(tmp_path / "annotations" / "z_train.json", coco_file(more, names=["crack", "hole", "dent"]))
    release = read_mmio_release(tmp_path)
    records, late = built(release)
    assert set(records) == {"equal", "same"}
    expected = {name: parts for name, (_, _, _, parts) in BROKEN.items()} | {
        "lost": ["Images/lost.png", "folder of no split"],
        "same": ["Images/validation/same.png", "Images/val/same.png"],
        "no_image": ["labels/train/no_image.txt", "has no image"],
        "no_split": ["labels/no_split.txt", "has no image"],
        "no_file": ["train.json", "no_file.png", "no image"],
        "unknown_image": ["train.json", "annotation 999", "unknown image"],
        "twin_entry": ["z_train.json", "twin_entry.png", "contradicts", "in train.json"],
        "categories": ["z_train.json", "class 2", "'dent'", "train.json has 'stain'"],
    }
    lines = [str(problem) for problem in [*release.problems, *late]]
    matched = {
        name: [line for line in lines if all(part in line for part in parts)] for name, parts in expected.items()
    }
    assert {name: len(found) for name, found in matched.items()} == dict.fromkeys(expected, 1)
    assert sorted(line for found in matched.values() for line in found) == sorted(lines)


@pytest.mark.parametrize("first", [0, 1, 7])
def test_class_ids_of_yolo_follow_the_order_of_coco_ids(tmp_path: Path, first: int) -> None:
    write_compared(tmp_path, ["equal"])
    content = coco_file({"equal.png": ([A, B], {})}, first)
    content["categories"].reverse()
    write_json(tmp_path / "annotations" / "instances_train.json", content)
    release = read_mmio_release(tmp_path)
    assert [category.name for category in release.categories] == NAMES
    assert built(release)[0]["equal"].disagreements == []


def test_row_of_an_image_with_both(tmp_path: Path) -> None:
    crowd = ("stain", 0, 0, 30, 30, {"iscrowd": 1, "area": 70})
    write_image(tmp_path / "IMAGES" / "Val" / "line 1" / "a.b.png")
    write_text(tmp_path / "Labels" / "validation" / "line 1" / "a.b.txt", [A_YOLO, "2 0.15 0.1875 0.3 0.375"])
    write_json(tmp_path / "Annotations" / "val.json", coco_file({"line 1/a.b.png": ([A, crowd], {})}))
    known = {"stain": Category("stain", "x", "leather", "a stain")}
    (own,) = read_mmio_release(tmp_path, known, Origin("ours", "CC0", True)).samples
    assert (own.source.name, own.source.license, own.source.redistributable) == ("ours", "CC0", True)
    release = read_mmio_release(tmp_path, known)
    (sample,) = release.samples
    row = make_record(pickle.loads(pickle.dumps(sample))).row
    assert row["image_id"] == "validation/line 1/a.b"
    assert row["source_file"] == "IMAGES/Val/line 1/a.b.png"
    assert (row["source"], row["object_name"], row["redistributable"]) == (tmp_path.name, "industrial product", False)
    assert row["license"] == "not stated"
    assert (row["label"], row["is_defective"], row["annotation"]) == ("crack", True, "boxes")
    assert (row["official_split"], row["super_category"], row["scene"]) == ("validation", "metallurgy", None)
    assert [list(map(float, bbox)) for bbox in row["objects"]["bbox"]] == [[10, 20, 30, 40], [0, 0, 30, 30]]
    assert row["objects"]["category"] == ["crack", "stain"]
    assert row["objects"]["iscrowd"] == [False, True]
    assert row["objects"]["area"] == [1200, 70]
    assert release.categories[2] == Category("stain", "textiles", "leather", "a stain")
    assert release.box_counts == {"crack": 1, "stain": 1}


def test_an_empty_annotation_is_normal_and_none_is_not(tmp_path: Path) -> None:
    write_compared(tmp_path, ["equal", "empty", "empty_without_file"])
    write_image(tmp_path / "Images" / "train" / "bare.png")
    records, _ = built(read_mmio_release(tmp_path))
    states = {
        name: tuple(record.row[key] for key in ("label", "is_defective", "annotation"))
        for name, record in records.items()
    }
    assert states == {
        "equal": ("crack", True, "boxes"),
        "empty": ("normal", False, "boxes"),
        "empty_without_file": ("normal", False, "boxes"),
        "bare": ("unknown", None, "none"),
    }


def test_an_image_said_to_be_defective_is_not_normal_for_want_of_boxes(tmp_path: Path) -> None:
    said = {"a": {"is_defective": True}, "b": {"is_defective": True, "label": "hole"}}
    for name in said:
        write_image(tmp_path / "Images" / "train" / f"{name}.png")
    entries = {f"{name}.png": ([], extra) for name, extra in said.items()}
    write_json(tmp_path / "annotations" / "train.json", coco_file(entries))
    records, problems = built(read_mmio_release(tmp_path))
    states = [tuple(records[name].row[key] for key in ("label", "is_defective", "annotation")) for name in said]
    assert states == [("unknown", True, "none"), ("hole", True, "none")]
    assert problems == [] and [len(records[name].warnings) for name in said] == [1, 1]


def test_yolo_alone_tells_counts_and_fields_of_industry(tmp_path: Path) -> None:
    """Every form of a line that is read as a box is counted, and the largest area decides, not the number."""
    write_image(tmp_path / "Images" / "train" / "a.png")
    lines = ["1.0 0.5 0.5 0.1 0.1", "1,0.3,0.5,0.1,0.1", "0 0.5 0.5 0.8 0.8"]
    write_text(tmp_path / "labels" / "train" / "a.txt", lines)
    write_text(tmp_path / "classes.txt", NAMES)
    release = read_mmio_release(tmp_path, {name: Category(name, field) for name, field in SUPER.items()})
    assert release.box_counts == {"crack": 1, "hole": 2}
    row = built(release)[0]["a"].row
    assert (row["label"], row["super_category"]) == ("crack", "metallurgy")


def test_a_bad_yolo_file_costs_its_own_image(tmp_path: Path) -> None:
    for name, line in (("good", A_YOLO), ("bad", "0 0.5")):
        write_image(tmp_path / "Images" / "train" / f"{name}.png")
        write_text(tmp_path / "labels" / "train" / f"{name}.txt", [line])
    write_text(tmp_path / "classes.txt", NAMES)
    release = read_mmio_release(tmp_path)
    assert [sample.image.stem for sample in release.samples] == ["good"]
    assert [problem.field for problem in release.problems] == ["line 1"]


@pytest.mark.parametrize("forms", ["coco", "yolo", "both"])
def test_one_annotation_is_enough(tmp_path: Path, forms: str) -> None:
    images = {"equal": ([A, B], [A_YOLO, B_YOLO]), "more": ([B], [B_YOLO])}
    for name, (_, lines) in images.items():
        write_image(tmp_path / "Images" / "train" / f"{name}.png")
        if forms != "coco":
            write_text(tmp_path / "labels" / "train" / f"{name}.txt", lines)
    if forms != "yolo":
        entries = {f"{name}.png": (boxes, {}) for name, (boxes, _) in images.items()}
        write_json(tmp_path / "annotations" / "all.json", coco_file(entries))
    if forms != "coco":
        write_text(tmp_path / "classes.txt", NAMES)
    release = read_mmio_release(tmp_path)
    records, problems = built(release)
    assert [*problems, *release.problems, *release.notes] == []
    assert release.box_counts == {"crack": 1, "hole": 2}
    assert [category.name for category in release.categories] == NAMES
    for name, (boxes, _) in images.items():
        assert records[name].disagreements == ([] if forms == "both" else None)
        objects = records[name].row["objects"]
        found = [(box, *bbox) for box, bbox in zip(objects["category"], objects["bbox"], strict=True)]
        assert [item[0] for item in found] == [box[0] for box in boxes]
        assert [item[1:] for item in found] == [pytest.approx(box[1:], abs=1e-4) for box in boxes]


@pytest.mark.parametrize("place", ["classes.txt", "labels/classes.txt", "labels/train/classes.txt"])
def test_class_list_that_contradicts_coco(tmp_path: Path, place: str) -> None:
    write_compared(tmp_path, ["equal"])
    write_text(tmp_path / place, ["crack", "stain", "hole"])
    release = read_mmio_release(tmp_path)
    (problem,) = release.problems
    assert f"instances_train.json: class 1: is 'hole' where {place} has 'stain'." in str(problem)
    # The list is what YOLO files are read by.
    assert built(release)[0]["equal"].disagreements == [f"boxes: box 2, {AT_B} in COCO is stain in YOLO"]


@pytest.mark.parametrize(
    ("file_name", "json_name"),
    [
        ("equal.png", "instances_train2017.json"),
        ("equal.png", "annotations.json"),
        ("train/equal.png", "annotations.json"),
        ("Images\\train\\equal.png", "annotations.json"),
        ("./images/train/equal.png", "annotations_train.json"),
        ("/data/mmio/Images/train/equal.png", "trainval.json"),
        ("below.png", "train.json"),
    ],
)
def test_file_names_of_coco(tmp_path: Path, file_name: str, json_name: str) -> None:
    place = "deep/er/below.png" if file_name == "below.png" else "equal.png"
    write_image(tmp_path / "Images" / "train" / place)
    write_json(tmp_path / "annotations" / json_name, coco_file({file_name: ([A], {})}))
    release = read_mmio_release(tmp_path)
    assert [*release.problems, *release.notes] == []
    assert release.box_counts == {"crack": 1}


def test_one_coco_file_for_all_splits(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        write_image(tmp_path / "Images" / split / f"{split}.png")
        write_image(tmp_path / "Images" / split / "same.png")
    entries = {"train.png": ([A], {}), "validation.png": ([B], {}), "test.png": ([], {}), "same.png": ([B], {})}
    entries |= {"test/same.png": ([A], {}), "train/same.png": ([A], {}), "val/same.png": ([A], {})}
    write_json(tmp_path / "annotations" / "all.json", coco_file(entries))
    release = read_mmio_release(tmp_path)
    assert [str(problem).split(": ", 1)[1] for problem in release.problems] == [
        "same.png: can be any of train/same.png, validation/same.png, test/same.png. Give its path below Images"
    ]
    assert [sample.official_split for sample in release.samples] == [
        *("test", "test", "train", "train", "validation", "validation")
    ]
    assert release.box_counts == {"crack": 4, "hole": 1}
    # An image that a COCO file may mean is not taken for one without annotation.
    del entries["test/same.png"]
    write_json(tmp_path / "annotations" / "all.json", coco_file(entries))
    release = read_mmio_release(tmp_path)
    assert len(release.problems) == 1
    assert "test/same" not in {sample.image_id for sample in release.samples} and len(release.samples) == 5


def test_repeated_entries_and_splits_with_one_annotation_are_noted(tmp_path: Path) -> None:
    write_compared(tmp_path, ["equal"])
    write_image(tmp_path / "Images" / "test" / "new.png")
    write_json(tmp_path / "annotations" / "test.json", coco_file({"new.png": ([A], {})}))
    write_json(tmp_path / "annotations" / "z_all.json", coco_file({"train/equal.png": ([A, B], {})}))
    write_text(tmp_path / "Images" / "train" / "notes.txt", ["seen"])
    release = read_mmio_release(tmp_path)
    assert list(release.problems) == []
    assert sorted(release.notes) == [
        "1 files are not read: Images/train/notes.txt",
        "annotations/z_all.json: 1 images have an earlier entry",
        "test: has no YOLO annotation, others have",
    ]
    # Where a split has one annotation only, there is nothing to compare.
    differences = {name: record.disagreements for name, record in built(release)[0].items()}
    assert differences == {"equal": [], "new": None}


def test_keys_of_an_export_fill_the_sample(tmp_path: Path) -> None:
    extra = {
        "image_id": "MT/x",
        "source": "MT",
        "source_file": "MT_Crack/x.jpg",
        "scene": "magnetic tile",
        "object_name": "magnetic tile",
        "super_category": "electronics",
        "label": "hole",
        "is_defective": True,
        "annotation": "boxes",
        "redistributable": True,
    }
    rights = {"license_name": "free", "license": 1, "sha256": "0" * 64}
    level = {"annotation": "none", "label": "crack", "is_defective": True}
    unknown = {"annotation": "none", "label": "unknown", "is_defective": None}
    normal = {"annotation": "boxes", "label": "normal", "is_defective": False}
    entries = {"a.png": ([A, B], extra | rights), "b.png": ([], level), "c.png": ([], unknown), "d.png": ([], normal)}
    for number, name in enumerate(entries):
        write_image(tmp_path / "Images" / "train" / name, number)
        write_text(tmp_path / "labels" / "train" / f"{name[0]}.txt", [A_YOLO, B_YOLO] if name == "a.png" else [])
    write_json(tmp_path / "annotations" / "train.json", coco_file(entries))
    release = read_mmio_release(tmp_path)
    records, problems = built(release)
    assert [*problems, *release.problems, *release.notes] == []
    row = records["a"].row
    assert {key: row[key] for key in extra} == extra
    assert row["license"] == "free"
    states = [tuple(records[name].row[key] for key in ("label", "is_defective", "annotation")) for name in "bcd"]
    assert states == [("crack", True, "none"), ("unknown", None, "none"), ("normal", False, "boxes")]
    assert records["b"].row["super_category"] == "metallurgy"
    # Samples share their sources.
    assert release.samples[1].source is not release.samples[0].source
    assert release.samples[2].source is release.samples[3].source


def test_an_export_of_a_build_gives_the_same_rows(tmp_path: Path) -> None:
    write_compared(tmp_path / "raw")
    release = read_mmio_release(tmp_path / "raw")
    recipe = Recipe(label_space(release.categories), "", {}, categories=NAMES)
    write_dataset(tmp_path / "out", recipe, {"train": release.samples})
    export_detection(tmp_path / "out", tmp_path / "export")
    again = read_mmio_release(tmp_path / "export")
    assert [*again.problems, *again.notes] == []
    before = {record.row["image_id"]: record.row for record in built(release)[0].values()}
    records = built(again)[0].values()
    after = {record.row["image_id"]: record.row for record in records}
    assert [record.disagreements for record in records] == [[]] * len(COMPARED)
    assert set(after) == set(before)
    for image_id, row in before.items():
        # The file has another name; the build keeps boxes and areas as float32.
        again = after[image_id]["objects"]
        assert again.pop("bbox") == [pytest.approx(box, rel=1e-6) for box in row["objects"].pop("bbox")]
        assert again.pop("area") == pytest.approx(row["objects"].pop("area"), rel=1e-6)
        assert {**after[image_id], "image": None} == {**row, "image": None}


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        ({}, ["classes.txt", "is missing", "Supply one name a line"]),
        ({"classes.txt": "crack\n\nhole\n"}, ["classes.txt", "line 2", "no name"]),
        ({"classes.txt": ""}, ["classes.txt", "no name"]),
        ({"classes.txt": "crack\nhole\ncrack\n"}, ["classes.txt", "'crack'", "twice"]),
        ({"classes.txt": "crack\nnormal\n"}, ["classes.txt", "'normal'", "Rename"]),
        ({"annotations/a.json": "{"}, ["a.json", "malformed"]),
        (
            {"annotations/a.json": json.dumps({**coco_file({"a.png": ([A], {})}), "categories": []})},
            ["a.json", "categories", "has no list"],
        ),
    ],
)
def test_releases_that_cannot_be_read(tmp_path: Path, files: dict[str, str], parts: list[str]) -> None:
    write_image(tmp_path / "Images" / "train" / "a.png")
    write_text(tmp_path / "labels" / "train" / "a.txt", [A_YOLO])
    for name, text in files.items():
        write_text(tmp_path / name, text.splitlines())
    with pytest.raises(DataError) as error:
        read_mmio_release(tmp_path)
    assert [part for part in parts if part not in str(error.value)] == []


def test_folders_without_images_or_annotations(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_mmio_release(tmp_path / "typo")
    with pytest.raises(DataError, match="holds no image below train"):
        read_mmio_release(tmp_path)
    write_image(tmp_path / "Images" / "train" / "a.png")
    with pytest.raises(DataError, match="neither a YOLO nor a COCO file"):
        read_mmio_release(tmp_path)


def test_rounding_to_six_digits_is_no_difference_in_large_images() -> None:
    size = (9973, 7919)
    boxes = [Box("crack", 37.77 * step, 21.13 * step, 0.9 * step + 3.3, 0.7 * step + 2.7) for step in range(200)]
    rounded = []
    for box in boxes:
        cx, width = round((box.x + box.width / 2) / size[0], 6) * size[0], round(box.width / size[0], 6) * size[0]
        cy, height = round((box.y + box.height / 2) / size[1], 6) * size[1], round(box.height / size[1], 6) * size[1]
        rounded.append(Box("crack", cx - width / 2, cy - height / 2, width, height))
    assert compare_boxes(boxes, rounded[::-1], size) == []
    moved = [Box(box.category, box.x + 0.5, box.y, box.width, box.height) for box in rounded]
    lines = compare_boxes(boxes, moved, size)
    assert len(lines) == 200
    assert all(" in COCO is off by 0.5" in line or " in COCO is off by 0.49" in line for line in lines)


def test_nearest_boxes_are_paired() -> None:
    """Of three narrow boxes 1 px apart, each finds itself although its neighbours are near enough to be it."""
    boxes = [Box("crack", 10 + step, 10, 1, 40) for step in range(3)]
    assert compare_boxes(boxes, [boxes[1], boxes[2], boxes[0]], SIZE) == []
    assert compare_boxes(boxes, [boxes[2], boxes[0]], SIZE) == [
        "boxes: 3 in COCO, 2 in YOLO",
        "boxes: box 2, crack at (11.0, 10.0), 1.0 x 40.0 px is only in COCO",
    ]


def test_many_images_are_listed_in_seconds(tmp_path: Path) -> None:
    """20,000 images may take 10 s; a busy machine counts up to three times the time of an idle one."""
    count = 2000
    entries = {f"{number}.png": ([A, B], {}) for number in range(count)}
    for number in range(count):
        for folder, suffix in (("Images", "png"), ("labels", "txt")):
            path = tmp_path / folder / "train" / f"{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    write_json(tmp_path / "annotations" / "train.json", coco_file(entries))
    start = time.process_time()
    release = read_mmio_release(tmp_path)
    assert time.process_time() - start < 3
    assert len(release.samples) == count
    assert release.box_counts == {"crack": count, "hole": count}
