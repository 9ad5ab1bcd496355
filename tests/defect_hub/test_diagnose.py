import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

from defect_hub.cli import main
from defect_hub.dataset_scripts.steelsynth.generate import generate_sample
from defect_hub.diagnose import find_images, load_pipeline, read_image

Diagnose = Callable[..., int]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three sound images, of which one lies deeper, and files that are none."""
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    for index, name in enumerate(("b.png", "a.jpg", "deep/c.PNG")):
        Image.fromarray(generate_sample(seed=5, index=index, size=96).image).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_text("no image")
    return folder


@pytest.fixture
def diagnose(tiny_checkpoint: Path, tmp_path: Path) -> Diagnose:
    def run(*arguments: object) -> int:
        fixed = ["--model", tiny_checkpoint, "--out", tmp_path / "report"]
        return main(["diagnose", *map(str, [*fixed, *arguments])])

    return run


def rows(report: Path) -> list[dict]:
    return [json.loads(line) for line in (report / "results.jsonl").read_text().splitlines()]


def truncated_jpeg(path: Path) -> Path:
    Image.fromarray(generate_sample(seed=5, index=0, size=96).image).save(path, quality=95)
    path.write_bytes(path.read_bytes()[:1500])
    return path


def test_report_holds_what_the_pipeline_says(
    diagnose: Diagnose, images: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, copies = images / "b.png", tmp_path / "references"
    copies.mkdir()
    for name in ("one.png", "two.png"):
        shutil.copy(reference, copies / name)
    arguments = ["--reference", copies, "--object", "magnetic tile", "--threshold", "0.3"]
    assert diagnose(images, images / "a.jpg", *arguments) == 0
    found = rows(tmp_path / "report")
    assert [row["file"] for row in found] == [str(images / name) for name in ("a.jpg", "b.png", "deep/c.PNG")]
    pipe = load_pipeline(str(tiny_checkpoint))
    references = [Image.open(reference)] * 2
    expected = pipe(
        Image.open(images / "a.jpg"), reference_images=references, object_name="magnetic tile", threshold=0.3
    )
    assert found[0]["description"] == expected["description"] != ""
    assert found[0]["score"] == pytest.approx(expected["score"])
    assert found[0]["threshold"] == 0.3
    assert found[0]["score_std"] == pytest.approx(0, abs=1e-6), "the two references are one image"
    assert found[0]["text_source"] == "language model"
    assert found[0]["attributes"] == expected["attributes"]
    mask = np.asarray(Image.open(tmp_path / "report" / found[0]["mask"]))
    assert np.array_equal(mask, expected["mask"])
    output = capsys.readouterr().out.splitlines()
    assert len(output) == 4
    defective = sum(row["is_defective"] for row in found)
    assert output[-1] == f"{tmp_path / 'report'}/index.html: 3 images, {defective} defective"
    page = (tmp_path / "report/index.html").read_text()
    assert "0.300, set by hand (calibrated: 0.250)" in page
    assert "2 normal references" in page


def test_without_text_and_at_the_calibrated_threshold(diagnose: Diagnose, images: Path, tmp_path: Path) -> None:
    assert diagnose(images / "a.jpg", "--no-describe") == 0
    (row,) = rows(tmp_path / "report")
    assert row["description"] == row["template_sentence"] != ""
    assert row["text_source"] == "template"
    assert row["score_std"] is None
    assert row["threshold"] == 0.25
    page = (tmp_path / "report/index.html").read_text()
    assert "0.250, calibrated by the highest F1 on 2 normal and 3 defective images" in page


def test_references_saved_with_the_model(
    diagnose: Diagnose, images: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = AutoModel.from_pretrained(tiny_checkpoint, memory_capacity=2, memory_banks=["tile", "empty"])
    processor = AutoProcessor.from_pretrained(tiny_checkpoint)
    model.remember(processor.pixel_values([read_image(images / name) for name in ("b.png", "deep/c.PNG")]), "tile")
    for part in (model, processor):
        part.save_pretrained(tmp_path / "filled")
    arguments = ["--model", tmp_path / "filled", "--no-describe"]
    references = ["--reference", images / "b.png", images / "deep/c.PNG"]
    assert diagnose(images / "a.jpg", *arguments, *references) == 0
    (expected,) = rows(tmp_path / "report")
    assert diagnose(images / "a.jpg", *arguments, "--memory-bank", "tile") == 0
    (found,) = rows(tmp_path / "report")
    assert found["score"] == pytest.approx(expected["score"], abs=1e-3)
    assert len(found["reference_scores"]) == 2
    assert "memory bank tile (2 normal references)" in (tmp_path / "report/index.html").read_text()
    capsys.readouterr()
    for name, message in (("empty", "--memory-bank empty: is empty. Fill it"), ("other", "memory bank 'other': this")):
        assert diagnose(images / "a.jpg", *arguments, "--memory-bank", name) == 2
        assert capsys.readouterr().err.startswith(f"error: {message}")
    with pytest.raises(SystemExit):
        diagnose(images / "a.jpg", *references, "--memory-bank", "tile")
    assert "not allowed with argument --reference" in capsys.readouterr().err


def test_bad_images_are_rows_and_the_others_are_diagnosed(
    diagnose: Diagnose, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gray = np.asarray(Image.open(images / "b.png"))
    truncated = truncated_jpeg(images / "aa_truncated.jpg")
    Image.fromarray(gray[:1, :1]).save(images / "ab_1x1.png")
    (images / "ac_text.png").write_text("no image")
    Image.fromarray(gray.astype(np.float32)).save(images / "ad_float.tiff")
    Image.fromarray(gray.astype(np.uint16) * 257).save(images / "ba_16bit.png")
    Image.fromarray(np.dstack([gray] * 4)).save(images / "bb_rgba.png")
    assert diagnose(images, "--no-describe") == 2
    found = {Path(row["file"]).name: row for row in rows(tmp_path / "report")}
    assert [name for name, row in found.items() if "error" in row] == [
        "aa_truncated.jpg",
        "ab_1x1.png",
        "ac_text.png",
        "ad_float.tiff",
    ]
    assert "image is 1x1 px" in found["ab_1x1.png"]["error"]
    assert "floating-point" in found["ad_float.tiff"]["error"]
    assert found["ba_16bit.png"]["score"] == pytest.approx(found["b.png"]["score"])
    assert found["bb_rgba.png"]["score"] == pytest.approx(found["b.png"]["score"])
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {truncated}: image: cannot be used (")
    assert errors[0].endswith(f"(4 of 9 images not diagnosed, see {tmp_path / 'report'}/index.html)")
    assert (tmp_path / "report/index.html").read_text().count('class="failed"') == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png"], "missing.png: image: does not exist. Check the path"),
        (["empty"], "empty: folder: holds no image (.bmp"),
        (["images", "--reference", "missing.png"], "missing.png: image: does not exist. Check the path"),
        (["images", "--threshold", "1.5"], "--threshold 1.5: is outside 0 to 1."),
        (["images", "--threshold", "nan"], "--threshold nan: is outside 0 to 1."),
        (["images", "--model", "nowhere"], "nowhere: model: is neither a folder nor a Hub id like org/name."),
        (["images", "--model", "empty"], "empty: config.json: is missing, so this is no complete checkpoint."),
        (["images", "--out", "images"], "images: output: exists and is not a report. Choose another --out"),
        (["images", "--out", "images/a.jpg/report"], "images/a.jpg/report: output: Not a directory."),
    ],
)
def test_unusable_requests_are_one_line(
    diagnose: Diagnose,
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(images.parent)
    Path("empty").mkdir()
    before = sorted(Path().rglob("*"))
    assert diagnose(*arguments) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {message}")
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("processor_config.json", "processor_config.json: is missing, so this is no complete checkpoint. Save the"),
        ("tokenizer.json", "model: cannot be loaded (Couldn't instantiate the backend tokenizer"),
        ("model.safetensors", "model: cannot be loaded (Could not load model"),
    ],
)
def test_an_incomplete_checkpoint_is_one_line(
    diagnose: Diagnose,
    images: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    message: str,
) -> None:
    broken = Path(shutil.copytree(tiny_checkpoint, tmp_path / "broken"))
    (broken / name).unlink()
    assert diagnose(images, "--model", broken) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[-1].startswith(f"error: {broken}: {message}")
    assert not (tmp_path / "report").exists()


def test_a_checkpoint_without_calibration_is_one_line(
    diagnose: Diagnose, images: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Path(shutil.copytree(tiny_checkpoint, tmp_path / "broken"))
    config = json.loads((broken / "processor_config.json").read_text())
    del config["calibration"]["few_shot"]
    (broken / "processor_config.json").write_text(json.dumps(config))
    assert diagnose(images, "--model", broken, "--reference", images / "a.jpg") == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {broken}: processor_config.json: carries no few_shot calibration.")


def test_full_disk_leaves_the_earlier_report(
    diagnose: Diagnose, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diagnose(images, "--no-describe") == 0
    report = tmp_path / "report"
    before = {path: path.read_bytes() for path in report.rglob("*") if path.is_file()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # no file may grow larger
    try:
        assert diagnose(images) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (error,) = capsys.readouterr().err.splitlines()
    assert error == f"error: {report}: output: File too large. Free some space or choose another --out"
    assert {path: path.read_bytes() for path in report.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "report"]


def test_own_report_is_no_input(images: Path) -> None:
    report = images / "report"
    shutil.copytree(images / "deep", report / "overlays")
    assert find_images([images], report) == [images / "a.jpg", images / "b.png", images / "deep/c.PNG"]


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").size == (20, 40)


@pytest.mark.slow
def test_an_interrupt_keeps_what_is_done(tiny_checkpoint: Path, images: Path, tmp_path: Path) -> None:
    for index in range(60):
        shutil.copy(images / "a.jpg", images / f"more{index}.jpg")
    program = [sys.executable, "-u", "-m", "defect_hub.cli", "diagnose"]
    command = [*program, str(images), "--model", str(tiny_checkpoint), "--out", str(tmp_path / "report")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    done = rows(tmp_path / "report")
    assert 3 <= len(done) < 63
    assert (tmp_path / "report/index.html").read_text().count("<article") == len(done)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "report"]


def test_the_machine_decides_on_the_number_format_of_use_alone(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fastest in (torch.bfloat16, torch.float32):
        monkeypatch.setattr("defect_hub.diagnose.fastest_dtype", lambda device, fastest=fastest: fastest)
        assert load_pipeline(str(tiny_checkpoint)).model.dtype == fastest
        assert load_pipeline(str(tiny_checkpoint), fastest=False).model.dtype == torch.float32
