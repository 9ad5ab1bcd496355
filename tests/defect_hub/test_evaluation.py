"""`defect-hub evaluate` end to end: figures, files, protocols, refusals."""

import json
import re
import shutil
from collections.abc import Callable
from html import escape as html_escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sklearn_metrics

from defect_hub.cli import main
from defect_hub.dataset_scripts.steelsynth.build import build_steelsynth
from defect_hub.embedded import EMBEDDED_CHECKPOINT
from defect_hub.evaluation.run import warnings
from defect_hub.train.evaluation import data_fingerprint

Evaluate = Callable[..., int]
PLOTS = ["image_pr", "image_roc", "pixel_pr", "pixel_roc", "pro", "regions", "reliability", "scores"]


@pytest.fixture(scope="module")
def steelsynth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "steelsynth"
    build_steelsynth(folder, n=40, seed=3)
    return folder


@pytest.fixture(scope="module")
def val(steelsynth: Path) -> datasets.Dataset:
    return datasets.load_dataset(str(steelsynth), "default")["val"]


@pytest.fixture(scope="module")
def zero_shot(steelsynth: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Report of the embedded checkpoint on the split "val"."""
    folder = tmp_path_factory.mktemp("zero-shot")
    assert main(["evaluate", "--data", str(steelsynth), "--split", "val", "--out", str(folder / "out")]) == 0
    return folder


@pytest.fixture
def evaluate(steelsynth: Path, tmp_path: Path) -> Evaluate:
    def run(*arguments: object, data: Path = steelsynth, split: str = "val") -> int:
        fixed = ["--data", data, "--split", split, "--out", tmp_path / "out"]
        return main(["evaluate", *map(str, [*fixed, *arguments])])

    return run


@pytest.fixture(scope="module")
def edited(val: datasets.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a data set with other columns or rows, of the split "val" and maybe "train"."""

    def write(rows: datasets.Dataset, train: datasets.Dataset | None = None) -> Path:
        folder = tmp_path_factory.mktemp("edited")
        splits = {"val": rows} | ({"train": train} if train else {})
        files = ""
        for name, part in splits.items():
            part.to_parquet(folder / f"{name}.parquet")
            files += f"  - split: {name}\n    path: {name}.parquet\n"
        (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n")
        return folder

    return write


def report(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "out/metrics.json").read_text())


def score_rows(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "out/scores.jsonl").read_text().splitlines()]


class Page(HTMLParser):
    """Addresses and unclosed tags of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_zero_shot_figures(zero_shot: Path, val: datasets.Dataset) -> None:
    found, rows = report(zero_shot), score_rows(zero_shot)
    assert [row["image_id"] for row in rows] == val["image_id"][:]
    assert [row["label"] for row in rows] == [int(value) for value in val["is_defective"]]
    labels, scores = [row["label"] for row in rows], [row["score"] for row in rows]
    metrics = found["metrics"]
    assert metrics["image_auroc"]["value"] == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores))
    assert metrics["image_ap"]["value"] == pytest.approx(sklearn_metrics.average_precision_score(labels, scores))
    assert metrics["image_brier"]["value"] == pytest.approx(sklearn_metrics.brier_score_loss(labels, scores), abs=1e-6)
    without = {name for name, metric in metrics.items() if "interval" not in metric}
    assert without == {"image_ece", "pixel_f1_max", "pixel_iou_max"}
    for name in metrics.keys() - without:
        low, high = metrics[name]["interval"]
        assert 0 <= low <= metrics[name]["value"] <= high <= 1
    right = [row["description_verdict"] == ("yes" if row["label"] else "no") for row in rows]
    assert metrics["description_accuracy"]["value"] == pytest.approx(np.mean(right))
    calibration = json.loads((EMBEDDED_CHECKPOINT / "processor_config.json").read_text())["calibration"]
    threshold = calibration["zero_shot"]["image"]["value"]
    assert [row["verdict"] for row in rows] == [int(score >= threshold) for score in scores]


def test_zero_shot_provenance(zero_shot: Path, val: datasets.Dataset) -> None:
    found = report(zero_shot)
    labels = val["is_defective"][:]
    assert found["protocol"] == "zero-shot"
    assert found["undefined"] == {}
    assert found["data"] | {"sources": None} == {
        "name": "steelsynth",
        "split": "val",
        "split_ids": sorted(set(val["split_id"])),
        "fingerprint": data_fingerprint(val),
        "n_normal": labels.count(False),
        "n_defective": labels.count(True),
        "n_unknown": 0,
        "sources": None,
    }
    assert found["model"]["dtype"] == "float32"
    assert {use["use"] for use in found["model"]["trained_on"]} == {"training", "calibration"}
    assert found["warnings"] == [
        "The model's training used the split 'train' of the same data set.",
        "The model's calibration used the split 'train' of the same data set.",
    ]
    assert found["command"] == ("defect-hub evaluate --model tiny-spgdd-gpt --data steelsynth --split val --seed 42")
    assert found["versions"].keys() >= {"defect-hub", "torch", "transformers"}
    files = sorted(path.name for path in (zero_shot / "out/plots").iterdir())
    assert files == sorted(f"{name}.{kind}" for name in PLOTS for kind in ("png", "svg"))


def test_page_is_self_contained_and_shows_the_worst_images(zero_shot: Path) -> None:
    html = (zero_shot / "out/index.html").read_text()
    page = Page(html)
    assert page.open == []
    assert "://" not in html
    assert all(
        address.startswith(("data:image/jpeg;base64,", "data:image/svg+xml;base64,")) for address in page.addresses
    )
    rows = score_rows(zero_shot)
    normals = sorted((row for row in rows if not row["label"]), key=lambda row: -row["score"])
    defects = sorted((row for row in rows if row["label"]), key=lambda row: row["score"])
    shown = re.findall(r"<article><h3>([^<]*)</h3>", html)
    assert shown == [row["image_id"] for row in [*normals[:6], *defects[:6]]]
    assert len(page.addresses) == len(PLOTS) + 2 * len(shown)
    metric = report(zero_shot)["metrics"]["aupro_0.3"]
    low, high = metric["interval"]
    assert f"{metric['value']:.3f}</td>" in html
    assert f"{low:.3f} to {high:.3f}</td>" in html
    assert f'<p class="description">{html_escape(normals[0]["description"])}</p>' in html


def test_few_shot_draws_give_mean_and_deviation(evaluate: Evaluate, steelsynth: Path, tmp_path: Path) -> None:
    assert evaluate("--shots", 2, "--draws", 2, "--no-describe", "--seed", 7) == 0
    found = report(tmp_path)
    assert found["protocol"] == "2-shot"
    values = [draw["metrics"]["image_auroc"]["value"] for draw in found["draws"]]
    assert found["metrics"]["image_auroc"] == {
        "value": pytest.approx(np.mean(values)),
        "std": pytest.approx(np.std(values, ddof=1)),
        "min": min(values),
        "max": max(values),
    }
    train = datasets.load_dataset(str(steelsynth), "default")["train"]
    normal = {row["image_id"]: row["object_name"] for row in train if row["is_defective"] is False}
    for draw in found["draws"]:
        for object_name, ids in draw["references"].items():
            assert len(set(ids)) == 2
            assert {normal[image_id] for image_id in ids} == {object_name}
    assert len({json.dumps(draw["references"]) for draw in found["draws"]}) == 2
    rows = score_rows(tmp_path)
    assert [row["draw"] for row in rows] == sorted(row["draw"] for row in rows)
    assert sklearn_metrics.roc_auc_score(
        [row["label"] for row in rows if row["draw"] == 1], [row["score"] for row in rows if row["draw"] == 1]
    ) == pytest.approx(values[1])
    html = (tmp_path / "out/index.html").read_text()
    assert "over 2 draws of references" in html
    assert "Draw 1 of 2." in html
    spreads = [draw["metrics"]["score_std"]["value"] for draw in found["draws"]]
    assert 0 < np.mean(spreads) == pytest.approx(found["metrics"]["score_std"]["value"])
    assert "<tr><td>Score deviation<small>" in html


def test_references_given_as_files(evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference = tmp_path / "ok.png"
    Image.new("L", (64, 64), 120).save(reference)
    assert evaluate("--reference", reference, "--no-describe") == 0
    found = report(tmp_path)
    assert found["protocol"] == "1-shot"
    assert list(found["draws"][0]["references"].values()) == [["ok.png"]]
    assert "--reference ok.png" in found["command"]
    value = found["metrics"]["image_auroc"]["value"]
    images = found["data"]["n_normal"] + found["data"]["n_defective"]
    expected = f"{tmp_path}/out/index.html: {images} images, 1-shot, image AUROC {value:.3f}\n"
    assert capsys.readouterr().out == expected
    assert "description" not in score_rows(tmp_path)[0]
    assert "description_accuracy" not in found["metrics"]


def test_an_evaluated_image_is_no_reference(
    evaluate: Evaluate, val: datasets.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = val.cast_column("image", datasets.Image(decode=False))[0]
    (tmp_path / "copy.png").write_bytes(row["image"]["bytes"])
    assert evaluate("--reference", tmp_path / "copy.png") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: reference copy.png: is the image {row['image_id']} of 'val', which is evaluated.")
    assert evaluate("--shots", 1, split="train") == 2
    assert "of 'train', which is evaluated" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def named_apart(rows: datasets.Dataset) -> datasets.Dataset:
    names = ["plate" if index % 2 else "tile" for index in range(len(rows))]
    return rows.remove_columns("object_name").add_column("object_name", names)


def test_each_object_is_compared_with_its_own_references(
    evaluate: Evaluate,
    steelsynth: Path,
    edited: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    loaded = datasets.load_dataset(str(steelsynth), "default")
    train, rows = named_apart(loaded["train"]), named_apart(loaded["val"])
    data = edited(rows, train)
    assert evaluate("--shots", 1, "--no-describe", data=data) == 0
    (references,) = (draw["references"] for draw in report(tmp_path)["draws"])
    named = dict(zip(train["image_id"], train["object_name"], strict=True))
    assert {name: [named[image_id] for image_id in ids] for name, ids in references.items()} == {
        "plate": ["plate"],
        "tile": ["tile"],
    }
    # Each score stands beside its own image, in the order in which the objects were evaluated.
    labels = dict(zip(rows["image_id"], rows["is_defective"], strict=True))
    found = score_rows(tmp_path)
    assert {row["image_id"]: bool(row["label"]) for row in found} == labels
    Image.new("L", (64, 64), 120).save(tmp_path / "ok.png")
    assert evaluate("--reference", tmp_path / "ok.png", data=data) == 2
    assert "--reference: shows one object, but 'val' has 2 (plate, tile)" in capsys.readouterr().err


def test_one_class_has_reasons_instead_of_figures(
    evaluate: Evaluate, val: datasets.Dataset, edited: Callable[..., Path], tmp_path: Path
) -> None:
    normal = val.filter(lambda value: value is False, input_columns="is_defective")
    assert evaluate("--no-describe", data=edited(normal)) == 0
    found = report(tmp_path)
    assert found["metrics"].keys() == {"image_ece", "image_brier"}
    assert found["undefined"]["image_auroc"] == f"all {len(normal)} samples are negative (normal)"
    assert "aupro_0.3" in found["undefined"]
    html = (tmp_path / "out/index.html").read_text()
    assert f"all {len(normal)} samples are negative (normal)" in html
    assert html.count(">undefined</td>") == 8
    assert "Lowest-scored defective images" not in html
    assert sorted(path.stem for path in (tmp_path / "out/plots").glob("*.svg")) == ["reliability", "scores"]


def test_unknown_labels_are_left_out_and_counted(
    evaluate: Evaluate, val: datasets.Dataset, edited: Callable[..., Path], tmp_path: Path
) -> None:
    first = val[0]["image_id"]
    hidden = val.map(
        lambda row: {"is_defective": None if row["image_id"] == first else row["is_defective"]}, features=val.features
    )
    assert evaluate("--no-describe", data=edited(hidden)) == 0
    assert report(tmp_path)["data"]["n_unknown"] == 1
    assert first not in {row["image_id"] for row in score_rows(tmp_path)}


def test_the_split_a_model_was_trained_on_is_told(evaluate: Evaluate, val: datasets.Dataset, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    for path in EMBEDDED_CHECKPOINT.iterdir():
        if path.name != "run.json":
            (checkpoint / path.name).symlink_to(path)
    run = json.loads((EMBEDDED_CHECKPOINT / "run.json").read_text())
    run["uses"][0]["fingerprint"] = data_fingerprint(val)
    (checkpoint / "run.json").write_text(json.dumps(run))
    assert evaluate("--no-describe", "--model", checkpoint) == 0
    assert report(tmp_path)["warnings"][0].startswith("These images served the model's training:")
    assert "These images served the model&#x27;s training:" in (tmp_path / "out/index.html").read_text()


def test_the_split_that_thresholds_were_measured_on_later_is_told(
    evaluate: Evaluate, val: datasets.Dataset, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(EMBEDDED_CHECKPOINT, checkpoint)
    config = json.loads((checkpoint / "processor_config.json").read_text())
    config["calibration"]["zero_shot"]["image"]["data_fingerprint"] = data_fingerprint(val)
    (checkpoint / "processor_config.json").write_text(json.dumps(config))
    assert evaluate("--no-describe", "--model", checkpoint) == 0
    assert report(tmp_path)["warnings"][-1].startswith("These images served the model's calibration:")


def test_a_model_without_record_may_have_seen_the_images() -> None:
    assert warnings("steelsynth", "0", None) == [
        "The checkpoint does not say what it was trained on: it may have seen these images."
    ]
    assert warnings("steelsynth", "0", []) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "test"], "split: no 'test' among train, val. Name one of them"),
        (["--model", "missing"], "missing: model: is neither a folder nor a Hub id"),
        (["--draws", "3"], "--draws 3: nothing is drawn without references. Add --shots K"),
        (["--draws", "0"], "--draws 0: is below 1"),
        (["--shots", "-1"], "--shots -1: is below 0"),
        (["--shots", "999"], "999 references: the split has"),
        (["--reference", "missing.png"], "missing.png: image: does not exist. Check the path"),
    ],
)
def test_bad_input_is_one_line(
    evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert evaluate(*arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert list(tmp_path.iterdir()) == []


def test_other_folders_and_schemas_are_refused(
    evaluate: Evaluate,
    val: datasets.Dataset,
    edited: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate(data=edited(val.remove_columns("is_defective"))) == 2
    assert "is_defective: no such column in 'val'" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out/index.html").write_text('<meta name="generator" content="defect-hub diagnose">')
    assert evaluate() == 2
    assert "out: output: exists and is not a report" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["index.html"]


def test_interruption_leaves_the_earlier_report_alone(
    evaluate: Evaluate, zero_shot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(zero_shot / "out", tmp_path / "out")

    def interrupted(figure: object, path: Path) -> None:
        path.touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("defect_hub.evaluation.files.save_plot", interrupted)
    assert evaluate("--no-describe") == 130
    assert (tmp_path / "out/metrics.json").read_bytes() == (zero_shot / "out/metrics.json").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
