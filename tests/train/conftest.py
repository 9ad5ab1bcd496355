from pathlib import Path
from typing import Any

import datasets
import pytest
from transformers import AutoModel, AutoProcessor

import defect_hub  # noqa: F401 (registers the Auto classes)
from defect_hub.dataset_scripts.steelsynth.build import build_steelsynth
from defect_hub.modeling.modeling_spgdd_gpt import SpgddGptForConditionalGeneration
from defect_hub.modeling.processing_spgdd_gpt import SpgddGptProcessor
from defect_hub.train.data import load_split


@pytest.fixture(scope="session")
def steelsynth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build of 40 images, 28 of them for training."""
    folder = tmp_path_factory.mktemp("data") / "steelsynth"
    build_steelsynth(folder, n=40, seed=3)
    return folder


@pytest.fixture(scope="session")
def rows(steelsynth: Path) -> datasets.Dataset:
    """The 12 rows of the split "val", normal and defective."""
    return load_split(str(steelsynth), "val")


@pytest.fixture(scope="session")
def model(tiny_checkpoint: Path) -> SpgddGptForConditionalGeneration:
    return AutoModel.from_pretrained(tiny_checkpoint).eval()


@pytest.fixture(scope="session")
def processor(tiny_checkpoint: Path) -> SpgddGptProcessor:
    return AutoProcessor.from_pretrained(tiny_checkpoint)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Bytes of the pictures that were decoded."""
    seen: list[bytes] = []
    decode = datasets.Image.decode_example

    def counting(self: datasets.Image, value: dict[str, Any], **options: Any) -> Any:
        seen.append(value["bytes"])
        return decode(self, value, **options)

    monkeypatch.setattr(datasets.Image, "decode_example", counting)
    return seen
