import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import get_dataset_config_names, load_dataset, load_dataset_builder
from PIL import Image

from defect_hub.dataset_scripts.assemble import Recipe, write_dataset
from defect_hub.dataset_scripts.parquet import ShardWriter
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.release import Rights, count_rights, write_release
from defect_hub.dataset_scripts.samples import Sample, Source
from defect_hub.dataset_scripts.schema import record_features
from defect_hub.dataset_scripts.statistics import write_statistics

CLASSES = ["crack", "normal"]
TEMPLATE = """# $name

Words before.

## Load

```python
data = load_dataset("$name")
```

$configs

<!-- statistics -->
<!-- /statistics -->

## Fields

Build digest: `$digest`
"""
IMAGES = ["image", "mask"]


def source(name: str, redistributable: bool) -> Source:
    return Source(name, "plate", "metallurgy", "not stated", redistributable, "test", "composed")


def sample(raw: Path, origin: Source, number: int) -> Sample:
    """A picture of 20x16 px, every third one normal, with its mask."""
    rng = np.random.default_rng([number, len(origin.name)])
    pixels, mask = rng.integers(90, 160, (16, 20), dtype=np.uint8), np.zeros((16, 20), np.uint8)
    if number % 3:
        mask[2 : 4 + number % 7, 3:9] = 255
        pixels[mask > 0] //= 2
    folder = raw / origin.name
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / f"{number}.bmp"
    Image.fromarray(pixels).save(image)
    Image.fromarray(mask).save(folder / f"{number}_mask.png")
    name = "crack" if number % 3 else "normal"
    return Sample(
        image_id=f"{origin.name}/{number}",
        image=image,
        mask=folder / f"{number}_mask.png",
        class_name=name,
        source=origin,
        is_defective=name != "normal",
        source_file=f"{number}.bmp",
    )


def build(out: Path, samples: list[Sample]) -> None:
    third = len(samples) // 3
    splits = {"train": samples[third:], "test": samples[:third]}
    write_dataset(out, Recipe(CLASSES, TEMPLATE, {"license": "other"}, {"val": "test"}), splits)


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """Eight images of a source that may be passed on, and eight of one that may not."""
    sources = source("open", True), source("closed", False)
    build(tmp_path / "built", [sample(tmp_path / "raw", origin, number) for number in range(8) for origin in sources])
    return tmp_path / "built"


def rows(folder: Path) -> pa.Table:
    """All rows of the default folder, by id."""
    tables = [pq.read_table(path) for path in sorted((folder / "data" / "default").glob("*.parquet"))]
    return pa.concat_tables(tables).sort_by("image_id")


def front(folder: Path) -> dict[str, Any]:
    matter: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    return matter


def test_only_images_and_masks_that_must_not_be_redistributed_are_null(built: Path, tmp_path: Path) -> None:
    report = write_release(built, tmp_path / "out")
    before, after = rows(built), rows(tmp_path / "out")
    assert after.drop_columns(IMAGES).equals(before.drop_columns(IMAGES))
    assert after.schema.equals(before.schema, check_metadata=True)
    for old, new in zip(before.to_pylist(), after.to_pylist(), strict=True):
        expected = (old["image"], old["mask"]) if old["source"] == "open" else (None, None)
        assert (new["image"], new["mask"]) == expected
    assert (tmp_path / "out" / "splits.csv").read_bytes() == (built / "splits.csv").read_bytes()
    assert (report.rows, report.withheld) == ({"open": 8, "closed": 8}, {"closed": 8})
    digest = front(tmp_path / "out")["build_digest"]
    assert report.lines() == [f"{tmp_path / 'out'}: 8 of 16 rows without image (closed 8), digest {digest[:16]}"]


def test_nothing_of_a_withheld_picture_is_in_any_file(built: Path, tmp_path: Path) -> None:
    write_release(built, tmp_path / "out")
    stored = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    for path in (tmp_path / "raw").rglob("*.bmp"):
        assert (path.read_bytes()[-100:] in stored) == (path.parent.name == "open")


def test_sources_to_keep_stay_whole(built: Path, tmp_path: Path) -> None:
    report = write_release(built, tmp_path / "out", keep=["closed"])
    assert rows(tmp_path / "out").equals(rows(built))
    assert report.withheld == {}
    assert report.digest == front(built)["build_digest"]
    assert "without images" not in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(DataError, match=r"keep: there are no rows of clsed\. Name one of closed, open"):
        write_release(built, tmp_path / "out", keep=["clsed"])


def test_a_row_without_permission_is_withheld(built: Path, tmp_path: Path) -> None:
    for shard in (built / "data").rglob("*.parquet"):
        table = pq.read_table(shard)
        place = table.schema.get_field_index("redistributable")
        unknown = pa.nulls(len(table), pa.bool_())
        pq.write_table(table.set_column(place, table.schema.field(place), unknown), shard)
    assert write_release(built, tmp_path / "out").withheld == {"open": 8, "closed": 8}


def stated_rows(folder: Path) -> dict[str, dict[str, int]]:
    """Rows of each config by split, as the card says."""
    infos = front(folder)["dataset_info"]
    return {info["config_name"]: {part["name"]: part["num_examples"] for part in info["splits"]} for info in infos}


def check_configs(folder: Path, cache: Path) -> dict[str, dict[str, int]]:
    """Load every config, also streaming; returns the rows of each."""
    found: dict[str, dict[str, int]] = {}
    for name in get_dataset_config_names(str(folder)):
        stated = load_dataset_builder(str(folder), name, cache_dir=str(cache)).info
        loaded = load_dataset(str(folder), name, cache_dir=str(cache))
        streamed = load_dataset(str(folder), name, streaming=True)
        found[name] = {split: len(part) for split, part in loaded.items()}
        assert found[name] == {split: info.num_examples for split, info in stated.splits.items()}
        assert stated.dataset_size == sum(info.num_bytes for info in stated.splits.values())
        for split, part in loaded.items():
            assert part.features == stated.features
            # Arrow rounds each of its many buffers up.
            assert stated.splits[split].num_bytes == pytest.approx(part.data.nbytes, rel=0.1, abs=600)
            assert [row["label"] for row in streamed[split]] == part["label"]
    return found


def test_every_config_loads_and_states_its_size(built: Path, tmp_path: Path) -> None:
    before = stated_rows(built)
    write_release(built, tmp_path / "out")
    after = check_configs(tmp_path / "out", tmp_path / "cache")
    assert before.pop("segmentation") == {"train": 11, "test": 5, "val": 5}
    shown = after.pop("segmentation")
    assert after == before
    ids = [row["image_id"] for row in rows(built).to_pylist() if row["source"] == "open"]
    assert shown["train"] + shown["test"] == len(ids) == 8
    for split in shown:
        data = load_dataset(str(tmp_path / "out"), "segmentation", split=split, cache_dir=str(tmp_path / "cache"))
        assert None not in data["image"]
        assert None not in data["mask"]
    text = (tmp_path / "out" / "README.md").read_text()
    assert f"| `segmentation` | image, label, mask | train {shown['train']}, test {shown['test']}" in text


def test_a_config_without_rows_is_left_out(tmp_path: Path) -> None:
    build(tmp_path / "built", [sample(tmp_path / "raw", source("closed", False), number) for number in range(6)])
    write_release(tmp_path / "built", tmp_path / "out")
    after = check_configs(tmp_path / "out", tmp_path / "cache")
    assert stated_rows(tmp_path / "built").keys() - after.keys() == {"segmentation"}
    assert "`segmentation`" not in (tmp_path / "out" / "README.md").read_text()


def test_masks_of_a_source_with_both_kinds_of_rows_are_told_apart(tmp_path: Path) -> None:
    mixed = [sample(tmp_path / "raw", source("mixed", number % 2 == 0), number) for number in range(9)]
    build(tmp_path / "built", mixed)
    write_release(tmp_path / "built", tmp_path / "out")
    shown = load_dataset(str(tmp_path / "out"), "segmentation", cache_dir=str(tmp_path / "cache"))
    assert {split: len(part) for split, part in shown.items()} == stated_rows(tmp_path / "out")["segmentation"]
    assert len(shown["train"]) + len(shown["test"]) == 5
    assert None not in [*shown["train"]["mask"], *shown["test"]["mask"]]


def test_shards_keep_names_and_row_groups(tmp_path: Path) -> None:
    closed = source("closed", False)
    build(tmp_path / "built", [sample(tmp_path / "raw", closed, number) for number in range(330)])
    folder = tmp_path / "built" / "data" / "default"
    table = pq.read_table(folder / "train-00000-of-00001.parquet")
    (folder / "train-00000-of-00001.parquet").unlink()
    with ShardWriter(folder, "train", record_features(CLASSES), {}, max_shard_bytes=1) as writer:
        writer.write(table)
    write_release(tmp_path / "built", tmp_path / "out")
    shards = sorted(folder.iterdir())
    assert [path.name for path in shards][1:] == [f"train-{number:05d}-of-00003.parquet" for number in range(3)]
    assert sorted(path.name for path in (tmp_path / "out/data/default").iterdir()) == [path.name for path in shards]
    for shard in shards:
        old, new = (
            pq.read_metadata(base / "data/default" / shard.name) for base in (folder.parents[1], tmp_path / "out")
        )
        assert [old.row_group(group).num_rows for group in range(old.num_row_groups)] == [
            new.row_group(group).num_rows for group in range(new.num_row_groups)
        ]
        assert new.row_group(0).column(0).compression == "SNAPPY"
        assert new.row_group(0).column(2).has_offset_index
    assert rows(tmp_path / "out").drop_columns(IMAGES).equals(rows(tmp_path / "built").drop_columns(IMAGES))


def test_the_card_says_what_is_missing_and_how_to_get_it(built: Path, tmp_path: Path) -> None:
    report = write_release(built, tmp_path / "out")
    text, old = (tmp_path / "out" / "README.md").read_text(), front(built)["build_digest"]
    assert "| closed | 8 | 8 | 8 |" in text
    assert "defect-hub data join out --raw YOUR_COPIES --out FULL" in text
    assert text.index("Words before.") < text.index("## Rows without images") < text.index("## Load")
    assert old not in text
    assert f"Build digest: `{report.digest}`" in text
    assert 'load_dataset("out")' in text
    again = write_release(tmp_path / "out", tmp_path / "again")
    assert again.digest == report.digest
    assert (tmp_path / "again" / "README.md").read_text() == text.replace('"out"', '"again"').replace(
        "join out", "join again"
    )


def test_figures_that_show_images_stay_behind(built: Path, tmp_path: Path) -> None:
    files = {path.name for path in write_statistics(built)}
    (built / "sheet.png").write_bytes(b"")
    (built / "splits").mkdir()
    (built / "splits" / "train.txt").write_text("closed/1\n")
    write_release(built, tmp_path / "out")
    left = files - {path.name for path in (tmp_path / "out" / "statistics").iterdir()}
    assert [Path(name).stem for name in left] == ["samples"]
    text = (tmp_path / "out" / "README.md").read_text()
    for name in files - {"statistics.json"}:
        assert (f"](statistics/{name})" in text) == (name not in left)
    assert "outlined" not in text
    assert "Class sizes with the log-normal" in text
    assert not (tmp_path / "out" / "sheet.png").exists()
    assert (tmp_path / "out" / "splits" / "train.txt").read_text() == "closed/1\n"
    write_release(built, tmp_path / "whole", keep=["closed"])
    assert {path.name for path in (tmp_path / "whole" / "statistics").iterdir()} == files


def test_what_is_no_build_or_lies_in_the_way_is_refused(built: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="raw: folder: is not a built data set"):
        write_release(tmp_path / "raw", tmp_path / "out")
    for out in (built, built / "inside", tmp_path):
        with pytest.raises(DataError, match="output: is not apart from"):
            write_release(built, out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(DataError, match="mine: output: exists and is not a built data set"):
        write_release(built, tmp_path / "mine")


def test_a_release_that_fails_leaves_the_earlier_one(built: Path, tmp_path: Path) -> None:
    write_release(built, tmp_path / "out")
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in (tmp_path / "out").rglob("*.*")}
    shard = next((built / "data" / "default").glob("train*"))
    data = shard.read_bytes()
    shard.write_bytes(data[:4] + bytes(len(data) // 2) + data[4 + len(data) // 2 :])
    with pytest.raises((OSError, pa.ArrowException)):
        write_release(built, tmp_path / "out")
    assert {path: hashlib.sha256(path.read_bytes()).digest() for path in (tmp_path / "out").rglob("*.*")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["built", "out", "raw"]


def test_rights_are_counted_by_source_and_licence(built: Path, tmp_path: Path) -> None:
    whole = Rights("open", "not stated", 8, published=8, withheld=0, kept=0)
    assert count_rights(built) == [Rights("closed", "not stated", 8, published=0, withheld=8, kept=0), whole]
    assert count_rights(built, ["closed"]) == [
        Rights("closed", "not stated", 8, published=8, withheld=0, kept=8),
        whole,
    ]
    write_release(built, tmp_path / "out")
    absent = Rights("closed", "not stated", 8, published=0, withheld=0, kept=0)
    assert count_rights(tmp_path / "out", ["closed"]) == [absent, whole]
