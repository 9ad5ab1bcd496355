from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features, Image, Value

from defect_hub.dataset_scripts.parquet import ROW_GROUP, ShardWriter, view_size
from defect_hub.dataset_scripts.schema import View

FEATURES = Features({"image": Image(), "label": ClassLabel(names=["a", "b"]), "text": Value("string")})


VIEWS = {"all": View(), "texts": View(("text",), (("text", "!=", ""),))}


def table(start: int, end: int) -> pa.Table:
    """Rows of which every third has a text."""
    rows = [
        {"image": {"path": f"{i}.png", "bytes": b"x" * 1000}, "label": i % 2, "text": None if i % 3 else "abc"}
        for i in range(start, end)
    ]
    return pa.Table.from_pylist(rows, schema=FEATURES.arrow_schema)


def write(folder: Path, rows: int, **options: int) -> ShardWriter:
    with ShardWriter(folder, "train", FEATURES, VIEWS, **options) as writer:
        for start in range(0, rows, 70):
            writer.write(table(start, min(start + 70, rows)))
    return writer


def test_row_groups_and_stored_features(tmp_path: Path) -> None:
    writer = write(tmp_path, 250)
    file = pq.ParquetFile(tmp_path / "train-00000-of-00001.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [ROW_GROUP, ROW_GROUP, 50]
    assert Features.from_arrow_schema(file.schema_arrow) == FEATURES
    assert file.read()["image"].to_pylist() == table(0, 250)["image"].to_pylist()
    assert writer.num_rows == 250
    assert writer.rows == {"all": 250, "texts": 84}
    assert writer.sizes["all"] > 250_000 > 84 * 8 > writer.sizes["texts"] >= 84 * 3


def test_shards_stay_below_the_bound(tmp_path: Path) -> None:
    write(tmp_path, 250, max_shard_bytes=150_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"train-0000{i}-of-00003.parquet" for i in range(3)]
    assert [pq.read_table(path).num_rows for path in sorted(tmp_path.iterdir())] == [100, 100, 50]


def test_no_rows_leave_no_shard(tmp_path: Path) -> None:
    write(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []


def test_error_leaves_no_finished_rows(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ShardWriter(tmp_path, "train", FEATURES, VIEWS) as writer:
        writer.write(table(0, 3))
        raise RuntimeError
    assert pq.read_table(tmp_path / "train-00000-of-00001.parquet").num_rows == 0


def test_a_column_may_have_several_conditions() -> None:
    view = View(("label",), (("text", "!=", ""), ("label", "==", 1), ("text", "==", "abc")))
    assert view_size(table(0, 12), view) == (2, 2 * 8)


def test_finished_early_and_only_once(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "train", FEATURES, {}) as writer:
        writer.write(table(0, 3))
        writer.finish()
        assert pq.read_metadata(tmp_path / "train-00000-of-00001.parquet").num_rows == 3
    assert [path.name for path in tmp_path.iterdir()] == ["train-00000-of-00001.parquet"]
