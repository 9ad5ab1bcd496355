"""The wheel holds the tree: every package module and data file, nothing else, and it imports on its own.

Left out on purpose: spaces/ and the folders of the `evaluate` modules, which are deployed to the Hub as they are and
have no `__init__.py`, and tests/.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAPPED = ("dataset_scripts", "modeling", "train", "evaluate_metrics", "publishing", "benchmarks")
DATA = (
    "dataset_scripts/*/*.yaml",
    "dataset_scripts/*/*.md",
    "dataset_scripts/*/*.txt",
    "benchmarks/tables/*.yaml",
    "train/configs/**/*.yaml",
    "train/configs/**/*.sh",
    "defect_hub/checkpoints/**/*",
)
SOURCES = ("defect_hub", *MAPPED, "pyproject.toml", "README.md", "LICENSE")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build the wheel from a copy, so that the checkout stays clean."""
    tree = tmp_path_factory.mktemp("tree")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"],
        cwd=tree,
        check=True,
        capture_output=True,
    )
    return next((tree / "dist").glob("*.whl"))


def installed_name(path: Path) -> str:
    name = path.relative_to(ROOT).as_posix()
    return name if name.startswith("defect_hub/") else f"defect_hub/{name}"


def test_wheel_equals_tree(wheel):
    modules = {
        installed_name(path)
        for folder in ("defect_hub", *MAPPED)
        for path in (ROOT / folder).rglob("*.py")
        if (path.parent / "__init__.py").exists()
    }
    data = {installed_name(path) for pattern in DATA for path in ROOT.glob(pattern) if path.is_file()}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == modules | data | {"defect_hub/py.typed"}


def test_wheel_carries_licence_command_and_version(wheel):
    archive = zipfile.ZipFile(wheel)
    information = {
        Path(name).name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name
    }
    assert "Apache License" in information["LICENSE"]
    assert "defect-hub = defect_hub.cli:main" in information["entry_points.txt"]
    assert "Requires-Python: >=3.11" in information["METADATA"]


def test_every_module_imports_from_the_wheel(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    modules = sorted(
        path.relative_to(tmp_path).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        for path in (tmp_path / "defect_hub").rglob("*.py")
        if path.stem != "__main__"
    )
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[2:]:\n"
        "    assert importlib.import_module(name).__file__.startswith(sys.argv[1]), name\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), *modules],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
