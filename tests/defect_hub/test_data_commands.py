import csv
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


@pytest.fixture
def boards(tmp_path: Path) -> Path:
    """Two boards of DeepPCB with templates, and two pictures of X-SDD, which has no boxes."""
    folder = tmp_path / "boards"
    for number in range(2):
        group = folder / "DeepPCB" / "PCBData" / "group20085"
        for kind in ("test", "temp"):
            picture = np.random.default_rng([number, kind == "temp"]).integers(0, 256, (64, 64), np.uint8)
            save(group / "20085" / f"2008500{number}_{kind}.jpg", picture)
        (group / "20085_not").mkdir(exist_ok=True)
        (group / "20085_not" / f"2008500{number}.txt").write_text(f"10 20 30 50 {number + 1}\n5 5 9 9 3\n")
        picture = np.random.default_rng(number).integers(0, 256, (48, 48), np.uint8)
        save(folder / "X-SDD" / "red iron" / f"200{number}.png", picture)
    return folder


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def build_boards(raw: Path, out: Path, *more: str) -> int:
    return main(["data", "build", "mmio", "--from-sources", str(raw), "--out", str(out), "--workers", "1", *more])


def test_mmio_is_built_from_sets_exported_and_built_from_that(
    boards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, export, again = (tmp_path / name for name in ("out", "export", "again"))
    assert build_boards(boards, out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "X-SDD: 2 of 1,360 images"
    assert lines[1] == "DeepPCB: 4 of 3,001 images; without test.txt, trainval.txt, so its own split is not known"
    assert lines[2].startswith("not found: NEU-DET, GC10-DET, ")
    assert lines[-1].startswith(f"{out}: train ") and "images, digest " in lines[-1]
    assert main(["data", "export", str(out), "--out", str(export), "--config", "closed"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{export}: train 4 (4 boxes) images"
    assert main(["data", "build", "mmio", "--raw", str(export), "--out", str(again), "--workers", "1"]) == 0
    boxes = [row["objects"]["bbox"] for row in rows(again).to_pylist()]
    assert sorted(boxes) == [[], [], *[[[10, 20, 20, 30], [5, 5, 4, 4]]] * 2]
    assert main(["data", "export", str(out), "--out", str(export), "--config", "nothing"]) == 2
    assert "config nothing: is not in the card. Choose one of default, " in capsys.readouterr().err


def test_scenes_and_novel_categories_are_chosen(
    boards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "novel.txt").write_text("open circuit\n")
    scenes = ["--scenes", "printed circuit board"]
    assert build_boards(boards, tmp_path / "out", *scenes, "--novel", str(tmp_path / "novel.txt")) == 0
    found = rows(tmp_path / "out").to_pylist()
    assert {row["scene"] for row in found} == {"printed circuit board"}
    novel = sorted(row["objects"]["is_novel"] for row in found if row["objects"]["id"])
    assert novel == [[False, False], [True, False]]
    capsys.readouterr()
    for names, problem in (
        ("printed circuit board,rail", "error: {}: scenes: there is no set of rail. Supply one of RSDD, RSDD2 in "),
        ("welds", "error: unknown scene 'welds'; there are hot-rolled steel, "),
        ("glass container", "error: no public set of the scene 'glass container' is known: "),
    ):
        assert build_boards(boards, tmp_path / "out", "--scenes", names) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(problem.format(boards))
    assert rows(tmp_path / "out").num_rows == 4


@pytest.mark.parametrize("verb", ["build", "validate"])
def test_ways_into_mmio_do_not_mix(
    boards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    command = ["data", verb, "mmio", "--workers", "1", *(["--out", str(tmp_path / "out")] if verb == "build" else [])]
    assert main([*command, "--raw", str(boards), "--scenes", "rail"]) == 2
    expected = "error: --scenes chooses among public sets; give them by --from-sources"
    assert capsys.readouterr().err.splitlines() == [expected]
    for rights in (["--license", "CC0"], ["--redistributable"]):
        assert main([*command, "--from-sources", str(boards), *rights]) == 2
        assert "are for --raw; the table states them of public sets" in capsys.readouterr().err
    for raw in ([], ["--raw", str(boards), "--from-sources", str(boards)]):
        with pytest.raises(SystemExit):
            main([*command, *raw])
    capsys.readouterr()
    assert main([*command, "--from-sources", str(tmp_path / "none")]) == 2
    none = f"error: {tmp_path / 'none'}: folder: does not exist. Check the path of the raw data"
    assert capsys.readouterr().err.splitlines() == [none]
    assert main([*command, "--from-sources", str(boards), "--novel", str(tmp_path / "none.txt")]) == 2
    assert f"error: {tmp_path / 'none.txt'}: novel categories: cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_raw_mmio_is_checked(boards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "validate", "mmio", "--from-sources", str(boards), "--workers", "1"]
    assert main(command) == 0
    assert capsys.readouterr().out == "6 images without problems, 0 problems, 0 notes\n"
    labels = boards / "DeepPCB" / "PCBData" / "group20085" / "20085_not"
    (labels / "20085000.txt").write_text("10 20 30 50 7\n")
    (labels / "20085001.txt").write_text("30 20 10 50 1\n1 1 90 9 2\n")
    assert main(command) == 2
    image = "DeepPCB/group20085/20085/20085001_test"
    error, inverted, clipped, total = capsys.readouterr().out.splitlines()
    assert error.startswith(
        f"error: {labels / '20085000.txt'}: category: '7' is no category of DeepPCB. Use one of open "
    )
    assert inverted.startswith(f"note: {image}: box 1 (open circuit) is inverted: ")
    assert clipped.startswith(f"note: {image}: box 2 (short circuit) is clipped: ")
    assert total == "5 images without problems, 1 problems, 2 notes"
    assert build_boards(boards, tmp_path / "out") == 2
    assert build_boards(boards, tmp_path / "out", "--skip-bad") == 0
    assert rows(tmp_path / "out").num_rows == 5


class GrayEncoder:
    """Vectors of one length; that of a text tells its words apart."""

    logit_scale = 100.0

    def images(self, images: list[Image.Image]) -> np.ndarray:
        return np.ones((len(images), 4), np.float32)

    def texts(self, texts: list[str]) -> np.ndarray:
        return np.array([[1, 1, 1, "spur" in text] for text in texts], np.float32)


def test_texts_are_matched_accepted_and_built(
    boards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("defect_hub.clip_encoders.load_encoder", lambda name: GrayEncoder())
    build_boards(boards, tmp_path / "built")
    out, texts = tmp_path / "matches.csv", tmp_path / "texts.yaml"
    command = ["data", "match", str(tmp_path / "built"), "--model", "gray", "--out", str(out)]
    assert main(command) == 0
    prompts = list(csv.DictReader((tmp_path / "built" / "categories.csv").open()))
    lines = list(csv.DictReader(out.open()))
    shown: dict[str, set[str]] = {}
    for line in lines:
        shown.setdefault(line["category"], set()).add(line["text"])
    assert shown.keys() == {"open circuit", "short circuit", "mouse bite", "red iron"}
    for category, given in shown.items():
        scene = next(row["scene"] for row in prompts if row["category"] == category)
        assert given == {row["prompt"] for row in prompts if row["scene"] == scene}
    texts.write_text("mouse bite: [a bite like a spur, a bite]\n")
    out.unlink()
    assert main([*command, "--texts", str(texts), "--threshold", "0.9"]) == 0
    first, second = csv.DictReader(out.open())
    assert (first["text"], first["proposed"], second["proposed"]) == ("a bite like a spur", "yes", "no")
    out.write_text(out.read_text().replace(",yes,\n", ",yes,yes\n"))
    capsys.readouterr()
    assert build_boards(boards, tmp_path / "built", "--prompts", str(out)) == 0
    after = list(csv.DictReader((tmp_path / "built" / "categories.csv").open()))
    changed = [(row["category"], row["prompt"]) for row, old in zip(after, prompts, strict=True) if row != old]
    assert changed == [("mouse bite", "a bite like a spur")]
