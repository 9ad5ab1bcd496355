from types import SimpleNamespace

import datasets
import pytest
import torch
from torch.utils.data import DataLoader

from defect_hub.train import streaming
from defect_hub.train.data import DiagnosisCollator, load_split
from defect_hub.train.streaming import ReferencePool, StreamedDiagnosisDataset

BATCH = 3


@pytest.fixture(scope="module")
def train(steelsynth):
    """28 rows; of two, the image is withheld, and of one it is unknown whether it is defective."""
    rows = load_split(str(steelsynth), "train")
    encoded = rows.cast_column("image", datasets.Image(decode=False)).cast_column("mask", datasets.Image(decode=False))
    table = encoded.to_list()
    table[3]["image"] = table[9]["image"] = table[5]["is_defective"] = None
    return datasets.Dataset.from_list(table, features=rows.features)


@pytest.fixture(scope="module")
def usable(train):
    ids = set(train["image_id"]) - {train[index]["image_id"] for index in (3, 5, 9)}
    assert len(ids) == 25
    return ids


def write(folder, rows, files, row_group=100):
    """A data set of so many files."""
    for number in range(files):
        part = rows.shard(files, number, contiguous=True)
        part.to_parquet(folder / f"train-{number:05d}-of-{files:05d}.parquet", batch_size=row_group)
    return load_split(str(folder), "train", streaming=True)


@pytest.fixture(scope="module")
def stream(tmp_path_factory, train):
    """Five files of one or two row groups."""
    return write(tmp_path_factory.mktemp("stream"), train, files=5, row_group=3)


def batches(stream, processor, count, workers=0, skip=0, **options):
    """The first batches that follow `skip` others, and what stands in the place of those."""
    settings = {"flip": True, "simulated_defects": 0.3, "brightness": 0.2, "contrast": 0.2, "lanes": 4}
    settings |= options
    dataset = StreamedDiagnosisDataset(stream, processor, 7, BATCH, **settings)
    dataset.skip_batches = skip
    loader = DataLoader(dataset, BATCH, collate_fn=DiagnosisCollator(dataset, [0, 1, 2]), num_workers=workers)
    drawn = [batch for _, batch in zip(range(skip + count), loader, strict=False)]
    return drawn[skip:], drawn[:skip]


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name]
        for name, value in first.items()
    )


@pytest.fixture(scope="module")
def whole(stream, processor):
    """Some passes, without interruption and without workers."""
    return batches(stream, processor, 24)[0]


# Shares


@pytest.mark.parametrize(
    ("files", "row_group", "ranks"), [(1, 100, 1), (1, 100, 3), (1, 4, 1), (5, 3, 2), (8, 100, 2)]
)
def test_every_row_belongs_to_one_share(tmp_path, train, processor, files, row_group, ranks):
    """With as many files or row groups as shares, and with fewer."""
    rows = write(tmp_path, train, files, row_group)
    shares = [
        StreamedDiagnosisDataset(rows, processor, 7, BATCH, rank=rank, world_size=ranks, lanes=4)
        for rank in range(ranks)
    ]
    orders = []
    for number in range(2):
        seen = [row["image_id"] for share in shares for lane in range(4) for row in share.pass_rows(lane, number)]
        assert sorted(seen) == sorted(train["image_id"])
        orders.append(seen)
    assert orders[0] != orders[1]


def test_each_pass_and_seed_has_an_order_of_its_own(stream, processor, usable):
    dataset = StreamedDiagnosisDataset(stream, processor, 7, 1, lanes=1, flip=False)
    items, size = iter(dataset), len(usable)
    passes = [[next(items)["image_id"] for _ in range(size)] for _ in range(2)]
    assert all(set(names) == usable for names in passes)
    assert passes[0] != passes[1]
    for seed in (7, 8):
        again = StreamedDiagnosisDataset(stream, processor, seed, 1, lanes=1)
        names = [row["image_id"] for row in again.pass_rows(0, 0) if row["image_id"] in usable]
        assert (names == passes[0]) == (seed == 7)


def test_processes_draw_differently(stream, processor):
    first, second = (batches(stream, processor, 2, rank=rank, world_size=2, lanes=2)[0] for rank in (0, 1))
    assert not {name for batch in first for name in batch["ids"]} & {name for batch in second for name in batch["ids"]}


# Batches


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_workers(stream, processor, whole, workers):
    torch.manual_seed(workers)  # the seed of a worker's own random numbers
    found, _ = batches(stream, processor, 12, workers)
    assert all(map(same, found, whole))


@pytest.mark.parametrize("workers", [0, 2])
def test_going_on_gives_the_batches_of_an_uninterrupted_run(stream, processor, whole, workers):
    found, passed = batches(stream, processor, 5, workers, skip=13)
    assert passed == [{}] * 13
    assert len(found) == 5
    assert all(map(same, found, whole[13:]))
    assert any("reference_pixel_values" in batch for batch in found)


def test_batches_that_are_passed_over_are_not_decoded(stream, processor, decoded):
    batches(stream, processor, 1, simulated_defects=0.0)
    first = len(decoded)
    decoded.clear()
    batches(stream, processor, 1, skip=20, simulated_defects=0.0)
    assert BATCH <= len(decoded) <= 4 * BATCH  # image, mask, and at most two references of each
    assert first >= BATCH


def test_no_image_is_decoded_twice_for_a_batch(stream, train, processor, decoded):
    images = {
        row["image"]["bytes"] for row in train.cast_column("image", datasets.Image(decode=False)) if row["image"]
    }
    dataset = StreamedDiagnosisDataset(stream, processor, 7, BATCH, simulated_defects=1.0, lanes=2)
    loader = iter(DataLoader(dataset, BATCH, collate_fn=DiagnosisCollator(dataset, [2])))
    given = 0
    for _ in range(12):
        decoded.clear()
        batch = next(loader)
        pictures = [data for data in decoded if data in images]
        references = batch.get("reference_pixel_values", torch.empty(0, 0))
        given += len(references)
        assert BATCH <= len(pictures) <= BATCH + references.shape[0] * references.shape[1]
        assert len(pictures) == len(set(pictures))
    assert given


def test_references_are_normal_images_of_earlier_batches(stream, train, processor):
    dataset = StreamedDiagnosisDataset(stream, processor, 7, BATCH, lanes=1)
    collate = DiagnosisCollator(dataset, [2])
    known = {
        row["image_id"]: dataset.resized(row)
        for row in train.cast_column("image", datasets.Image(decode=False))
        if row["image"] and row["is_defective"] is False
    }
    earlier, checked = set(), 0
    for _, batch in zip(range(16), DataLoader(dataset, BATCH, collate_fn=collate), strict=False):
        for reference in batch.get("reference_pixel_values", torch.empty(0, 0)).flatten(0, 1):
            (name,) = {
                name for name, image in known.items() if torch.equal(collate.normalize(image[None])[0], reference)
            }
            assert name in earlier - set(batch["ids"])
            checked += 1
        earlier |= set(batch["ids"])
    assert checked >= 10


def test_the_pool_keeps_the_newest_normal_images():
    pool = ReferencePool(2)
    rows = {
        index: {"image_id": f"{index % 4}", "object_name": "ab"[index % 2], "is_defective": index == 5}
        for index in range(10)
    }
    for index, row in rows.items():
        pool.leave_out([row])
        pool.add({index: row})
    assert {name: list(kept) for name, kept in pool.rows.items()} == {"a": [6, 8], "b": [7, 9]}
    pool.leave_out([rows[4]])  # the same image as row 8
    assert list(pool.rows["a"]) == [6]


# Bad input


def test_rows_that_are_left_out_are_counted(tmp_path, train, processor, capfd):
    dataset = StreamedDiagnosisDataset(write(tmp_path, train, 1), processor, 7, BATCH, lanes=1)
    [item for _, item in zip(range(30), dataset, strict=False)]
    said = capfd.readouterr().err
    assert "share 1 of 1: 3 of 28 rows are left out: " in said
    assert "2 without image" in said
    assert "1 of unknown is_defective" in said


def test_nothing_to_train_on_is_said(tmp_path, train, processor):
    table = train.cast_column("image", datasets.Image(decode=False)).to_list()
    withheld = datasets.Dataset.from_list([{**row, "image": None} for row in table], features=train.features)
    dataset = StreamedDiagnosisDataset(write(tmp_path, withheld, 1), processor, 7, BATCH, lanes=1)
    with pytest.raises(ValueError, match=r"share 1 of 1: no row can be trained on \(28 without image\)"):
        next(iter(dataset))


def test_the_lanes_must_be_shared_out_evenly(stream, processor, monkeypatch):
    dataset = StreamedDiagnosisDataset(stream, processor, 7, BATCH, lanes=3)
    monkeypatch.setattr(streaming, "get_worker_info", lambda: SimpleNamespace(id=0, num_workers=2))
    with pytest.raises(ValueError, match="num_workers=2: does not divide the 3 lanes of a stream"):
        next(iter(dataset))


def test_a_damaged_file_ends_in_one_line(tmp_path, train, processor):
    rows = write(tmp_path, train, 2)
    file = tmp_path / "train-00001-of-00002.parquet"
    file.write_bytes(file.read_bytes()[:1000])
    dataset = StreamedDiagnosisDataset(rows, processor, 7, BATCH, lanes=1)
    with pytest.raises(ValueError, match=r"^a file of the stream is damaged \(.*\)\. Copy or build it again$"):
        list(dataset.pass_rows(0, 0))
