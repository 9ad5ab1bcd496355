import hashlib
import os

import datasets
import pytest
from PIL import Image

from defect_hub.train.prediction.sources import (
    ListedImages,
    StreamedRows,
    TableRows,
    image_paths,
    is_image_folder,
    list_images,
    load_source,
    split_digest,
)
from tests.train.stub_prediction import write_images


def all_rows(source):
    return [row for part in range(source.num_parts) for row in source.rows(part, 0)]


def test_folders_are_walked_like_sorted_paths(tmp_path):
    for name in (
        "b/2.png",
        "b/10.PNG",
        "b-a/1.jpg",
        "a.tif",
        "b/c/d.webp",
        ".hidden/x.png",
        "b/.x.png",
        "b/notes.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = [os.path.relpath(path, tmp_path) for path in image_paths(tmp_path)]
    assert found == ["a.tif", "b/10.PNG", "b/2.png", "b/c/d.webp", "b-a/1.jpg"]


def test_listed_images_come_whole_from_any_row_on(tmp_path):
    write_images(tmp_path / "images", 7)
    odd = tmp_path / "images" / os.fsdecode(b"\xff.png")  # no text
    odd.write_bytes(b"anything")
    digest = list_images(tmp_path / "images", tmp_path / "listing.parquet", 3)
    source = ListedImages(tmp_path / "images", tmp_path / "listing.parquet")
    assert (source.num_rows, source.num_parts) == (8, 3)
    rows = all_rows(source)
    assert [row.image_id for row in rows[:2]] == ["line 0/00000.png", "line 0/00002.png"]
    assert rows[-1].data == b"anything"
    assert rows[0].sha256 == hashlib.sha256((tmp_path / "images/line 0/00000.png").read_bytes()).hexdigest()
    assert list(source.rows(1, 2)) == rows[5:6]
    odd.unlink()
    assert list_images(tmp_path / "images", tmp_path / "listing.parquet", 3) != digest
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="holds no image"):
        list_images(tmp_path / "none", tmp_path / "listing.parquet", 3)


def test_tables_and_streams_hold_the_same_rows(steelsynth, rows):
    assert not is_image_folder(str(steelsynth))
    table = load_source(str(steelsynth), "default", "val", False, 5)
    stream = load_source(str(steelsynth), "default", "val", True, 5)
    assert isinstance(table, TableRows)
    assert isinstance(stream, StreamedRows)
    assert (table.num_rows, table.num_parts, stream.num_rows) == (12, 3, 12)
    found = all_rows(table)
    assert found == all_rows(stream)
    assert [row.image_id for row in found] == rows["image_id"]
    assert all(hashlib.sha256(row.data).hexdigest() == row.sha256 for row in found)
    assert list(table.rows(1, 2)) == found[7:10]
    assert list(stream.rows(0, 7)) == found[7 : len(list(stream.rows(0, 0)))]


def test_streams_are_cut_at_row_groups(tmp_path):
    images = [Image.new("L", (8, 8), value) for value in range(10)]
    rows = datasets.Dataset.from_dict({"picture": images}, datasets.Features({"picture": datasets.Image()}))
    rows.to_parquet(tmp_path / "test.parquet", batch_size=4)
    stream = load_source(str(tmp_path), "default", "test", True, 64)
    assert [len(list(stream.rows(part, 0))) for part in range(stream.num_parts)] == [4, 4, 2]
    assert all(row.image_id is None and row.sha256 for row in all_rows(stream))


def test_digest_follows_the_files(tmp_path):
    digests = []
    for count in (2, 3):
        rows = datasets.Dataset.from_dict({"text": ["x" * 50] * count})
        rows.to_parquet(tmp_path / "test.parquet")
        digests.append(split_digest(str(tmp_path), "default", "test"))
    assert digests[0] != digests[1]
    with pytest.raises(ValueError, match=r"image: no such column of images \(found: none\)"):
        load_source(str(tmp_path), "default", "test", False, 64)
    with pytest.raises(ValueError, match="Check --data, --config and --split"):
        load_source(str(tmp_path), "default", "val", False, 64)
