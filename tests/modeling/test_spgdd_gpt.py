import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from defect_hub.modeling.configuration_spgdd_gpt import SpgddGptConfig
from defect_hub.modeling.modeling_spgdd_gpt import (
    DIRECT_SLOPE,
    RARE_CLASS_LOGIT,
    SpgddGptForConditionalGeneration,
)
from defect_hub.modeling.presets_spgdd_gpt import tiny_config
from defect_hub.modeling.vv_clip import encode_prompts

NEW_PARTS = ("adapter", "focuser", "detection_head", "text_adapter", "memory")


def tensors(model):
    """Every parameter and buffer, also those that are not saved."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def assert_same_tensors(found, expected):
    found, expected = tensors(found), tensors(expected)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


@torch.no_grad()
def assert_same_output(found, expected, inputs):
    outputs = [model.eval()(**inputs) for model in (found, expected)]
    for name in ("logits", "mask_logits", "cls_logits", "image_scores", "anomaly_maps"):
        first, second = (output[name] for output in outputs)
        assert torch.isfinite(first).all()
        assert torch.equal(first, second), name


@pytest.fixture
def dirty_memory():
    """`torch.empty` gives NaN, so that a forgotten initialisation shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


# Save and load


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shard_size", ["5GB", "500KB"], ids=["whole", "sharded"])
def test_round_trip(tiny_checkpoint, tmp_path, inputs, dirty_memory, dtype, shard_size):
    model = AutoModel.from_pretrained(tiny_checkpoint, dtype=dtype)
    model.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard_size == "500KB")
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.dtype == dtype
    assert_same_tensors(loaded, model)
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    assert_same_output(loaded, model, inputs)


def test_saving_keeps_what_was_built(model, tmp_path, inputs):
    """The fixture's model was itself loaded; this one was not."""
    torch.manual_seed(1)
    built = SpgddGptForConditionalGeneration(model.config)
    built.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert_same_tensors(loaded, built)
    assert_same_output(loaded, built, inputs)


def strip(checkpoint, folder):
    """A copy of a checkpoint as if the new parts had not existed yet."""
    shutil.copytree(checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    new = tuple(f"model.{part}." for part in NEW_PARTS)
    kept = {name: value for name, value in weights.items() if not name.startswith(new)}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return kept


def assert_starts_as_designed(model):
    new = model.model
    for module in (new.text_adapter, new.detection_head.conv_out):
        assert not any(parameter.any() for parameter in module.parameters())
    direct = new.detection_head.direct
    slope = DIRECT_SLOPE / direct.in_channels
    expected = torch.tensor([[-slope], [slope]]).expand(-1, direct.in_channels)
    assert torch.equal(direct.weight.flatten(1), expected.to(direct.weight))
    assert direct.bias.tolist() == [-RARE_CLASS_LOGIT, RARE_CLASS_LOGIT]
    assert model.bank_size() == 0
    assert not new.memory.banks["default"].features.any()
    random = [*new.focuser.projections, new.detection_head.conv_in, new.adapter.prompts, *new.adapter.children()]
    for module in random:
        assert 0.01 < module.weight.std() < 0.03
    for module in (*new.focuser.projections, new.detection_head.conv_in):
        assert not module.bias.any()


def test_every_initialisation_of_ours_is_effective():
    """transformers skips `_init_weights` for custom modules that own no parameters."""
    assert_starts_as_designed(SpgddGptForConditionalGeneration(tiny_config(memory_capacity=2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_new_parts_missing_in_a_checkpoint_are_initialised(tiny_checkpoint, tmp_path, inputs, dirty_memory, dtype):
    kept = strip(tiny_checkpoint, tmp_path / "old")
    model = AutoModel.from_pretrained(tmp_path / "old", dtype=dtype, memory_capacity=2)
    assert all(torch.isfinite(value).all() for value in tensors(model).values())
    assert_starts_as_designed(model)
    assert all(torch.equal(tensors(model)[name], value.to(dtype)) for name, value in kept.items())
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    assert torch.isfinite(model(**inputs).mask_logits).all()


def test_before_any_training_the_heat_map_is_the_mean_focused_map(inputs):
    torch.manual_seed(0)
    model = SpgddGptForConditionalGeneration(tiny_config(num_prompt_tokens=3)).eval()
    with torch.no_grad():
        detection = model.model.detect(inputs["pixel_values"], inputs["prompt_input_ids"])
    mean = (detection.d_normal - detection.d_abnormal).mean(dim=1).unflatten(-1, (15, 15))
    expected = torch.nn.functional.interpolate(mean[:, None], size=(240, 240), mode="bilinear")[:, 0]
    found = detection.mask_logits[:, 1] - detection.mask_logits[:, 0]
    torch.testing.assert_close(found, 2 * (DIRECT_SLOPE * expected + RARE_CLASS_LOGIT))


# References


def test_references_and_bank_agree_and_are_saved(tiny_checkpoint, tmp_path, processor, images, inputs):
    references = processor.pixel_values(images[2:4])
    model = AutoModel.from_pretrained(tiny_checkpoint, memory_capacity=3, ignore_mismatched_sizes=True)
    given = model.diagnose(**inputs, reference_pixel_values=references[None], describe=False)
    model.remember(references)
    zero_shot = model.diagnose(**inputs, describe=False)
    remembered = model.diagnose(**inputs, memory_bank="default", describe=False)
    assert (given.num_references, zero_shot.num_references, remembered.num_references) == (2, 0, 2)
    assert not torch.allclose(given.anomaly_maps, zero_shot.anomaly_maps, atol=1e-3)
    torch.testing.assert_close(remembered.anomaly_maps, given.anomaly_maps)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert_same_tensors(loaded, model)
    again = loaded.diagnose(**inputs, memory_bank="default", describe=False)
    assert torch.equal(again.anomaly_maps, remembered.anomaly_maps)


def test_the_error_of_a_small_bank_tells_how_to_enlarge_it(tiny_checkpoint, tmp_path, processor, images):
    small = AutoModel.from_pretrained(tiny_checkpoint, memory_capacity=1, ignore_mismatched_sizes=True)
    small.remember(processor.pixel_values(images[:1]))
    small.save_pretrained(tmp_path)
    remedy = r"from_pretrained\(..., memory_capacity=3, ignore_mismatched_sizes=True\)"
    with pytest.raises(ValueError, match=f"3 references exceed the memory_capacity of 1 images; .*{remedy}"):
        small.remember(processor.pixel_values(images[:3]))
    enlarged = AutoModel.from_pretrained(tmp_path, memory_capacity=3, ignore_mismatched_sizes=True)
    assert enlarged.bank_size() == 0
    enlarged.remember(processor.pixel_values(images[:3]))
    assert enlarged.bank_size() == 3


@pytest.mark.parametrize("matching", ["aligned", "nearest"])
def test_shared_references_equal_own_references(tiny_checkpoint, processor, images, inputs, matching):
    model = AutoModel.from_pretrained(tiny_checkpoint, memory_matching=matching)
    references = processor.pixel_values(images[2:5])[None]
    shared = model.diagnose(**inputs, reference_pixel_values=references, describe=False)
    own = model.diagnose(**inputs, reference_pixel_values=references.expand(2, -1, -1, -1, -1), describe=False)
    torch.testing.assert_close(own.anomaly_maps, shared.anomaly_maps)
    torch.testing.assert_close(own.image_scores, shared.image_scores)


def test_an_image_beside_its_own_copy_is_darkest(model, inputs, processor, images):
    """Attention 0 everywhere is the floor of the fused maps, F_out = -2."""
    own, other = (processor.pixel_values(images[number : number + 1])[None] for number in (0, 3))
    first = {name: value[:1] for name, value in inputs.items()}
    direct = model.model.detection_head.direct
    with torch.no_grad():
        direct.weight.copy_(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand_as(direct.weight))
        model.model.detection_head.conv_out.weight.zero_()
    maps = [
        model.diagnose(**first, reference_pixel_values=references, describe=False).anomaly_maps
        for references in (own, other)
    ]
    assert maps[0].max() < maps[1].mean()
    torch.testing.assert_close(maps[0], maps[0].mean().expand_as(maps[0]), atol=1e-3, rtol=0)


# Text


def test_generate_with_ids_equals_diagnose(model, inputs):
    lengths = {"min_new_tokens": 6, "max_new_tokens": 6, "do_sample": False}
    described = model.diagnose(**inputs, **lengths).sequences
    generated = model.generate(**inputs, **lengths)
    assert torch.equal(generated[:, inputs["input_ids"].shape[1] :], described)
    uncached = model.generate(**inputs, **lengths, use_cache=False)
    assert torch.equal(uncached, generated)
    assert not torch.equal(described[0], described[1]), "the fixture's text should depend on the image"
    assert len(described[0].unique()) > 2, "the fixture's text should vary"


def test_beams_and_references_pass_through_generate(model, processor, images, inputs):
    references = processor.pixel_values(images[2:4])[None].expand(2, -1, -1, -1, -1)
    lengths = {"min_new_tokens": 4, "max_new_tokens": 4, "num_beams": 2}
    described = model.diagnose(**inputs, reference_pixel_values=references, **lengths).sequences
    generated = model.generate(**inputs, reference_pixel_values=references, **lengths)
    assert torch.equal(generated[:, -4:], described)


def test_left_padded_batch_equals_single_images(model, processor, images):
    questions = ["Is there any defect in this image?", "Where?"]
    lengths = {"min_new_tokens": 6, "max_new_tokens": 6}
    batch = processor(images=images[:2], text=questions)
    assert batch["attention_mask"].sum(dim=1).unique().numel() == 2
    together = model.diagnose(**batch, **lengths)
    with torch.no_grad():
        logits = model(**batch).logits[:, -1]
    for index, question in enumerate(questions):
        single = processor(images=images[index], text=question)
        alone = model.diagnose(**single, **lengths)
        assert torch.equal(together.sequences[index], alone.sequences[0])
        torch.testing.assert_close(together.anomaly_maps[index], alone.anomaly_maps[0])
        with torch.no_grad():
            torch.testing.assert_close(logits[index], model(**single).logits[0, -1], atol=1e-4, rtol=1e-4)


def test_without_description_only_maps_and_scores_come_back(model, inputs):
    output = model.diagnose(**inputs, describe=False)
    assert output.sequences is None
    assert output.anomaly_maps.shape == (2, 240, 240)
    assert output.anomaly_maps.min() >= 0
    assert output.anomaly_maps.max() <= 1
    assert output.image_scores.shape == (2,)


@pytest.mark.parametrize("image_score", ["max", "cls", "mean"])
def test_image_score(tiny_checkpoint, inputs, image_score):
    model = AutoModel.from_pretrained(tiny_checkpoint, image_score=image_score)
    output = model.diagnose(**inputs, describe=False)
    highest = output.anomaly_maps.flatten(1).max(dim=1).values
    verdict = output.cls_logits.softmax(dim=-1)[:, 1]
    expected = {"max": highest, "cls": verdict, "mean": (highest + verdict) / 2}[image_score]
    torch.testing.assert_close(output.image_scores, expected)


def test_precomputed_features_equal_images_and_prompts(model, processor, images, inputs):
    references = processor.pixel_values(images[2:4])[None]
    expected = model.diagnose(**inputs, reference_pixel_values=references, describe=False)
    with torch.no_grad():
        cls, local = model.encode_images(inputs["pixel_values"])
        features = {
            "text_features": model.encode_texts(inputs["prompt_input_ids"]),
            "cls_features": cls,
            "local_features": local,
            "reference_features": model.encode_references(references),
        }
    found = model.diagnose(**features, describe=False)
    torch.testing.assert_close(found.anomaly_maps, expected.anomaly_maps)
    torch.testing.assert_close(found.image_scores, expected.image_scores)
    torch.testing.assert_close(found.reference_scores, expected.reference_scores)


def test_texts_are_encoded_once_until_the_encoder_changes(model, inputs):
    prompts, calls = inputs["prompt_input_ids"], []
    model.model.clip.text_model.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        first = model.encode_texts(prompts)
        again = model.encode_texts(prompts.flip(0))
        assert len(calls) == 1
        assert torch.equal(again, first.flip(0))
        torch.testing.assert_close(first, encode_prompts(model.model.clip, prompts))
        calls.clear()
        model.model.clip.text_projection.weight.mul_(-1)
        torch.testing.assert_close(model.encode_texts(prompts), -first)
        model.double().encode_texts(prompts)
    assert len(calls) == 2
    model.encode_texts(prompts).sum().backward()
    assert model.model.clip.text_projection.weight.grad.any()


def test_the_score_with_each_reference_in_the_place_of_the_best(model, processor, images, inputs):
    references = processor.pixel_values([images[2], images[2], images[3]])[None]
    output = model.diagnose(**inputs, reference_pixel_values=references, describe=False)
    scores = output.reference_scores
    assert scores.shape == (2, 3)
    torch.testing.assert_close(scores[:, 0], scores[:, 1])
    assert (scores[:, 0] - scores[:, 2]).abs().min() > 1e-3
    assert ((scores - output.image_scores[:, None]).abs().amin(dim=1) < 1e-6).all()
    single = model.diagnose(**inputs, reference_pixel_values=references[:, :1], describe=False)
    assert single.reference_scores is None


def test_a_batch_of_which_some_have_references(model, processor, images, inputs):
    references = processor.pixel_values(images[2:4])[None]
    with torch.no_grad():
        mixed = model(**inputs, reference_pixel_values=references, has_references=torch.tensor([True, False]))
        few_shot, zero_shot = model(**inputs, reference_pixel_values=references), model(**inputs)
    torch.testing.assert_close(mixed.anomaly_maps[0], few_shot.anomaly_maps[0])
    torch.testing.assert_close(mixed.anomaly_maps[1], zero_shot.anomaly_maps[1])
    assert not torch.allclose(few_shot.anomaly_maps[1], zero_shot.anomaly_maps[1], atol=1e-3)


def test_rotated_copies_join_the_references(tiny_checkpoint, processor, images, inputs):
    model = AutoModel.from_pretrained(tiny_checkpoint, reference_rotations=[90, 270], memory_capacity=3)
    reference = processor.pixel_values(images[2:3])
    turned = torch.cat([reference, *(torch.rot90(reference, turn, dims=(-2, -1)) for turn in (1, 3))])
    found = model.diagnose(**inputs, reference_pixel_values=reference[None], describe=False)
    model.remember(reference)
    banked = model.diagnose(**inputs, memory_bank="default", describe=False)
    model.config.reference_rotations = []
    expected = model.diagnose(**inputs, reference_pixel_values=turned[None], describe=False)
    assert found.num_references == banked.num_references == 3
    for output in (found, banked):
        torch.testing.assert_close(output.anomaly_maps, expected.anomaly_maps)


def test_a_complete_checkpoint_loads_as_a_detector(tiny_checkpoint, tmp_path, model, inputs):
    expected = model.diagnose(**inputs, describe=False)
    detector, report = AutoModel.from_pretrained(tiny_checkpoint, has_language_model=False, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert detector.config.num_image_tokens == 0
    assert detector.num_parameters() < 0.8 * model.num_parameters()
    detector.save_pretrained(tmp_path)
    for light in (detector, AutoModel.from_pretrained(tmp_path)):
        found = light.diagnose(inputs["pixel_values"], prompt_input_ids=inputs["prompt_input_ids"])
        assert found.sequences is None
        assert torch.equal(found.anomaly_maps, expected.anomaly_maps)
        assert torch.equal(found.image_scores, expected.image_scores)


def test_in_half_precision_the_visual_half_stays_in_float32(tiny_checkpoint, model, inputs):
    half = AutoModel.from_pretrained(tiny_checkpoint, dtype=torch.float16)
    dtypes = {name.split(".")[1]: parameter.dtype for name, parameter in half.named_parameters()}
    assert dtypes.pop("language_model") == torch.float16
    assert set(dtypes.values()) == {torch.float32}
    expected, found = (each.diagnose(**inputs, min_new_tokens=4, max_new_tokens=4) for each in (model, half))
    torch.testing.assert_close(found.anomaly_maps, expected.anomaly_maps)
    assert found.sequences.shape == (2, 4)


def test_named_banks_are_saved_and_asked_by_name(tiny_checkpoint, tmp_path, processor, images, inputs):
    banks = {"magnetic tile": images[2:4], "steel surface": images[4:5]}
    model = AutoModel.from_pretrained(tiny_checkpoint, memory_banks=list(banks), memory_capacity=2)
    for name, references in banks.items():
        model.remember(processor.pixel_values(references), name)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    for name, references in banks.items():
        given = model.diagnose(
            **inputs, reference_pixel_values=processor.pixel_values(references)[None], max_new_tokens=4
        )
        found = loaded.diagnose(**inputs, memory_bank=name, max_new_tokens=4)
        assert found.num_references == len(references)
        torch.testing.assert_close(found.anomaly_maps, given.anomaly_maps)
        assert torch.equal(found.sequences, given.sequences)
        generated = loaded.generate(**inputs, memory_bank=name, max_new_tokens=4)
        assert torch.equal(generated[:, inputs["input_ids"].shape[1] :], given.sequences)
    assert loaded.diagnose(**inputs, describe=False).num_references == 0
    other = AutoModel.from_pretrained(tmp_path, memory_banks=["magnetic tile", "weld"])
    assert (other.bank_size("magnetic tile"), other.bank_size("weld")) == (2, 0)


# Training


@pytest.fixture
def training_batch(processor, images):
    answers = ["No, the steel surface shows no defect.", "Yes, there is a small dark scratch in the top left."]
    batch = dict(processor(images=images[:2], answers=answers, reference_images=images[2:4]))
    batch["masks"] = torch.zeros(2, 240, 240, dtype=torch.long)
    batch["masks"][1, :80, :80] = 1
    return batch | {"is_defective": torch.tensor([False, True])}


def test_gradient_reaches_every_parameter(model, training_batch):
    model(**training_batch).loss.backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is None} == set()
    without = {name for name, parameter in model.named_parameters() if not parameter.grad.any()}
    # A constant added to all keys does not change a softmax, so rounding decides whether these have a gradient.
    assert {name for name in without if not name.endswith("k_proj.bias")} == set()


def test_total_loss_is_the_weighted_sum(tiny_checkpoint, training_batch):
    weights = {"alpha": 0.5, "beta": 2.0, "gamma": 3.0, "lambda_sep": 0.25, "alignment_weight": 0.7}
    model = AutoModel.from_pretrained(tiny_checkpoint, **weights)
    output = model(**training_batch)
    parts = output.losses
    expected = (
        0.5 * parts["text"] + 2 * parts["tddf"] + 2 * 0.25 * parts["sep"] + 3 * parts["pixel"] + 0.7 * parts["align"]
    )
    torch.testing.assert_close(output.loss, expected)


def test_autocast_leaves_texts_and_distances_in_float32(model, training_batch):
    """What is kept from a training with autocast is what a fresh float32 model computes."""
    model.model.clip.requires_grad_(False)
    prompts = training_batch["prompt_input_ids"]
    with torch.autocast("cpu", torch.bfloat16):
        detection = model.model.detect(training_batch["pixel_values"], prompts)
    assert detection.d_normal.dtype == torch.float32
    torch.testing.assert_close(model.encode_texts(prompts), encode_prompts(model.model.clip, prompts))
    expected = model.model.detect(training_batch["pixel_values"], prompts)
    found, wanted = (each.d_normal - each.d_abnormal for each in (detection, expected))
    assert torch.corrcoef(torch.stack([found.flatten(), wanted.flatten()]))[0, 1] > 0.999


def test_without_focuser_the_contrast_takes_its_place(tiny_checkpoint, training_batch):
    model = AutoModel.from_pretrained(tiny_checkpoint, focuser="cosine", alignment_weight=0.0, beta=2.0, alpha=1.0)
    output = model(**training_batch)
    parts = output.losses
    assert parts.keys() == {"pixel", "contrast", "text"}
    torch.testing.assert_close(output.loss, parts["pixel"] + 2 * parts["contrast"] + parts["text"])
    cosine = model.model.detect(training_batch["pixel_values"], training_batch["prompt_input_ids"])
    assert cosine.d_normal.min() >= 0
    assert cosine.d_normal.max() <= 2


def test_without_adapter_the_map_is_the_mean(tiny_checkpoint, inputs):
    model = AutoModel.from_pretrained(
        tiny_checkpoint, detection_head="mean", num_prompt_tokens=0, ignore_mismatched_sizes=True
    ).eval()
    assert not list(model.model.detection_head.parameters())
    with torch.no_grad():
        detection = model.model.detect(inputs["pixel_values"], inputs["prompt_input_ids"])
    mean = (detection.d_normal - detection.d_abnormal).mean(dim=1).unflatten(-1, (15, 15))
    expected = torch.nn.functional.interpolate(mean[:, None], size=(240, 240), mode="bilinear")[:, 0]
    found = detection.mask_logits[:, 1] - detection.mask_logits[:, 0]
    torch.testing.assert_close(found, 2 * (DIRECT_SLOPE * expected + RARE_CLASS_LOGIT))


def test_images_without_pixel_annotation_teach_only_verdict_and_text(model, training_batch):
    both = model(**training_batch)
    training_batch["masks"][0] = -100
    one = model(**training_batch)
    alone = {name: value[1:] for name, value in training_batch.items() if name != "reference_pixel_values"}
    single = model(**alone, reference_pixel_values=training_batch["reference_pixel_values"])
    torch.testing.assert_close(one.losses["pixel"], single.losses["pixel"])
    torch.testing.assert_close(one.losses["tddf"], single.losses["tddf"])
    torch.testing.assert_close(one.losses["text"], both.losses["text"])
    training_batch["masks"][1] = -100
    assert {"pixel", "tddf"} & model(**training_batch).losses.keys() == set()


def test_only_labelled_tokens_count(model, training_batch):
    expected = torch.nn.functional.cross_entropy(
        model(**training_batch).logits[:, :-1].flatten(0, 1), training_batch["labels"][:, 1:].flatten()
    )
    torch.testing.assert_close(model(**training_batch).losses["text"], expected)


# Mistakes


def test_wrong_number_of_image_tokens(model, inputs):
    count = int((inputs["input_ids"] == model.config.image_token_id).sum())
    inputs["input_ids"][0][inputs["input_ids"][0] == model.config.image_token_id] = 5
    with pytest.raises(ValueError, match=f"hold {count // 2} image tokens .* the images give {count}"):
        model.diagnose(**inputs)


def test_text_given_twice_or_never(model, inputs):
    with pytest.raises(ValueError, match="exactly one of prompt_input_ids and text_features"):
        model.diagnose(**inputs, text_features=torch.zeros(2, 2, 64))
    del inputs["prompt_input_ids"]
    with pytest.raises(ValueError, match="exactly one of prompt_input_ids and text_features"):
        model.diagnose(**inputs)


def test_references_that_do_not_fit(model, processor, images, inputs):
    three = processor.pixel_values(images[:3])
    with pytest.raises(ValueError, match=r"references for 3 images, 1 each: give .* with B=2"):
        model.diagnose(**inputs, reference_pixel_values=three[:, None])
    with pytest.raises(ValueError, match="hold no image; give at least one, or None for zero-shot"):
        model.diagnose(**inputs, reference_pixel_values=three[None, :0])
    with pytest.raises(ValueError, match="one of reference_pixel_values, reference_features and memory_bank"):
        model.diagnose(**inputs, reference_pixel_values=three[None], memory_bank="default")


def test_masks_that_do_not_fit(model, training_batch):
    training_batch["masks"][1, 0, 0] = 255
    with pytest.raises(ValueError, match="masks hold 255; give 0, 1, or -100"):
        model(**training_batch)
    training_batch["masks"] = torch.zeros(2, 60, 80)
    with pytest.raises(ValueError, match=r"masks is of shape \(2, 60, 80\); give \(2, 240, 240\)"):
        model(**training_batch)


def test_one_objects_texts_serve_a_batch(model, inputs):
    inputs["prompt_input_ids"] = inputs["prompt_input_ids"][:1]
    shared = model.diagnose(**inputs, describe=False)
    inputs["prompt_input_ids"] = inputs["prompt_input_ids"].expand(2, -1, -1, -1)
    torch.testing.assert_close(shared.anomaly_maps, model.diagnose(**inputs, describe=False).anomaly_maps)


def test_a_misspelt_argument_is_no_zero_shot(model, inputs, processor, images):
    with pytest.raises(ValueError, match="reference_pixel_value: no argument of `diagnose` or `generate`"):
        model.diagnose(**inputs, reference_pixel_value=processor.pixel_values(images[:1])[None], describe=False)


def test_values_that_are_not_finite_are_traced(model, inputs):
    with torch.no_grad():
        model.model.focuser.projections[0].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"focuser.projections.0.weight: this weight holds NaN or infinity"):
        model.diagnose(**inputs)
    inputs["pixel_values"][0, 0, 0, 0] = torch.inf
    with pytest.raises(ValueError, match="the values of the images are not finite"):
        model.diagnose(**inputs)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_token_id": 512}, "image_token_id=512: text_config has a vocabulary of 512"),
        ({"reference_rotations": [45]}, r"reference_rotations=\[45\]: give different degrees of 90, 180, 270"),
        ({"memory_banks": ["a", "a"]}, r"memory_banks=\['a', 'a'\]: give a list of different names without dots"),
        ({"memory_banks": "tile"}, "memory_banks='tile': give a list"),
        ({"num_prompt_tokens": -1}, "num_prompt_tokens=-1: give a number from 0"),
        (
            {"clip_config": {"vision_config": {"image_size": 240, "patch_size": 14}}, "feature_blocks": [12]},
            "image_size 240 is no multiple of patch_size 14",
        ),
    ],
)
def test_parts_that_disagree(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**fields)


def test_ids_and_embeddings_exclude_each_other(model, inputs):
    embeds = torch.zeros(2, 4, model.config.text_config.hidden_size)
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model(input_ids=inputs["input_ids"], inputs_embeds=embeds)
    with pytest.raises(ValueError, match="images need input_ids"):
        model(inputs_embeds=embeds, pixel_values=inputs["pixel_values"])


@pytest.mark.parametrize("blocks", [[], [2, 3], [3, 2, 4], [2, 2, 4], [0, 4], [2, 5]])
def test_impossible_feature_blocks(blocks):
    with pytest.raises(ValueError, match=r"feature_blocks=.*tower's last block \(4\)"):
        tiny_config(feature_blocks=blocks)


@pytest.mark.parametrize("field", ["vv_mode", "memory_matching", "image_score", "focuser", "detection_head"])
def test_unknown_choice_is_named(field):
    with pytest.raises(ValueError, match=f"{field}='other': choose one of "):
        tiny_config(**{field: "other"})


@pytest.mark.parametrize("config", [SpgddGptConfig(), tiny_config(vv_mode="maskclip", memory_capacity=2)])
def test_config_round_trip(tmp_path, config):
    config.save_pretrained(tmp_path)
    loaded = SpgddGptConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert type(loaded.clip_config) is type(config.clip_config)
    assert type(loaded.text_config) is type(config.text_config)
