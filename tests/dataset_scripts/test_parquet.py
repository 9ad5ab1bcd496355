from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features, Image, Value

from defect_hub.dataset_scripts.parquet import ROW_GROUP, ShardWriter

FEATURES = Features({"image": Image(), "label": ClassLabel(names=["a", "b"]), "text": Value("string")})


def write(folder: Path, rows: int, **options: int) -> ShardWriter:
    with ShardWriter(folder, "train", FEATURES, **options) as writer:
        for i in range(rows):
            writer.write({"image": {"path": f"{i}.png", "bytes": b"x" * 1000}, "label": i % 2, "text": None})
    return writer


def test_row_groups_and_stored_features(tmp_path: Path) -> None:
    writer = write(tmp_path, 250)
    file = pq.ParquetFile(tmp_path / "train-00000-of-00001.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [ROW_GROUP, ROW_GROUP, 50]
    assert Features.from_arrow_schema(file.schema_arrow) == FEATURES
    assert writer.num_examples == 250
    assert writer.column_bytes["image"] >= 250_000


def test_shards_stay_below_the_bound(tmp_path: Path) -> None:
    write(tmp_path, 250, max_shard_bytes=150_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"train-0000{i}-of-00003.parquet" for i in range(3)]
    assert [pq.read_table(path).num_rows for path in sorted(tmp_path.iterdir())] == [100, 100, 50]


def test_no_rows_give_a_readable_shard(tmp_path: Path) -> None:
    write(tmp_path, 0)
    assert pq.read_table(tmp_path / "train-00000-of-00001.parquet").num_rows == 0


def test_error_leaves_no_finished_rows(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ShardWriter(tmp_path, "train", FEATURES) as writer:
        writer.write({"image": None, "label": 0, "text": "x"})
        raise RuntimeError
    assert pq.read_table(tmp_path / "train-00000-of-00001.parquet").num_rows == 0
