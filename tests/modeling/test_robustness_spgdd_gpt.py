"""What must not change the diagnosis (batching, padding, precision, parts left out), and what must be refused."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel

from defect_hub.modeling.configuration_spgdd_gpt import VIT_B_16_PLUS_240, SpgddGptConfig
from defect_hub.modeling.modeling_spgdd_gpt import SpgddGptForConditionalGeneration
from defect_hub.modeling.presets_spgdd_gpt import tiny_config

QUESTIONS = ["Is there any defect in this image?", "Where?", "Is there any dark scratch, and in which corner is it?"]


def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(np.corrcoef(first.float().flatten().numpy(), second.float().flatten().numpy())[0, 1])


@pytest.fixture
def load(tiny_checkpoint):
    return lambda **overrides: AutoModel.from_pretrained(tiny_checkpoint, **overrides).eval()


@pytest.fixture
def references(processor, images):
    return processor.pixel_values(images[2:4])[None]


# What must not change the diagnosis


@pytest.mark.parametrize("shots", [0, 2])
def test_batch_of_eight_equals_eight_batches_of_one(model, processor, references, shots):
    """Objects and questions differ, so that the batch is padded on the left."""
    coarse = np.random.default_rng(8).integers(0, 256, (8, 10, 10), dtype=np.uint8)
    pictures = [Image.fromarray(pixels).resize((64, 64), Image.Resampling.BILINEAR) for pixels in coarse]
    names = [["steel surface", "magnetic tile"][index % 2] for index in range(8)]
    questions = [QUESTIONS[index % 3] for index in range(8)]
    options = {"min_new_tokens": 6, "max_new_tokens": 6} | ({"reference_pixel_values": references} if shots else {})
    batch = processor(images=pictures, object_names=names, text=questions)
    assert batch["attention_mask"].sum(dim=1).unique().numel() == 3
    together = model.diagnose(**batch, **options)
    assert together.sequences.unique(dim=0).shape[0] > 1, "the fixture's texts should differ"
    for index in range(8):
        single = processor(images=pictures[index], object_names=names[index : index + 1], text=questions[index])
        alone = model.diagnose(**single, **options)
        torch.testing.assert_close(together.anomaly_maps[index], alone.anomaly_maps[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(together.image_scores[index], alone.image_scores[0], atol=1e-5, rtol=1e-4)
        assert torch.equal(together.sequences[index], alone.sequences[0])


@pytest.mark.parametrize("shots", [0, 2])
def test_bfloat16_keeps_the_maps(load, inputs, references, shots):
    options = {"reference_pixel_values": references} if shots else {}
    exact = load().diagnose(**inputs, **options, describe=False)
    rounded = {
        name: value.bfloat16() if value.is_floating_point() else value for name, value in {**inputs, **options}.items()
    }
    found = load(dtype=torch.bfloat16).diagnose(**rounded, describe=False)
    assert not torch.equal(found.mask_logits, exact.mask_logits)
    for index in range(2):
        assert correlation(found.anomaly_maps[index], exact.anomaly_maps[index]) > 0.999
    torch.testing.assert_close(found.image_scores.float(), exact.image_scores, atol=0.02, rtol=0)


@pytest.mark.slow
@torch.no_grad()
def test_bfloat16_keeps_the_maps_of_the_papers_encoder():
    """The text tower stays tiny: text features are given."""
    torch.manual_seed(0)
    tower = tiny_config().clip_config.text_config.to_dict() | {"projection_dim": 640}
    clip = VIT_B_16_PLUS_240 | {"text_config": tower}
    config = tiny_config(clip_config=clip, feature_blocks=[3, 8, 12], has_language_model=False)
    model = SpgddGptForConditionalGeneration(config).eval()
    images = torch.nn.functional.interpolate(torch.randn(2, 3, 20, 20), size=(240, 240), mode="bicubic")
    arguments = {
        "pixel_values": images[:1],
        "reference_pixel_values": images[None, 1:],
        "text_features": torch.nn.functional.normalize(torch.randn(1, 2, 640), dim=-1),
    }
    exact = model.diagnose(**arguments)
    found = model.bfloat16().diagnose(**{name: value.bfloat16() for name, value in arguments.items()})
    assert exact.anomaly_maps.std() > 1e-4
    assert correlation(found.anomaly_maps, exact.anomaly_maps) > 0.999


@pytest.mark.parametrize("shots", [0, 2])
def test_a_detector_finds_what_the_complete_model_finds(load, inputs, references, shots):
    options = {"reference_pixel_values": references} if shots else {}
    complete = load().diagnose(**inputs, **options, describe=False)
    detector = load(has_language_model=False)
    assert detector.config.num_image_tokens == 0
    assert not any("language_model" in name or "lm_head" in name for name, _ in detector.named_parameters())
    visual = {name: value for name, value in inputs.items() if name in ("pixel_values", "prompt_input_ids")}
    found = detector.diagnose(**visual, **options)
    assert found.sequences is None
    for name in ("anomaly_maps", "mask_logits", "cls_logits", "image_scores"):
        assert torch.equal(found[name], complete[name]), name


def test_features_replace_images(model, inputs, references):
    expected = model.diagnose(**inputs, reference_pixel_values=references, describe=False)
    with torch.no_grad():
        cls, local = model.model.encode_images(inputs.pop("pixel_values"))
        own = model.model.encode_images(references[0])[1][None]
    found = model.diagnose(**inputs, cls_features=cls, local_features=local, reference_features=own, describe=False)
    torch.testing.assert_close(found.anomaly_maps, expected.anomaly_maps)
    torch.testing.assert_close(found.image_scores, expected.image_scores)


# What must be refused


def refusal(call, *args, **kwargs) -> str:
    """The one line that a refused call says."""
    with pytest.raises(ValueError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_no_references_in_few_shot_mode(model, inputs, references):
    message = refusal(model.diagnose, **inputs, reference_pixel_values=references[:, :0], describe=False)
    assert "reference" in message


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("pixel_values", (3, 240, 240)),
        ("reference_pixel_values", (2, 3, 240, 240)),
        ("reference_pixel_values", (3, 2, 3, 240, 240)),  # of three images, for two
        ("reference_features", (1, 2, 225, 100)),
        ("reference_features", (1, 2, 200, 256)),
        ("local_features", (2, 225, 100)),
        ("text_features", (3, 2, 64)),
        ("text_features", (2, 2, 32)),
    ],
)
def test_other_shapes(model, inputs, name, shape):
    inputs[name] = torch.randn(shape)
    if name == "local_features":
        inputs["cls_features"] = torch.randn(2, 64)
        del inputs["pixel_values"]
    if name == "text_features":
        del inputs["prompt_input_ids"]
    message = refusal(model.diagnose, **inputs, describe=False)
    assert name.split("_")[0] in message
    assert any(str(size) in message for size in shape)


@pytest.mark.parametrize("side", [224, 256])
def test_another_image_size(model, inputs, side):
    inputs["pixel_values"] = torch.zeros(2, 3, side, side)
    message = refusal(model.diagnose, **inputs, describe=False)
    assert str(side) in message
    assert "240" in message


def test_references_of_another_size(model, inputs):
    message = refusal(model.diagnose, **inputs, reference_pixel_values=torch.zeros(1, 2, 3, 224, 224), describe=False)
    assert "224" in message
    assert "240" in message


def test_more_references_than_capacity(load, references):
    model = load(memory_capacity=1, ignore_mismatched_sizes=True)
    message = refusal(model.remember, references[0])
    assert "memory_capacity" in message
    assert "2 references" in message


def test_an_unknown_bank(load, inputs, references):
    model = load(memory_capacity=2, ignore_mismatched_sizes=True)
    assert "tiles" in refusal(model.remember, references[0], name="tiles")
    assert "tiles" in refusal(model.diagnose, **inputs, memory_bank="tiles", describe=False)


def test_weights_that_are_not_numbers(model, inputs):
    with torch.no_grad():
        model.model.clip.visual_projection.weight[0, 0] = torch.nan
    message = refusal(model.diagnose, **inputs, describe=False)
    assert "NaN" in message


@pytest.mark.parametrize("name", ["pixel_values", "reference_pixel_values"])
def test_images_that_are_not_numbers(model, inputs, references, name):
    inputs["reference_pixel_values"] = references
    inputs[name][..., 0] = torch.nan
    message = refusal(model.diagnose, **inputs, describe=False)
    assert "not finite" in message
    assert {"pixel_values": "images", "reference_pixel_values": "references"}[name] in message


def test_prompts_longer_than_the_text_encoder_reads(model, inputs):
    inputs["prompt_input_ids"] = inputs["prompt_input_ids"].repeat(1, 1, 1, 3)
    length = inputs["prompt_input_ids"].shape[-1]
    limit = model.config.clip_config.text_config.max_position_embeddings
    assert length > limit
    message = refusal(model.diagnose, **inputs, describe=False)
    assert str(length) in message
    assert str(limit) in message


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"image_token_id": 512}, ("image_token_id", "512")),
        ({"image_token_id": -1}, ("image_token_id", "-1")),
        ({"clip_config": {"vision_config": {"patch_size": 7}}}, ("patch_size", "7", "240")),
        ({"memory_capacity": -1}, ("memory_capacity", "-1")),
        ({"reference_rotations": [45]}, ("reference_rotations", "45")),
        ({"memory_banks": ["tiles", "tiles"]}, ("memory_banks", "tiles")),
    ],
)
def test_configurations_that_disagree(overrides, words):
    settings = tiny_config().to_dict()
    merge(settings, overrides)
    message = refusal(SpgddGptConfig.from_dict, settings)
    for word in words:
        assert word in message


def merge(settings: dict[str, Any], overrides: dict[str, Any]) -> None:
    """Set fields, also of the parts."""
    for name, value in overrides.items():
        if isinstance(value, dict):
            merge(settings[name], value)
        else:
            settings[name] = value
