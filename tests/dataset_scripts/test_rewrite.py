import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features, Image

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.rewrite import (
    Group,
    check_apart,
    copy_lists,
    counts_line,
    read_card,
    row_groups,
    update_hashes,
    with_values,
    write_card,
    write_shards,
)
from defect_hub.dataset_scripts.steeldefectx.build import build_steeldefectx


@pytest.fixture
def built(release: Path, tmp_path: Path) -> Path:
    """17 images; some are in the shards of the few-shot configs a second time."""
    build_steeldefectx(release, tmp_path / "built")
    return tmp_path / "built"


def groups(folder: Path, changed: bool = False) -> list[Group]:
    """All row groups as they are, or each with a line about one change."""
    return [
        Group(shard, pq.ParquetFile(shard).read_row_group(number), [f"{number} other"] if changed else [])
        for shard, number in row_groups(folder)
    ]


def test_an_unchanged_copy_says_what_the_first_one_says(built: Path, tmp_path: Path) -> None:
    new, card = tmp_path / "new", read_card(built)
    new.mkdir()
    contents = write_shards(built, new, card, groups(built))
    write_card(new, card, contents, built, new)
    assert contents.digest == card.front["build_digest"]
    copied = read_card(new)
    assert copied.front["configs"] == card.front["configs"]
    assert copied.body == card.body.replace('load_dataset("built"', 'load_dataset("new"')
    for shard in (built / "data").rglob("*.parquet"):
        assert pq.read_table(new / shard.relative_to(built)).equals(pq.read_table(shard))


def test_images_count_once_however_many_configs_hold_them(built: Path, tmp_path: Path) -> None:
    found = groups(built)
    contents = write_shards(built, tmp_path / "new", read_card(built), found)
    assert sum(len(group.table) for group in found) > 17
    assert contents.rows.total() == 17
    assert contents.missing.total() == 0


def test_changes_make_another_digest(built: Path, tmp_path: Path) -> None:
    card = read_card(built)
    first, second = (
        write_shards(built, tmp_path / name, card, groups(built, changed=True)).digest for name in ("a", "b")
    )
    assert first == second != card.front["build_digest"]


def test_lists_are_copied_and_pictures_are_not(built: Path, tmp_path: Path) -> None:
    (built / "sheet.png").write_bytes(b"")
    (built / "statistics").mkdir()
    for name in ("statistics.json", "samples.jpg"):
        (built / "statistics" / name).write_bytes(b"{}")
    (built / ".cache").mkdir()
    (built / ".cache" / "hidden.json").write_bytes(b"{}")
    (built / "link.csv").symlink_to(built / "splits.csv")
    for name, chosen in (("all", None), ("some", ["statistics.json"])):
        copy_lists(built, tmp_path / name, chosen)
    copied = {name: {path.name for path in (tmp_path / name).rglob("*.*")} for name in ("all", "some")}
    assert "splits.csv" in copied["some"]
    assert not {"sheet.png", "README.md", "hidden.json", "link.csv"} & copied["all"]
    assert copied["all"] - copied["some"] == {"samples.jpg"}


def test_hashes_are_put_into_the_lists_that_have_them(tmp_path: Path) -> None:
    lines = [["split", "image_id", "sha256"], ["train", "a, b", "1"], ["test", "c", "2"]]
    with (tmp_path / "splits.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    (tmp_path / "other.csv").write_text("image_id,size\nc,4\n")
    update_hashes(tmp_path, {"a, b": "9", "unknown": "8"})
    with (tmp_path / "splits.csv").open(newline="") as file:
        assert [*csv.reader(file)] == [lines[0], ["train", "a, b", "9"], lines[2]]
    assert (tmp_path / "other.csv").read_text() == "image_id,size\nc,4\n"


def test_values_change_in_the_chosen_rows_alone() -> None:
    schema = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])}).arrow_schema
    images = [{"bytes": bytes([number]), "path": f"{number}.png"} for number in range(3)]
    table = pa.Table.from_pylist([{"image": image, "label": 1} for image in images], schema=schema)
    chosen, other = pa.array([False, True, False]), {"bytes": b"x", "path": "x.png"}
    for values, expected in (([None, other, other], other), (None, None)):
        found = with_values(table, "image", chosen, values)
        assert found["image"].to_pylist() == [images[0], expected, images[2]]
        assert found.schema.equals(schema, check_metadata=True)
        assert found["label"].equals(table["label"])


def test_a_copy_lies_apart_and_comes_from_a_build(tmp_path: Path) -> None:
    check_apart(tmp_path / "a", tmp_path / "ab")
    for out in ("a", "a/b", "."):
        with pytest.raises(DataError, match="output: is not apart from"):
            check_apart(tmp_path / "a", tmp_path / out)
    with pytest.raises(DataError, match="is not a built data set"):
        read_card(tmp_path)


def test_counts_are_sorted_by_name() -> None:
    assert counts_line({"b": 1, "a": 2000}) == "a 2,000, b 1"
