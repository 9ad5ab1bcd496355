"""The design as a test: who may import whom, flat remote-code files, small files and functions."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (
    "defect_hub",
    "dataset_scripts",
    "modeling",
    "train",
    "evaluate_metrics",
    "publishing",
    "benchmarks",
    "spaces",
    "tests",
)
FILES = sorted(path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 75

# Folder (the longest match counts) -> what of ours its files may import.
ALLOWED = {
    "dataset_scripts/readers": ["defect_hub.dataset_scripts.readers"],
    # Texts and attributes of data sets and of diagnoses are the same, and travel with a model's code.
    "dataset_scripts": [
        "defect_hub.dataset_scripts",
        *(f"defect_hub.modeling.{module}" for module in ("mask_attributes", "template_sentences")),
    ],
    "modeling": [],
    "evaluate_metrics/kernels": ["defect_hub.evaluate_metrics.kernels"],
    "evaluate_metrics": ["defect_hub.evaluate_metrics"],
    "train": ["defect_hub.train", "defect_hub.modeling", "defect_hub.evaluate_metrics"],
    "publishing": [
        "defect_hub",
        *(f"defect_hub.{folder}" for folder in ("publishing", "dataset_scripts", "modeling", "train.cards")),
    ],
    "spaces": ["defect_hub", "defect_hub.modeling.visualization"],
    "defect_hub": ["defect_hub"],
    "defect_hub/data_commands.py": ["defect_hub", "defect_hub.dataset_scripts"],
    "defect_hub/bench_commands.py": ["defect_hub", "defect_hub.benchmarks"],
    "defect_hub/convert_commands.py": ["defect_hub", "defect_hub.modeling"],
    "defect_hub/publish_commands.py": ["defect_hub", "defect_hub.publishing"],
    "defect_hub/diagnose.py": ["defect_hub", "defect_hub.modeling.inspection_images"],
    "defect_hub/report.py": ["defect_hub", "defect_hub.modeling.visualization"],
    "defect_hub/registration.py": ["defect_hub.modeling"],
    "defect_hub/evaluation": [
        "defect_hub",
        *(f"defect_hub.{folder}" for folder in ("train", "evaluate_metrics", "modeling.visualization")),
    ],
    "benchmarks": [
        "defect_hub",
        *(f"defect_hub.{folder}" for folder in ("benchmarks", "modeling", "train", "evaluate_metrics")),
    ],
    "benchmarks/bench.py": [
        "defect_hub",
        *(f"defect_hub.{folder}" for folder in ("benchmarks", "modeling", "train", "evaluate_metrics")),
        "defect_hub.dataset_scripts.tadd.subsets",
    ],
    "benchmarks/box_speed.py": ["defect_hub.dataset_scripts"],
    "benchmarks/dataset_speed.py": ["defect_hub.dataset_scripts"],
    "benchmarks/duplicate_search.py": ["defect_hub.dataset_scripts"],
    "tests": ["defect_hub", *(f"defect_hub.{folder}" for folder in FOLDERS[1:7])],
}
PACKAGES = [f"defect_hub.{folder}" for folder in FOLDERS[1:7]]
# What running a model must not need.
TRAINING_ONLY = {"accelerate", "datasets", "evaluate", "gradio"}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (relative level, dotted name) of every import, also those inside functions."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # `from defect_hub import modeling` names a module too.
            yield from ((node.level, f"{node.module or ''}.{alias.name}".strip(".")) for alias in node.names)


def rule_of(path: Path) -> str:
    return max((rule for rule in ALLOWED if path.is_relative_to(rule)), key=len)


def package_of(name: str) -> str:
    """Return the folder package a dotted name of ours belongs to, `defect_hub` for the root."""
    return next((package for package in PACKAGES if f"{name}.".startswith(f"{package}.")), "defect_hub")


def violations(path: Path) -> list[str]:
    """Return the imports of ours that the table forbids."""
    allowed = ALLOWED[rule_of(path)]
    found = []
    for level, name in imports(path):
        ours = level == 0 and name.split(".")[0] == "defect_hub"
        narrower = any(f"{name}.".startswith(f"{prefix}.") for prefix in allowed if prefix != "defect_hub")
        if ours and not narrower and package_of(name) not in allowed:
            found.append(name)
        if level == 0 and name.split(".")[0] in {*FOLDERS[1:7], "spaces"}:
            found.append(f"{name} (import it as defect_hub.{name}, or not at all)")
    return found


@pytest.mark.parametrize("path", FILES, ids=str)
def test_who_may_import_whom(path):
    assert violations(path) == []


@pytest.mark.parametrize("path", FILES, ids=str)
def test_relative_imports_stay_inside_modeling_and_are_flat(path):
    relative = [(level, name) for level, name in imports(path) if level]
    if path.parts[0] == "modeling":
        siblings = {file.stem for file in (ROOT / "modeling").glob("*.py")}
        assert path.parent == Path("modeling")
        assert all(level == 1 and name.split(".")[0] in siblings for level, name in relative)
    else:
        assert relative == []


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] == "modeling"], ids=str)
def test_inference_needs_no_training_or_web_library(path):
    assert not {name.split(".")[0] for _, name in imports(path)} & TRAINING_ONLY


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("evaluate_metrics/kernels", {"evaluate", "datasets", "sklearn", "transformers", "pandas"}),
        ("dataset_scripts/readers", {"torch", "transformers", "datasets"}),
        ("dataset_scripts", {"torch", "transformers", "accelerate", "gradio"}),
    ],
)
def test_folders_stay_free_of_heavy_libraries(folder, forbidden):
    found = {
        f"{path}: {name}"
        for path in FILES
        if path.is_relative_to(folder)
        for _, name in imports(path)
        if name.split(".")[0] in forbidden
    }
    assert found == set()


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_and_functions_are_small(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE_LINES
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: lines for name, lines in long.items() if lines > MAX_FUNCTION_LINES} == {}


def test_the_rules_see_a_violation(tmp_path, monkeypatch):
    (tmp_path / "modeling").mkdir()
    (tmp_path / "modeling/bad.py").write_text("def f():\n    import spaces\n    from defect_hub import train\n")
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    assert len(violations(Path("modeling/bad.py"))) == 2
