import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools.coco import COCO

from defect_hub.cli import main
from defect_hub.dataset_scripts.assemble import Recipe, write_dataset
from defect_hub.dataset_scripts.export import export_detection
from defect_hub.dataset_scripts.mmio.release import read_mmio_release
from defect_hub.dataset_scripts.readers.boxes import BoxList
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.samples import Sample, Source
from tests.dataset_scripts.built_folders import CLASSES, DIGEST, png, row, write_built

BOXES = [("crack", [0.1, 3, 20.7, 5]), ("pore", [30.333, 40.25, 2.5, 1.125])]


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """Three rows for training, one of them without boxes and one without image, and one for validation."""
    train = [
        row(0, BOXES, image=png((64, 48), 0), name="plate #1 50% é.v2.PNG", scene="plate", caption="a crack"),
        row(1, [], image=png((64, 48), 1)),
        row(2, BOXES[1:], image=None, name="2.bmp", license="not stated", redistributable=False, source="closed"),
    ]
    return write_built(tmp_path / "built", {"train": train, "validation": [row(3, BOXES[:1], image=png((64, 48), 3))]})


def coco(out: Path, split: str) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(out / "annotations" / f"{split}.json"))


def stored(folder: Path) -> list[dict[str, Any]]:
    return [item for path in sorted(folder.glob("data/*/*.parquet")) for item in pq.read_table(path).to_pylist()]


def test_pycocotools_reads_what_the_rows_hold(built: Path, tmp_path: Path) -> None:
    report = export_detection(built, tmp_path / "out")
    parts = {split: coco(tmp_path / "out", split) for split in ("train", "validation")}
    assert {split: len(part.imgs) for split, part in parts.items()} == report.images == {"train": 3, "validation": 1}
    assert {split: len(part.anns) for split, part in parts.items()} == report.boxes == {"train": 3, "validation": 1}
    images = {**parts["train"].imgs, **parts["validation"].imgs}
    annotations = {**parts["train"].anns, **parts["validation"].anns}
    for item in stored(built):
        image = images[item["image_number"]]
        same = (
            "width",
            "height",
            "image_id",
            "sha256",
            "source",
            "source_file",
            "scene",
            "caption",
            "redistributable",
        )
        assert {key: image[key] for key in same} == {key: item[key] for key in same}
        assert (image["label"], image["license_name"]) == (CLASSES[item["label"]], item["license"])
        objects = item["objects"]
        for place, number in enumerate(objects["id"]):
            found = annotations.pop(number)
            assert found["image_id"] == item["image_number"]
            assert found["category_id"] == objects["category"][place] + 1
            assert np.array_equal(np.float32(found["bbox"]), np.float32(objects["bbox"][place]))
            assert np.float32(found["area"]) == np.float32(objects["area"][place])
            assert (found["iscrowd"], found["is_novel"]) == (0, objects["is_novel"][place])
    assert annotations == {}
    assert [category["name"] for category in parts["train"].loadCats([1, 2])] == ["crack", "pore"]
    licenses = {entry["id"]: entry["name"] for entry in parts["train"].dataset["licenses"]}
    assert licenses[images[2]["license"]] == "not stated"
    assert parts["train"].dataset["info"] == {"description": "Plates", "version": DIGEST}


def test_yolo_labels_are_the_same_boxes(built: Path, tmp_path: Path) -> None:
    export_detection(built, tmp_path / "out")
    names = (tmp_path / "out" / "classes.txt").read_text().splitlines()
    assert names == ["crack", "pore"]
    for item in stored(built):
        (path,) = (tmp_path / "out" / "labels").glob(f"*/{item['image_number']:06d}_*.txt")
        lines = [list(map(float, line.split())) for line in path.read_text().splitlines()]
        assert [names[int(line[0])] for line in lines] == [CLASSES[number] for number in item["objects"]["category"]]
        size = np.array([item["width"], item["height"]])
        for (_, cx, cy, width, height), bbox in zip(lines, item["objects"]["bbox"], strict=True):
            corner = np.array([cx - width / 2, cy - height / 2]) * size
            assert np.allclose([*corner, *(np.array([width, height]) * size)], bbox, rtol=0, atol=1e-3)


def test_boxes_of_very_large_images_keep_their_place(tmp_path: Path) -> None:
    size, bbox = (30_000, 20_000), [12_345.5, 1.25, 17.75, 3.5]
    built = write_built(tmp_path / "built", {"train": [row(0, [("crack", bbox)], image=None, size=size)]})
    export_detection(built, tmp_path / "out")
    (path,) = (tmp_path / "out" / "labels" / "train").iterdir()
    _, cx, cy, width, height = map(float, path.read_text().split())
    back = [(cx - width / 2) * size[0], (cy - height / 2) * size[1], width * size[0], height * size[1]]
    assert np.allclose(back, bbox, rtol=0, atol=1e-3)


def test_images_are_the_files_themselves(built: Path, tmp_path: Path) -> None:
    report = export_detection(built, tmp_path / "out")
    folder = tmp_path / "out" / "Images" / "train"
    assert {path.name for path in folder.iterdir()} == {"000000_plate #1 50% é.v2.PNG", "000001_1.png"}
    assert {path.stem for path in (tmp_path / "out" / "labels" / "train").iterdir()} == {
        "000000_plate #1 50% é.v2",
        "000001_1",
        "000002_2",
    }
    for number, name in ((0, "000000_plate #1 50% é.v2.PNG"), (1, "000001_1.png")):
        assert (folder / name).read_bytes() == png((64, 48), number)
        assert coco(tmp_path / "out", "train").imgs[number]["file_name"] == name
    assert report.missing == {"closed": 1}
    assert report.lines() == [
        "note: 1 rows without image (closed 1)",
        f"{tmp_path / 'out'}: train 3 (3 boxes), validation 1 (1 boxes) images",
    ]


def test_equal_and_unusable_names_become_files_of_their_own(tmp_path: Path) -> None:
    names = ["a.png", "a.png", 'b\\c:d*?"<>|\n.png', f"{'長' * 80}.png", ".png"]
    rows = [row(number, [], image=png((8, 8), number), name=name) for number, name in enumerate(names)]
    export_detection(write_built(tmp_path / "built", {"train": rows}), tmp_path / "out")
    files = sorted((tmp_path / "out" / "Images" / "train").iterdir())
    assert [path.read_bytes() for path in files] == [png((8, 8), number) for number in range(5)]
    assert [files[2].name, files[3].name] == ["000002_b_c_d_______.png", f"000003_{'長' * 66}.png"]
    labels = {path.stem for path in (tmp_path / "out" / "labels" / "train").iterdir()}
    assert labels == {path.stem for path in files}


def test_categories_carry_what_the_build_lists(built: Path, tmp_path: Path) -> None:
    text = "category,super_category,scene,prompt,novel\ncrack,metallurgy,plate,a crack in a plate,false\n"
    (built / "categories.csv").write_text(text)
    export_detection(built, tmp_path / "out")
    assert coco(tmp_path / "out", "train").dataset["categories"] == [
        {
            "id": 1,
            "name": "crack",
            "supercategory": "metallurgy",
            "scene": "plate",
            "prompt": "a crack in a plate",
            "novel": False,
        },
        {"id": 2, "name": "pore"},
    ]
    assert (tmp_path / "out" / "categories.csv").read_text() == text


def test_a_config_chooses_rows_and_splits(tmp_path: Path) -> None:
    rows = [row(number, BOXES[:1], image=png((8, 8)), scene="weld" if number % 2 else "plate") for number in range(6)]
    files = [
        {"split": "train", "path": ["data/default/a-*.parquet", "data/default/b-*.parquet"]},
        {"split": "test", "path": "data/default/c-*.parquet"},
        {"split": "validation", "path": "data/default/c-*.parquet"},
    ]
    welds = {"config_name": "welds", "data_files": files, "filters": [[["scene", "==", "weld"]]]}
    few = {"config_name": "few", "data_files": files, "columns": ["image", "label"]}
    built = write_built(tmp_path / "built", {"a": rows[:2], "b": rows[2:4], "c": rows[4:]}, [welds, few])
    report = export_detection(built, tmp_path / "out", "welds")
    assert {split: sorted(coco(tmp_path / "out", split).imgs) for split in ("train", "test")} == {
        "train": [1, 3],
        "test": [5],
    }
    assert report.lines()[0] == "note: validation: the files of another split, not written again"
    with pytest.raises(DataError, match=r"config few: has no images with objects\. Choose one of default, welds"):
        export_detection(built, tmp_path / "out", "few")
    with pytest.raises(DataError, match="config closed: is not in the card"):
        export_detection(built, tmp_path / "out", "closed")


def test_splits_that_share_images_are_refused(tmp_path: Path) -> None:
    rows = [row(number, BOXES[:1], image=png((8, 8))) for number in range(3)]
    built = write_built(tmp_path / "built", {"train": rows[:2], "test": rows[1:]})
    with pytest.raises(DataError, match="plate/1: test: image number 1 occurs twice"):
        export_detection(built, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_of_unknown_state_are_counted(tmp_path: Path) -> None:
    rows = [row(0, [], image=png((8, 8)), is_defective=state) for state in (None, True, False)]
    built = write_built(tmp_path / "built", {"train": [{**item, "image_number": n} for n, item in enumerate(rows)]})
    report = export_detection(built, tmp_path / "out")
    assert report.lines()[0] == "note: 2 images have no objects and are not known to be normal"


def test_objects_that_are_no_defects_are_refused(tmp_path: Path) -> None:
    built = write_built(tmp_path / "built", {"train": [row(0, [("normal", [1, 1, 4, 4])], image=None)]})
    with pytest.raises(DataError, match="plate/0: objects: an object is of a category normal or unknown"):
        export_detection(built, tmp_path / "out")


def test_only_an_earlier_export_is_replaced(built: Path, tmp_path: Path) -> None:
    export_detection(built, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    export_detection(built, tmp_path / "out")
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(DataError, match="mine: output: exists and is not a built data set"):
        export_detection(built, tmp_path / "mine")
    with pytest.raises(DataError, match="output: is not apart from"):
        export_detection(built, built / "out")
    with pytest.raises(DataError, match="mine: folder: is not a built data set"):
        export_detection(tmp_path / "mine", tmp_path / "other")


def test_boxes_of_masks_are_exported_from_a_build(tmp_path: Path) -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[10:14, 20:30] = mask[30:33, 5:9] = 255
    source = Source("plate", "plate", "metallurgy", "not stated", True, "test", "composed")
    splits = {}
    for seed, split in enumerate(("train", "test")):
        (tmp_path / f"{split}.png").write_bytes(png((64, 48), seed))
        Image.fromarray(mask).save(tmp_path / f"{split}_mask.png")
        files = {"image": tmp_path / f"{split}.png", "mask": tmp_path / f"{split}_mask.png"}
        splits[split] = [Sample(image_id=split, class_name="crack", source=source, is_defective=True, **files)]
    write_dataset(tmp_path / "built", Recipe(CLASSES, "$configs", {"pretty_name": "Plates"}), splits)
    assert main(["data", "export", str(tmp_path / "built"), "--out", str(tmp_path / "out")]) == 0
    found = [item for split in splits for item in coco(tmp_path / "out", split).dataset["annotations"]]
    assert sorted((item["image_id"], item["bbox"], item["area"]) for item in found) == [
        (number, bbox, area) for number in (0, 1) for bbox, area in (([5, 30, 4, 3], 12), ([20, 10, 10, 4], 40))
    ]
    assert len({item["id"] for item in found}) == 4
    text = (tmp_path / "out" / "annotations" / "train.json").read_text()
    assert json.loads(text)["images"][0]["annotation"] == "mask"


def test_the_reader_of_the_release_layout_finds_the_same(tmp_path: Path) -> None:
    splits = {"train": [row(0, BOXES, image=png((64, 48))), row(1, [], image=png((64, 48), 1))]}
    splits["validation"] = [row(2, BOXES[1:], image=png((64, 48), 2))]
    export_detection(write_built(tmp_path / "built", splits), tmp_path / "out")
    found = read_mmio_release(tmp_path / "out")
    assert (found.problems, found.notes, found.box_counts) == ([], [], {"crack": 1, "pore": 2})
    rows = [item for part in splits.values() for item in part]
    for sample, item in zip(sorted(found.samples, key=lambda sample: sample.image_id), rows, strict=True):
        read = sample.boxes((64, 48)) if callable(sample.boxes) else BoxList([], [])
        assert read.differences == []
        assert [(box.category, [box.x, box.y, box.width, box.height]) for box in read.boxes] == (
            BOXES[-len(item["objects"]["id"]) :] if item["is_defective"] else []
        )
        assert (sample.image_id, sample.is_defective) == (item["image_id"], item["is_defective"])
