"""`defect-hub calibrate` end to end: what is written, what stays, refusals."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from transformers import AutoProcessor, pipeline

from defect_hub.cli import main
from defect_hub.dataset_scripts.steelsynth.build import build_steelsynth
from defect_hub.dataset_scripts.steelsynth.generate import generate_sample
from defect_hub.train.cards import GENERATED, model_card
from defect_hub.train.evaluation import evaluate_diagnosis
from tests.hub.fixture import hub as hub
from tests.hub.server import LocalHub

Calibrate = Callable[..., int]


@pytest.fixture(scope="module")
def steelsynth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "steelsynth"
    build_steelsynth(folder, n=40, seed=3)
    return folder


@pytest.fixture(scope="module")
def normal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images, and a copy of one."""
    folder = tmp_path_factory.mktemp("normal")
    for index in range(12):
        Image.fromarray(generate_sample(seed=5, index=index, size=64).image).save(folder / f"{index:02d}.png")
    shutil.copy(folder / "03.png", folder / "copy.png")
    return folder


@pytest.fixture
def model(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / "README.md").write_text(model_card(folder))
    return folder


@pytest.fixture
def calibrate(model: Path) -> Calibrate:
    return lambda *arguments: main(["calibrate", "--model", str(model), *map(str, arguments)])


def thresholds(folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    return json.loads((folder / "processor_config.json").read_text())["calibration"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_folder_of_normal_images_calibrates_both_protocols_in_place(
    calibrate: Calibrate, model: Path, normal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(model)
    assert calibrate("--normal", normal, "--quantile", 0.8, "--shots", 2, "--draws", 2, "--object", "tile") == 0
    after, found = contents(model), thresholds(model)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"processor_config.json", "README.md"}
    rest = json.loads(before["processor_config.json"]) | {"calibration": None}
    assert json.loads(after["processor_config.json"]) | {"calibration": None} == rest
    assert {(protocol, leaf["image"]["n_normal"]) for protocol, leaf in found.items()} == {
        ("zero_shot", 12),
        ("few_shot", 10),
    }
    leaf = found["few_shot"]["image"]
    assert (leaf["method"], leaf["quantile"], leaf["num_references"], leaf["num_draws"]) == ("quantile", 0.8, 2, 2)
    assert leaf["data"] == normal.name
    assert all(len(set(draw["tile"])) == 2 for draw in leaf["references"])
    printed = capsys.readouterr().out
    assert f"image threshold: 0.2500 -> {found['zero_shot']['image']['value']:.4f}\n" in printed
    assert f"{leaf['value']:.4f} (standard deviation over the draws {leaf['std']:.4f})" in printed
    assert "1 images left out: copies of others" in printed
    assert "AUROC" not in printed
    assert f"{found['zero_shot']['image']['value']:.4f} | quantile 0.8 | 12 | 0" in after["README.md"].decode()
    # What was promised, by the way of a user: rank ceil(0.8 * 13) = 11 leaves one of twelve above.
    pipe = pipeline("defect-diagnosis", model=str(model))
    files = sorted(str(path) for path in normal.glob("[0-9]*.png"))
    assert sum(pipe(path, object_name="tile", describe=False)["is_defective"] for path in files) == 1


def test_what_is_not_calibrated_is_said(
    calibrate: Calibrate, normal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert calibrate("--normal", normal, "--quantile", 0.8) == 0
    stays = "few-shot: stays at 0.2500, chosen on other images. Calibrate with --shots or --reference too"
    assert stays in capsys.readouterr().out


def test_masks_are_no_normal_images(
    calibrate: Calibrate, model: Path, normal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(model)
    masks = tmp_path / "masks"
    shutil.copytree(normal, masks)
    Image.new("L", (64, 64)).save(masks / "empty.png")
    assert calibrate("--normal", masks, "--quantile", 0.8) == 2
    assert "empty.png: image: has 1 colours, as a mask has" in capsys.readouterr().err
    assert contents(model) == before


def test_a_labelled_split_and_another_image_score_in_a_new_folder(
    calibrate: Calibrate, model: Path, steelsynth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(model)
    out = tmp_path / "new"
    assert calibrate("--data", steelsynth, "--split", "val", "--image-score", "max", "--out", out) == 0
    assert contents(model) == before
    config = json.loads(before["config.json"])
    assert config["image_score"] == "mean"
    assert json.loads((out / "config.json").read_text()) == config | {"image_score": "max"}
    assert thresholds(out).keys() == {"zero_shot"}
    leaf = thresholds(out)["zero_shot"]["image"]
    assert (leaf["method"], leaf["image_score"], leaf["data"], leaf["split"]) == (
        "f1_max",
        "max",
        "steelsynth",
        "val",
    )
    printed = capsys.readouterr().out
    assert "image score: mean -> max" in printed
    assert "few-shot: thresholds of the earlier image score dropped" in printed
    pipe = pipeline("defect-diagnosis", model=str(out))
    rows = datasets.load_dataset(str(steelsynth), "default")["val"]
    for mode in ("max", "cls", "mean"):
        pipe.model.config.image_score = mode
        scores = evaluate_diagnosis(pipe.model, pipe.processor, rows, describe=False)
        area = roc_auc_score(scores.is_defective, scores.image_scores)
        assert f"  {mode:4} {area:.3f}{' *' if mode == 'max' else ''}\n" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "new"]


def test_quantile_of_a_labelled_split_says_what_it_leaves_out(
    calibrate: Calibrate, model: Path, steelsynth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(model)
    assert calibrate("--data", steelsynth, "--split", "val", "--method", "quantile") == 2
    captured = capsys.readouterr()
    assert "error: quantile 0.99: needs at least 99 normal images, found" in captured.err
    assert contents(model) == before
    assert calibrate("--data", steelsynth, "--split", "val", "--quantile", 0.5) == 0
    labels = datasets.load_dataset(str(steelsynth), "default")["val"]["is_defective"][:]
    assert f"{labels.count(True)} defective images left out" in capsys.readouterr().out
    leaf = thresholds(model)["zero_shot"]["image"]
    assert (leaf["n_normal"], leaf["n_anomalous"]) == (labels.count(False), 0)
    assert thresholds(model)["few_shot"] == json.loads(before["processor_config.json"])["calibration"]["few_shot"]


def test_a_model_of_the_hub_becomes_a_folder(
    hub: LocalHub, model: Path, normal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.api().create_repo("org/tiles")
    hub.api().upload_folder(repo_id="org/tiles", folder_path=model)
    arguments = ["calibrate", "--model", "org/tiles", "--normal", str(normal), "--quantile", "0.5"]
    assert main(arguments) == 2
    assert "org/tiles: model: is no folder that could be changed. Name" in capsys.readouterr().err
    assert main([*arguments, "--out", str(tmp_path / "new")]) == 0
    assert contents(tmp_path / "new").keys() - {".gitattributes"} == contents(model).keys()
    assert AutoProcessor.from_pretrained(tmp_path / "new").calibration == thresholds(tmp_path / "new")


def test_a_card_by_hand_stays(
    calibrate: Calibrate, model: Path, normal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = (model / "README.md").read_text().replace(GENERATED, "")
    (model / "README.md").write_text(card)
    assert calibrate("--normal", normal, "--quantile", 0.5) == 0
    assert (model / "README.md").read_text() == card
    assert "README.md: is written by hand and stays" in capsys.readouterr().out


def test_interruption_leaves_no_new_folder(
    calibrate: Calibrate, normal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(folder: Path) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("defect_hub.evaluation.calibrate.model_card", interrupted)
    assert calibrate("--normal", normal, "--quantile", 0.5, "--out", tmp_path / "new") == 130
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--normal", "ok", "--method", "f1"], "--method f1: needs defective images too. Give --data, or take"),
        (["--normal", "ok", "--quantile", "1"], "--quantile 1: is not between 0 and 1. Give for example 0.99"),
        (
            ["--data", "d", "--split", "val", "--method", "f1", "--quantile", "0.9"],
            "--quantile 0.9: --method f1 takes",
        ),
        (["--data", "d"], "--data: needs the name of a split. Add --split"),
        (["--normal", "ok", "--out", "."], ".: output: exists. Name a new folder, or leave --out out"),
        (["--normal", "ok", "--draws", "3"], "--draws 3: nothing is drawn without references. Add --shots K"),
        (["--normal", "missing"], "missing: image: does not exist. Check the path"),
    ],
)
def test_bad_input_is_one_line(
    calibrate: Calibrate, model: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    before = contents(model)
    assert calibrate(*arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert contents(model) == before


def test_an_unusable_image_is_named(calibrate: Calibrate, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.png").write_text("no image")
    assert calibrate("--normal", tmp_path / "bad.png") == 2
    assert f"error: {tmp_path}/bad.png: image: cannot be used" in capsys.readouterr().err


def test_images_as_inspection_systems_save_them(calibrate: Calibrate, model: Path, tmp_path: Path) -> None:
    """16-bit gray, turned by an EXIF tag: calibrated as they are diagnosed."""
    gray = np.random.default_rng(0).integers(0, 65536, (40, 24), dtype=np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "ok").mkdir()
    Image.fromarray(gray).save(tmp_path / "ok/a.png", exif=exif)
    assert calibrate("--normal", tmp_path / "ok", "--quantile", 0.5) == 0
    pipe = pipeline("defect-diagnosis", model=str(model))
    turned = Image.fromarray(np.rot90(gray, -1))
    score = pipe(turned, describe=False, threshold=0.5)["score"]
    assert thresholds(model)["zero_shot"]["image"]["value"] == pytest.approx(score, abs=1e-5)
