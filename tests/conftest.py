"""Settings of every test run: no network, caches of its own, few threads; and the raw public sets."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

# Set before any library reads them, and inherited by the processes that tests start.
_CACHE = tempfile.mkdtemp(prefix="defect-hub-tests-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
os.environ["HF_HOME"] = _CACHE
os.environ["HF_MODULES_CACHE"] = str(Path(_CACHE) / "modules")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the demos, which take longest: of two processes, one then runs them while the other does the rest."""
    items.sort(key=lambda item: item.path.name != "test_demo.py")


@pytest.fixture(scope="session")
def raw_data() -> Path:
    """The folder of raw public sets named by DEFECT_HUB_RAW_DATA; for tests marked `real_data`."""
    folder = os.environ.get("DEFECT_HUB_RAW_DATA")
    if folder is None:
        pytest.skip("DEFECT_HUB_RAW_DATA is not set: no raw public sets to test on")
    if not Path(folder).is_dir():
        pytest.fail(f"DEFECT_HUB_RAW_DATA names no folder: {folder}")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained tiny SPGDD-GPT with its calibrated processor; no parameter keeps the value of its initialisation."""
    import torch

    from defect_hub.modeling.presets_spgdd_gpt import build_tiny

    answers = ["No, the steel surface shows no defect.", "Yes, there is a small dark scratch in the top left."]
    torch.manual_seed(0)
    model, processor = build_tiny(
        ["Is there any defect in this image?", *answers], ["steel surface", "magnetic tile"], num_prompt_tokens=3
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Enough that the text varies, and depends on the image.
            scale = 0.2 if ".adapter." in name or ".language_model.layers." in name else 0.05
            parameter.add_(scale * torch.randn_like(parameter))
    about = {"method": "f1_max", "n_normal": 2, "n_anomalous": 3, "data_fingerprint": "0" * 16}
    processor.calibration = {
        protocol: {"image": {**about, "value": 0.25}, "pixel": {**about, "value": 0.5}}
        for protocol in ("zero_shot", "few_shot")
    }
    folder = tmp_path_factory.mktemp("tiny") / "tiny-spgdd-gpt"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
