import csv
import hashlib
import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import load_dataset

from defect_hub.dataset_scripts.assemble import BuildReport, Recipe, write_dataset
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.schema import record_features
from defect_hub.dataset_scripts.steeldefectx.build import SOURCE
from defect_hub.dataset_scripts.steeldefectx.release import load_classes, read_release

CLASSES = load_classes(with_normal=True)
RECIPE = Recipe(list(CLASSES.causes), "# $name", {"license": "other"})


def build(raw: Path, out: Path, source: object = SOURCE) -> BuildReport:
    splits, problems = read_release(raw, CLASSES, source)  # type: ignore[arg-type]
    return write_dataset(out, RECIPE, splits, problems)


def test_rows_load_with_schema_bytes_and_order(release: Path, tmp_path: Path) -> None:
    report = build(release, tmp_path / "out")
    data = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in data.items()} == {"train": 12, "val": 5}
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
    assert sorted(path.name for path in (out / "data").iterdir()) == ["default", "t0", "t1", "t2", "t3", "t4"]
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
    for level in ("T0", "T1", "T2", "T3", "T4"):
        texts = load_dataset(str(out), level.lower(), split="train", cache_dir=str(tmp_path / "cache"))
        assert texts.column_names == ["image", "label", "text"]
        assert texts["text"] == [text[level] for text in rows["descriptions"] if text[level]]


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
    assert errors == [f"error: {out}: output: File too large. Free some space or choose another --out"]
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]
