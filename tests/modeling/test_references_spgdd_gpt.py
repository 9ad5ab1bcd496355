"""The tiny model and its parts against `reference_spgdd_gpt.py`: NumPy in float64, from the paper's equations."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel

from defect_hub.modeling.losses import pixel_loss, separation_loss, tddf_loss
from defect_hub.modeling.memory_bank import MultiScaleMemory, distance_maps, most_different
from tests.modeling import reference_spgdd_gpt as numpy_model

MAP_TOLERANCE = 1e-4
SCORE_TOLERANCE = 1e-5


def doubles(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def array(tensor):
    return tensor.detach().double().numpy()


@pytest.fixture
def build(tiny_checkpoint: Path):
    return lambda **overrides: AutoModel.from_pretrained(tiny_checkpoint, **overrides).eval()


@pytest.fixture
def references(processor, images):
    return processor.pixel_values(images[2:5])[None]


def expected_of(model, inputs, references=None):
    """The reference's detection of a batch; references (1, K, 3, H, W) are shared."""
    own = None if references is None else array(references[0])
    return numpy_model.Reference(model).detect(array(inputs["pixel_values"]), inputs["prompt_input_ids"].numpy(), own)


def assert_same_diagnosis(model, inputs, references=None):
    found = model.diagnose(**inputs, reference_pixel_values=references, describe=False)
    expected = expected_of(model, inputs, references)
    assert expected["mask_logits"].std(axis=(2, 3)).min() > 0.01, "the fixture's maps should have structure"
    tolerances = {"anomaly_maps": MAP_TOLERANCE, "mask_logits": MAP_TOLERANCE}
    names = ["cls_logits", "image_scores"]
    if references is not None and references.shape[1] > 1:
        names.append("reference_scores")
    for name in (*tolerances, *names):
        tolerance = tolerances.get(name, SCORE_TOLERANCE)
        np.testing.assert_allclose(array(found[name]), expected[name], rtol=0, atol=tolerance, err_msg=name)


# The whole diagnosis


def test_zero_shot_diagnosis(model, inputs):
    assert_same_diagnosis(model, inputs)


@pytest.mark.parametrize("matching", ["aligned", "nearest"])
def test_few_shot_diagnosis(build, inputs, references, matching):
    assert_same_diagnosis(build(memory_matching=matching), inputs, references)


@pytest.mark.parametrize("image_score", ["max", "cls", "mean"])
def test_image_scores(build, inputs, image_score):
    model = build(image_score=image_score)
    assert_same_diagnosis(model, {name: value[:1] for name, value in inputs.items()})


@pytest.mark.parametrize("change", [{"focuser": "cosine"}, {"detection_head": "mean"}])
def test_ablations(build, inputs, references, change):
    assert_same_diagnosis(build(**change), inputs, references)


@torch.no_grad()
def test_description(model, inputs, references):
    """Adapter and language model: the logits of the question, and the token that greedy search chooses."""
    found = model(**inputs, reference_pixel_values=references).logits
    first = model.diagnose(**inputs, reference_pixel_values=references, max_new_tokens=1).sequences[:, 0]
    reference, expected = numpy_model.Reference(model), expected_of(model, inputs, references)
    for index, keep in enumerate(inputs["attention_mask"].bool()):
        logits = reference.language(inputs["input_ids"][index][keep].numpy(), expected["prompt_embeds"][index])[0]
        np.testing.assert_allclose(array(found[index][keep]), logits, rtol=0, atol=1e-4)
        assert first[index] == logits[-1].argmax()


# Enhanced VV-CLIP and texts


@pytest.mark.parametrize("mode", ["enhanced_vv", "vv", "maskclip", "clip"])
@torch.no_grad()
def test_features_of_every_block(build, inputs, mode):
    model = build(vv_mode=mode)
    cls, local = model.model.encode_images(inputs["pixel_values"])
    expected_cls, expected_maps = numpy_model.Reference(model).images(array(inputs["pixel_values"]))
    np.testing.assert_allclose(array(cls), expected_cls, rtol=0, atol=1e-5)
    assert [z.shape[-1] for z in expected_maps] == [96, 96, 64]
    np.testing.assert_allclose(array(local), np.concatenate(expected_maps, axis=-1), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_prompt_ensemble(model, inputs):
    found = model.model.encode_texts(inputs["prompt_input_ids"])
    expected = numpy_model.Reference(model).texts(inputs["prompt_input_ids"].numpy())
    np.testing.assert_allclose(array(found), expected, rtol=0, atol=1e-6)
    assert np.linalg.norm(expected[0] - expected[1]) > 0.01, "the two objects should differ"


# MSSPMM


@pytest.mark.parametrize("matching", ["aligned", "nearest"])
def test_attention_maps(matching):
    dims, patches, shots = [7, 7, 5], 16, 3
    scales = (1.0, 30.0, 0.1)  # no block may rule the others
    queries = [scale * doubles(4, patches, dim, seed=dim) for dim, scale in zip(dims, scales, strict=True)]
    banks = [scale * doubles(4, shots, patches, dim, seed=dim + 9) for dim, scale in zip(dims, scales, strict=True)]
    memory = MultiScaleMemory(dims=dims, num_patches=patches, banks=[], capacity=0, matching=matching)
    found, best = memory(*(torch.tensor(np.concatenate(z, axis=-1)).float() for z in (queries, banks)))
    for index in range(4):
        own = [z[index] for z in banks]
        expected, chosen = numpy_model.attention_maps([z[index] for z in queries], own, matching)
        np.testing.assert_allclose(array(found[index]), expected, rtol=1e-5)
        assert best[index] == chosen


@pytest.mark.parametrize("shift", [1e-2, 1e-4, 0.0])
@pytest.mark.parametrize("matching", ["aligned", "nearest"])
def test_near_identical_patches(matching, shift):
    """CLIP's features have norms of tens: a plain ||q||^2 - 2qm + ||m||^2 in float32 has no digit left here."""
    reference = np.float32(30 * doubles(2, 9, 896))
    query = np.float32(reference[0] + np.float32(shift * doubles(9, 896, seed=1)))
    expected = numpy_model.distances(query.astype(float), reference.astype(float), matching)
    found = distance_maps(torch.tensor(query)[None], torch.tensor(reference)[None], matching)
    np.testing.assert_allclose(array(found[0]), expected, rtol=1e-3, atol=2e-6)


@pytest.mark.parametrize("degrees", [[90], [90, 180, 270]])
def test_rotated_copies_join_the_references(build, inputs, references, degrees):
    """Counter-clockwise, as in PIL."""
    pictures = [Image.fromarray(np.uint8(picture)) for picture in np.arange(48).reshape(3, 4, 4)]
    assert np.array_equal(np.asarray(pictures[0].rotate(90)), np.rot90(np.asarray(pictures[0])))
    copies = [references, *(torch.rot90(references, turn // 90, dims=(3, 4)) for turn in degrees)]
    found = build(reference_rotations=degrees).diagnose(**inputs, reference_pixel_values=references, describe=False)
    explicit = torch.cat(copies, dim=1)
    expected = build().diagnose(**inputs, reference_pixel_values=explicit, describe=False)
    torch.testing.assert_close(found.anomaly_maps, expected.anomaly_maps)
    torch.testing.assert_close(found.image_scores, expected.image_scores)


@pytest.mark.parametrize("matching", ["aligned", "nearest"])
def test_coreset(matching):
    images = [doubles(7, 16, 5) + doubles(7, 1, 1, seed=1), 20 * doubles(7, 16, 4, seed=2)]
    for count in (1, 3, 7):
        found = most_different([torch.tensor(z) for z in images], count, matching)
        assert list(map(int, found)) == numpy_model.greedy_k_center(images, count, matching)


def test_bank_keeps_the_coreset(build, processor, images, inputs):
    model = build(memory_capacity=2, memory_banks=["default", "tiles"], ignore_mismatched_sizes=True)
    pixels = processor.pixel_values(images)
    _, maps = numpy_model.Reference(model).images(array(pixels))
    chosen = numpy_model.greedy_k_center(maps, 2, model.config.memory_matching)
    model.remember(pixels, name="tiles", coreset=True)
    assert (model.bank_size("tiles"), model.bank_size("default")) == (2, 0)
    found = model.diagnose(**inputs, memory_bank="tiles", describe=False)
    expected = model.diagnose(**inputs, reference_pixel_values=pixels[None, chosen], describe=False)
    torch.testing.assert_close(found.anomaly_maps, expected.anomaly_maps)


def test_score_with_one_reference_in_place_of_the_best(build, inputs, references):
    """Equal references share one spread, so that each alone gives what all give together."""
    same = references[:, :1].expand(-1, 3, -1, -1, -1)
    model = build()
    together = model.diagnose(**inputs, reference_pixel_values=same, describe=False)
    alone = model.diagnose(**inputs, reference_pixel_values=same[:, :1], describe=False)
    assert alone.reference_scores is None
    torch.testing.assert_close(together.reference_scores, alone.image_scores[:, None].expand(-1, 3))


# Losses


def test_losses_of_the_paper():
    text = numpy_model.unit(doubles(4, 2, 6))
    logits, masks = 3 * doubles(4, 2, 12, 12), doubles(4, 12, 12) > 0.5
    d_normal, d_abnormal = (np.abs(doubles(4, 3, 9, seed=seed)) for seed in (1, 2))
    defective = numpy_model.patch_labels(masks * (doubles(4, 12, 12, seed=3) > 1), 3)
    assert 0 < defective.sum() < defective.size
    tensors = [torch.tensor(value) for value in (d_normal, d_abnormal, defective)]
    for weight in (0.0, 1.0, 2.5):
        expected = numpy_model.tddf_loss(d_normal, d_abnormal, defective, weight)
        assert tddf_loss(*tensors, weight).item() == pytest.approx(expected)
        expected = numpy_model.pixel_loss(logits, masks, weight)
        found = pixel_loss(torch.tensor(logits), torch.tensor(masks).long(), weight)
        assert found.item() == pytest.approx(expected)
    assert separation_loss(torch.tensor(text)).item() == pytest.approx(numpy_model.separation_loss(text))


def test_losses_of_the_model(model, processor, images):
    answers = ["No, the steel surface shows no defect.", "Yes, there is a small dark scratch in the top left."]
    batch = dict(processor(images=images[:2], answers=answers, reference_images=images[2:4]))
    masks = torch.zeros(2, 240, 240, dtype=torch.long)
    masks[1, 30:95, 100:130] = 1
    output = model(**batch, masks=masks, is_defective=torch.tensor([False, True]))
    references = batch["reference_pixel_values"]
    if references.ndim == 4:
        references = references[None]
    found, expected = output.losses, expected_of(model, batch, references[:1])
    defective = numpy_model.patch_labels(masks.numpy(), model.config.grid_size)
    hinge = numpy_model.tddf_loss(expected["d_normal"], expected["d_abnormal"], defective, model.config.normal_weight)
    positive = model.config.pixel_positive_weight
    assert found["tddf"].item() == pytest.approx(hinge, abs=1e-5)
    assert found["sep"].item() == pytest.approx(numpy_model.separation_loss(expected["text"]), abs=1e-5)
    assert found["pixel"].item() == pytest.approx(
        numpy_model.pixel_loss(expected["mask_logits"], masks.numpy(), positive), abs=1e-5
    )
    text = numpy_model.text_loss(array(output.logits), batch["labels"].numpy())
    assert found["text"].item() == pytest.approx(text, abs=1e-5)
