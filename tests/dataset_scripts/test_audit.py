import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features, Value
from datasets import Image as ImageFeature
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from defect_hub.dataset_scripts.audit import AuditReport, audit
from defect_hub.dataset_scripts.readers.errors import DataError

Gray = NDArray[np.uint8]
CLASSES = ["Crazing", "Inclusion"]
FEATURES = Features(
    {
        "image": ImageFeature(),
        "image_id": Value("string"),
        "sha256": Value("string"),
        "label": ClassLabel(names=CLASSES),
        "mask": ImageFeature(),
    }
)


def texture(seed: int) -> Gray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(96, 96)), 1.5)
    return np.clip(120 + 25 * noise / noise.std(), 0, 255).astype(np.uint8)


def encoded(gray: Gray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(gray)).save(buffer, kind)
    return buffer.getvalue()


def write_shard(folder: Path, part: str, split: str, rows: Sequence[tuple[str, bytes | None, str | None]]) -> None:
    """A shard of a built data set with (image id, image file, class name) in each row."""
    shard = folder / "data" / part / f"{split}-00000-of-00001.parquet"
    shard.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(
        [
            {
                "image": data and {"bytes": data, "path": f"{image_id}.png"},
                "image_id": image_id,
                "sha256": hashlib.sha256(data or b"elsewhere").hexdigest(),
                "label": None if label is None else CLASSES.index(label),
                "mask": None,
            }
            for image_id, data, label in rows
        ],
        schema=FEATURES.arrow_schema,
    )
    pq.write_table(table, shard, row_group_size=2)


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """Train and val with a pair of each kind; one val image was moved to data/seen by the build."""
    a, b, c, d = (texture(seed) for seed in range(4))
    rows = [
        ("a", encoded(a), "Crazing"),
        ("b", encoded(b), "Crazing"),
        ("c", encoded(c), "Inclusion"),
        ("a again", encoded(a), "Crazing"),
        ("unlike", encoded(texture(4)), None),
    ]
    write_shard(tmp_path / "built", "default", "train", rows)
    write_shard(
        tmp_path / "built", "default", "val", [("b.bmp", encoded(b, "BMP"), "Inclusion"), ("d", encoded(d), None)]
    )
    write_shard(tmp_path / "built", "seen", "val", [("c turned", encoded(np.rot90(c)), "Inclusion")])
    return tmp_path / "built"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    root = tmp_path / "plain"
    files = {
        "images/training/x [1].png": encoded(texture(20)),
        "images/test/y.JPG": encoded(texture(20), "JPEG"),
        "images/test/z.bmp": encoded(texture(21), "BMP"),
        "copy of d.png": encoded(texture(3)),
        "images/notes.txt": b"no image",
    }
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def content(report: AuditReport, tmp_path: Path) -> dict[str, Any]:
    report.write(tmp_path / "audit.json")
    return json.loads((tmp_path / "audit.json").read_text("utf-8"))


def ids(group: dict[str, Any]) -> list[str]:
    return [image["image_id"] for image in group["images"].values()]


@pytest.mark.parametrize("workers", [1, 2])
def test_pairs_of_a_built_data_set(built: Path, tmp_path: Path, workers: int) -> None:
    written = content(audit([built], workers=workers), tmp_path)
    found = [
        (ids(group), [pair["kind"] for pair in group["pairs"]], group["relations"]) for group in written["groups"]
    ]
    assert found == [
        (["a", "a again"], ["bytes"], ["within a split"]),
        (["b", "b.bmp"], ["pixels"], ["across splits"]),
        (["c", "c turned"], ["near"], ["across splits"]),
    ]
    assert written["images"] == {"built": 8}
    third = written["groups"][2]
    assert {image["split"] for image in third["images"].values()} == {"train", "val"}
    assert third["pairs"][0]["orientation"] == "rotate_270"
    indices = [third["pairs"][0]["first"], third["pairs"][0]["second"]]
    assert [third["images"][str(index)]["image_id"] for index in indices] == ["c", "c turned"]


def test_conflicts_and_moves(built: Path, tmp_path: Path) -> None:
    written = content(audit([built]), tmp_path)
    assert [group["conflicting_labels"] for group in written["groups"]] == [[], ["Crazing", "Inclusion"], []]
    # The turned copy of c is in data/seen already.
    assert [(move["image_id"], move["from"], move["to"]) for move in written["moves"]] == [("b.bmp", "val", "train")]


def test_names_that_differ_in_punctuation_do_not_conflict(built: Path, tmp_path: Path) -> None:
    other = Features({**FEATURES, "label": ClassLabel(names=["crazing_", "INCLUSION"])})
    path = built / "data/default/val-00000-of-00001.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[0]["label"] = 0
    pq.write_table(pa.Table.from_pylist(rows, schema=other.arrow_schema), path)
    assert all(group["conflicting_labels"] == [] for group in content(audit([built]), tmp_path)["groups"])


def test_plain_folder(plain: Path, tmp_path: Path) -> None:
    written = content(audit([plain]), tmp_path)
    (group,) = written["groups"]
    assert {(image["image_id"], image["split"], image["label"]) for image in group["images"].values()} == {
        ("images/training/x [1].png", "images/training", None),
        ("images/test/y.JPG", "images/test", None),
    }
    assert [(move["image_id"], move["from"], move["to"]) for move in written["moves"]] == [
        ("images/test/y.JPG", "test", "train")
    ]
    assert written["images"] == {"plain": 4}


def test_folders_without_a_train_have_nothing_to_move(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"class {number}").mkdir()
        (tmp_path / f"class {number}" / "a.png").write_bytes(encoded(texture(0)))
    report = audit([tmp_path])
    assert [group.relations for group in report.groups] == [["across splits"]]
    assert report.moves == []


def test_across_data_sets(built: Path, plain: Path) -> None:
    report = audit([built, plain])
    across = [group for group in report.groups if "across data sets" in group.relations]
    assert [[report.images[index].image_id for index in group.members] for group in across] == [["d", "copy of d.png"]]
    assert report.summary["bytes"] == {
        "groups": 2,
        "images": 4,
        "within a split": 1,
        "across splits": 0,
        "across data sets": 1,
    }
    assert report.summary["near"]["groups"] == 2


def test_groups_of_a_kind_need_no_less_exact_pair(tmp_path: Path) -> None:
    gray = texture(0)
    files = {"a.png": encoded(gray), "b.png": encoded(gray), "c.bmp": encoded(gray, "BMP"), "d.png": encoded(gray.T)}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    summary = audit([tmp_path]).summary
    assert {kind: numbers["images"] for kind, numbers in summary.items()} == {"bytes": 2, "pixels": 3, "near": 4}


def test_files_that_do_not_decode_are_listed(built: Path, plain: Path, tmp_path: Path) -> None:
    (plain / "broken.png").write_bytes(encoded(texture(0))[:200])
    write_shard(built, "default", "test", [("broken row", b"no image", None), ("e", encoded(texture(30)), None)])
    report = audit([built, plain], workers=2)
    assert [problem.field for problem in report.problems] == ["image", "image"]
    listed = content(report, tmp_path)["not_read"]
    assert "broken row" in listed[0]
    assert "broken.png" in listed[1]
    assert "e" in {image.image_id for image in report.images}
    assert sum(line.startswith("not read: ") for line in report.lines()) == 2


def test_rows_without_image_are_counted_and_not_compared(built: Path, tmp_path: Path) -> None:
    before = content(audit([built]), tmp_path)
    assert before.pop("without_image") == 0
    # Their hashes are equal, and still nobody compares them.
    write_shard(built, "default", "test", [("x", None, "Crazing"), ("y", None, None)])
    report = audit([built])
    after = content(report, tmp_path)
    assert after.pop("without_image") == 2
    assert after == before
    assert "note: 2 rows without image not compared" in report.lines()


def test_a_set_without_any_image_is_audited(tmp_path: Path) -> None:
    write_shard(tmp_path / "bare", "default", "train", [("x", None, None), ("y", None, None), ("z", None, None)])
    report = audit([tmp_path / "bare"])
    assert (list(report.images), list(report.groups)) == ([], [])
    assert report.lines()[-1] == "note: 3 rows without image not compared"


def test_lines_are_few_and_name_what_was_found(built: Path, plain: Path) -> None:
    lines = audit([built, plain]).lines()
    assert lines[:2] == ["built: 8 images", "plain: 4 images"]
    assert "equal files: built/a = built/a again" in lines
    assert "equal pixels: built/b = built/b.bmp" in lines
    assert any(
        line.startswith("nearly equal: built/c = built/c turned, rotate_270, similarity 1.00") for line in lines
    )
    assert "equal files: 4 images in 2 groups: 1 within a split, 0 across splits, 1 across data sets" in lines
    assert "groups with conflicting labels: 1" in lines
    assert "images to move from val to train in built: 1" in lines


def test_many_pairs_are_cut_short(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.png").write_bytes(encoded(np.full((32, 32), 9, np.uint8)))
    lines = audit([tmp_path]).lines()
    assert len(lines) < 15
    assert "... and 34 more, see --out" in lines
    assert "note: too even for a comparison, only exact copies are found: 40 images" in lines


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for parent in ("one", "two"):
        folder = tmp_path / parent / "images"
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(encoded(texture(0)))
    report = audit([tmp_path / "one/images", tmp_path / "two/images"])
    assert len({image.dataset for image in report.images}) == 2
    assert report.groups[0].relations == ["across data sets"]
    named = audit({"first": tmp_path / "one/images", "second": tmp_path / "two/images"})
    assert [image.dataset for image in named.images] == ["first", "second"]


def test_report_replaces_an_earlier_one(plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "reports/audit.json"
    out.parent.mkdir()
    out.write_text("earlier", "utf-8")
    audit([plain]).write(out)
    assert json.loads(out.read_text("utf-8"))["images"] == {"plain": 4}
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "holds neither"),
        (lambda path: write_bad_shard(path, b"PAR1 broken"), "not readable as Parquet"),
        (lambda path: write_bad_shard(path, None), "lacks image, label, sha256"),
    ],
)
def test_what_cannot_be_audited_is_an_error(tmp_path: Path, make, message: str) -> None:
    make(tmp_path / "data set")
    with pytest.raises(DataError, match=message):
        audit([tmp_path / "data set"])


def write_bad_shard(folder: Path, data: bytes | None) -> None:
    shard = folder / "data/default/train-00000-of-00001.parquet"
    shard.parent.mkdir(parents=True)
    if data is None:
        pq.write_table(pa.table({"image_id": ["a"]}), shard)
    else:
        shard.write_bytes(data)


def named_groups(report: AuditReport) -> list[set[str]]:
    return [{report.images[index].image_id for index in group.members} for group in report.groups]


@pytest.mark.real_data
def test_bmp_copies_of_neu_pictures(raw_data: Path) -> None:
    parts = ("NEU-DET", "SD-saliency-900/Source Images", "NEU_Seg/images")
    report = audit([raw_data / part for part in parts], workers=2)
    groups = named_groups(report)
    # NEU-DET's file, its BMP copy, the same file again and a copy turned by 180 degrees.
    names = {"Validation_Images/inclusion_161.jpg", "In_161.bmp", "test/000161.jpg", "training/001921.jpg"}
    assert names in groups
    copied = {name for group in groups if len(group) > 1 for name in group if name.endswith(".bmp")}
    assert len(copied) >= 20  # Of 31; the originals of the others are not in this part of the sets.
    kind_of = {
        (report.images[p.first].image_id, report.images[p.second].image_id): p.kind for p in report.search.pairs
    }
    # The two are one file in NEU-DET too, patches_101 and patches_105, which are not in this part of it.
    assert kind_of["Pa_101.bmp", "Pa_105.bmp"] == "bytes"
    # One inclusion taken twice, a few pixels apart.
    assert kind_of["IMAGES/inclusion_188.jpg", "IMAGES/inclusion_210.jpg"] == "near"


@pytest.mark.real_data
def test_duplicates_inside_red_iron(raw_data: Path) -> None:
    report = audit([raw_data / "X-SDD"])
    assert {Path(report.images[index].split).name for group in report.groups for index in group.members} == {
        "red iron"
    }
    assert report.summary["bytes"]["groups"] == len(report.groups) == 9


@pytest.mark.real_data
def test_rotated_copies_in_neu_seg(raw_data: Path) -> None:
    report = audit([raw_data / "NEU_Seg" / "images"])
    splits = [{report.images[index].split for index in group.members} for group in report.groups]
    assert splits.count({"training", "test"}) >= 10
    assert splits.count({"training"}) >= 10
    assert {pair.orientation for pair in report.search.pairs} >= {"rotate_90", "rotate_180", "rotate_270"}
    assert {"training/001281.jpg", "training/001285.jpg"} <= next(
        group for group in named_groups(report) if "training/001281.jpg" in group
    )
    assert all(report.images[move.image].split == "test" and move.to == "train" for move in report.moves)
    assert len(report.moves) >= 10
