"""The memory table against plain counting, and against the bytes that training really holds."""

import pytest
import torch
from torch import nn
from transformers import AutoModel

from defect_hub.modeling.modeling_spgdd_gpt import SpgddGptForConditionalGeneration
from defect_hub.modeling.presets_spgdd_gpt import paper_config
from defect_hub.train.adaptation import LoraSettings, adapt
from defect_hub.train.moving_average import MovingAverage
from defect_hub.train.parts import Part, model_parts, parts_table
from tests.train.tiny_llava import llava_batch, tiny_llava

LORA = LoraSettings(rank=4, alpha=8, dropout=0.0)


def count(*modules):
    """Values in the storages of some modules' parameters, shared ones once."""
    held = {p.data_ptr(): p.numel() for module in modules for p in module.parameters()}
    return sum(held.values())


def test_parts_of_the_tiny_spgdd_gpt(tiny_checkpoint):
    model = AutoModel.from_pretrained(tiny_checkpoint)
    clip = model.model.clip
    expected = {
        "clip": count(clip.visual_projection, clip.text_projection) + 1,  # and the logit scale
        "clip.text_model": count(clip.text_model),
        "clip.vision_model": count(clip.vision_model),
        "text_adapter": count(model.model.text_adapter),
        "focuser": count(model.model.focuser),
        "detection_head": count(model.model.detection_head),
        "adapter": count(model.model.adapter),
        "language_model": count(model.model.language_model, model.lm_head),  # the head is tied to the embeddings
    }
    assert {part.name: part.parameters for part in model_parts(model)} == expected
    assert sum(expected.values()) == count(model)


def test_wrapped_for_lora(tiny_checkpoint):
    model = adapt(AutoModel.from_pretrained(tiny_checkpoint), "lora", "base", LORA, frozen_dtype="bfloat16")
    parts = {part.name: part for part in model_parts(model)}
    assert sum(part.parameters for part in parts.values()) == count(model)
    assert sum(part.trainable for part in parts.values()) == sum(
        p.numel() for p in model.parameters() if p.requires_grad
    )
    language = parts["language_model"]
    hidden = model.config.text_config.hidden_size
    assert language.trainable == 2 * 4 * 2 * 4 * hidden  # layers, projections, matrices, rank, width
    assert language.dtypes == ("bfloat16", "float32")
    assert language.weights == 2 * (language.parameters - language.trainable) + 4 * language.trainable
    # peft keeps the new parts twice: as they were, and in training.
    assert parts["adapter"].parameters == 2 * parts["adapter"].trainable > 0
    assert parts["clip.vision_model"].trainable == 0


@pytest.mark.parametrize("trainable", ["all", "adapter", "lora"])
@pytest.mark.parametrize("ema", [False, True], ids=["plain", "ema"])
def test_bytes_are_those_that_training_holds(trainable, ema):
    model = adapt(tiny_llava(), trainable, "base", LORA)
    average = MovingAverage(model, 0.9)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    model(**llava_batch()).loss.backward()
    for parameter in trained:  # LLaVA does not read the norm behind the vision tower
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    optimizer.step()
    part = Part.of("all", model.parameters(), ema)
    assert part.weights == sum(storage.nbytes() for storage in {p.untyped_storage() for p in model.parameters()})
    assert part.gradients == sum(parameter.grad.untyped_storage().nbytes() for parameter in trained)
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    held = moments + (list(average.averages.values()) if ema else [])
    assert part.optimizer == sum(tensor.untyped_storage().nbytes() for tensor in held)
    assert part.optimizer == (12 if ema else 8) * part.trainable
    # What the table leaves out: AdamW counts the steps of each tensor in four bytes.
    rest = sum(tensor.nbytes for state in optimizer.state.values() for tensor in state.values()) - sum(
        tensor.nbytes for tensor in moments
    )
    assert rest == 4 * len(trained)
    assert part.memory == part.weights + part.gradients + part.optimizer


def test_paper_size_without_memory():
    """Counts of the bases as their makers publish them, see tests/modeling/test_presets.py."""
    with torch.device("meta"):
        model = adapt(SpgddGptForConditionalGeneration(paper_config()), "adapter", "base", LORA)
    parts = {part.name: part for part in model_parts(model)}
    assert sum(parts[name].parameters for name in parts if name.startswith("clip")) == 208_377_345
    assert parts["language_model"].parameters == 6_738_415_616 + 2 * 64 * 4096
    assert parts["language_model"].weights == 4 * parts["language_model"].parameters
    assert parts["language_model"].gradients == parts["language_model"].optimizer == 0
    heads, *_, total, _ = (line.split() for line in parts_table(model).splitlines())
    assert heads[-3:] == ["GB", "in", "all"]
    trained = 8_701_322  # docs/spgdd_gpt.md, and tests/scripts/test_parameter_table.py
    assert total[:4] == ["total", "6,956,018,571", f"{trained:,}", f"{6_956_018_571 - trained:,}"]
    sizes = (4 * 6_956_018_571, 4 * trained, 8 * trained, 4 * 6_956_018_571 + 12 * trained)
    assert total[5:] == [f"{size / 1e9:.2f}" for size in sizes]


def test_table_of_any_module():
    model = nn.Sequential()
    model.add_module("first", nn.Linear(500, 999))
    model.add_module("second", nn.Linear(999, 1).double().requires_grad_(False))
    lines = parts_table(model, ema=True).splitlines()
    heads, *rows = (line.split() for line in lines)
    assert heads == [
        "part",
        "parameters",
        "trained",
        "frozen",
        "dtype",
        "weights",
        "gradients",
        "optimizer",
        "MB",
        "in",
        "all",
    ]
    assert rows[0] == ["first", "500,499", "500,499", "0", "float32", "2.00", "2.00", "6.01", "10.01"]
    assert rows[1] == ["second", "1,000", "0", "1,000", "float64", "0.01", "0.00", "0.00", "0.01"]
    assert rows[2] == ["total", "501,499", "500,499", "1,000", "float32+float64", "2.01", "2.00", "6.01", "10.02"]
    assert "moving average" in lines[-1] and "moving average" not in parts_table(model)
