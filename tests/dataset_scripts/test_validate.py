import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from defect_hub.cli import main
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.release import write_release
from defect_hub.dataset_scripts.steeldefectx.build import SOURCE, build_steeldefectx
from defect_hub.dataset_scripts.steeldefectx.release import load_classes, read_release
from defect_hub.dataset_scripts.validate import Validation, validate_build, validate_samples


def check(release: Path, workers: int = 1) -> Validation:
    classes = load_classes()
    splits, problems = read_release(release, classes, SOURCE)
    return validate_samples(classes.label_space(splits), splits, problems, workers)


def test_a_good_release_has_no_problems(release: Path) -> None:
    assert check(release).lines() == ["17 images without problems, 0 problems, 0 notes"]


def spoil(release: Path) -> list[str]:
    """Five different problems; returns the files they are in."""
    first, second, third, fourth = sorted((release / "train").iterdir())[:4]
    (release / "train_mask" / f"{first.stem}.png").unlink()
    second.write_bytes(second.read_bytes()[:300])
    Image.new("L", (9, 9)).save(release / "train_mask" / f"{third.stem}.png")
    entries = json.loads((release / "train-text.json").read_text())
    entries[3]["class_name"] = "Rainbow"
    (release / "train-text.json").write_text(json.dumps([*entries, {**entries[4], "image_name": "gone.jpg"}]))
    return [first.name, fourth.name, "gone.jpg", second.name, f"{third.stem}.png"]


@pytest.mark.parametrize("workers", [1, 2])
def test_all_problems_come_at_once(release: Path, workers: int) -> None:
    names = spoil(release)
    found = check(release, workers)
    assert [name in str(problem) for name, problem in zip(names, found.problems, strict=True)] == [True] * 5
    assert found.images == 13


def test_differing_attributes_are_notes(release: Path) -> None:
    file = release / "val-text.json"
    entries = json.loads(file.read_text())
    entry = next(entry for entry in entries if entry["structured_attributes"])
    entry["structured_attributes"]["Number of Defects"] = "eleven"
    file.write_text(json.dumps(entries))
    found = check(release)
    assert found.problems == []
    name = f"val/{Path(entry['image_name']).stem}"
    assert [line.startswith(f"{name}: Number of Defects: released eleven, measured ") for line in found.warnings] == [
        True
    ]


def test_command_line_lists_everything_and_fails(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "validate", "steeldefectx", "--raw", str(release), "--workers", "1"]
    assert main(command) == 0
    names = spoil(release)
    assert main(command) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "13 images without problems, 5 problems, 0 notes"
    assert [name in line for name, line in zip(names, lines[-6:-1], strict=True)] == [True] * 5


@pytest.fixture
def built(release: Path, tmp_path: Path) -> Path:
    build_steeldefectx(release, tmp_path / "built")
    return tmp_path / "built"


def test_a_build_is_good(built: Path) -> None:
    assert validate_build(built).lines() == ["17 images without problems, 0 problems, 0 notes"]
    assert main(["data", "validate", "built", str(built)]) == 0


def test_a_missing_shard_is_found(built: Path) -> None:
    shutil.rmtree(built / "data" / "few_shot")
    next(built.glob("data/default/val-*.parquet")).unlink()
    problems = [str(problem) for problem in validate_build(built).problems]
    assert "val: has 0 rows where the card says 5" in problems[0]
    assert sum("is not listed as it is in the shards" in problem for problem in problems) == 5
    assert main(["data", "validate", "built", str(built)]) == 2


def test_changed_bytes_are_found(built: Path) -> None:
    shard = next(built.glob("data/default/train-*.parquet"))
    table = pq.read_table(shard)
    rows = table.to_pylist()
    rows[0]["image"]["bytes"] = rows[1]["image"]["bytes"]
    rows[2]["mask"]["bytes"] = b"no mask"
    rows[3]["height"] += 1
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), shard)
    problems = [str(problem) for problem in validate_build(built).problems]
    assert f"{rows[0]['image_id']}: sha256: is not that of the image." in problems[0]
    assert f"{rows[2]['image_id']}: mask: does not decode" in problems[1]
    assert f"{rows[3]['image_id']}: image: has 64x64 px where the row says 64x65 px" in problems[2]


def test_only_builds_are_checked_as_builds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a built data set"):
        validate_build(tmp_path)


@pytest.fixture
def released(built: Path, tmp_path: Path) -> Path:
    """The build without its images."""
    write_release(built, tmp_path / "released")
    return tmp_path / "released"


def test_rows_without_image_are_noted(released: Path) -> None:
    assert validate_build(released).lines() == [
        "note: 17 rows without image",
        "0 images without problems, 0 problems, 1 notes",
    ]


def test_rows_without_image_are_checked_for_what_is_there(built: Path, released: Path) -> None:
    shutil.rmtree(released / "data" / "few_shot")  # Some rows are there a second time.
    shard = next(released.glob("data/default/train-*.parquet"))
    table = pq.read_table(shard)
    rows, whole = table.to_pylist(), pq.read_table(built / shard.relative_to(released)).to_pylist()
    rows[0]["image"], rows[0]["mask"] = whole[0]["image"], whole[0]["mask"]
    rows[1]["mask"] = {"bytes": b"no mask", "path": "a.png"}
    rows[2]["sha256"] = "0" * 64
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), shard)
    found = validate_build(released)
    assert (found.images, found.warnings) == (1, ["15 rows without image"])
    named = [(str(problem.where).split(": ")[-1], problem.field) for problem in found.problems]
    assert named[0] == (rows[1]["image_id"], "mask")
    # A row with a problem counts as none.
    assert sorted(field for _, field in named[1:]) == sorted(rows[number]["image_id"] for number in (1, 2))
