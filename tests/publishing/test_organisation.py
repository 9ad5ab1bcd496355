"""The table of an organisation: the project's own, and what is refused."""

import re
import shlex
from pathlib import Path

import pytest

from defect_hub.cli import build_parser
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.publishing.organisation import load_organisation
from defect_hub.publishing.space import stage_metric, stage_space

ROOT = Path(__file__).parents[2]
TABLE = """
datasets:
  steel: {folder: data/steel, build: make steel}
models:
  tiny: {folder: model}
metrics:
  auroc: {folder: metrics/auroc}
spaces:
  demo: {folder: space, models: [tiny], datasets: [steel]}
collections:
  - title: All
    description: Everything.
    items:
      - name: demo
        note: Try it.
      - name: steel
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "organisation.yaml"
    path.write_text(TABLE, "utf-8")
    return path


def test_a_table_names_repositories_and_collections(table: Path) -> None:
    (table.parent / "model").mkdir()
    organisation = load_organisation(table)
    steel, tiny, auroc, demo = organisation.entries
    assert [entry.kind for entry in organisation.entries] == ["dataset", "model", "metric", "space"]
    assert [entry.repo_type for entry in organisation.entries] == ["dataset", "model", "space", "space"]
    assert steel.folder == table.parent / "data" / "steel"
    assert (demo.models, demo.datasets) == (("tiny",), ("steel",))
    assert [entry.is_built for entry in (steel, tiny)] == [False, True]
    assert tiny.line("org").split() == ["model", "org/tiny", str(tiny.folder)]
    assert steel.line("org").endswith(f"{steel.folder}   is missing: make steel")
    assert auroc.line("org").endswith("is missing: it is part of a clone of the project")
    (collection,) = organisation.collections
    assert [(item.entry, item.note) for item in collection.items] == [(demo, "Try it."), (steel, None)]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("build: make", "built: make", "datasets.steel.built: is not a known field. Known are folder, build"),
        ("models:\n  tiny", "model:\n  tiny", "file.model: is not a known field. Known are datasets, models"),
        ("{folder: model}", "{}", "models.tiny.folder: is missing"),
        ("{folder: model}", "{folder: 7}", "models.tiny.folder: is 7, not a text"),
        ("{folder: model}", "model", "models.tiny: is no mapping of names"),
        ("tiny: {", "'tiny model': {", "models.tiny model: is no name of a repository"),
        ("tiny: {", "steel: {", "models.steel: dataset has this name too"),
        ("[tiny]", "[huge]", "spaces.demo.models: names 'huge', which is not in the file. Known are tiny"),
        ("[tiny]", "tiny", "spaces.demo.models: is no list"),
        ("name: steel", "name: brass", "collections[0].items[1].name: names 'brass'"),
        ("Everything.", "x" * 151, "collections[0].description: has 151 characters. The Hub takes 150"),
        ("Try it.", "x" * 501, "collections[0].items[0].note: has 501 characters. The Hub takes 500"),
        ("    description: Everything.\n", "", "collections[0].description: is missing"),
        ("collections:", "collections: [", "file: cannot be read"),
    ],
)
def test_a_slip_is_named_with_its_field(table: Path, old: str, new: str, problem: str) -> None:
    assert old in TABLE
    table.write_text(TABLE.replace(old, new, 1), "utf-8")
    with pytest.raises(DataError, match=re.escape(f"{table}: {problem}")) as caught:
        load_organisation(table)
    assert "\n" not in str(caught.value)


def test_without_a_clone_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist\. Run this in a clone of the project"):
        load_organisation(tmp_path / "organisation.yaml")


def test_the_projects_own_table_holds_what_the_project_has() -> None:
    entries = load_organisation(ROOT / "organisation.yaml").entries
    metrics = {path.parent.name for path in (ROOT / "evaluate_metrics").glob("*/README.md")}
    assert {entry.name for entry in entries if entry.kind == "metric"} == metrics
    spaces = set((ROOT / "spaces").iterdir())
    assert {entry.folder for entry in entries if entry.kind == "space"} == spaces
    assert all(entry.is_built or entry.build for entry in entries)
    listed = {item.entry for each in load_organisation(ROOT / "organisation.yaml").collections for item in each.items}
    assert listed == set(entries)


def test_the_commands_of_the_projects_own_table_make_its_folders() -> None:
    for entry in load_organisation(ROOT / "organisation.yaml").entries:
        if entry.build:
            program, *arguments = shlex.split(entry.build)
            assert program == "defect-hub"
            assert ROOT / build_parser().parse_args(arguments).out == entry.folder


def test_spaces_and_metrics_of_the_projects_own_table_can_be_staged(tmp_path: Path) -> None:
    for entry in load_organisation(ROOT / "organisation.yaml").entries:
        if entry.kind == "metric":
            assert f"{entry.name}.py" in stage_metric(entry.folder, entry.repo_id("org"), tmp_path).files
        elif entry.kind == "space":
            assert "app.py" in stage_space(entry.folder, entry.repo_id("org"), tmp_path).files
