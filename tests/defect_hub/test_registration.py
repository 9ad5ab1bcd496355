"""Registration waits for transformers, and is complete whichever side is imported first."""

import subprocess
import sys

import pytest

FIRST = {
    "package": "import defect_hub",
    "auto classes": "from transformers import AutoConfig, AutoModel, AutoProcessor",
    "pipelines": "from transformers import pipeline",
    "model file": "import defect_hub.modeling.modeling_spgdd_gpt",
    "processor file": "import defect_hub.modeling.processing_spgdd_gpt",
    "files that others need": "import defect_hub.modeling.mask_attributes, defect_hub.modeling.vv_clip",
}
USE = """
import defect_hub
from transformers import AutoConfig, AutoModel, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY
assert "defect-diagnosis" in PIPELINE_REGISTRY.get_supported_tasks()
for auto in (AutoConfig, AutoModel, AutoProcessor):
    print(type(auto.from_pretrained(defect_hub.EMBEDDED_CHECKPOINT)).__module__)
"""


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
def test_auto_classes_know_our_models_whatever_is_imported_first(first: str) -> None:
    files = run(f"{first}\n{USE}").split()
    assert files == [f"defect_hub.modeling.{kind}_spgdd_gpt" for kind in ("configuration", "modeling", "processing")]


def test_the_package_and_its_data_verbs_do_not_wait_for_torch() -> None:
    modules = "import sys, defect_hub.cli, defect_hub.dataset_scripts.assemble; print(*sys.modules)"
    assert {"torch", "transformers"} & set(run(modules).split()) == set()
