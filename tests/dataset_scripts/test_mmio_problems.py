"""What MMIO makes of bad files and arguments: one clear line each, and repairs that are listed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from defect_hub.dataset_scripts.mmio.build import build_mmio, read_release
from defect_hub.dataset_scripts.mmio.categories import label_space
from defect_hub.dataset_scripts.mmio.collection import collect
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.validate import validate_samples
from tests.dataset_scripts.mmio_layouts import LAYOUTS
from tests.dataset_scripts.mmio_raw import (
    BOX,
    CATEGORIES,
    all_rows,
    names_of,
    save,
    table,
    texture,
    voc,
    write_neu,
    write_pair,
    write_text,
)


def bad_lines(out: Path, error: DataError) -> list[str]:
    """All problems of a build, from the file beside `out` where there are several."""
    path = out.with_name(f"{out.name}.errors.txt")
    return path.read_text("utf-8").splitlines() if path.exists() else [str(error)]


Spoil = Callable[[Path], None]
NEU_1, NEU_2 = "NEU-DET/ANNOTATIONS/crazing_1.xml", "NEU-DET/ANNOTATIONS/crazing_2.xml"
BOARD = "DeepPCB/PCBData/group20085/20085_not/20085000.txt"
SPOILT: dict[str, tuple[Spoil, list[str]]] = {
    "nan_in_xml": (
        lambda raw: write_text(raw / NEU_1, voc([("crazing", (1, 1, float("nan"), 9))], (96, 96))),
        [NEU_1, "nan", "Correct"],
    ),
    "unknown_category_in_xml": (
        lambda raw: write_text(raw / NEU_2, voc([("rust", BOX)], (96, 96))),
        [NEU_2, "category", "'rust' is no category of NEU-DET", "Use one of crazing, "],
    ),
    "nan_in_text": (lambda raw: write_text(raw / BOARD, "1 2 30 40 1\n1 nan 30 40 1\n"), [BOARD, "line 2", "nan"]),
    "short_line": (
        lambda raw: write_text(raw / BOARD, "1 2 30 1\n"),
        [BOARD, "line 1", "4 fields", "Correct the line"],
    ),
    "unknown_type": (
        lambda raw: write_text(raw / BOARD, "1 2 30 40 9\n"),
        [BOARD, "category", "'9'", "Use one of open"],
    ),
    "no_annotation": (lambda raw: (raw / NEU_1).unlink(), ["crazing_1.jpg", "annotation", "is missing", "Supply"]),
    "no_image": (
        lambda raw: write_text(raw / "NEU-DET/IMAGES/crazing_2.jpg", "x"),
        ["crazing_2.jpg", "image", "is not an image"],
    ),
    "size": (
        lambda raw: save(raw / "MT/MT_Blowhole/Imgs/exp0_num_077.png", texture(0, (7, 7))),
        ["exp0_num_077.png", "mask", "7x7 px where its image has 73x64 px"],
    ),
    "gdxray": (
        lambda raw: write_text(raw / "GDXray/Castings/C0001/ground_truth.txt", "1.0e+00 10 22 20 inf\n"),
        ["C0001/ground_truth.txt", "line 1", "inf", "Correct or remove the line"],
    ),
}


def write_small(raw: Path) -> None:
    """Two images of NEU-DET, a board with its template, and generated sets: 2 + 2 + 7 + 6 images."""
    for number in (1, 2):
        write_neu(raw, f"crazing_{number}", [("crazing", BOX)], texture(number))
    write_pair(raw, "20085000", ["10 20 40 50 1"], 3)
    LAYOUTS["mt"](raw)
    LAYOUTS["gdxray"](raw)


@pytest.mark.parametrize("name", SPOILT)
def test_a_problem_is_one_line_and_the_rest_can_be_built(name: str, tmp_path: Path) -> None:
    spoil, parts = SPOILT[name]
    write_small(tmp_path / "raw")
    spoil(tmp_path / "raw")
    with pytest.raises(DataError) as caught:
        build_mmio(collect(tmp_path / "raw"), tmp_path / "out")
    (line,) = bad_lines(tmp_path / "out", caught.value)
    assert all(part in line for part in parts), line
    assert "\n" not in line and not (tmp_path / "out").exists()
    report = build_mmio(collect(tmp_path / "raw"), tmp_path / "out", skip_bad=True)
    assert [str(problem) for problem in report.skipped] == [line]
    assert sum(counts.total() for counts in report.counts.values()) == 16
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    place, problem = line.split(": ", 1)
    assert f"{'/'.join(place.split('/')[-2:])}: {problem}" in card  # Published: it tells nothing about the disk.
    assert str(tmp_path) not in card


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    together = ("nan_in_xml", "unknown_category_in_xml", "short_line", "size", "gdxray")
    write_small(tmp_path / "raw")
    for name in together:
        SPOILT[name][0](tmp_path / "raw")
    data = collect(tmp_path / "raw")
    found = validate_samples(label_space(data.categories), {"all": data.samples}, data.problems, categories=CATEGORIES)
    with pytest.raises(DataError, match="and 4 more, see"):
        build_mmio(data, tmp_path / "out")
    lines = (tmp_path / "out.errors.txt").read_text("utf-8").splitlines()
    assert [str(problem) for problem in found.problems] == lines
    for name in together:
        assert sum(all(part in line for part in SPOILT[name][1]) for line in lines) == 1
    assert found.images == 17 - 5


def test_a_bad_list_of_many_images_is_one_problem(tmp_path: Path) -> None:
    write_small(tmp_path)
    listed = tmp_path / "GDXray/Castings/C0041/ground_truth.txt"
    good = listed.read_text()
    write_text(listed, "1 30 43 40 62\n2 1 2 3\n")
    (problem,) = collect(tmp_path).problems
    assert "C0041/ground_truth.txt: line 2: has 4 fields where 5 are expected (4 images). " in str(problem)
    write_text(listed, "1.5 30 43 40 62\n")
    (problem,) = collect(tmp_path).problems
    assert "C0041/ground_truth.txt: boxes: '1.5' is no number of an image (4 images). " in str(problem)
    write_text(listed, good)
    assert collect(tmp_path).problems == []


def test_a_box_of_no_image_is_told_and_costs_no_image(tmp_path: Path) -> None:
    LAYOUTS["ssgd/release"](tmp_path)
    before = len(collect(tmp_path).samples)
    listed = next(tmp_path.rglob("lb101.json"))
    content = json.loads(listed.read_text())
    content["annotations"].append({"id": 9999, "image_id": 9999, "category_id": 1, "bbox": [1, 2, 30, 40]})
    listed.write_text(json.dumps(content))
    data = collect(tmp_path)
    (problem,) = data.problems
    assert "lb101.json: annotation 9999: is of an unknown image (9999). " in str(problem)
    assert len(data.samples) == before


def test_class_ids_of_yolo_out_of_range(tmp_path: Path) -> None:
    for number, line in enumerate(("0 0.5 0.5 0.5 0.5", "2 0.5 0.5 0.5 0.5", "-1 0.5 0.5 0.5 0.5", "0 0.5 nan 1 1")):
        save(tmp_path / "raw" / "Images" / "train" / f"{number}.jpg", texture(number))
        write_text(tmp_path / "raw" / "labels" / "train" / f"{number}.txt", f"{line}\n")
    write_text(tmp_path / "raw" / "classes.txt", "crack\nhole\n")
    with pytest.raises(DataError) as caught:
        build_mmio(read_release(tmp_path / "raw"), tmp_path / "out")
    lines = bad_lines(tmp_path / "out", caught.value)
    expected = ["class id '2' has no name: there are names for 0 to 1", "class id '-1' has no name", "'nan'"]
    for number, (line, problem) in enumerate(zip(lines, expected, strict=True), start=1):
        assert f"labels/train/{number}.txt: line 1: " in line and problem in line
    report = build_mmio(read_release(tmp_path / "raw"), tmp_path / "out", skip_bad=True)
    assert [str(problem) for problem in report.skipped] == lines
    assert all_rows(tmp_path / "out").keys() == {"train/0"}


def repairs_of(out: Path) -> list[tuple[Any, ...]]:
    """Image, number, problem, the box as given and as used; None: left out."""
    found: list[tuple[Any, ...]] = []
    for row in table(out / "box_repairs.csv"):
        given, used = (
            [float(row[f"{prefix}{side}"]) for side in ("x", "y", "width", "height") if row[f"{prefix}{side}"]]
            for prefix in ("", "used_")
        )
        found.append(
            (
                row["image_id"].rpartition("/")[2].removeprefix("exp1_num_"),
                int(row["number"]),
                row["problem"],
                given,
                used or None,
            )
        )
    return found


def test_boxes_that_cannot_stay_are_listed(tmp_path: Path) -> None:
    rows = ["10 20 40 50 1", "40 50 60 70 2", "70 60 50 40 3", "90 10 120.5 30 4", "200 10 220 30 5", "30 30 30 60 6"]
    write_pair(tmp_path / "raw", "20085000", [*rows, "10 20 40 50 1", "10 20 40 50 2"], 0)
    write_pair(tmp_path / "raw", "20085001", ["30 30 30 60 1", "200 10 220 30 1"], 2)
    swapped = [("crazing", (1, 1, 96, 96)), ("crazing", (50, 60, 11, 21)), ("inclusion", (0, 5, 140, 20))]
    write_neu(tmp_path / "raw", "crazing_1", swapped, texture(9))
    report = build_mmio(collect(tmp_path / "raw"), tmp_path / "out")
    assert repairs_of(tmp_path / "out") == [
        ("crazing_1", 2, "inverted", [50, 60, -40, -40], [10, 20, 40, 40]),
        ("crazing_1", 3, "clipped", [-1, 4, 141, 16], [0, 4, 96, 16]),
        ("20085000_test", 3, "inverted", [70, 60, -20, -20], [50, 40, 20, 20]),
        ("20085000_test", 4, "clipped", [90, 10, 30.5, 20], [90, 10, 6, 20]),
        ("20085000_test", 5, "outside", [200, 10, 20, 20], None),
        ("20085000_test", 6, "empty", [30, 30, 0, 30], None),
        ("20085000_test", 7, "duplicate", [10, 20, 30, 30], None),
        ("20085001_test", 1, "empty", [30, 30, 0, 30], None),
        ("20085001_test", 2, "outside", [200, 10, 20, 20], None),
    ]
    counts = "2 inverted, 2 clipped, 2 outside, 2 empty, 1 duplicate"
    assert any(warning.startswith(f"boxes changed or left out: {counts}; ") for warning in report.warnings)
    kept = all_rows(tmp_path / "out")["DeepPCB/group20085/20085/20085000_test"]
    assert list(zip(names_of(kept), kept["objects"]["bbox"], strict=True)) == [
        ("open circuit", [10, 20, 30, 30]),
        ("short circuit", [40, 50, 20, 20]),
        ("mouse bite", [50, 40, 20, 20]),
        ("spur", [90, 10, 6, 20]),
        ("short circuit", [10, 20, 30, 30]),
    ]


def test_an_image_without_a_usable_box_stays_defective(tmp_path: Path) -> None:
    write_pair(tmp_path / "raw", "20085000", ["10 20 40 50 1"], 0)
    write_pair(tmp_path / "raw", "20085001", ["30 30 30 60 4", "200 10 220 30 4"], 2)
    report = build_mmio(collect(tmp_path / "raw"), tmp_path / "out")
    row = all_rows(tmp_path / "out", "image_level")["DeepPCB/group20085/20085/20085001_test"]
    assert (row["is_defective"], row["annotation"], row["objects"]["id"], row["caption"]) == (True, "none", [], None)
    assert (CATEGORIES[row["label"]], row["attributes"]) == ("spur", None)
    assert f"{row['image_id']}: none of its boxes (2) is usable, taken as no annotation" in report.warnings
    assert len(table(tmp_path / "out" / "box_repairs.csv")) == 2


def test_boxes_at_the_far_corner_of_a_wide_image(tmp_path: Path) -> None:
    gray = texture(0, (500, 125)).repeat(10, 0).repeat(10, 1)
    save(tmp_path / "raw/HRIPCB/images/Short/01_short_01.jpg", gray)
    boxes = [("short", (4981, 1231, 5000, 1250)), ("short", (1, 1, 5000, 1250)), ("spur", (5000, 1250, 5000, 1250))]
    write_text(tmp_path / "raw/HRIPCB/Annotations/Short/01_short_01.xml", voc(boxes, (5000, 1250)))
    build_mmio(collect(tmp_path / "raw"), tmp_path / "out")
    (row,) = all_rows(tmp_path / "out").values()
    assert (row["width"], row["height"]) == (5000, 1250)
    assert row["objects"]["bbox"] == [[4980, 1230, 20, 20], [0, 0, 5000, 1250], [4999, 1249, 1, 1]]
    assert not (tmp_path / "out" / "box_repairs.csv").exists()
    assert row["caption"] == (
        "A short circuit over the whole image, a short circuit in the bottom right and a spur in the bottom right."
    )


def test_small_parts_of_masks_are_left_out(tmp_path: Path) -> None:
    """MT's smallest object has 9 pixels; where all parts are smaller the largest is one."""
    parts = {"1": [(5, 5, 20, 10), (40, 5, 3, 3), (60, 20, 4, 2), (3, 40, 1, 1)], "2": [(9, 9, 2, 2), (30, 30, 4, 1)]}
    parts["3"] = [(9, 9, 1, 3), (30, 30, 2, 1)]
    for stem, boxes in parts.items():
        mask = np.zeros((64, 80), np.uint8)
        for x, y, width, height in boxes:
            mask[y : y + height, x : x + width] = 255
        save(tmp_path / f"raw/MT/MT_Crack/Imgs/exp1_num_{stem}.jpg", texture(int(stem), (80, 64)))
        save(tmp_path / f"raw/MT/MT_Crack/Imgs/exp1_num_{stem}.png", mask)
    build_mmio(collect(tmp_path / "raw"), tmp_path / "out")
    rows = {row["image_id"].rpartition("_")[2]: row["objects"] for row in all_rows(tmp_path / "out").values()}
    assert {stem: objects["bbox"] for stem, objects in rows.items()} == {
        "1": [[5, 5, 20, 10], [40, 5, 3, 3]],
        "2": [[9, 9, 2, 2], [30, 30, 4, 1]],
        "3": [[9, 9, 1, 3]],
    }
    assert rows["1"]["area"] == [200, 9]
    assert repairs_of(tmp_path / "out") == [
        ("1", 3, "tiny", [60, 20, 4, 2], None),
        ("1", 4, "tiny", [3, 40, 1, 1], None),
        ("3", 2, "tiny", [30, 30, 2, 1], None),
    ]


def test_scenes_must_be_known_public_and_there(tmp_path: Path) -> None:
    write_neu(tmp_path / "raw", "crazing_1", [("crazing", BOX)], texture(1))
    with pytest.raises(ValueError, match="unknown scene 'steel'; there are hot-rolled steel, steel sheet, "):
        collect(tmp_path / "raw", ["steel"])
    with pytest.raises(
        ValueError, match="no public set of the scene 'glass container' is known: Open: the paper's own"
    ):
        collect(tmp_path / "raw", ["glass container"])
    with pytest.raises(DataError, match=r"scenes: there is no set of weld\. Supply one of RIAWELC in a folder of its"):
        collect(tmp_path / "raw", ["hot-rolled steel", "weld"])
    with pytest.raises(DataError, match="folder: does not exist"):
        collect(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no folder that is named like a set of MMIO"):
        collect(tmp_path / "empty")
    assert len(collect(tmp_path / "raw", ["hot-rolled steel"]).samples) == 1


def test_an_image_that_two_sets_claim(tmp_path: Path) -> None:
    LAYOUTS["rsdd/1"](tmp_path)
    (tmp_path / "RSDD2").symlink_to(tmp_path / "Type-I RSDDs dataset")
    data = collect(tmp_path)
    assert len(data.problems) == len(data.samples) == 3
    assert "rail_1.jpg: set: is claimed by RSDD and by RSDD2. Keep the sets in folders of " in str(data.problems[0])
