"""Folders of Spaces and metrics as repositories: what goes, what stays, what is refused, and that the result runs."""

import re
import runpy
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import evaluate
import pytest
from gradio_client import Client
from huggingface_hub import SpaceCard

from defect_hub import __version__
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.publishing.space import stage_metric, stage_space
from defect_hub.publishing.staged import Staged

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "spaces" / "defect_diagnosis"
METRICS = sorted(card.parent.name for card in (ROOT / "evaluate_metrics").glob("*/README.md"))
WHEEL = "defect-hub[space] @ https://huggingface.co/datasets/org/wheels/resolve/main/defect_hub-0.1.0-py3-none-any.whl"


def staged_metric(name: str) -> Staged:
    return stage_metric(ROOT / "evaluate_metrics" / name, f"org/{name}", Path("unused"))


def text(staged: Staged, path: str) -> str:
    content = staged.files[path]
    return content.decode() if isinstance(content, bytes) else content.read_text("utf-8")


def written(staged: Staged, folder: Path) -> Path:
    """The repository as its clone."""
    for path, content in staged.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    return folder


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(SPACE, tmp_path / "space", ignore=shutil.ignore_patterns("__pycache__"))


def change(path: Path, old: str, new: str) -> None:
    content = path.read_text("utf-8")
    assert old in content
    path.write_text(content.replace(old, new), "utf-8")


def test_a_space_holds_card_app_requirements_and_examples(space: Path, tmp_path: Path) -> None:
    staged = stage_space(space, "org/space", tmp_path / "staging")
    expected = {
        "README.md",
        "app.py",
        "requirements.txt",
        *(f"examples/{p.name}" for p in (SPACE / "examples").iterdir()),
    }
    assert staged.repo_type == "space"
    assert set(staged.files) == expected
    assert staged == stage_space(space, "org/space", tmp_path / "staging")


def test_the_card_names_models_and_data_sets(space: Path, tmp_path: Path) -> None:
    staged = stage_space(space, "org/space", tmp_path, models=["org/one", "org/two"], datasets=["org/steelsynth"])
    before, after = SpaceCard.load(space / "README.md"), SpaceCard(text(staged, "README.md"))
    assert after.data.to_dict() == {
        **before.data.to_dict(),
        "models": ["org/one", "org/two"],
        "datasets": ["org/steelsynth"],
    }
    assert after.text == before.text


@pytest.mark.parametrize("place", ["/home/ada/model", "model", "a/b/c", "../model"])
def test_a_model_that_no_visitor_can_load_is_refused(space: Path, tmp_path: Path, place: str) -> None:
    with pytest.raises(DataError, match="is no id of the Hub"):
        stage_space(space, "org/space", tmp_path / "staging", models=[place])


def test_this_version_is_pinned_and_must_be_on_pypi(space: Path, tmp_path: Path) -> None:
    staged = stage_space(space, "org/space", tmp_path)
    lines = (space / "requirements.txt").read_text("utf-8").splitlines()
    assert lines[0] == "defect-hub[space]"
    assert text(staged, "requirements.txt").splitlines() == [f"defect-hub[space]=={__version__}", *lines[1:]]
    assert [f"{__version__} from PyPI" in note for note in staged.notes] == [True]
    written(staged, tmp_path / "clone")
    assert (
        stage_space(tmp_path / "clone", "org/space", tmp_path).files["requirements.txt"]
        == (staged.files["requirements.txt"])
    )


def test_a_wheel_elsewhere_takes_the_place_of_pypi(space: Path, tmp_path: Path) -> None:
    staged = stage_space(space, "org/space", tmp_path, WHEEL)
    assert text(staged, "requirements.txt").splitlines()[0] == WHEEL
    assert staged.notes == ()


@pytest.mark.parametrize(
    ("requirement", "problem"),
    [
        ("./defect_hub-0.1.0-py3-none-any.whl", "its build sees no file but requirements.txt"),
        ("defect-hub @ file:///home/user/app/defect_hub-0.1.0-py3-none-any.whl", "is not pinned"),
        ("defect-hub[space]", "is not pinned"),
        ("another==1.0", "is not defect-hub"),
    ],
)
def test_a_requirement_that_no_build_can_install_is_refused(space, tmp_path, requirement, problem) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        stage_space(space, "org/space", tmp_path, requirement)
    assert str(caught.value).startswith("--requirement: ")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("defect-hub[space]", "# nothing", r"requirements.txt: defect-hub: is not listed"),
        ("defect-hub[space]", "defect-hub[space]\ngradio==6.31.0", "comes from sdk_version"),
        ("numpy==", "numpy>=", "numpy>=[^:]*: is not pinned"),
        ("numpy==2.4.6", "numpy==2.*", "is not pinned"),
        ("defect-hub[space]", "-e .", "-e .: is no requirement that a Space can install"),
    ],
)
def test_requirements_that_would_drift_or_fail_are_refused(space, tmp_path, old, new, problem) -> None:
    change(space / "requirements.txt", old, new)
    with pytest.raises(DataError, match=problem):
        stage_space(space, "org/space", tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("sdk_version: 6.31.0", 'sdk_version: ">=6"', "sdk_version: is '>=6'. Write an exact version"),
        ('python_version: "3.11"', "python_version: 3.10", "python_version: is 3.1. Write a version in quotes"),
        ("colorTo: red", "colorTo: crimson", "colorTo: is 'crimson'. Write a colour"),
        ("emoji: 🔎", "emoji: x", "emoji: is 'x'. Write an emoji"),
        ("sdk: gradio", "sdk: docker", "sdk: is 'docker'. Write gradio"),
        ("license: apache-2.0\n", "", "license: is None. Write a licence"),
        ("short_description: Find", "short_description: Find" + " and find" * 5, "at most 60 characters"),
        ("app_file: app.py", "app_file: main.py", "app_file: main.py is not in the folder"),
        ("sdk: gradio", "sdk: [gradio", "front matter: cannot be read"),
        ("---\n", "", "title: is None"),
    ],
)
def test_a_card_that_the_hub_would_refuse_is_refused_here(space, tmp_path, old, new, problem) -> None:
    change(space / "README.md", old, new)
    with pytest.raises(DataError, match=re.escape(problem)) as caught:
        stage_space(space, "org/space", tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_no_part_of_a_space_stays_and_is_named(space: Path, tmp_path: Path) -> None:
    (space / ".env").write_text("HF_TOKEN=secret")
    (space / "__pycache__").mkdir()
    (space / "__pycache__" / "app.cpython-311.pyc").touch()
    (space / "weights.bin").touch()
    (space / "examples" / ".DS_Store").touch()
    (tmp_path / "outside.py").touch()
    (space / "linked.py").symlink_to(tmp_path / "outside.py")
    (space / "helper.py").touch()
    staged = stage_space(space, "org/space", tmp_path, WHEEL)
    left_out = [".env", "__pycache__", "examples/.DS_Store", "linked.py", "weights.bin"]
    assert [note.split(":")[0] for note in staged.notes] == left_out
    assert "helper.py" in staged.files
    assert not set(left_out) & set(staged.files)


def test_linked_examples_are_not_followed(space: Path, tmp_path: Path) -> None:
    (space / "examples").rename(tmp_path / "elsewhere")
    (space / "examples").symlink_to(tmp_path / "elsewhere")
    staged = stage_space(space, "org/space", tmp_path, WHEEL)
    assert set(staged.files) == {"README.md", "app.py", "requirements.txt"}
    assert staged.notes == ("examples: left out, a link",)


@pytest.mark.parametrize("name", ["README.md", "requirements.txt"])
def test_linked_texts_are_refused(space: Path, tmp_path: Path, name: str) -> None:
    (space / name).rename(tmp_path / name)
    (space / name).symlink_to(tmp_path / name)
    with pytest.raises(DataError, match=f"{name}: file: is a link"):
        stage_space(space, "org/space", tmp_path)


def test_a_folder_that_is_not_there_points_to_a_clone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"README.md: file: is missing.*of a clone"):
        stage_space(tmp_path / "none", "org/space", tmp_path)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_loaded_from_its_repository(name: str, tmp_path: Path) -> None:
    staged = staged_metric(name)
    assert {"README.md", "app.py", "requirements.txt", f"{name}.py"} <= set(staged.files)
    assert f'evaluate.load("org/{name}"' in text(staged, "README.md")
    assert "evaluate_metrics/" not in text(staged, "README.md")
    assert {"metric", "evaluate"} <= set(SpaceCard(text(staged, "README.md")).data.tags)
    metric = evaluate.load(str(written(staged, tmp_path / name)))
    assert isinstance(metric, evaluate.Metric)


def test_a_metric_keeps_the_name_of_its_module() -> None:
    with pytest.raises(DataError, match=r"org/auroc is not named like the module.*named image_auroc"):
        stage_metric(ROOT / "evaluate_metrics" / "image_auroc", "org/auroc", Path("unused"))


@pytest.mark.parametrize("name", ["", *METRICS])
def test_cards_stand_alone_and_pins_are_those_that_are_tested(name: str) -> None:
    staged = staged_metric(name) if name else stage_space(SPACE, "org/space", Path("unused"))
    card = text(staged, "README.md")
    targets = re.findall(r"\]\(([^)#\s]+)", card)
    assert [target for target in targets if not target.startswith("https://") and target not in staged.files] == []
    assert "docs/" not in card
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    pins = dict(line.split("==") for line in text(staged, "requirements.txt").splitlines())
    own = {package: pins.pop(package) for package in list(pins) if package.startswith("defect-hub[")}
    assert own in ({"defect-hub[space]": __version__}, {"defect-hub[metrics,space]": __version__})
    assert pins == {package: tested[package] for package in pins}
    assert SpaceCard(card).data.sdk_version == tested["gradio"]


@contextmanager
def client_of(folder: Path) -> Iterator[Client]:
    """Serve the app of a clone, and talk to it; the end-to-end tests start clones in processes of their own."""
    demo = runpy.run_path(str(folder / "app.py"))["demo"]
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True)
    try:
        yield Client(url, verbose=False)
    finally:
        demo.close()


@pytest.mark.parametrize(
    ("name", "headers", "expected"),
    [
        ("image_auroc", ["score", "defective (0 or 1)"], {"image_auroc": 0.75}),
        ("f1_max", ["score", "defective (0 or 1)"], {"f1_max": 0.8, "threshold": 0.6}),
    ],
)
def test_the_clone_of_a_table_metric_computes(name, headers, expected, tmp_path: Path) -> None:
    table = {"headers": headers, "data": [[0.1, 0], [0.7, 0], [0.6, 1], [0.9, 1]]}
    with client_of(written(staged_metric(name), tmp_path / name)) as client:
        assert client.predict(table, api_name="/compute") == pytest.approx(expected)


def test_the_clone_of_the_text_metric_computes(tmp_path: Path) -> None:
    table = {"headers": ["answer", "defective (0 or 1)"], "data": [["Yes, a scratch.", 1], ["Perhaps.", 1]]}
    with client_of(written(staged_metric("description_accuracy"), tmp_path / "description_accuracy")) as client:
        found = client.predict(table, api_name="/compute")
    assert (found["description_accuracy"], found["unparsed"]) == (0.5, 0.5)
