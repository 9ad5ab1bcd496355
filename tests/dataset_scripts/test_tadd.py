import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets, get_dataset_config_names, load_dataset
from PIL import Image

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.splits import SPLITS, split_sizes
from defect_hub.dataset_scripts.tadd.build import build_tadd
from defect_hub.dataset_scripts.tadd.collection import collect
from defect_hub.dataset_scripts.tadd.subsets import label_space, load_subsets
from tests.dataset_scripts.tadd_layouts import LAYOUTS

PAPER_SUBSETS = """Aitex BSData CFD Crack500 CrackTree200 DeepCrack Eugen_Miller VisA GAPs KolektorSDD KolektorSDD2
LIACI MT MVTec-AD NEU OUC-Crack Rissbilder RubberTires RSDD RSDD2 Volker"""


def write(root: Path, *layouts: str) -> None:
    for layout in layouts:
        LAYOUTS[layout][1](root)


def loaded(out: Path, cache: Path, config: str = "default") -> dict[str, Dataset]:
    return dict(load_dataset(str(out), config, cache_dir=str(cache)))


def all_rows(out: Path, cache: Path, config: str = "default") -> Dataset:
    return concatenate_datasets(list(loaded(out, cache, config).values()))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of six subsets."""
    root = tmp_path_factory.mktemp("raw")
    write(root, "visa", "mvtec", "kolektorsdd", "liaci", "bsdata", "neu_cls")
    build_tadd(root, root.parent / "built" / "tadd")
    return root.parent / "built" / "tadd"


def test_table_has_the_subsets_of_the_paper() -> None:
    table = load_subsets()
    assert list(table) == PAPER_SUBSETS.split()
    for subset in table.values():
        assert set(subset.expected) <= {*subset.labels, "unknown", "all"}
        assert set(subset.nouns) <= set(subset.labels)
        assert {
            value for value in (subset.license, subset.annotation, subset.normal, subset.verified) if not value
        } == set()
    assert len(label_space()) == len(set(label_space()))


def test_magnetic_tiles(magnetic_tiles: Path, tmp_path: Path) -> None:
    report = build_tadd(magnetic_tiles, tmp_path / "out")
    data = loaded(tmp_path / "out", tmp_path / "cache")
    rows = concatenate_datasets(list(data.values()))
    names = rows.features["label"].names
    assert names == label_space()
    found = Counter((names[row["label"]], row["is_defective"]) for row in rows)
    kinds = ("blowhole", "break", "crack", "fray", "normal", "uneven")
    assert found == {(name, name != "normal"): 12 for name in kinds}
    assert split_sizes(12) == (2, 0, 10)
    assert {split: rows.num_rows for split, rows in data.items()} == {"train": 12, "test": 60}
    assert report.counts["test"] == Counter(dict.fromkeys(kinds, 10))
    for row in rows:
        if row["mask"] is None:
            assert row["image_id"] == "MT/MT_Uneven/Imgs/exp1_num_0"
            continue
        mask = np.asarray(row["mask"])
        assert mask.shape == (row["height"], row["width"])
        # The grey row at 127 is no defect.
        assert (mask == 255).sum() == (100 if row["is_defective"] else 0)
    warning = "MT/MT_Uneven/Imgs/exp1_num_0: empty mask of a defect (uneven), taken as no annotation"
    assert report.sources[0] == "MT: 72 of 1,344 images"
    assert report.sources[1].startswith("not found: Aitex, BSData, ")
    assert report.warnings == [warning]


def test_result_does_not_depend_on_place_or_workers(magnetic_tiles: Path, tmp_path: Path) -> None:
    first = build_tadd(magnetic_tiles, tmp_path / "a")
    second = build_tadd(magnetic_tiles.parent, tmp_path / "b", ["MT"], workers=2)
    assert first.digest == second.digest


def test_exposures_of_one_tile_share_a_split(magnetic_tiles: Path, tmp_path: Path) -> None:
    folder, rng = magnetic_tiles / "MT_Free" / "Imgs", np.random.default_rng(5)
    for tile in range(6):
        coarse = Image.fromarray(rng.uniform(60, 200, (12, 12)).astype(np.float32))
        surface = np.asarray(coarse.resize((120, 90), Image.Resampling.BICUBIC))
        for exposure in range(1, 6):
            picture = np.clip(surface * (0.7 + 0.1 * exposure), 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(folder / f"exp{exposure}_num_9{tile}{exposure}.jpg", quality=95)
            Image.new("L", (120, 90)).save(folder / f"exp{exposure}_num_9{tile}{exposure}.png")
    build_tadd(magnetic_tiles, tmp_path / "out")
    splits = defaultdict(set)
    for split, data in loaded(tmp_path / "out", tmp_path / "cache").items():
        for image_id in data["image_id"]:
            if "_num_9" in image_id and len(image_id.rpartition("_")[2]) == 3:
                splits[image_id.rpartition("_")[2][1]].add(split)
    assert len(splits) == 6
    assert all(len(found) == 1 for found in splits.values())


def test_configs_show_their_rows(built: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    everything = all_rows(built, cache)
    names = get_dataset_config_names(str(built))
    assert {
        "all",
        "normal_only",
        "conversations",
        "mvtec_visa",
        "zero_shot_visa_to_mvtec",
        "zero_shot_mvtec_to_visa",
    } < {*names}
    parts = {name: all_rows(built, cache, name) for name in set(everything["source"])}
    assert {name: set(part["source"]) for name, part in parts.items()} == {name: {name} for name in parts}
    assert sum(map(len, parts.values())) == len(everything) == len(all_rows(built, cache, "all"))
    normal = all_rows(built, cache, "normal_only")
    assert sorted(normal["image_id"]) == sorted(row["image_id"] for row in everything if row["is_defective"] is False)
    talks = all_rows(built, cache, "conversations")
    assert talks.column_names == ["image_id", "image", "label", "conversation"]
    assert len(talks) == sum(verdict is not None for verdict in everything["is_defective"])
    assert all(len(turns) >= 6 for turns in talks["conversation"])


def test_zero_shot_configs_take_the_official_test_parts(built: Path, tmp_path: Path) -> None:
    for train, test in (("VisA", "MVTec-AD"), ("MVTec-AD", "VisA")):
        name = f"zero_shot_{train[:5].lower().split('-')[0]}_to_{test[:5].lower().split('-')[0]}"
        data = loaded(built, tmp_path / "cache", name)
        assert {split: set(rows["source"]) for split, rows in data.items()} == {"train": {train}, "test": {test}}
        for rows in data.values():
            whole = all_rows(built, tmp_path / "cache", rows["source"][0])
            official = [row["image_id"] for row in whole if row["official_split"] == "test"]
            assert sorted(rows["image_id"]) == sorted(official)
            assert set(rows["official_split"]) == {"test"}


def test_unknown_is_never_normal(built: Path, tmp_path: Path) -> None:
    rows = all_rows(built, tmp_path / "cache", "BSData")
    names = rows.features["label"].names
    states = {(names[row["label"]], row["is_defective"], row["annotation"]) for row in rows}
    assert states == {("pitting", True, "mask"), ("unknown", None, "none")}
    unknown = next(row for row in rows if row["is_defective"] is None)
    assert [unknown[key] for key in ("t0", "t2", "t4", "mask", "attributes", "conversation")] == [None] * 5 + [[]]


def test_pictures_of_one_part_share_a_split(built: Path, tmp_path: Path) -> None:
    splits = defaultdict(set)
    for split, rows in loaded(built, tmp_path / "cache", "KolektorSDD").items():
        for path in rows["source_file"]:
            splits[path.partition("/")[0]].add(split)
    assert len(splits) > 1
    assert all(len(found) == 1 for found in splits.values())


def test_references_are_normal_training_images(magnetic_tiles: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for index in range(12, 100):
        path = magnetic_tiles / "MT_Free" / "Imgs" / f"exp1_num_{index}.jpg"
        Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
        Image.new("L", (64, 64)).save(path.with_suffix(".png"))
    build_tadd(magnetic_tiles, tmp_path / "out")
    train = {row["image_id"]: row for row in loaded(tmp_path / "out", tmp_path / "cache")["train"]}
    head, *lines = (line.split(",") for line in (tmp_path / "out" / "references.csv").read_text().splitlines())
    assert head == ["source", "object_name", "seed", "rank", "image_id", "sha256"]
    draws = defaultdict(list)
    for source, object_name, seed, rank, image_id, sha256 in lines:
        assert (source, object_name) == ("MT", "magnetic tile")
        assert (train[image_id]["is_defective"], train[image_id]["sha256"]) == (False, sha256)
        draws[seed].append((int(rank), image_id))
    assert set(draws) == {"42", "43", "44", "45", "46"}
    assert all([rank for rank, _ in sorted(draw)] == [0, 1, 2, 3] for draw in draws.values())
    assert len({tuple(sorted(draw)) for draw in draws.values()}) == 5


def test_descriptions_of_the_user_come_first(magnetic_tiles: Path, tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "A tile with a dark hole."}]
    texts = [{"image_name": "MT/MT_Blowhole/Imgs/exp1_num_3", "conversation": turns}]
    (magnetic_tiles.parent / "TADD_text.json").write_text(json.dumps(texts))
    report = build_tadd(magnetic_tiles.parent, tmp_path / "out", ["MT"])
    rows = all_rows(tmp_path / "out", tmp_path / "cache")
    given = [row for row in rows if row["text_source"] == "released"]
    assert [(row["source_file"], row["t2"]) for row in given] == [
        ("MT_Blowhole/Imgs/exp1_num_3.jpg", "A tile with a dark hole.")
    ]
    assert any(turn["value"] == "A tile with a dark hole." for turn in given[0]["conversation"])
    assert set(rows["text_source"]) == {"released", "composed"}
    assert "TADD_text.json: 1 images described; 0 of 1 names are ambiguous" in report.sources


def test_problems_of_all_kinds_are_reported_at_once(magnetic_tiles: Path, tmp_path: Path) -> None:
    write(magnetic_tiles.parent, "mvtec")
    mvtec = next(path.parent for path in magnetic_tiles.parent.glob("*/bottle"))
    for place in ("test", "ground_truth"):
        (mvtec / "bottle" / place / "broken_large").rename(mvtec / "bottle" / place / "bulge")
    Image.new("L", (7, 7)).save(magnetic_tiles / "MT_Break" / "Imgs" / "exp1_num_0.png")
    (magnetic_tiles / "MT_Crack" / "Imgs" / "exp1_num_1.jpg").write_bytes(b"no image")
    (magnetic_tiles / "MT_Uneven" / "Imgs" / "exp1_num_5.png").unlink()
    Image.new("L", (64, 40), 255).save(magnetic_tiles / "MT_Free" / "Imgs" / "exp1_num_0.png")
    with pytest.raises(DataError, match="and 4 more"):
        build_tadd(magnetic_tiles.parent, tmp_path / "out")
    listed = (tmp_path / "out.errors.txt").read_text()
    assert "'bulge' is no category of MVTec-AD (" in listed
    assert "exp1_num_0.png: mask: 7x7 px where its image has 64x40 px" in listed
    assert "exp1_num_1.jpg: image: is not an image" in listed
    assert "MT_Uneven/Imgs/exp1_num_5.jpg: annotation: is missing. Supply its annotation as in " in listed
    assert "MT_Free/Imgs/exp1_num_0.png: mask: marks defects on an image of class normal" in listed
    report = build_tadd(magnetic_tiles.parent, tmp_path / "out", ["MT"], skip_bad=True)
    assert sum(counts.total() for counts in report.counts.values()) == 72 - 4
    assert len(report.skipped) == 4


def test_subsets_must_be_known_and_there(magnetic_tiles: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown set XY; there are Aitex, BSData"):
        build_tadd(tmp_path, tmp_path / "out", ["XY"])
    with pytest.raises(DataError, match=r"sets: CFD not found. Supply a folder CFD with image/001.jpg with"):
        build_tadd(magnetic_tiles.parent, tmp_path / "out", ["MT", "CFD"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no folder that is named like a set of TADD\. Name the folders after"):
        build_tadd(tmp_path / "empty", tmp_path / "out")
    tiles = magnetic_tiles.rename(tmp_path / "tiles")
    with pytest.raises(DataError, match="It looks like MT itself: name that by --subsets"):
        build_tadd(tiles, tmp_path / "out")
    assert len(collect(tiles, ["MT"]).samples) == 72
    with pytest.raises(DataError, match="folder: does not exist"):
        build_tadd(tmp_path / "none", tmp_path / "out")


def test_the_folder_of_another_set_is_recognised(magnetic_tiles: Path) -> None:
    magnetic_tiles.rename(magnetic_tiles.with_name("KolektorSDD"))
    with pytest.raises(DataError, match="holds no image where KolektorSDD has them; it looks like MT"):
        collect(magnetic_tiles.parent)


def test_mixed_layouts_are_refused(magnetic_tiles: Path) -> None:
    for place in ("train/good", "test/blowhole", "ground_truth/blowhole"):
        shutil.copytree(magnetic_tiles / "MT_Blowhole" / "Imgs", magnetic_tiles / place)
    with pytest.raises(DataError, match=r"layout: mixes layouts: 72 images as MT_Blowhole/Imgs/exp1_num_0\.jpg, "):
        collect(magnetic_tiles)


def test_an_image_that_two_subsets_claim(tmp_path: Path) -> None:
    write(tmp_path, "rsdd")
    (tmp_path / "RSDD2").symlink_to(tmp_path / "Type-I RSDDs dataset")
    found = collect(tmp_path)
    assert len(found.problems) == len(found.found.listings[0].entries)
    assert "is claimed by RSDD and by RSDD2" in str(found.problems[0])


def test_unread_images_are_named(magnetic_tiles: Path, tmp_path: Path) -> None:
    Image.new("L", (20, 20)).save(magnetic_tiles / "dataset.jpg")
    report = build_tadd(magnetic_tiles, tmp_path / "out")
    assert report.sources[0] == "MT: 72 of 1,344 images; 1 image files not read (dataset.jpg)"
    assert "- 1 image files not read (dataset.jpg)." in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_unknown_categories_of_the_authors_layout_are_defects(tmp_path: Path) -> None:
    write(tmp_path, "authors/MT")
    (tmp_path / "MT" / "test" / "blowhole").rename(tmp_path / "MT" / "test" / "bulge")
    (tmp_path / "MT" / "ground_truth" / "blowhole").rename(tmp_path / "MT" / "ground_truth" / "bulge")
    samples = collect(tmp_path, ["MT"]).samples
    assert {s.class_name for s in samples if "/bulge/" in s.source_file} == {"defect"}


def test_every_split_is_listed(built: Path, tmp_path: Path) -> None:
    lines = [line.split(",") for line in (built / "splits.csv").read_text().splitlines()[1:]]
    listed = {(image_id, sha256, split) for image_id, sha256, split in lines}
    data = loaded(built, tmp_path / "cache")
    assert listed == {(row["image_id"], row["sha256"], split) for split in data for row in data[split]}
    assert {split for _, _, split in listed} <= set(SPLITS)


def test_a_missing_table_is_noted(tmp_path: Path) -> None:
    write(tmp_path / "raw", "bsdata")  # It has no image_data.json.
    report = build_tadd(tmp_path / "raw", tmp_path / "out")
    assert "without image_data.json, so its own split is not known" in report.sources[0]
    assert set(all_rows(tmp_path / "out", tmp_path / "cache")["official_split"]) == {None}
