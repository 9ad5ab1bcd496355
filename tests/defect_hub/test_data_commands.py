import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from defect_hub.cli import main


def write_pair(image: Path, mask: Path, seed: int) -> None:
    """A picture with a dark patch, and its mask."""
    pixels = np.random.default_rng(seed).integers(100, 140, (48, 64), dtype=np.uint8)
    marked = np.zeros_like(pixels)
    marked[10:20, 10 : 20 + seed % 5] = 255
    pixels[marked == 255] //= 2
    for path, array in ((image, pixels), (mask, marked)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Five images of a TADD subset that may not be passed on, and five of one that may."""
    folder = tmp_path / "raw"
    for number in range(5):
        cracks, tiles = folder / "CrackTree200", folder / "MT" / "MT_Crack" / "Imgs"
        write_pair(
            cracks / "cracktree200rgb" / f"620{number}.jpg", cracks / "cracktree200_gt" / f"620{number}.png", number
        )
        write_pair(tiles / f"exp1_num_{number}.jpg", tiles / f"exp1_num_{number}.png", 10 + number)
    return folder


@pytest.fixture
def built(raw: Path, tmp_path: Path) -> Path:
    command = ["data", "build", "tadd", "--raw", str(raw), "--out", str(tmp_path / "built"), "--workers", "1"]
    assert main(command) == 0
    return tmp_path / "built"


def rows(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted((folder / "data").rglob("*.parquet")))


def sources_without(folder: Path, column: str) -> list[str]:
    """Source of each row whose image or mask is null."""
    return [row["source"] for row in rows(folder).to_pylist() if row[column] is None]


def test_a_release_withholds_what_is_not_redistributable(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    out = tmp_path / "released"
    assert main(["data", "release", str(built), "--out", str(out)]) == 0
    line = capsys.readouterr().out.strip()
    assert line.startswith(f"{out}: 5 of 10 rows without image (CrackTree200 5), digest ")
    assert sources_without(out, "image") == sources_without(out, "mask") == ["CrackTree200"] * 5


def test_sources_are_kept_on_request(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "released"
    assert main(["data", "release", str(built), "--out", str(out), "--keep", "MT", "CrackTree200"]) == 0
    assert rows(out).equals(rows(built))
    assert main(["data", "release", str(built), "--out", str(out), "--keep", "MTT"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {built}: keep: there are no rows of MTT.")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_join_restores_images_and_masks_of_tadd_subsets(
    raw: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: str
) -> None:
    released, full = tmp_path / "released", tmp_path / "full"
    main(["data", "release", str(built), "--out", str(released)])
    # What the release holds need not be supplied again.
    shutil.rmtree(raw / "MT")
    capsys.readouterr()
    assert main(["data", "join", str(released), "--raw", str(raw), "--out", str(full), "--workers", workers]) == 0
    assert rows(full).equals(rows(built))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:-1] == [
        "restored by the bytes of the file: 5 (CrackTree200 5)",
        "masks restored: 5 (CrackTree200 5)",
    ]
    assert main(["data", "validate", "built", str(full), "--workers", "1"]) == 0


def test_images_that_lie_elsewhere_come_without_masks(
    raw: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    released, full = tmp_path / "released", tmp_path / "full"
    main(["data", "release", str(built), "--out", str(released)])
    (raw / "CrackTree200" / "cracktree200rgb").rename(raw / "photos")
    capsys.readouterr()
    assert main(["data", "join", str(released), "--raw", str(raw), "--out", str(full), "--workers", "1"]) == 0
    assert (sources_without(full, "image"), sources_without(full, "mask")) == ([], ["CrackTree200"] * 5)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"note: {raw / 'CrackTree200'}: layout: ")
    assert "masks still missing: 5 (CrackTree200 5)" in lines


def test_a_release_can_be_checked_compared_and_counted(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    released = tmp_path / "released"
    main(["data", "release", str(built), "--out", str(released)])
    capsys.readouterr()
    assert main(["data", "validate", "built", str(released), "--workers", "1"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "note: 5 rows without image",
        "5 images without problems, 0 problems, 1 notes",
    ]
    assert main(["data", "audit", str(released), "--workers", "1"]) == 0
    assert "note: 5 rows without image not compared" in capsys.readouterr().out.splitlines()
    assert main(["data", "stats", str(released)]) == 0
    text = (released / "README.md").read_text("utf-8")
    assert "5 images are not in this folder and are not shown." in text


@pytest.mark.parametrize("verb", [["release"], ["join", "--raw", "RAW"]])
def test_folders_that_are_no_builds_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    assert main(["data", *verb, str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: {tmp_path}: folder: is not a built data set. Make one with defect-hub data build"
    ]
