"""The metric Spaces: the app builds, its button is wired, and the card fits the files."""

import doctest
import json
import runpy
from collections.abc import Callable

import gradio as gr
import numpy as np
import pytest
import yaml
from PIL import Image

from defect_hub.evaluate_metrics.apps import write_example
from tests.evaluate_metrics.modules import METRICS, NAMES, PIXEL_METRICS

# Their cards' examples load a model; the tests of their own have a small one.
NEEDS_A_MODEL = {"sentence_similarity"}
# Their apps are tested with their metrics.
TESTED_THERE = {*NEEDS_A_MODEL, "groundedness"}
OPTIONS = {"aupro": [0.1], "pixel_metrics": [0.1], "pixel_iou": [140.0]}


def app_of(name: str) -> dict:
    return runpy.run_path(str(METRICS / name / "app.py"))


def button_of(demo: gr.Blocks) -> Callable[..., dict]:
    """What pressing the button calls."""
    (compute,) = (block for block in demo.fns.values() if block.api_name == "compute")
    assert [component.elem_id for component in compute.outputs] == ["result"]
    return compute.fn


@pytest.mark.parametrize("name", NAMES)
def test_card_names_this_app_and_gradio(name):
    front_matter = yaml.safe_load((METRICS / name / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (METRICS / name / front_matter["app_file"]).is_file()
    assert front_matter["sdk_version"] == gr.__version__
    assert len(front_matter["short_description"]) <= 60
    assert {path.name for path in (METRICS / name).iterdir()} - {"__pycache__"} == {
        *("README.md", "app.py", "requirements.txt", f"{name}.py")
    }


@pytest.mark.parametrize("name", NAMES)
def test_cards_have_the_same_sections(name):
    lines = (METRICS / name / "README.md").read_text(encoding="utf-8").splitlines()
    sections = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    expected = ["Formula", "Example", "What streams", "Limits"]
    assert [section for section in sections if section in expected] == [
        section for section in expected if section in sections
    ]
    assert {"Formula", "Example", "Limits"} <= set(sections)
    assert "What streams" in sections or name not in PIXEL_METRICS


@pytest.mark.parametrize("name", sorted(set(NAMES) - TESTED_THERE))
def test_app_builds_and_its_button_computes_the_example(name, tmp_path):
    app = app_of(name)
    inputs = [*write_example(tmp_path), *OPTIONS.get(name, [])] if name in PIXEL_METRICS else [app["EXAMPLE"]]
    found = button_of(app["demo"])(*inputs)
    assert found
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("image_auroc", {"image_auroc": 0.75}),
        ("image_ap", {"image_ap": 5 / 6}),
        ("f1_max", {"f1_max": 0.8, "threshold": 0.6}),
    ],
)
def test_table_apps_compute_their_rows(name, expected):
    app = app_of(name)
    compute = button_of(app["demo"])
    assert compute(app["EXAMPLE"]) == pytest.approx(expected)
    with pytest.raises(gr.Error, match="could not convert"):
        compute([["no number", 1]])
    with pytest.raises(gr.Error, match="all 1 samples are positive"):
        compute([[0.5, 1]])
    for empty in ("", None):
        with pytest.raises(gr.Error, match=r"row 2: `defective \(0 or 1\)` is empty"):
            compute([[0.5, 1], [0.5, empty]])


def test_map_apps_read_arrays_and_images(tmp_path):
    compute = button_of(app_of("pixel_auroc")["demo"])
    np.save(tmp_path / "map.npy", np.float32([[0.1, 2.5], [0.3, 0.2]]))
    Image.fromarray(np.uint8([[0, 255], [0, 0]])).save(tmp_path / "mask.png")
    mask = str(tmp_path / "mask.png")
    assert compute(str(tmp_path / "map.npy"), mask) == {"pixel_auroc": 1.0}
    assert compute(mask, mask) == {"pixel_auroc": 1.0}
    with pytest.raises(gr.Error, match="Upload"):
        compute(None, mask)
    with pytest.raises(gr.Error, match="cannot identify"):
        compute(mask, str(tmp_path / "map.npy"))
    np.save(tmp_path / "objects.npy", np.array([[{}]]), allow_pickle=True)
    with pytest.raises(gr.Error, match="allow_pickle=False"):
        compute(str(tmp_path / "objects.npy"), mask)


@pytest.mark.parametrize(("name", "option", "key"), [("aupro", 0.1, "aupro_0.1"), ("pixel_iou", 1e3, "undefined")])
def test_the_option_of_a_map_app_is_used(name, option, key, tmp_path):
    assert key in button_of(app_of(name)["demo"])(*write_example(tmp_path), option)


def test_the_example_of_map_apps_is_neither_trivial_nor_hopeless(tmp_path):
    files = write_example(tmp_path)
    assert 0.5 < button_of(app_of("pixel_ap")["demo"])(*files)["pixel_ap"] < 1
    assert files == write_example(tmp_path)


@pytest.mark.parametrize("name", sorted(set(NAMES) - NEEDS_A_MODEL))
def test_example_of_the_card_prints_what_it_says(name, capsys, monkeypatch):
    monkeypatch.chdir(METRICS.parent)
    example = (METRICS / name / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    exec(example, {})
    stated = example.rsplit("# ", 1)[1]
    assert doctest.OutputChecker().check_output(stated, capsys.readouterr().out, doctest.ELLIPSIS)
