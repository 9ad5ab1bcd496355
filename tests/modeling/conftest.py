from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

import defect_hub  # noqa: F401 (registers the Auto classes)
from defect_hub.modeling.modeling_spgdd_gpt import SpgddGptForConditionalGeneration
from defect_hub.modeling.processing_spgdd_gpt import SpgddGptProcessor


@pytest.fixture
def model(tiny_checkpoint: Path) -> SpgddGptForConditionalGeneration:
    return AutoModel.from_pretrained(tiny_checkpoint).eval()


@pytest.fixture
def processor(tiny_checkpoint: Path) -> SpgddGptProcessor:
    return AutoProcessor.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="session")
def images() -> list[Image.Image]:
    """Five gray pictures with structure, no two alike."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (5, 12, 16), dtype=np.uint8)
    return [Image.fromarray(pixels).resize((80, 60), Image.Resampling.BILINEAR) for pixels in coarse]


@pytest.fixture
def inputs(processor: SpgddGptProcessor, images: list[Image.Image]) -> dict[str, torch.Tensor]:
    """Two images of different objects, no references."""
    return dict(processor(images=images[:2], object_names=["steel surface", "magnetic tile"]))
