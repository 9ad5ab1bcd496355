"""A saved folder loads in a fresh process, with our package and without it."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor

# argv: a folder with a checkpoint and test inputs; the outputs are written beside them.
LOAD = """
import sys
from pathlib import Path
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor

folder = Path(sys.argv[1])
checkpoint = folder / "checkpoint"
processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=TRUST)
inputs = dict(processor(images=[Image.open(folder / "image.png")]))
outputs = {f"inputs.{name}": value for name, value in inputs.items()}
for auto_class in (AutoModel, AutoModelForImageTextToText):
    model = auto_class.from_pretrained(checkpoint, trust_remote_code=TRUST)
    result = model.diagnose(**inputs, min_new_tokens=4, max_new_tokens=4)
    report = processor.post_process_diagnosis(result, target_sizes=[(30, 40)])[0]
    name = auto_class.__name__
    outputs |= {f"{name}.{key}": result[key] for key in ("anomaly_maps", "image_scores", "sequences")}
    outputs |= {f"{name}.weights.{key}": value.clone() for key, value in model.state_dict().items()}
    assert report["mask"].shape == (30, 40)
model.save_pretrained(folder / "resaved")
processor.save_pretrained(folder / "resaved")
save_file(outputs, folder / "outputs.safetensors")
print(type(model).__module__)
"""
BLOCK = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "defect_hub":
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocker())
"""
WITH_PACKAGE = "import defect_hub\n" + LOAD.replace("TRUST", "False")
WITHOUT_PACKAGE = BLOCK + LOAD.replace("TRUST", "True")


def run_fresh(script, folder):
    environment = os.environ | {"HF_MODULES_CACHE": str(folder / "modules")}
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture
def folder(tiny_checkpoint, tmp_path, images):
    """What a user receives: a checkpoint and an image."""
    (tmp_path / "checkpoint").symlink_to(tiny_checkpoint)
    images[0].save(tmp_path / "image.png")
    return tmp_path


@pytest.fixture
def expected(model, processor, images):
    inputs = dict(processor(images=images[:1]))
    result = model.diagnose(**inputs, min_new_tokens=4, max_new_tokens=4)
    return {
        **{f"inputs.{name}": value for name, value in inputs.items()},
        **{name: result[name] for name in ("anomaly_maps", "image_scores", "sequences")},
        **{f"weights.{name}": value for name, value in model.state_dict().items()},
    }


def assert_same(found, expected):
    names = {
        name if name.startswith("inputs.") else f"{auto_class}.{name}": value
        for name, value in expected.items()
        for auto_class in ("AutoModel", "AutoModelForImageTextToText")
    }
    assert found.keys() == names.keys()
    assert [name for name, value in names.items() if not torch.equal(found[name], value)] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "module"),
    [(WITH_PACKAGE, "defect_hub.modeling."), (WITHOUT_PACKAGE, "transformers_modules.")],
    ids=["package", "remote-code"],
)
def test_fresh_process_gives_the_same_outputs(folder, expected, script, module):
    assert run_fresh(script, folder).startswith(module)
    assert_same(load_file(folder / "outputs.safetensors"), expected)
    # What was loaded saves a complete checkpoint again, code included.
    (folder / "checkpoint").unlink()
    (folder / "resaved").rename(folder / "checkpoint")
    assert run_fresh(WITHOUT_PACKAGE, folder).startswith("transformers_modules.")
    assert_same(load_file(folder / "outputs.safetensors"), expected)


def test_the_package_is_really_hidden(folder):
    with pytest.raises(AssertionError, match="defect_hub is not installed here"):
        run_fresh(BLOCK + "import defect_hub", folder)


def test_every_auto_class_finds_the_installed_classes(tiny_checkpoint):
    """Explicitly given local code wins over the code in the folder."""
    for trust in (None, False, True):
        for auto_class in (AutoModel, AutoModelForImageTextToText, AutoProcessor):
            loaded = auto_class.from_pretrained(tiny_checkpoint, trust_remote_code=trust)
            assert type(loaded).__module__.startswith("defect_hub.modeling.")
