"""The metric Spaces: the app builds, its button is wired, and the card's front matter fits the files."""

import doctest
import runpy
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import yaml
from PIL import Image

METRICS = Path(__file__).parents[2] / "evaluate_metrics"
NAMES = ["description_accuracy", "f1_max", "image_auroc", "pixel_auroc"]


def app_of(name: str) -> dict:
    return runpy.run_path(str(METRICS / name / "app.py"))


@pytest.mark.parametrize("name", NAMES)
def test_card_names_this_app_and_gradio(name):
    front_matter = yaml.safe_load((METRICS / name / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (METRICS / name / front_matter["app_file"]).is_file()
    assert front_matter["sdk_version"].split(".")[0] == gr.__version__.split(".")[0]
    assert len(front_matter["short_description"]) <= 60


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("image_auroc", {"image_auroc": 0.75}),
        ("f1_max", {"f1_max": 0.8, "threshold": 0.6}),
        ("description_accuracy", {"description_accuracy": 2 / 3, "unparsed": 1 / 3}),
    ],
)
def test_table_apps_compute_their_example(name, expected):
    app = app_of(name)
    assert app["compute"](app["EXAMPLE"]) == pytest.approx(expected)
    assert [list(block.inputs) != [] for block in app["demo"].fns.values()] == [True]
    with pytest.raises(gr.Error):
        app["compute"]([["no number", "?"]])


def test_pixel_app_reads_arrays_and_images(tmp_path):
    app = app_of("pixel_auroc")
    np.save(tmp_path / "map.npy", np.float32([[0.1, 2.5], [0.3, 0.2]]))
    Image.fromarray(np.uint8([[0, 255], [0, 0]])).save(tmp_path / "mask.png")
    mask = str(tmp_path / "mask.png")
    assert app["compute"](str(tmp_path / "map.npy"), mask) == {"pixel_auroc": 1.0}
    assert app["compute"](mask, mask) == {"pixel_auroc": 1.0}
    with pytest.raises(gr.Error, match="Upload"):
        app["compute"](None, mask)
    with pytest.raises(gr.Error, match="cannot identify"):
        app["compute"](mask, str(tmp_path / "map.npy"))


def test_pixel_app_brings_an_example():
    app = app_of("pixel_auroc")
    names = [str(app["EXAMPLES"] / name) for name in ("map.png", "mask.png")]
    assert 0.5 < app["compute"](*names)["pixel_auroc"] < 1
    assert {path.name for path in app["EXAMPLES"].iterdir()} == {"map.png", "mask.png"}


@pytest.mark.parametrize("name", NAMES)
def test_example_of_the_card_prints_what_it_says(name, capsys):
    example = (METRICS / name / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    exec(example.replace('"evaluate_metrics/', f'"{METRICS}/'), {})
    stated = example.rsplit("# ", 1)[1]
    assert doctest.OutputChecker().check_output(stated, capsys.readouterr().out, doctest.ELLIPSIS)
