"""The verbs of `defect-hub publish`, without a Hub; what they do at one is in tests/publishing."""

import shutil
from pathlib import Path

import pytest

from defect_hub import EMBEDDED_CHECKPOINT
from defect_hub.cli import main

METRIC = Path(__file__).parents[2] / "evaluate_metrics" / "f1_max"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """An organisation of a metric whose card is broken, one that is whole, and a data set that is not built."""
    for name in ("broken", "f1_max"):
        shutil.copytree(METRIC, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "broken" / "README.md").unlink()
    (tmp_path / "organisation.yaml").write_text(
        "datasets: {steel: {folder: steel, build: make steel}}\n"
        "metrics: {broken: {folder: broken}, f1_max: {folder: f1_max}}\n"
    )
    return tmp_path / "organisation.yaml"


def publish_all(table: Path, *options: str) -> int:
    staging = str(table.parent / "staging")
    return main(["publish", "all", "--org", "org", "--table", str(table), "--staging", staging, *options])


def test_one_entry_that_fails_does_not_keep_the_others_back(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert publish_all(table, "--dry-run") == 2
    said = capsys.readouterr()
    assert "is missing: make steel" in said.out
    assert "space org/f1_max (the Hub is not asked, HF_HUB_OFFLINE is set)" in said.out
    assert f"error: {table.parent}/broken/README.md: file: is missing" in said.err
    assert said.err.splitlines()[-1] == "error: not published: broken"


def test_what_is_not_built_is_missed_before_anything_is_published(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish_all(table) == 2
    said = capsys.readouterr()
    assert "steel: not built; build them or give --skip-missing" in said.err
    assert "f1_max (" not in said.out


def test_a_base_without_its_part_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["publish", "model", str(EMBEDDED_CHECKPOINT), "--repo", "org/tiny", "--staging", str(tmp_path)]
    assert main([*arguments, "--base", "openai/clip-vit-base-patch32"]) == 2
    assert "is not of the form PART=ID[@REVISION]" in capsys.readouterr().err
