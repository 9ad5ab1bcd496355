import csv
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import get_dataset_config_names, load_dataset
from PIL import Image

from defect_hub.dataset_scripts.assemble import Recipe, write_dataset
from defect_hub.dataset_scripts.join import JoinReport, join_images
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.release import write_release
from defect_hub.dataset_scripts.samples import Sample, Source

CLASSES = ["crack", "normal"]
TEMPLATE = '# $name\n\nWords before.\n\n## Load\n\n`load_dataset("$name")`\n\n$configs\n\nDigest `$digest`\n'
KINDS = ("gray.bmp", "rgb.png", "photo.jpg", "large.bmp", "normal.png", "bare.png")


def draw(raw: Path, kind: str, number: int) -> tuple[Path, Path | None]:
    """An image of a kind, and its mask; a bare one has none, and the mask of a normal one marks nothing."""
    rng = np.random.default_rng([number, KINDS.index(kind)])
    stem, suffix = kind.split(".")
    height, width = (32, 40) if stem == "large" else (16, 20)
    shape = (height, width, 3) if stem == "rgb" else (height, width)
    path = raw / "closed" / f"{stem}{number}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(90, 160, shape, dtype=np.uint8)).save(path)
    if stem == "bare":
        return path, None
    mask = np.zeros((height, width), np.uint8)
    if stem != "normal":
        mask[2:6, 3 : 8 + number] = 255
    Image.fromarray(mask).save(path.with_name(f"{path.stem}_mask.png"))
    return path, path.with_name(f"{path.stem}_mask.png")


def samples(raw: Path) -> list[Sample]:
    """Two images of each kind that must not be passed on; the large ones are resized."""
    source = Source("closed", "plate", "metallurgy", "not stated", False, "test", "composed")
    found = []
    for number in range(2):
        for kind in KINDS:
            image, mask = draw(raw, kind, number)
            normal = kind.startswith("normal")
            found.append(
                Sample(
                    image_id=f"closed/{image.stem}",
                    image=image,
                    mask=mask,
                    class_name="normal" if normal else "crack",
                    source=source,
                    is_defective=not normal,
                    size=(20, 16) if kind.startswith("large") else None,
                    source_file=image.name,
                )
            )
    return found


def open_sample(raw: Path) -> Sample:
    """An image that may be passed on."""
    first = samples(raw)[0]
    path = raw / "open" / "plate.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20)).save(path)
    source = replace(first.source, name="open", redistributable=True)
    return replace(first, image_id="open/plate", image=path, mask=None, source=source, source_file=path.name)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Raw folder, the build of all of it, and its release."""
    raw, built, released = (tmp_path / name for name in ("raw", "built", "released"))
    found = samples(raw)
    splits = {"train": [*found[:8], open_sample(raw)], "test": found[8:]}
    write_dataset(built, Recipe(CLASSES, TEMPLATE, {"license": "other"}), splits)
    write_release(built, released)
    return raw, built, released


READERS: Mapping[str, Callable[[Path], Sequence[Sample]]] = {"closed": samples}


def rows(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted((folder / "data").rglob("*.parquet")))


def by_id(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["image_id"]: row for row in rows(folder).to_pylist()}


def listed(folder: Path) -> dict[str, str]:
    with (folder / "splits.csv").open(newline="") as file:
        return {row["image_id"]: row["sha256"] for row in csv.DictReader(file)}


def front(folder: Path) -> dict[str, Any]:
    matter: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    return matter


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("workers", [1, 2])
def test_joining_a_release_gives_the_build_again(
    folders: tuple[Path, Path, Path], tmp_path: Path, workers: int
) -> None:
    raw, built, released = folders
    assert rows(released)["image"].null_count == 12
    report = join_images(released, raw, tmp_path / "full", READERS, workers)
    assert rows(tmp_path / "full").equals(rows(built))
    assert rows(tmp_path / "full").schema.equals(rows(built).schema, check_metadata=True)
    assert (tmp_path / "full" / "splits.csv").read_bytes() == (built / "splits.csv").read_bytes()
    assert report == JoinReport(tmp_path / "full", report.digest, {"closed": 12}, {}, {}, {"closed": 10}, {})
    assert report.lines() == [
        "restored by the bytes of the file: 12 (closed 12)",
        "masks restored: 10 (closed 10)",
        f"{tmp_path / 'full'}: digest {report.digest[:16]}",
    ]


def test_the_card_of_a_full_join_is_that_of_the_build(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    raw, built, released = folders
    report = join_images(released, raw, tmp_path / "full", READERS)
    before, after = front(built), front(tmp_path / "full")
    assert after["configs"] != front(released)["configs"]
    assert {entry["config_name"]: entry for entry in after["configs"]} == {
        entry["config_name"]: entry for entry in before["configs"]
    }
    infos = [{info["config_name"]: info for info in card["dataset_info"]} for card in (before, after)]
    assert infos[0].keys() == infos[1].keys()
    for name, info in infos[0].items():
        other = infos[1][name]
        assert other["features"] == info["features"]
        assert [(split["name"], split["num_examples"]) for split in other["splits"]] == [
            (split["name"], split["num_examples"]) for split in info["splits"]
        ]
        assert other["dataset_size"] == pytest.approx(info["dataset_size"], rel=0.05)
        assert other["description"] == f"build {report.digest}"
    assert before.keys() == after.keys()
    text = (tmp_path / "full" / "README.md").read_text()
    assert "ithout images" not in text
    assert "ithout images" in (released / "README.md").read_text()
    assert text.endswith(f"Digest `{report.digest}`\n")
    assert 'Words before.\n\n## Load\n\n`load_dataset("full")`' in text


def test_every_config_loads_after_a_join(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    raw, built, released = folders
    join_images(released, raw, tmp_path / "full", READERS)
    assert "segmentation" not in get_dataset_config_names(str(released))
    assert set(get_dataset_config_names(str(tmp_path / "full"))) == set(get_dataset_config_names(str(built)))
    for name in get_dataset_config_names(str(built)):
        expected, found = (
            load_dataset(str(folder), name, cache_dir=str(tmp_path / "cache")) for folder in (built, tmp_path / "full")
        )
        streamed = load_dataset(str(tmp_path / "full"), name, streaming=True)
        for split, part in expected.items():
            plain = part.with_format("arrow")[:]
            assert found[split].with_format("arrow")[:].equals(plain)
            assert len(list(streamed[split])) == len(plain)


def test_names_and_folders_of_the_copies_do_not_matter(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    raw, built, released = folders
    for number, path in enumerate(sorted((raw / "closed").iterdir())):
        place = raw / "deep" / str(number % 3)
        place.mkdir(parents=True, exist_ok=True)
        path.rename(place / f"x{number}{path.suffix.upper()}")
    report = join_images(released, raw, tmp_path / "full")
    assert rows(tmp_path / "full").drop_columns("mask").equals(rows(built).drop_columns("mask"))
    assert (report.by_bytes, report.by_pixels, report.missing) == ({"closed": 12}, {}, {})


def test_a_copy_saved_in_another_format_is_found_by_its_pixels(
    folders: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    raw, built, released = folders
    copies = {}
    for stem, suffix in (("gray0", ".bmp"), ("photo1", ".jpg"), ("rgb0", ".png")):
        path = raw / "closed" / f"{stem}{suffix}"
        copy = path.with_name(f"{stem}-copy.{'bmp' if suffix == '.png' else 'png'}")
        Image.open(path).save(copy)
        path.unlink()
        copies[f"closed/{stem}"] = copy
    report = join_images(released, raw, tmp_path / "full")
    before, after = by_id(built), by_id(tmp_path / "full")
    for image_id, row in after.items():
        expected = {**before[image_id], "mask": row["mask"]}
        if image_id in copies:
            path = copies[image_id]
            digest = sha256(path)
            image = {"path": path.name, "bytes": path.read_bytes()}
            expected |= {"image": image, "sha256": digest, "source_sha256": digest}
        assert row == expected
    assert listed(tmp_path / "full") == {image_id: row["sha256"] for image_id, row in after.items()}
    assert listed(tmp_path / "full") != listed(built)
    assert (report.by_bytes, report.by_pixels, report.missing) == ({"closed": 9}, {"closed": 3}, {})


def saved_anew(raw: Path) -> Iterator[Sample]:
    """What a reader finds after gray0.bmp became a PNG."""
    renamed = raw / "closed" / "gray0.png"
    for sample in samples(raw):
        yield replace(sample, image=renamed) if sample.image.name == "gray0.bmp" else sample


def test_a_pixel_match_has_its_mask_too(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    raw, built, released = folders
    path = raw / "closed" / "gray0.bmp"
    Image.open(path).save(path.with_suffix(".png"))
    path.unlink()

    def reader(raw: Path) -> Iterator[Sample]:
        found = list(saved_anew(raw))  # draws the BMP again
        path.unlink()
        return iter(found)

    report = join_images(released, raw, tmp_path / "full", {"closed": reader})
    assert (report.by_pixels, report.masks) == ({"closed": 1}, {"closed": 10})
    assert by_id(tmp_path / "full")["closed/gray0"]["mask"] == by_id(built)["closed/gray0"]["mask"]


def edit(folder: Path, image_id: str, column: str, value: str) -> None:
    """Change one value in the shards."""
    for shard in (folder / "data").rglob("*.parquet"):
        table = pq.read_table(shard)
        values = table[column].to_pylist()
        if image_id in table["image_id"].to_pylist():
            values[table["image_id"].to_pylist().index(image_id)] = value
        place = table.schema.get_field_index(column)
        pq.write_table(table.set_column(place, table.schema.field(column), pa.array(values)), shard)


def test_a_resized_image_may_differ_in_its_bytes_but_not_in_its_pixels(
    folders: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    raw, built, released = folders
    for image_id in ("closed/large0", "closed/large1"):
        edit(released, image_id, "sha256", "0" * 64)
    edit(released, "closed/large1", "pixel_sha256", "0" * 64)
    report = join_images(released, raw, tmp_path / "full", READERS)
    before, after = by_id(built), by_id(tmp_path / "full")
    assert after["closed/large0"] == before["closed/large0"]
    assert listed(tmp_path / "full")["closed/large0"] == before["closed/large0"]["sha256"]
    assert (after["closed/large1"]["image"], after["closed/large1"]["mask"]) == (None, None)
    assert (report.missing, report.missing_masks) == ({"closed": 1}, {"closed": 1})
    assert "large1.bmp: image: resized to 20x16 px it is not the picture of closed/large1" in str(report.problems[0])


def test_an_image_that_is_resized_already_is_taken_as_it_is(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    raw, built, released = folders
    (raw / "closed" / "large0.bmp").unlink()
    (raw / "small.png").write_bytes(by_id(built)["closed/large0"]["image"]["bytes"])
    join_images(released, raw, tmp_path / "full")
    before, after = by_id(built)["closed/large0"], by_id(tmp_path / "full")["closed/large0"]
    assert after == {**before, "mask": None}


def test_what_the_user_lacks_stays_missing_and_is_reported(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    raw, built, released = folders
    gone = ["gray0.bmp", "rgb1.png", "bare0.png"]
    (raw / "found").mkdir()
    for sample in samples(raw):
        if sample.image.name not in gone:
            sample.image.rename(raw / "found" / sample.image.name)
    report = join_images(released, raw / "found", tmp_path / "partly")
    assert (report.by_bytes, report.missing) == ({"closed": 9}, {"closed": 3})
    assert (report.masks, report.missing_masks) == ({}, {"closed": 10})
    assert "still missing: 3 (closed 3)" in report.lines()
    assert "masks still missing: 10 (closed 10)" in report.lines()
    text = (tmp_path / "partly" / "README.md").read_text()
    assert "| closed | 12 | 3 | 10 |" in text
    assert text.count("## Rows without images") == 1
    for name in get_dataset_config_names(str(tmp_path / "partly")):
        load_dataset(str(tmp_path / "partly"), name, cache_dir=str(tmp_path / "cache"))

    # The rest arrives later.
    report = join_images(tmp_path / "partly", raw, tmp_path / "full", READERS)
    # The reader knows the folder `closed` alone.
    assert (report.by_bytes, report.missing, report.masks) == ({"closed": 3}, {}, {"closed": 2})
    assert rows(tmp_path / "full").drop_columns("mask").equals(rows(built).drop_columns("mask"))


def test_segmentation_shows_the_masks_that_are_there(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    raw, _, released = folders
    (raw / "closed" / "rgb0.png").rename(tmp_path / "elsewhere.png")

    def reader(raw: Path) -> Sequence[Sample]:
        found = samples(raw)
        (raw / "closed" / "rgb0.png").unlink()
        return found

    report = join_images(released, raw, tmp_path / "partly", {"closed": reader})
    assert (report.missing, report.masks, report.missing_masks) == ({"closed": 1}, {"closed": 9}, {"closed": 1})
    for streaming in (False, True):
        data = load_dataset(str(tmp_path / "partly"), "segmentation", streaming=streaming)
        shown = [row for part in data.values() for row in part]
        assert len(shown) == 9
        assert all(row["image"] is not None and row["mask"] is not None for row in shown)


def test_a_mask_of_other_pixels_is_not_taken(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    raw, built, released = folders

    def reader(raw: Path) -> Sequence[Sample]:
        found = samples(raw)
        other = np.zeros((16, 20), np.uint8)
        other[9:12, 9:12] = 255
        Image.fromarray(other).save(raw / "other.png")
        wrong = [replace(sample, mask=raw / "other.png") for sample in found if sample.image.name.startswith("gray")]
        return [*wrong, *(sample for sample in found if sample.image.name != "gray1.bmp")]

    report = join_images(released, raw, tmp_path / "full", {"closed": reader})
    after = by_id(tmp_path / "full")
    assert after["closed/gray0"]["mask"] == by_id(built)["closed/gray0"]["mask"]
    assert after["closed/gray1"]["mask"] is None
    assert (report.masks, report.missing_masks) == ({"closed": 9}, {"closed": 1})


def test_files_that_cannot_be_read_are_named(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    raw, _, released = folders
    path = raw / "closed" / "photo0.jpg"
    path.write_bytes(path.read_bytes()[:150])
    (raw / "notes.png").write_text("no image")
    (raw / "closed" / "rgb0_mask.png").write_text("no mask")
    (raw / "gone.png").symlink_to(raw / "nowhere.png")

    def reader(raw: Path) -> Iterator[Sample]:
        origin = replace(open_sample(tmp_path / "copy").source, name="closed")
        for image in sorted((raw / "closed").glob("*[0-9].*")):
            size = (20, 16) if image.name.startswith("large") else None
            name = "normal" if image.name.startswith("normal") else "crack"
            mask = None if image.name.startswith("bare") else image.with_name(f"{image.stem}_mask.png")
            yield Sample(f"closed/{image.stem}", image, mask, name, origin, name == "crack", size=size)

    report = join_images(released, raw, tmp_path / "full", {"closed": reader})
    named = {Path(str(problem.where)).name for problem in report.problems}
    assert named == {"photo0.jpg", "notes.png", "rgb0_mask.png", "gone.png"}
    assert (report.missing, report.masks, report.missing_masks) == ({"closed": 1}, {"closed": 8}, {"closed": 2})
    assert sum(line.startswith("note: ") for line in report.lines()) == 4


def test_a_reader_that_finds_nothing_leaves_the_masks_missing(
    folders: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    raw, _, released = folders

    def reader(raw: Path) -> Sequence[Sample]:
        raise DataError(raw, "folder", "holds no set of this layout", "Check it")

    report = join_images(released, raw, tmp_path / "full", {"closed": reader, "unknown": samples})
    assert (report.by_bytes, report.masks) == ({"closed": 12}, {})
    assert report.lines()[0] == f"note: {raw}: folder: holds no set of this layout. Check it"


def test_a_file_that_changes_meanwhile_is_not_taken(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    raw, _, released = folders

    def reader(raw: Path) -> Sequence[Sample]:
        found = samples(raw)
        Image.new("L", (20, 16)).save(raw / "closed" / "gray0.bmp")
        return found

    report = join_images(released, raw, tmp_path / "full", {"closed": reader})
    assert (report.by_bytes, report.missing) == ({"closed": 11}, {"closed": 1})
    assert [str(problem) for problem in report.problems] == [
        f"{raw / 'closed' / 'gray0.bmp'}: image: changed during the join. Join again"
    ]


def test_wrong_folders_are_refused(folders: tuple[Path, Path, Path], tmp_path: Path) -> None:
    raw, _, released = folders
    with pytest.raises(DataError, match="raw: folder: is not a built data set"):
        join_images(raw, raw, tmp_path / "full")
    for name in ("empty", "nowhere"):
        with pytest.raises(DataError, match=rf"{name}: folder: holds no \.jpg or .* file"):
            join_images(released, tmp_path / name, tmp_path / "full")
        (tmp_path / "empty").mkdir(exist_ok=True)
    with pytest.raises(DataError, match="output: is not apart from"):
        join_images(released, raw, released)
    with pytest.raises(DataError, match="raw: output: exists and is not a built data set"):
        join_images(released, raw, raw)


def test_an_interrupted_join_leaves_the_earlier_output(
    folders: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, _, released = folders
    join_images(released, raw, tmp_path / "full")
    before = {path: sha256(path) for path in (tmp_path / "full").rglob("*.*")}

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("defect_hub.dataset_scripts.join.write_card", interrupt)
    with pytest.raises(KeyboardInterrupt):
        join_images(released, raw, tmp_path / "full", READERS)
    assert {path: sha256(path) for path in (tmp_path / "full").rglob("*.*")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["built", "full", "raw", "released"]
