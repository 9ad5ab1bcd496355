"""What each choice of `trainable` trains, and what LoRA leaves on the disk, for two models."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModel

from defect_hub.train.adaptation import LoraSettings, adapt, freeze_bases, save_lora
from defect_hub.train.data import DiagnosisCollator, DiagnosisDataset
from tests.train.tiny_llava import TinyLlava, llava_batch, tiny_llava

LORA = LoraSettings(rank=4, alpha=8, dropout=0.0)


@dataclass
class Case:
    """A checkpoint, a batch for it, its new parts, and how many of its layers LoRA meets."""

    load: Callable[[], Any]
    batch: dict[str, Any]
    new_parts: set[str]
    layers: int = 2


@pytest.fixture(scope="module")
def cases(tiny_checkpoint, rows, processor, tmp_path_factory):
    dataset = DiagnosisDataset(rows, processor, seed=1)
    batch = DiagnosisCollator(dataset, [2])([dataset[index] for index in range(2)])
    batch.pop("ids", None)
    torch.manual_seed(0)
    llava = tmp_path_factory.mktemp("llava")
    tiny_llava().save_pretrained(llava)
    return {
        "spgdd_gpt": Case(
            lambda: AutoModel.from_pretrained(tiny_checkpoint),
            batch,
            {"text_adapter", "focuser", "detection_head", "adapter"},
        ),
        "llava": Case(lambda: TinyLlava.from_pretrained(llava), llava_batch(), {"multi_modal_projector"}),
    }


@pytest.fixture(params=["spgdd_gpt", "llava"])
def case(request, cases):
    return cases[request.param]


def trained(model):
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def train(model, batch, steps=2):
    """Some steps with large rates, so that every trained weight moves."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(trained(model).values(), lr=0.01)
    model.train()
    for _ in range(steps):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@torch.no_grad()
def outputs(model, batch):
    result = model(**batch)
    return [result[name] for name in ("logits", "mask_logits") if name in result]


def alike(first, second):
    """Cosine similarity of all values together."""
    return torch.cosine_similarity(first.flatten().float(), second.flatten().float(), dim=0)


def test_all_trains_everything(case):
    model = case.load()
    assert adapt(model, "all", "base", LORA) is model
    assert trained(model).keys() == dict(model.named_parameters()).keys()


def test_prompt_tuning_trains_the_new_parts(case):
    model = case.load()
    assert adapt(model, "adapter", "base", LORA) is model
    assert {name.split(".")[1] for name in trained(model)} == case.new_parts
    names = trained(model).keys()
    freeze_bases(model)
    assert trained(model).keys() == names


def test_lora_trains_the_language_model_and_the_new_parts(case):
    wrapped = adapt(case.load(), "lora", "base", LORA)
    names = [name.removeprefix("base_model.model.model.") for name in trained(wrapped)]
    updates = [name for name in names if ".lora_" in name]
    # Two matrices for each of four projections in each layer; image encoders' projections are called the same.
    assert len(updates) == 2 * 4 * case.layers
    assert all(name.startswith("language_model.layers.") for name in updates)
    assert {name.split(".")[0] for name in names if name not in updates} == case.new_parts


def test_adapter_and_complete_model_equal_what_was_trained(case, tmp_path):
    before = outputs(case.load().eval(), case.batch)
    wrapped = adapt(case.load(), "lora", "org/base", LoraSettings(rank=4, alpha=8, dropout=0.1))
    initial = {name: parameter.detach().clone() for name, parameter in trained(wrapped).items()}
    train(wrapped, case.batch)
    assert not any(torch.equal(parameter, initial[name]) for name, parameter in trained(wrapped).items())
    expected = outputs(wrapped, case.batch)
    assert not torch.allclose(expected[0], before[0], atol=1e-2)
    folder = tmp_path / "adapter"
    save_lora(wrapped, folder)
    save_lora(wrapped, folder)  # replaces its own
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "adapter",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "org/base"
    loaded = PeftModel.from_pretrained(case.load(), folder).eval()
    for found, wanted in zip(outputs(loaded, case.batch), expected, strict=True):
        assert torch.equal(found, wanted)

    merged = wrapped.merge_and_unload()
    assert type(merged) is type(case.load())
    merged.save_pretrained(tmp_path / "model")
    complete = type(merged).from_pretrained(tmp_path / "model").eval()
    assert complete.state_dict().keys() == case.load().state_dict().keys()
    for found, wanted in zip(outputs(complete, case.batch), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("trainable", ["adapter", "lora"])
def test_gradient_checkpointing_changes_nothing_but_memory(case, trainable):
    results = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = adapt(case.load(), trainable, "base", LoraSettings(4, 8, 0.2), gradient_checkpointing=checkpointing)
        kept: list[int] = []
        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x.nbytes) or x, lambda x: x):
            output = model.train()(**case.batch)
        output.loss.backward()
        results.append((output.loss, {name: p.grad for name, p in trained(model).items()}, sum(kept)))
    (loss, gradients, kept), (again, others, fewer) = results
    assert torch.equal(loss, again)
    met = {name for name, gradient in gradients.items() if gradient is not None}
    assert met == {name for name, gradient in others.items() if gradient is not None}
    assert all(torch.equal(gradients[name], others[name]) for name in met)
    assert met >= {name for name in gradients if "lora" in name or "projector" in name}
    assert fewer < 0.8 * kept


@pytest.mark.parametrize(("trainable", "autocast"), [("lora", False), ("adapter", True)])
def test_frozen_weights_of_the_language_model_in_bfloat16(case, trainable, autocast):
    losses, gradients = [], []
    for dtype in ("", "bfloat16"):
        torch.manual_seed(0)
        model = adapt(case.load(), trainable, "base", LORA, gradient_checkpointing=True, frozen_dtype=dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = model.train()(**case.batch)
        output.loss.backward()
        losses.append(output.loss.float())
        gradients.append(torch.cat([p.grad.flatten() for p in trained(model).values() if p.grad is not None]))
    torch.testing.assert_close(losses[1], losses[0], rtol=2**-7, atol=0)
    assert alike(*gradients) > 0.99
    for name, parameter in model.named_parameters():
        language = ".language_model." in name or "lm_head." in name
        frozen = language and not parameter.requires_grad
        assert parameter.dtype == (torch.bfloat16 if frozen else torch.float32), name
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in trained(model).values())


def test_bfloat16_language_model_diagnoses_merges_and_saves(cases, tmp_path):
    case = cases["spgdd_gpt"]
    before = outputs(case.load().eval(), case.batch)
    wrapped = train(adapt(case.load(), "lora", "base", LORA, frozen_dtype="bfloat16"), case.batch)
    expected = outputs(wrapped, case.batch)
    save_lora(wrapped, tmp_path / "adapter")
    # The updates are whole in the adapter folder, on the base as it is.
    exact = outputs(PeftModel.from_pretrained(case.load(), tmp_path / "adapter").eval(), case.batch)
    merged = wrapped.merge_and_unload().eval()
    merged.save_pretrained(tmp_path / "model")
    complete = AutoModel.from_pretrained(tmp_path / "model").eval()
    assert {parameter.dtype for parameter in complete.parameters()} == {torch.float32}
    assert alike(before[0], expected[0]) < 0.98
    for found in (outputs(merged, case.batch), outputs(complete, case.batch), exact):
        assert alike(found[0], expected[0]) > 0.998  # of the text's logits
        assert torch.equal(found[1], expected[1])  # of the map, which no bfloat16 weight touches
    given = {name: case.batch[name] for name in ("pixel_values", "input_ids", "attention_mask", "prompt_input_ids")}
    assert merged.diagnose(**given, max_new_tokens=2).sequences.shape == (2, 2)


def test_weights_that_the_model_keeps_in_float32_stay(cases):
    model = cases["llava"].load()
    model._keep_in_fp32_modules_strict = {"input_layernorm"}
    adapt(model, "adapter", "base", LORA, frozen_dtype="bfloat16")
    layer = model.model.language_model.layers[0]
    assert layer.input_layernorm.weight.dtype == torch.float32
    assert layer.post_attention_layernorm.weight.dtype == layer.mlp.up_proj.weight.dtype == torch.bfloat16


def test_tied_weights_stay_tied(cases):
    model = cases["spgdd_gpt"].load()
    adapt(model, "adapter", "base", LORA, frozen_dtype="bfloat16")
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight


@pytest.mark.parametrize(
    ("trainable", "settings", "message"),
    [
        ("some", {}, r"trainable='some': choose one of all, adapter, lora"),
        ("adapter", {"frozen_dtype": "int8"}, r"frozen_dtype='int8': choose bfloat16, or leave it empty"),
        ("all", {"frozen_dtype": "bfloat16"}, r"frozen_dtype: trainable='all' freezes nothing"),
    ],
)
def test_settings_that_do_not_fit(cases, trainable, settings, message):
    with pytest.raises(ValueError, match=message):
        adapt(cases["llava"].load(), trainable, "base", LORA, **settings)


def test_a_detector_has_no_language_model_to_adapt(tiny_checkpoint, cases):
    detector = AutoModel.from_pretrained(tiny_checkpoint, has_language_model=False)
    with pytest.raises(ValueError, match=r"this checkpoint has no language model\. Choose trainable='adapter'"):
        adapt(detector, "lora", "base", LORA)
    for settings in ({"gradient_checkpointing": True}, {"frozen_dtype": "bfloat16"}):
        with pytest.raises(ValueError, match=rf"{next(iter(settings))}: this checkpoint has no language model"):
            adapt(detector, "adapter", "base", LORA, **settings)
    adapt(detector, "adapter", "base", LORA)
    assert {name.split(".")[1] for name in trained(detector)} == cases["spgdd_gpt"].new_parts - {"adapter"}


def test_new_parts_in_a_list_are_saved_one_by_one(cases, tmp_path):
    """A list has no forward pass, so peft cannot wrap it as a whole."""

    def load():
        torch.manual_seed(0)
        model = cases["llava"].load()
        model.model.levels = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        return model

    wrapped = adapt(load(), "lora", "base", LORA)
    with torch.no_grad():
        wrapped.get_base_model().model.levels[1].weight.fill_(7)
    save_lora(wrapped, tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(load(), tmp_path / "adapter").get_base_model().model.levels
    assert (loaded[1].weight == 7).all() and not (loaded[0].weight == 7).any()


def test_what_peft_would_get_wrong_is_refused(cases):
    model = cases["llava"].load()
    model.model.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match=r"model\.scale lies beside base models\. Give it a module of its own"):
        adapt(model, "lora", "base", LORA)
    model = cases["llava"].load()
    model.norm = nn.Linear(2, 2)  # as modules of both base models are called, in whole or at the end
    with pytest.raises(
        ValueError,
        match=r"trainable='lora': model\..*norm.* of a base model is named like a new part\. Rename the new part",
    ):
        adapt(model, "lora", "base", LORA)
