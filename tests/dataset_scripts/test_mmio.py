"""MMIO assembled from generated sets: configs, splits, parts of the zero-shot study, prompts, release and export."""

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import ClassLabel, List, Value, get_dataset_config_names, load_dataset_builder

from defect_hub.cli import main
from defect_hub.dataset_scripts.export import export_detection
from defect_hub.dataset_scripts.mmio.build import build_mmio, read_release
from defect_hub.dataset_scripts.mmio.collection import collect
from defect_hub.dataset_scripts.mmio.scenes import load_scenes
from defect_hub.dataset_scripts.readers.errors import DataError
from tests.dataset_scripts.mmio_layouts import LAYOUTS
from tests.dataset_scripts.mmio_raw import (
    BOX,
    CATEGORIES,
    all_rows,
    loaded,
    names_of,
    save,
    table,
    texture,
    write_neu,
    write_pair,
    write_text,
)

NEU = {
    "crazing": "crazing",
    "inclusion": "steel inclusion",
    "patches": "steel patch",
    "pitted_surface": "pitted surface",
    "rolled-in_scale": "rolled-in scale",
    "scratches": "steel scratch",
}


Study = tuple[Path, dict[str, set[str]], str]


def write_study(raw: Path, backwards: bool = False) -> dict[str, set[str]]:
    """At least 20 images of each stratum, with copies; `backwards` gives them other names in another order.

    Returns:
        Categories of the boxes of the images of NEU-DET, by image id.
    """
    truth: dict[str, set[str]] = {}

    def name(kind: str, number: int) -> str:
        return f"{kind}_{300 - number if backwards else number}"

    def add(kind: str, number: int, boxed: Sequence[str], seed: int, quality: int = 95) -> None:
        boxes = [(each, (11 + 30 * place, 21, 30 + 30 * place, 60)) for place, each in enumerate(boxed)]
        write_neu(raw, name(kind, number), boxes, texture(seed), quality)
        truth[f"NEU-DET/IMAGES/{name(kind, number)}"] = {NEU[each] for each in boxed}

    for place, kind in enumerate(NEU):
        for number in range(1, 21):
            more = ["patches"] if kind == "crazing" and number <= 3 else []
            add(kind, number, [kind, *more], 100 * place + number)
    add("pitted_surface", 21, ["pitted_surface"], 301, quality=50)  # looks like number 1
    add("scratches", 21, ["scratches"], 501)  # has the bytes of number 1
    add("inclusion", 21, ["inclusion"], 201, quality=50)  # looks like the first patches
    add("rolled-in_scale", 21, ["crazing"], 999)  # of a novel category, without a box of it
    for number in range(1, 21):
        for kind, first in (("slag inclusion", 5000), ("red iron", 2000)):
            save(raw / "X-SDD" / kind / f"{first + number + 500 * backwards}.jpg", texture(first + number))
        stem = f"2008{5 - backwards}{number if not backwards else 100 - number:03}"
        write_pair(raw, stem, ["10 20 40 50 1"], 10_000 + 2 * number)
    save(raw / "GDXray" / "C0011" / "C0011_0001.png", texture(20_000))
    LAYOUTS["kolektorsdd"](raw)
    return truth


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of small sets with all kinds of annotation."""
    root = tmp_path_factory.mktemp("mixed")
    for layout in ("neu_det/flat", "deeppcb/spaces", "gdxray", "mt", "bsdata", "ssgd/release", "tile/round1"):
        LAYOUTS[layout](root / "raw")
    build_mmio(collect(root / "raw"), root / "mmio")
    novel = [row["category"] for row in table(root / "mmio" / "categories.csv") if row["novel"] == "yes"]
    write_text(root / "novel.txt", "\n".join(novel))
    return root / "mmio"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A build of `write_study`, the categories of its boxes, and its digest; the raw folder lies beside it."""
    root = tmp_path_factory.mktemp("study")
    truth = write_study(root / "raw")
    return root / "mmio", truth, build_mmio(collect(root / "raw"), root / "mmio").digest


def test_every_config_loads_with_the_rows_that_the_card_states(mixed: Path) -> None:
    front = yaml.safe_load((mixed / "README.md").read_text("utf-8").split("---\n")[1])
    stated = {
        info["config_name"]: {split["name"]: split["num_examples"] for split in info["splits"]}
        for info in front["dataset_info"]
    }
    assert get_dataset_config_names(str(mixed)) == list(stated)
    own = {"closed", "zero_shot", "generalized_zero_shot", "zero_shot_detection", "detection", "grounding"}
    scenes = {"hot_rolled_steel", "magnetic_tile", "casting", "ball_screw", "printed_circuit_board"}
    assert own | scenes | {"default", "image_level", "phone_screen_glass", "ceramic_tile", "segmentation"} <= set(
        stated
    )
    for config, counts in stated.items():
        builder = load_dataset_builder(str(mixed), config)  # As load_dataset does, once for both ways of reading.
        builder.download_and_prepare()
        assert {split: len(rows) for split, rows in builder.as_dataset().items()} == counts
        streamed = builder.as_streaming_dataset()
        assert {split: sum(1 for _ in rows) for split, rows in streamed.items()} == counts
    assert sum(stated["default"].values()) == sum(sum(stated[name].values()) for name in ("closed", "image_level"))


def test_objects_follow_the_convention_of_the_hub(mixed: Path) -> None:
    features = load_dataset_builder(str(mixed), "closed").info.features
    assert features["objects"] == {
        "id": List(Value("int64")),
        "bbox": List(List(Value("float32"), length=4)),
        "category": List(ClassLabel(names=CATEGORIES)),
        "area": List(Value("float32")),
        "iscrowd": List(Value("bool")),
        "is_novel": List(Value("bool")),
    }
    assert features["label"].names == [*CATEGORIES, "normal", "unknown"]
    rows = list(all_rows(mixed).values())
    ids = [number for row in rows for number in row["objects"]["id"]]
    assert sorted(ids) == list(range(len(ids))) and len(ids) > 50
    assert sorted(row["image_number"] for row in rows) == list(range(len(rows)))
    for row in rows:
        assert len({len(values) for values in row["objects"].values()}) == 1
        boxes = np.array(row["objects"]["bbox"]).reshape(-1, 4)
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] > 0).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= [row["width"], row["height"]]).all()


def test_views_show_the_columns_of_the_same_rows(mixed: Path) -> None:
    closed = all_rows(mixed, "closed")
    detection = all_rows(mixed, "detection")
    assert detection.keys() == closed.keys()
    for image_id, row in detection.items():
        assert row == {key: closed[image_id][key] for key in row}
    grounding = all_rows(mixed, "grounding")
    assert {image_id for image_id, row in closed.items() if row["objects"]["id"]} == grounding.keys()
    scene = all_rows(mixed, "printed_circuit_board")
    assert {row["source"] for row in scene.values()} == {"DeepPCB"} and len(scene) == 9


def test_phrases_name_every_object_once(mixed: Path) -> None:
    checked = 0
    for row in all_rows(mixed).values():
        phrases, count = row["phrases"], len(row["objects"]["id"])
        if not count:
            assert (row["caption"], phrases) == (None, {"start": [], "end": [], "objects": []})
            continue
        assert sorted(place for places in phrases["objects"] for place in places) == list(range(count))
        edges = [edge for span in zip(phrases["start"], phrases["end"], strict=True) for edge in span]
        assert edges == sorted(set(edges)) and edges[0] == 0 and edges[-1] == len(row["caption"]) - 1
        nouns = load_scenes().sets[row["source"]].nouns
        for start, end, places in zip(*phrases.values(), strict=True):
            (category,) = {names_of(row)[place] for place in places}
            noun = nouns.get(category, category)
            words = row["caption"][start:end].lower()
            assert noun[:-1] in words  # "y" becomes "ies"
            assert words.startswith(("a ", "an ")) == (len(places) == 1)
            checked += 1
    assert checked > 40


def is_placed(row: Mapping[str, Any]) -> bool:
    """Whether it is known where the defects of an image are, or that it has none."""
    return row["annotation"] != "none" or row["is_defective"] is False


def test_strata_are_divided_four_to_one(study: Study) -> None:
    out, _, _ = study
    data = loaded(out)
    counts: dict[tuple[str, int, bool], Counter[str]] = defaultdict(Counter)
    for split, rows in data.items():
        counts_of_split = Counter((row["scene"], row["label"], is_placed(row)) for row in rows)
        for stratum, count in counts_of_split.items():
            counts[stratum][split] = count
    large = [found for found in counts.values() if found.total() >= 20]
    assert len(large) == 6 + 2 + 2  # NEU-DET, X-SDD, tested boards and templates
    assert all(abs(found["test"] - 0.2 * found.total()) <= 1 for found in large)
    placed = {split: [row["image_id"] for row in rows if is_placed(row)] for split, rows in data.items()}
    closed = {split: [row["image_id"] for row in rows] for split, rows in loaded(out, "closed").items()}
    assert {split: sorted(names) for split, names in closed.items()} == {
        split: sorted(names) for split, names in placed.items()
    }
    assert {row["image_id"]: row["split"] for row in table(out / "splits.csv")} == {
        row["image_id"]: split for split, rows in data.items() for row in rows
    }


def test_what_shows_the_same_is_on_one_side(study: Study) -> None:
    out, _, _ = study
    split_of = {row["image_id"]: row["split"] for row in table(out / "splits.csv")}
    neu = "NEU-DET/IMAGES/"
    alike = [("pitted_surface_1", "pitted_surface_21"), ("scratches_1", "scratches_21"), ("patches_1", "inclusion_21")]
    groups = defaultdict(set)
    for row in table(out / "duplicates.csv"):
        groups[row["group"]].add(row["image_id"])
    for pair in alike:
        assert {neu + name for name in pair} in groups.values()
        assert len({split_of[neu + name] for name in pair}) == 1
    parts: dict[str, set[str]] = defaultdict(set)
    for image_id, split in split_of.items():
        if image_id.startswith(("DeepPCB", "KolektorSDD")):
            parts[image_id.rpartition("_")[0] or image_id.rpartition("/")[0]].add(split)
    assert len(parts) == 20 + 3
    assert all(len(splits) == 1 for splits in parts.values())


def test_the_build_depends_on_the_images_alone(study: Study, tmp_path: Path) -> None:
    out, _, digest = study
    assert build_mmio(collect(out.parent / "raw"), tmp_path / "again", workers=2).digest == digest
    write_study(tmp_path / "raw", backwards=True)
    build_mmio(collect(tmp_path / "raw"), tmp_path / "renamed")
    one, other = (
        {row["sha256"]: row["split"] for row in table(path / "splits.csv")} for path in (out, tmp_path / "renamed")
    )
    assert one == other
    assert [row["image_id"] for row in table(out / "splits.csv")] != [
        row["image_id"] for row in table(tmp_path / "renamed" / "splits.csv")
    ]


def parts_of(out: Path) -> dict[str, set[str]]:
    """Images of each part of the zero-shot study."""
    parts: dict[str, set[str]] = defaultdict(set)
    for row in table(out / "zero_shot.csv"):
        parts[row["part"]].add(row["image_id"])
    return parts


def test_zero_shot_parts(study: Study) -> None:
    out, truth, _ = study
    novel = {row["category"] for row in table(out / "categories.csv") if row["novel"] == "yes"}
    assert {"steel patch", "rolled-in scale", "commutator surface defect"} < novel and len(novel) == 35
    assert not novel & {"crazing", "steel inclusion", "pitted surface", "steel scratch", "open circuit"}
    parts, data, rows = parts_of(out), loaded(out, "zero_shot"), all_rows(out)
    unseen = {image_id for image_id, names in truth.items() if names & novel}
    unseen |= {"KolektorSDD/kos01/Part2", "KolektorSDD/kos02/Part5"}
    assert parts["unseen"] == unseen == {row["image_id"] for row in data["test"]}
    assert parts["twin"] == {
        "NEU-DET/IMAGES/inclusion_21",
        "NEU-DET/IMAGES/rolled-in_scale_21",
        *("KolektorSDD/kos01/Part0", "KolektorSDD/kos01/Part1", "KolektorSDD/kos02/Part0"),
    }
    assert parts["unplaced"] == {image_id for image_id, row in rows.items() if not is_placed(row)}
    assert {rows[image_id]["source"] for image_id in parts["unplaced"]} == {"X-SDD", "GDXray Castings"}
    assert "DeepPCB/group20085/20085/20085001_temp" in parts["seen"]
    assert parts["unplaced"] == set(all_rows(out, "image_level"))
    assert parts["seen"] == {row["image_id"] for row in data["train"]}
    assert sum(map(len, parts.values())) == len(rows)
    assert {row["image_id"]: row["sha256"] for row in table(out / "zero_shot.csv")} == {
        image_id: row["sha256"] for image_id, row in rows.items()
    }
    for row in rows.values():
        assert row["objects"]["is_novel"] == [name in novel for name in names_of(row)]
    assert not any(any(row["objects"]["is_novel"]) for row in data["train"])
    assert rows["NEU-DET/IMAGES/crazing_1"]["objects"]["is_novel"] == [False, True]
    closed = {row["image_id"]: row["split"] for row in table(out / "splits.csv")}
    generalized = {
        split: {row["image_id"] for row in found} for split, found in loaded(out, "generalized_zero_shot").items()
    }
    held_out = {image_id for image_id in parts["seen"] if closed[image_id] == "test"}
    assert generalized == {"train": parts["seen"] - held_out, "test": parts["unseen"] | held_out}
    detection = loaded(out, "zero_shot_detection")
    assert {split: [row["image_id"] for row in found] for split, found in detection.items()} == {
        split: [row["image_id"] for row in found] for split, found in data.items()
    }


def test_another_list_of_novel_categories_moves_images(study: Study, tmp_path: Path) -> None:
    out, truth, _ = study
    (tmp_path / "novel.txt").write_text("crazing  # ours\n\nopen circuit\n")
    build_mmio(collect(out.parent / "raw", novel=tmp_path / "novel.txt"), tmp_path / "out")
    parts = parts_of(tmp_path / "out")
    boards = {f"DeepPCB/group20085/20085/20085{number:03}_test" for number in range(1, 21)}
    assert parts["unseen"] == boards | {image_id for image_id, names in truth.items() if "crazing" in names}
    assert parts["twin"] == {board.replace("_test", "_temp") for board in boards}
    assert {"NEU-DET/IMAGES/patches_1", "KolektorSDD/kos01/Part2"} < parts["seen"]
    novel = [row["category"] for row in table(tmp_path / "out" / "categories.csv") if row["novel"] == "yes"]
    assert novel == ["crazing", "open circuit"]
    assert [row["split"] for row in table(tmp_path / "out" / "splits.csv")] == [
        row["split"] for row in table(out / "splits.csv")
    ]


def test_accepted_texts_become_prompts(tmp_path: Path) -> None:
    write_neu(tmp_path / "raw", "crazing_1", [("crazing", BOX)], texture(1))
    lines = ["crazing,a net of fine cracks,yes", "crazing,a web,no", "steel patch,a bright patch,", "spur,a thorn,yes"]
    write_text(tmp_path / "matches.csv", "\n".join(["category,text,accepted", *lines]))
    data = collect(tmp_path / "raw")
    build_mmio(data, tmp_path / "plain")
    build_mmio(data, tmp_path / "out", prompts=tmp_path / "matches.csv")
    before, after = (table(tmp_path / name / "categories.csv") for name in ("plain", "out"))
    assert [row["category"] for row in after] == CATEGORIES
    changed = {row["category"]: row["prompt"] for row, old in zip(after, before, strict=True) if row != old}
    assert changed == {"crazing": "a net of fine cracks", "spur": "a thorn"}
    write_text(tmp_path / "bad.csv", "category,text,accepted\nrust,rust,yes\n")
    with pytest.raises(DataError, match=r"bad\.csv: line 2: unknown category 'rust'"):
        build_mmio(data, tmp_path / "out", prompts=tmp_path / "bad.csv")
    assert table(tmp_path / "out" / "categories.csv") == after


def write_release_layout(raw: Path) -> None:
    """Four images with boxes in both forms and one without any; the second has another class in YOLO."""
    names = ["crack", "glass bubble"]
    entries: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}
    for number, split in enumerate(("train", "train", "validation", "validation", "train"), start=1):
        save(raw / "Images" / split / f"{number}.jpg", texture(number, (100, 80)))
        entries[split].append({"id": number, "file_name": f"{number}.jpg", "width": 100, "height": 80})
        line = f"{number % 2 if number != 2 else 1} 0.25 0.5 0.3 0.5\n" if number < 5 else ""
        write_text(raw / "labels" / split / f"{number}.txt", line)
    for split, images in entries.items():
        boxes = [
            {"id": image["id"], "image_id": image["id"], "category_id": image["id"] % 2 + 1, "bbox": [10, 20, 30, 40]}
            for image in images
            if image["id"] < 5
        ]
        categories = [{"id": place, "name": name} for place, name in enumerate(names, start=1)]
        content = {"images": images, "annotations": boxes, "categories": categories}
        write_text(raw / "annotations" / f"instances_{split}.json", json.dumps(content))


def test_a_release_keeps_its_own_splits(tmp_path: Path) -> None:
    write_release_layout(tmp_path / "raw")
    write_text(tmp_path / "novel.txt", "glass bubble\n")
    build_mmio(read_release(tmp_path / "raw", tmp_path / "novel.txt"), tmp_path / "out")
    official = {
        split: {row["image_id"] for row in rows} for split, rows in loaded(tmp_path / "out", "official").items()
    }
    assert official == {
        "train": {"train/1", "train/2", "train/5"},
        "validation": {"validation/3", "validation/4"},
    }
    rows = all_rows(tmp_path / "out")
    names = load_dataset_builder(str(tmp_path / "out")).info.features["label"].names
    assert names == ["crack", "glass bubble", "normal", "unknown"]
    found = {name: (names[row["label"]], row["objects"]["bbox"], row["scene"]) for name, row in rows.items()}
    assert found == {
        "train/1": ("glass bubble", [[10, 20, 30, 40]], "glass container"),
        "train/2": ("crack", [[10, 20, 30, 40]], None),
        "validation/3": ("glass bubble", [[10, 20, 30, 40]], "glass container"),
        "validation/4": ("crack", [[10, 20, 30, 40]], None),
        "train/5": ("normal", [], None),
    }
    assert parts_of(tmp_path / "out") == {
        "unseen": {"train/1", "validation/3"},
        "seen": {"train/2", "validation/4", "train/5"},
    }
    assert table(tmp_path / "out" / "disagreements.csv") == [
        {"image_id": "train/2", "attribute": line}
        for line in ["boxes: box 1, crack at (10.0, 20.0), 30.0 x 40.0 px in COCO is glass bubble in YOLO"]
    ]


def objects_of(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row["objects"], "category": names_of(row)}


@pytest.mark.parametrize("config", ["default", "zero_shot"])
def test_an_export_builds_the_same_again(mixed: Path, tmp_path: Path, config: str) -> None:
    export_detection(mixed, tmp_path / "export", config)
    data = read_release(tmp_path / "export", mixed.parent / "novel.txt")
    assert [*data.problems, *data.notes] == []
    assert [category.name for category in data.categories] == CATEGORIES
    build_mmio(data, tmp_path / "out")
    splits = loaded(mixed, config)
    before = {row["image_id"]: row for rows in splits.values() for row in rows}
    after = all_rows(tmp_path / "out")
    assert after.keys() == before.keys()
    same = ("sha256", "label", "scene", "is_defective", "source", "source_file", "object_name", "super_category")
    for image_id, row in before.items():
        again, old = after[image_id], objects_of(row)
        new = objects_of(again)
        assert {key: again[key] for key in same} == {key: row[key] for key in same}
        assert {key: new[key] for key in ("category", "iscrowd", "is_novel")} == {
            key: old[key] for key in ("category", "iscrowd", "is_novel")
        }
        for key in ("bbox", "area"):
            assert np.array_equal(np.float32(new[key]), np.float32(old[key]))
    official = loaded(tmp_path / "out", "official")
    assert {split: {row["image_id"] for row in rows} for split, rows in official.items()} == {
        split: {row["image_id"] for row in rows} for split, rows in splits.items()
    }
    assert not (tmp_path / "out" / "box_repairs.csv").exists()
    assert not (tmp_path / "out" / "disagreements.csv").exists()


def stored(folder: Path) -> pa.Table:
    """All rows by image number."""
    parts = [pq.read_table(path) for path in sorted(folder.glob("data/*/*.parquet"))]
    return pa.concat_tables(parts).sort_by("image_number")


def test_a_join_restores_what_a_release_withholds(tmp_path: Path) -> None:
    raw, built, released, full = (tmp_path / name for name in ("raw", "built", "released", "full"))
    for layout in ("neu_det/flat", "mt", "mvtec/leather", "deeppcb/spaces"):
        LAYOUTS[layout](raw)
    build_mmio(collect(raw), built)
    assert main(["data", "release", str(built), "--out", str(released)]) == 0
    whole, part = stored(built).to_pylist(), stored(released).to_pylist()
    for row, left in zip(whole, part, strict=True):
        closed = row["source"] != "MT"
        assert row["redistributable"] is not closed
        assert left == {**row, "image": None, "mask": None} if closed else left == row
    assert sum(row["mask"] is not None and row["source"] == "MVTec leather" for row in whole) == 10
    # What the release holds need not be supplied again.
    shutil.rmtree(raw / "MT")
    assert main(["data", "join", str(released), "--raw", str(raw), "--out", str(full), "--workers", "1"]) == 0
    assert stored(full).equals(stored(built))
    assert main(["data", "validate", "built", str(full), "--workers", "1"]) == 0
