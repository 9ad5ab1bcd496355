import numpy as np
import pytest
import torch
from PIL import Image
from skimage import measure
from transformers import AutoProcessor

from defect_hub.modeling.outputs import DefectDiagnosisOutput
from defect_hub.modeling.processing_spgdd_gpt import mask_regions
from defect_hub.modeling.text_prompts import prompt_ensemble


def outputs_of(anomaly_maps, scores, sequences=None, num_references=0):
    return DefectDiagnosisOutput(
        image_scores=torch.tensor(scores),
        anomaly_maps=anomaly_maps,
        sequences=sequences,
        num_references=num_references,
    )


# Images


@pytest.fixture(scope="module")
def gradient():
    """8-bit gray, every value from 0 to 255."""
    return np.arange(256, dtype=np.uint8).reshape(16, 16)


def test_one_picture_in_many_formats_gives_the_same_tensor(processor, gradient):
    gray = Image.fromarray(gradient)
    rgb = gray.convert("RGB")
    transparent = rgb.copy()
    transparent.putalpha(40)
    sixteen_bit = Image.fromarray(gradient.astype(np.uint16) * 257)
    assert sixteen_bit.mode.startswith("I;16")
    formats = [gray, rgb, transparent, sixteen_bit, gray.convert("P"), gradient, np.asarray(rgb)]
    values = processor(images=formats)["pixel_values"]
    assert values.shape == (len(formats), 3, 240, 240)
    assert torch.equal(values, values[:1].expand_as(values))


def test_the_whole_image_is_seen(processor):
    """No centre crop: a mark in the corner of a wide image stays in the corner."""
    wide = np.zeros((60, 240), np.uint8)
    wide[:15, :60] = 255
    values = processor(images=wide)["pixel_values"][0, 0]
    assert values[:50, :50].min() > values[70:].max()
    assert values[:50, :50].min() > values[:, 70:].max()


@pytest.mark.parametrize("size", [(1, 1), (7, 300)])
def test_too_small_image(processor, size):
    with pytest.raises(ValueError, match=rf"image is {size[0]}x{size[1]} px; at least 8x8 px are needed"):
        processor(images=Image.new("L", size))


def test_floating_point_image(processor):
    with pytest.raises(ValueError, match="floating-point pixels"):
        processor(images=Image.new("F", (20, 20)))


def test_references_are_shared_by_the_batch(processor, images):
    batch = processor(images=images[:2], reference_images=images[2:5])
    assert batch["reference_pixel_values"].shape == (1, 3, 3, 240, 240)
    assert torch.equal(batch["reference_pixel_values"][0], processor.pixel_values(images[2:5]))
    assert "reference_pixel_values" not in processor(images=images[:2], reference_images=[])


# Text


def test_prompts_are_those_of_each_object(processor, images):
    names = ["steel surface", "magnetic tile"]
    ids = processor(images=images[:2], object_names=names)["prompt_input_ids"]
    for row, name in enumerate(names):
        for state, prompts in enumerate(prompt_ensemble(name)):
            decoded = processor.clip_tokenizer.batch_decode(ids[row, state], skip_special_tokens=True)
            assert decoded == prompts
    assert "damaged steel surface" in " ".join(prompt_ensemble("steel surface")[1])
    assert set(prompt_ensemble("tile")[0]).isdisjoint(prompt_ensemble("tile")[1])


def test_conversation_holds_one_placeholder_per_embedding(processor, images):
    ids = processor(images=images[:1], text="What is it?")["input_ids"][0]
    assert (ids == processor.image_token_id).sum() == processor.num_image_tokens
    text = processor.tokenizer.decode(ids)
    question = "\nWhat is it? ASSISTANT:"
    assert text == "<s>USER: " + "<image>" * processor.num_image_tokens + question


def test_system_prompt_and_complete_prompts(processor, images):
    processor.system_prompt = "Be brief."
    assert processor.build_prompt("Why?") == "Be brief. USER: <image>\nWhy? ASSISTANT:"
    complete = "USER: <image>\nFirst? ASSISTANT: Yes.</s>USER: Second? ASSISTANT:"
    assert processor.build_prompt(complete) == complete
    ids = processor(images=images[:1], text=complete)["input_ids"]
    assert (ids == processor.image_token_id).sum() == processor.num_image_tokens


def test_padding_is_on_the_left_for_questions(processor, images):
    batch = processor(images=images[:2], text=["Why?", "Is there any defect in this image?"])
    mask = batch["attention_mask"]
    assert mask[:, -1].tolist() == [1, 1]
    assert mask[0, 0] == 0
    assert (batch["input_ids"][mask == 0] == processor.tokenizer.pad_token_id).all()
    assert "labels" not in batch


def test_labels_cover_the_answer_and_its_end_alone(processor, images):
    answers = ["Yes.", "No, the steel surface shows no defect."]
    batch = processor(images=images[:2], text="Is it fine?", answers=answers)
    for ids, mask, labels, answer in zip(
        batch["input_ids"], batch["attention_mask"], batch["labels"], answers, strict=True
    ):
        learned = labels != -100
        assert torch.equal(labels[learned], ids[learned])
        assert processor.tokenizer.decode(labels[learned]) == f" {answer}</s>"
        assert processor.tokenizer.decode(ids[(mask == 1) & ~learned]).endswith("ASSISTANT:")
        assert mask[0] == 1, "padding is on the right"
        assert not learned[mask == 0].any()
        assert learned.nonzero()[0] == (~learned & (mask == 1)).sum(), "the answer follows the prompt at once"


@pytest.mark.parametrize(("field", "value"), [("text", ["a?", "b?", "c?"]), ("object_names", ["tile"])])
def test_numbers_that_do_not_fit_are_named(processor, images, field, value):
    with pytest.raises(ValueError, match=f"{field}: {len(value)} given for 2 images"):
        processor(images=images[:2], **{field: value})


def test_only_torch_tensors(processor, images):
    with pytest.raises(ValueError, match="only 'pt' is supported"):
        processor(images=images[0], return_tensors="np")


# Post-processing


@pytest.fixture
def square_map():
    """Two images of 24x24: a square at rows 2-5 and columns 16-21, and nothing."""
    maps = torch.full((2, 24, 24), 0.1)
    maps[0, 2:6, 16:22] = 0.9
    return maps


def test_report_of_a_defective_and_a_clean_image(processor, square_map):
    tokens = processor.tokenizer(
        [" Yes, there are two scratches in the top left.", " No, the steel surface shows no defect."],
        add_special_tokens=False,
        padding=True,
        return_tensors="pt",
    )["input_ids"]
    found, clean = processor.post_process_diagnosis(outputs_of(square_map, [0.9, 0.1], tokens))
    assert found["is_defective"] is True
    assert found["threshold"] == 0.25
    assert found["score"] == pytest.approx(0.9)
    expected = np.zeros((24, 24), np.uint8)
    expected[2:6, 16:22] = 255
    np.testing.assert_array_equal(found["mask"], expected)
    assert found["mask"].dtype == np.uint8
    assert found["anomaly_map"].dtype == np.float32
    region = {"box": [16, 2, 6, 4], "area_px": 24, "position": "top-right", "score": pytest.approx(0.9)}
    assert found["regions"] == [region]
    assert found["description"] == "Yes, there are two scratches in the top left."
    assert found["unsupported_claims"] == ['position "top left": no region there', 'count "two": the map shows 1']
    assert (clean["is_defective"], clean["regions"], clean["unsupported_claims"]) == (False, [], [])
    assert clean["description"] == "No, the steel surface shows no defect."


def test_an_image_below_the_threshold_has_an_empty_mask(processor, square_map):
    report = processor.post_process_diagnosis(outputs_of(square_map[:1], [0.2]))[0]
    assert not report["is_defective"]
    assert not report["mask"].any()
    assert report["anomaly_map"].max() == pytest.approx(0.9)


def test_maps_come_back_at_each_images_own_size(processor, square_map):
    reports = processor.post_process_diagnosis(outputs_of(square_map, [0.9, 0.9]), target_sizes=[(48, 96), (10, 7)])
    assert [report["anomaly_map"].shape for report in reports] == [(48, 96), (10, 7)]
    assert [report["mask"].shape for report in reports] == [(48, 96), (10, 7)]
    x, y, w, h = reports[0]["regions"][0]["box"]
    assert abs(x - 64) <= 2
    assert abs(y - 4) <= 1
    assert abs(w - 24) <= 3
    assert abs(h - 8) <= 2


def test_thresholds_belong_to_the_protocol(processor, square_map):
    processor.calibration["few_shot"]["image"]["value"] = 0.95
    zero_shot, few_shot = (
        processor.post_process_diagnosis(outputs_of(square_map[:1], [0.9], num_references=count))[0]
        for count in (0, 2)
    )
    assert (zero_shot["is_defective"], few_shot["is_defective"]) == (True, False)
    given = processor.post_process_diagnosis(outputs_of(square_map[:1], [0.9]), threshold=0.91, pixel_threshold=0.05)
    assert (given[0]["is_defective"], given[0]["threshold"]) == (False, 0.91)


@pytest.mark.parametrize("calibration", [None, {"zero_shot": {}}])
def test_without_calibration_there_is_no_verdict(processor, square_map, calibration):
    processor.calibration = calibration
    outputs = outputs_of(square_map, [0.9, 0.1], num_references=1)
    with pytest.raises(ValueError, match=r"no few_shot calibration.*pass threshold= and pixel_threshold="):
        processor.post_process_diagnosis(outputs)
    reports = processor.post_process_diagnosis(outputs, threshold=0.5, pixel_threshold=0.5)
    assert [report["is_defective"] for report in reports] == [True, False]


def test_outputs_without_maps(processor):
    with pytest.raises(ValueError, match="hold no maps"):
        processor.post_process_diagnosis(DefectDiagnosisOutput())


@pytest.mark.parametrize("density", [0.05, 0.3, 0.6])
def test_regions_equal_scikit_image(density):
    rng = np.random.default_rng(0)
    mask, anomaly_map = rng.random((40, 60)) < density, rng.random((40, 60), dtype=np.float32)
    found = mask_regions(mask, anomaly_map)
    expected = [
        (
            [part.bbox[1], part.bbox[0], part.bbox[3] - part.bbox[1], part.bbox[2] - part.bbox[0]],
            int(part.area),
            pytest.approx(part.intensity_max),
        )
        for part in measure.regionprops(measure.label(mask, connectivity=2), intensity_image=anomaly_map)
    ]
    assert len(found) > 2
    assert sorted((region["box"], region["area_px"], region["score"]) for region in found) == sorted(
        expected, key=lambda part: part[:2]
    )
    areas = [region["area_px"] for region in found]
    assert areas == sorted(areas, reverse=True)


def test_no_region_in_an_empty_mask():
    assert mask_regions(np.zeros((4, 4), bool), np.zeros((4, 4), np.float32)) == []


# Save and load


def test_round_trip(processor, tmp_path, images):
    processor.object_name, processor.system_prompt = "magnetic tile", "Be brief."
    processor.calibration["zero_shot"]["image"]["value"] = 1 / 3
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    for name in ("calibration", "object_name", "system_prompt", "num_image_tokens", "max_prompt_length"):
        assert getattr(loaded, name) == getattr(processor, name), name
    assert loaded.chat_template == processor.chat_template
    for name in ("tokenizer", "clip_tokenizer"):
        assert getattr(loaded, name).get_vocab() == getattr(processor, name).get_vocab()
        assert getattr(loaded, name).special_tokens_map == getattr(processor, name).special_tokens_map
    first, second = (
        one(images=images[:2], text=["Why?", "Is there any defect?"], answers=["No.", "Yes, two."])
        for one in (processor, loaded)
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
