import csv
import hashlib
import json
import os
import resource
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import get_dataset_config_names, load_dataset, load_dataset_builder
from PIL import Image

from defect_hub.dataset_scripts.assemble import BuildReport, Recipe, write_dataset
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.samples import Source
from defect_hub.dataset_scripts.schema import record_features
from defect_hub.dataset_scripts.steeldefectx.build import SOURCE
from defect_hub.dataset_scripts.steeldefectx.release import load_classes, read_release

CLASSES = load_classes()
RECIPE = Recipe([*CLASSES.defects, CLASSES.normal], "# $name", {"license": "other"}, {"test": "val"}, studies=True)


def build(raw: Path, out: Path, source: Source = SOURCE, **options: Any) -> BuildReport:
    splits, problems = read_release(raw, CLASSES, source)
    return write_dataset(out, RECIPE, splits, problems, **options)


def test_rows_load_with_schema_bytes_and_order(release: Path, tmp_path: Path) -> None:
    report = build(release, tmp_path / "out")
    data = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in data.items()} == {"train": 12, "val": 5, "test": 5}
    assert data["test"]["image_id"] == data["val"]["image_id"]
    assert {split: counts.total() for split, counts in report.counts.items()} == {"train": 12, "val": 5}
    assert data["train"].features == record_features(RECIPE.class_names)
    files = sorted((release / "train").iterdir())
    assert data["train"]["image_id"] == [f"train/{path.stem}" for path in files]
    raw_images = data["train"].with_format("arrow")["image"].to_pylist()
    assert [image["bytes"] for image in raw_images] == [path.read_bytes() for path in files]
    assert [image["path"] for image in raw_images] == [path.name for path in files]


def test_column_configs_share_the_default_shards(release: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(release, out)
    assert sorted(path.name for path in (out / "data").iterdir()) == ["default", "few_shot"]
    for config, columns in {"classification": ["image", "label"], "segmentation": ["image", "label", "mask"]}.items():
        loaded = load_dataset(str(out), config, split="val", cache_dir=str(tmp_path / "cache"))
        streamed = list(load_dataset(str(out), config, split="val", streaming=True))
        assert loaded.column_names == columns
        assert [row["label"] for row in streamed] == loaded["label"]
        assert list(streamed[0]) == columns


def test_text_configs_hold_the_rows_that_have_the_text(release: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(release, out)
    rows = load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert None in rows["t3"]
    for level in ("t0", "t1", "t2", "t3", "t4"):
        texts = load_dataset(str(out), level, split="train", cache_dir=str(tmp_path / "cache"))
        assert texts.column_names == ["image", "label", level]
        assert texts[level] == [text for text in rows[level] if text]
        streamed = load_dataset(str(out), level, split="train", streaming=True)
        assert [row[level] for row in streamed] == texts[level]
    pairs = load_dataset(str(out), "retrieval", split="train", cache_dir=str(tmp_path / "cache"))
    assert pairs.column_names == ["image_id", "image", "label", "t0", "t1", "t2", "t3", "t4"]
    assert pairs["image_id"] == rows["image_id"]


def test_stated_sizes_are_those_that_load(release: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(release, out)
    names = get_dataset_config_names(str(out))
    shots = [f"few_shot_{shots}_seed42" for shots in (1, 2, 4, 8)]
    views = [f"t{level}" for level in range(5)] + ["classification", "segmentation", "retrieval"]
    assert names == ["default", *views, "leak_free", *shots]
    for name in names:
        stated = load_dataset_builder(str(out), name, cache_dir=str(tmp_path / "cache")).info
        loaded = load_dataset(str(out), name, cache_dir=str(tmp_path / "cache"))
        assert {split: len(rows) for split, rows in loaded.items()} == {
            split: info.num_examples for split, info in stated.splits.items()
        }
        for split, rows in loaded.items():
            assert stated.splits[split].num_bytes == pytest.approx(rows.data.nbytes, rel=0.05)
            if name in ("leak_free", *shots):
                assert stated.features is None  # Those of the default config, and in the shards.
                assert rows.features == record_features(RECIPE.class_names)
            else:
                assert rows.features == stated.features


def test_few_shot_configs_hold_so_many_images_a_class(release: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(release, out)
    official = load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    available = Counter(official["train"]["label"])
    for shots in (1, 2, 4, 8):
        few = load_dataset(str(out), f"few_shot_{shots}_seed42", cache_dir=str(tmp_path / "cache"))
        assert Counter(few["train"]["label"]) == {label: min(shots, count) for label, count in available.items()}
        assert set(few["train"]["image_id"]) <= set(official["train"]["image_id"])
        assert few["val"]["image_id"] == official["val"]["image_id"]


def turned_copy(release: Path) -> str:
    """Put a turned copy of the first training image into val, under another name; returns its id."""
    entries = {split: json.loads((release / f"{split}-text.json").read_text()) for split in ("train", "val")}
    entry = next(entry for entry in entries["train"] if entry["structured_attributes"])
    stem = Path(entry["image_name"]).stem
    Image.open(release / "train" / f"{stem}.jpg").rotate(90).save(release / "val" / "twin.png")
    Image.open(release / "train_mask" / f"{stem}.png").rotate(90).save(release / "val_mask" / "twin.png")
    entries["val"].append({**entry, "image_name": "twin.png"})
    (release / "val-text.json").write_text(json.dumps(entries["val"]))
    return "val/twin"


def test_leak_free_moves_turned_copies_to_train(release: Path, tmp_path: Path) -> None:
    twin = turned_copy(release)
    out = tmp_path / "out"
    build(release, out)
    official, apart = (
        load_dataset(str(out), name, cache_dir=str(tmp_path / "cache")) for name in ("default", "leak_free")
    )
    assert twin in official["val"]["image_id"]
    assert twin not in official["train"]["image_id"]
    assert set(apart["train"]["image_id"]) - set(official["train"]["image_id"]) == {twin}
    assert set(official["val"]["image_id"]) - set(apart["val"]["image_id"]) == {twin}
    assert sum(map(len, apart.values())) - len(apart["test"]) == 18
    listed = (out / "duplicates.csv").read_text().splitlines()
    assert listed[0] == "group,image_id,split,class"
    assert len(listed) == 3
    assert any(line.startswith(f"0,{twin},val,") for line in listed)


def test_result_does_not_depend_on_workers(release: Path, tmp_path: Path) -> None:
    one, two = (build(release, tmp_path / f"out{workers}", workers=workers) for workers in (1, 2))
    assert one.digest == two.digest
    files = [sorted(path.relative_to(report.out) for path in report.out.rglob("*")) for report in (one, two)]
    assert files[0] == files[1]
    for path in files[0]:
        if path.suffix == ".parquet":
            assert pq.read_table(one.out / path) == pq.read_table(two.out / path)


def test_bad_images_are_skipped_on_request_and_listed(release: Path, tmp_path: Path) -> None:
    first, second = sorted((release / "train").iterdir())[:2]
    first.write_bytes(b"no image")
    (release / "train_mask" / f"{second.stem}.png").unlink()
    out = tmp_path / "out"
    report = build(release, out, skip_bad=True)
    assert report.counts["train"].total() == 10
    assert [Path(str(problem.where)).name for problem in report.skipped] == [second.name, first.name]
    assert report.lines()[0].startswith("note: skipped ")
    data = load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert not {f"train/{first.stem}", f"train/{second.stem}"} & set(data["image_id"])


def test_nothing_left_is_an_error_even_if_bad_images_are_skipped(release: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for path in (release / split).iterdir():
            path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"is not an image.*and 16 more"):
        build(release, tmp_path / "out", skip_bad=True)
    assert not (tmp_path / "out").exists()


def test_split_list_names_the_files(release: Path, tmp_path: Path) -> None:
    build(release, tmp_path / "out")
    with (tmp_path / "out" / "splits.csv").open(newline="") as file:
        listed = {(row["image_id"], row["sha256"], row["split"]) for row in csv.DictReader(file)}
    expected = {
        (f"{split}/{path.stem}", hashlib.sha256(path.read_bytes()).hexdigest(), split)
        for split in ("train", "val")
        for path in (release / split).iterdir()
    }
    assert listed == expected


def test_digest_follows_the_content_and_defeats_the_cache(release: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", str(tmp_path / "cache")
    first = build(release, out)
    assert build(release, tmp_path / "again").digest == first.digest
    assert load_dataset(str(out), split="val", cache_dir=cache)["license"] == ["not stated"] * 5
    second = build(release, out, replace(SOURCE, license="other"))
    assert second.digest != first.digest
    assert load_dataset(str(out), split="val", cache_dir=cache)["license"] == ["other"] * 5


def test_repeated_ids_are_refused(release: Path, tmp_path: Path) -> None:
    splits, _ = read_release(release, CLASSES, SOURCE)
    sample = splits["train"][0]
    with pytest.raises(DataError, match=f"{sample.image_id}: image_id: occurs more than once"):
        write_dataset(tmp_path / "out", RECIPE, {"train": [sample, sample]})


def test_report_names_counts_and_digest(release: Path, tmp_path: Path) -> None:
    report = build(release, tmp_path / "out")
    assert report.lines() == [f"{tmp_path / 'out'}: train 12, val 5 images, digest {report.digest[:16]}"]


@pytest.mark.slow
def test_full_disk_is_one_line_and_keeps_the_earlier_build(release: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(release, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    limit = 200_000  # lets the raw images pass, not the shards
    result = subprocess.run(
        [sys.executable, "-m", "defect_hub.cli", "data", "build", "steelsynth", "--n", "20", "--out", str(out)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert result.returncode == 2
    errors = [line for line in result.stderr.splitlines() if line and "image/s" not in line]
    assert errors == [f"error: {out}: output: File too large. Free some space or write to another disk"]
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]
