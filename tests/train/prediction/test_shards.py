import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from defect_hub.train.prediction import shards
from defect_hub.train.prediction.loading import Job
from defect_hub.train.prediction.shards import (
    Chunk,
    ChunkWriters,
    chunks_of,
    merge_file,
    plan_merge,
    remaining_jobs,
)

SCHEMA = pa.schema({"name": pa.string()})


def write(folder, part, start, stop, last):
    with ChunkWriters(folder, SCHEMA) as writers:
        writers.write(Job(part, start), [{"name": f"{part}/{row}"} for row in range(start, stop)], last)


def test_chunks_end_when_full_at_the_end_and_when_left(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "CHUNK_ROWS", 4)
    with ChunkWriters(tmp_path, SCHEMA) as writers:
        for start in (0, 2, 4):
            writers.write(Job(7, start), [{"name": "a"}] * 2, last=False)
        writers.write(Job(2, 0), [], last=True)
        assert len(list(tmp_path.glob("*.tmp"))) == 1
    chunks = chunks_of(tmp_path)
    assert chunks == {2: [Chunk(2, 0, 0, True)], 7: [Chunk(7, 0, 4, False), Chunk(7, 4, 6, False)]}
    assert remaining_jobs(chunks, range(1, 9, 3)) == [Job(1, 0), Job(4, 0), Job(7, 6)]
    assert remaining_jobs(chunks, range(2, 3)) == []


def test_errors_leave_no_chunk(tmp_path):
    with pytest.raises(RuntimeError), ChunkWriters(tmp_path, SCHEMA) as writers:
        writers.write(Job(0, 0), [{"name": "a"}], last=False)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_gaps_and_damage_are_named(tmp_path):
    write(tmp_path, 3, 0, 2, last=False)
    write(tmp_path, 3, 2, 5, last=True)
    plan = plan_merge(tmp_path, "test")
    first = tmp_path / Chunk(3, 0, 2, False).name
    first.write_bytes(first.read_bytes()[:-9])
    schema = pa.schema({"row": pa.int64(), "name": pa.string()})
    with pytest.raises(ValueError, match=rf"{first.name}: is damaged .* Remove all 000003-\* there"):
        merge_file(plan[0], tmp_path, tmp_path, schema)
    assert not list(tmp_path.glob("*.tmp"))
    first.unlink()
    with pytest.raises(ValueError, match=r"does not follow the chunk before it\. Remove all 000003-\* there"):
        chunks_of(tmp_path)


def test_merged_files_keep_order_and_size(tmp_path, monkeypatch):
    for part in (1, 0, 2):
        write(tmp_path, part, 0, 3, last=True)
    size = (tmp_path / Chunk(0, 0, 3, True).name).stat().st_size
    monkeypatch.setattr(shards, "MAX_FILE_BYTES", 2 * size)
    plan = plan_merge(tmp_path, "test")
    assert [(file.name, file.first_row) for file in plan] == [
        ("test-00000-of-00002.parquet", 0),
        ("test-00001-of-00002.parquet", 6),
    ]
    merged = tmp_path / "merged"
    merged.mkdir()
    for file in plan:
        merge_file(file, tmp_path, merged, pa.schema({"row": pa.int64(), "name": pa.string()}))
    tables = [pq.read_table(path).to_pydict() for path in sorted(merged.iterdir())]
    assert tables[0]["row"] + tables[1]["row"] == list(range(9))
    assert tables[0]["name"] + tables[1]["name"] == [f"{part}/{row}" for part in range(3) for row in range(3)]
