"""The Space: its functions called directly, and the page driven in headless Chromium."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import yaml
from PIL import Image
from playwright.sync_api import Page, expect

from defect_hub.diagnose import load_pipeline
from defect_hub.embedded import EMBEDDED_CHECKPOINT

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "spaces" / "defect_diagnosis"
SCRATCH, NORMAL = SPACE / "examples" / "scratch.jpg", SPACE / "examples" / "normal.jpg"
SCREENSHOT = runpy.run_path(str(ROOT / "scripts" / "screenshot_space.py"))


@pytest.fixture(scope="module")
def app() -> dict:
    return runpy.run_path(str(SPACE / "app.py"))


@pytest.fixture(scope="module")
def pipe(tiny_checkpoint: Path):
    return load_pipeline(str(tiny_checkpoint))


def test_card_fits_the_files() -> None:
    front_matter = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert front_matter["sdk"] == "gradio"
    assert front_matter["sdk_version"] == gr.__version__
    assert (SPACE / front_matter["app_file"]).is_file()
    assert len(front_matter["short_description"]) <= 60
    assert not (ROOT / "spaces" / "__init__.py").exists()


@pytest.mark.parametrize(
    ("models", "variable", "expected"),
    [
        ("", "", str(EMBEDDED_CHECKPOINT)),
        ("models:\n- org/first\n- org/second\n", "", "org/first"),
        ("models:\n- org/first\n", "org/other", "org/other"),
    ],
)
def test_default_model_is_of_the_variable_then_of_the_card(
    app: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: str, variable: str, expected: str
) -> None:
    card = tmp_path / "README.md"
    card.write_text((SPACE / "README.md").read_text("utf-8").replace("tags:\n", f"{models}tags:\n"), "utf-8")
    monkeypatch.setenv("DEFECT_HUB_MODEL", variable)
    assert app["default_model"](card) == expected


def test_a_lone_app_takes_the_embedded_model(app: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEFECT_HUB_MODEL", raising=False)
    assert app["default_model"](tmp_path / "README.md") == str(EMBEDDED_CHECKPOINT)


def test_uploads_are_deleted(app: dict, pipe) -> None:
    # Age and interval together are the hour that the card states.
    assert sum(app["build_demo"](pipe).delete_cache) <= 3600


def test_examples_are_small_generated_images() -> None:
    examples = sorted((SPACE / "examples").iterdir())
    assert [path.suffix for path in examples] == [".jpg"] * 3
    assert max(path.stat().st_size for path in examples) < 20_000


def test_outputs_show_the_record(app: dict, pipe) -> None:
    outputs = app["diagnose"](pipe, str(SCRATCH), [(str(NORMAL), None)], "magnetic tile", False, 0.0)
    verdict, (original, marked), mask, description, claims, row = outputs
    expected = pipe(
        Image.open(SCRATCH), reference_images=[Image.open(NORMAL)], object_name="magnetic tile", threshold=0.0
    )
    assert row["score"] == pytest.approx(expected["score"])
    assert row["is_defective"]
    assert np.array_equal(np.asarray(mask), expected["mask"])
    assert original.size == marked.size == mask.size == (row["width"], row["height"])
    assert 'class="verdict defective"' in verdict
    assert f"score {row['score']:.3f}, threshold 0.000" in verdict
    assert description.value == expected["description"]
    assert description.label == "Description (by the language model)"
    assert claims.visible == bool(expected["unsupported_claims"])
    json.dumps(row)


def test_claims_warn_only_where_there_are_any(app: dict) -> None:
    assert not app["claims"]([]).visible
    warning = app["claims"](['count "two": the map shows 1'])
    assert warning.visible
    assert '- count "two": the map shows 1' in warning.value


def test_the_slider_follows_the_protocol_unless_set_by_hand(app: dict, pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pipe.processor.calibration["few_shot"]["image"], "value", 0.75)
    assert app["threshold_slider"](pipe, None, True).value == 0.25
    assert app["threshold_slider"](pipe, [("a.png", None)], True).value == 0.75
    assert app["threshold_slider"](pipe, [("a.png", None)], False).interactive


def test_unusable_uploads_are_explained(app: dict, pipe, tmp_path: Path) -> None:
    def message(image: Path | None, references: list[Path]) -> str:
        with pytest.raises(gr.Error) as caught:
            app["diagnose"](pipe, image and str(image), [(str(path), None) for path in references], "", True, 0.5)
        return caught.value.message

    truncated = tmp_path / "cut.jpg"
    truncated.write_bytes(SCRATCH.read_bytes()[:3000])
    Image.new("L", (1, 1)).save(tmp_path / "dot.png")
    assert message(None, []) == "Upload an image first."
    assert message(truncated, []).startswith("cut.jpg: image: cannot be used (")
    assert message(SCRATCH, [tmp_path / "dot.png"]).startswith("dot.png: image: cannot be used (image is 1x1 px;")
    assert message(SCRATCH, [NORMAL] * 5) == "Give at most 4 normal references."


@pytest.mark.slow
def test_a_missing_model_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(SPACE / "app.py")]
    environment = {**os.environ, "DEFECT_HUB_MODEL": str(tmp_path / "none")}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    expected = f"app.py: error: {tmp_path / 'none'}: model: is neither a folder nor a Hub id like org/name."
    assert result.stderr.splitlines()[-1].startswith(expected)


@pytest.fixture(scope="module")
def url(tiny_checkpoint: Path) -> Iterator[str]:
    with SCREENSHOT["served"](str(tiny_checkpoint)) as address:
        yield address


@pytest.fixture
def page(url: str) -> Iterator[Page]:
    with SCREENSHOT["browser_page"](url) as opened:
        errors: list[str] = []
        opened.on("pageerror", lambda error: errors.append(str(error)))
        yield opened
        assert errors == []


@pytest.mark.browser
@pytest.mark.slow
def test_a_visitor_uploads_and_sees_overlay_and_text(page: Page, tmp_path: Path) -> None:
    SCREENSHOT["diagnose"](page, SCRATCH, [NORMAL])
    sources = page.locator("#overlay img").evaluate_all("images => images.map(image => image.naturalWidth)")
    assert sources == [256, 256]
    expect(page.locator("#mask img")).to_be_visible()
    expect(page.locator("#description textarea")).not_to_have_value("")
    expect(page.locator("#record")).to_contain_text('"is_defective"')
    page.screenshot(path=tmp_path / "space.png", full_page=True)
    assert len(np.unique(np.asarray(Image.open(tmp_path / "space.png").convert("L")))) > 100


@pytest.mark.browser
@pytest.mark.slow
def test_a_visitor_sets_the_threshold(page: Page) -> None:
    threshold = page.locator("#threshold input[type=number]")
    expect(threshold).to_have_value("0.25")
    expect(threshold).to_be_disabled()
    page.locator("#calibrated input").uncheck()
    expect(threshold).to_be_enabled()
    threshold.fill("1")
    threshold.press("Tab")
    SCREENSHOT["diagnose"](page, SCRATCH)
    expect(page.locator("#verdict")).to_contain_text("Normal")
    expect(page.locator("#verdict")).to_contain_text("threshold 1.000")


@pytest.mark.browser
@pytest.mark.slow
def test_a_visitor_is_told_what_is_wrong(page: Page, tmp_path: Path) -> None:
    page.locator("#diagnose").click()
    expect(page.locator(".toast-wrap")).to_contain_text("Upload an image first.")
    (tmp_path / "cut.jpg").write_bytes(SCRATCH.read_bytes()[:3000])
    page.locator("#image input[type=file]").set_input_files(tmp_path / "cut.jpg")
    expect(page.locator("#image img")).to_be_visible()
    page.locator("#diagnose").click()
    expect(page.locator(".toast-wrap")).to_contain_text("cut.jpg: image: cannot be used")
