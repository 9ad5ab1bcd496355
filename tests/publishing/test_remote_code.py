"""A model repository carries the code that its Auto classes need, and nothing else."""

import shutil
from pathlib import Path

import pytest
from transformers import AutoConfig, CLIPConfig

import defect_hub.modeling
from defect_hub.publishing import remote_code as remote_code_module
from defect_hub.publishing.model import stage_model
from defect_hub.publishing.remote_code import remote_code
from tests.modeling.test_remote_code import BLOCK, run_fresh
from tests.publishing.test_model import write_staged

# argv: a folder with "whole" and, named after the file each lacks, incomplete repositories. Prints the modules that
# the whole one loads and the incomplete ones that load all the same.
LOAD_ALL = (
    BLOCK
    + """
from pathlib import Path
from transformers import AutoConfig, AutoModel, AutoProcessor

def loads(folder):
    try:
        for auto_class in (AutoConfig, AutoProcessor, AutoModel):
            auto_class.from_pretrained(folder, trust_remote_code=True)
    except (OSError, ImportError):
        return False
    return True

folder = Path(sys.argv[1])
assert loads(folder / "whole")
modules = {f"{name.split('.')[-1]}.py" for name in sys.modules if name.startswith("transformers_modules.whole.")}
loading = {path.name for path in folder.glob("without-*") if loads(path)}
print(*sorted({name for name in modules if (folder / "whole" / name).is_file()}), "|", *sorted(loading))
"""
)


@pytest.fixture(scope="module")
def code():
    return remote_code(type(AutoConfig.for_model("spgdd_gpt")))


def test_maps_name_the_registered_classes(code):
    assert code.config_map.keys() == {"AutoConfig", "AutoModel", "AutoModelForImageTextToText"}
    assert code.processor_map.keys() == {"AutoProcessor"}
    for entry in (*code.config_map.values(), *code.processor_map.values()):
        module, name = entry.split(".")
        assert f"class {name}" in code.files[f"{module}.py"].read_text()


def test_files_are_those_of_the_package(code):
    assert set(code.files) == {path.name for path in code.files.values()}
    assert {path.parent for path in code.files.values()} == {Path(defect_hub.modeling.__path__[0])}
    assert "handler.py" in code.files
    assert "presets_spgdd_gpt.py" not in code.files


def test_requirements_are_ranges_of_what_the_code_imports(code):
    lines = code.requirements.splitlines()
    assert [line.split(">=")[0] for line in lines] == ["scipy", "transformers"]
    for line in lines:
        lowest, below = line.split(">=")[1].split(",<")
        assert int(lowest.split(".")[0]) + 1 == int(below)


def test_imports_are_followed_through_files_and_functions(monkeypatch, tmp_path):
    files = {
        "handler": "import json\n",
        "configuration_clip": "from .a import x\n",
        "modeling_clip": 'def f():\n    """from .docstring import x"""\n    from .b import y\n',
        "processing_clip": "import scipy.ndimage\n",
        "a": "from .b import (\n    y,\n)\n",
        "b": "from .a import x  # in a circle\nfrom scipy import stats\n",
        "unused": "import nothing\n",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(remote_code_module, "_FOLDER", tmp_path)
    found = remote_code(CLIPConfig)
    assert set(found.files) == {f"{name}.py" for name in files if name != "unused"}
    assert found.requirements.startswith("scipy>=")
    assert len(found.requirements.splitlines()) == 1


@pytest.mark.slow
def test_every_file_is_needed_and_none_is_missing(tiny_checkpoint, tmp_path):
    staged = stage_model(tiny_checkpoint, "org/tiny", tmp_path / "staging")
    whole = write_staged(staged, tmp_path / "fresh" / "whole")
    needed = {name for name in staged.files if name.endswith(".py")} - {"handler.py"}
    for name in needed:
        incomplete = tmp_path / "fresh" / f"without-{name.removesuffix('.py')}"
        shutil.copytree(whole, incomplete)
        (incomplete / name).unlink()
    modules, loading = run_fresh(LOAD_ALL, tmp_path / "fresh").split("|")
    assert set(modules.split()) == needed
    assert loading.split() == []
