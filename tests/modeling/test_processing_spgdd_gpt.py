import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from defect_hub.modeling.outputs import DefectDiagnosisOutput
from defect_hub.modeling.processing_spgdd_gpt import SpgddGptProcessor
from defect_hub.modeling.text_prompts import prompt_ensemble
from defect_hub.modeling.vv_clip import encode_prompts


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
    assert "reference_pixel_values" not in processor(images=images[:2], reference_images=None)


def test_references_that_are_none_at_all(processor, images):
    with pytest.raises(ValueError, match="reference_images: an empty list; give normal images, or None"):
        processor(images=images[:2], reference_images=[])


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


def test_prompts_are_no_longer_than_they_need_to_be(processor, model):
    """Padding changes no embedding, also where objects with short and long names share a batch."""
    names = ["tile", "cold rolled steel surface of the third line", "magnetic tile"]
    together = processor.prompt_input_ids(names)
    assert together.shape[-1] == processor.prompt_input_ids(names[1:2]).shape[-1] < processor.max_prompt_length
    assert processor.prompt_input_ids(names[:1]).shape[-1] < together.shape[-1]
    full = torch.nn.functional.pad(
        together,
        (0, processor.max_prompt_length - together.shape[-1]),
        value=processor.clip_tokenizer.pad_token_id,
    )
    clip = model.model.clip
    with torch.no_grad():
        expected = encode_prompts(clip, full)
        torch.testing.assert_close(encode_prompts(clip, together), expected, rtol=0, atol=1e-6)
        alone = torch.cat([encode_prompts(clip, processor.prompt_input_ids([name])) for name in names])
    torch.testing.assert_close(alone, expected, rtol=0, atol=1e-6)
    assert (expected[0] - expected[1]).abs().max() > 1e-3


def test_prompts_of_an_object_are_tokenised_once(processor, monkeypatch):
    calls = []
    tokenizer = type(processor.clip_tokenizer)
    encode = tokenizer.__call__
    monkeypatch.setattr(tokenizer, "__call__", lambda *args, **kwargs: calls.append(1) or encode(*args, **kwargs))
    monkeypatch.setattr("defect_hub.modeling.processing_spgdd_gpt.MAX_CACHED_OBJECTS", 3)
    first = processor.prompt_input_ids(["tile", "steel surface", "tile"])
    assert torch.equal(processor.prompt_input_ids(["tile", "steel surface", "tile"]), first)
    assert len(calls) == 2
    for name in ("weld", "bolt", "nut"):  # with the two, more than are kept; "tile" stays, because it is used
        processor.prompt_input_ids([name, "tile"])
    assert len(calls) == 5
    processor.prompt_input_ids(["steel surface"])
    assert len(calls) == 6


def test_a_name_that_clip_would_not_read_to_its_end(processor):
    with pytest.raises(
        ValueError, match=r"object_names: 'tile tile .* makes prompts of \d+ tokens, .* reads 40 \(max_pr"
    ):
        processor.prompt_input_ids(["tile", "tile " * 40])


def test_texts_that_the_language_model_would_not_read_to_their_end(processor, images):
    fits = processor(images=images[:1], text="Why?", answers=["Yes."])["input_ids"].shape[-1]
    processor.max_text_length = fits
    processor(images=images[:1], text="Why?", answers=["Yes."])
    limit = rf"the language model reads {fits} \(max_text_length\); shorten it"
    with pytest.raises(ValueError, match=rf"answers\[1\]: \d+ tokens with the image's and the question's, {limit}"):
        processor(images=images[:2], text="Why?", answers=["Yes.", "Yes, there is a scratch."])
    with pytest.raises(ValueError, match=rf"text\[0\]: \d+ tokens .*{limit}"):
        processor(images=images[:1], text="Why is there a scratch in the top left of the surface?")


def test_own_prompt_words_are_used_and_saved(processor, tmp_path):
    words = {"normal_states": ["clean {}"], "abnormal_states": ["cracked {}"], "templates": ["an X-ray of a {}."]}
    own = SpgddGptProcessor(processor.image_processor, processor.tokenizer, processor.clip_tokenizer, **words)
    own.save_pretrained(tmp_path)
    ids = AutoProcessor.from_pretrained(tmp_path).prompt_input_ids(["weld"])
    decoded = processor.clip_tokenizer.batch_decode(ids.flatten(0, 2), skip_special_tokens=True)
    assert decoded == ["an X-ray of a clean weld.", "an X-ray of a cracked weld."]
    with pytest.raises(ValueError, match="normal_states, abnormal_states: 2 and 6 phrases"):
        SpgddGptProcessor(
            processor.image_processor, processor.tokenizer, processor.clip_tokenizer, normal_states=["{}", "fine {}"]
        )


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


def test_other_words_count_at_once(processor):
    names = ["magnetic tile"]
    before = processor.prompt_input_ids(names)
    processor.abnormal_states = ["cracked {}", *processor.abnormal_states[1:]]
    assert not torch.equal(processor.prompt_input_ids(names), before)
    processor.abnormal_states = ["cracked {}"]
    with pytest.raises(ValueError, match="6 and 1 phrases; give as many"):
        processor.prompt_input_ids(names)


def test_a_threshold_outside_its_range(processor, square_map):
    with pytest.raises(ValueError, match="image threshold 3: is outside 0 to 1"):
        processor.post_process_diagnosis(outputs_of(square_map[:1], [0.9]), threshold=3)


def test_a_threshold_belongs_to_its_image_score(processor, square_map):
    processor.calibration["zero_shot"]["image"]["image_score"] = "mean"
    outputs = outputs_of(square_map[:1], [0.9])
    outputs.image_score = "mean"
    assert processor.post_process_diagnosis(outputs)[0]["threshold"] == 0.25
    outputs.image_score = "max"
    with pytest.raises(
        ValueError, match=r"calibrated for image_score 'mean', the model gives 'max'; run `defect-hub cal"
    ):
        processor.post_process_diagnosis(outputs)
    assert processor.post_process_diagnosis(outputs, threshold=0.3)[0]["threshold"] == 0.3


@pytest.mark.parametrize("calibration", [None, {"zero_shot": {}}])
def test_without_calibration_there_is_no_verdict(processor, square_map, calibration):
    processor.calibration = calibration
    outputs = outputs_of(square_map, [0.9, 0.1], num_references=1)
    with pytest.raises(ValueError, match=r"no few_shot calibration.*pass threshold= and pixel_threshold="):
        processor.post_process_diagnosis(outputs)
    reports = processor.post_process_diagnosis(outputs, threshold=0.5, pixel_threshold=0.5)
    assert [report["is_defective"] for report in reports] == [True, False]


def test_images_give_sizes_and_contrast(processor, square_map, images):
    outputs = outputs_of(square_map, [0.9, 0.9])
    sizes = [(60, 80)] * 2
    found = processor.post_process_diagnosis(outputs, images=images[:2], object_names=["tile", "weld"])
    assert [record["anomaly_map"].shape for record in found] == sizes
    assert "on the tile." in found[0]["description"]
    assert found[1]["description"] == "Yes, the weld shows a defect."
    gray, mask = np.asarray(images[0]), found[0]["mask"] > 0
    contrast = gray[mask].mean(dtype=float) - gray[~mask].mean(dtype=float)
    assert found[0]["attributes"]["contrast"] == pytest.approx(contrast)
    named = processor.post_process_diagnosis(outputs, sizes, images=images[:2])
    assert named[0]["attributes"] == found[0]["attributes"]
    assert "contrast" not in processor.post_process_diagnosis(outputs, sizes)[0]["attributes"]


def test_sizes_that_do_not_fit_are_named(processor, square_map, images):
    outputs = outputs_of(square_map, [0.9, 0.9])
    with pytest.raises(ValueError, match=r"target_sizes\[1\]: \(80, 60\), but the image is \(60, 80\)"):
        processor.post_process_diagnosis(outputs, [(60, 80), (80, 60)], images=images[:2])
    with pytest.raises(ValueError, match="images: 1 given for 2 maps"):
        processor.post_process_diagnosis(outputs, images=images[:1])
    with pytest.raises(ValueError, match="target_sizes: 3 given for 2 maps"):
        processor.post_process_diagnosis(outputs, [(60, 80)] * 3)


def test_scores_of_single_references(processor, square_map):
    outputs = outputs_of(square_map, [0.9, 0.1], num_references=2)
    outputs.reference_scores = torch.tensor([[0.5, 0.75], [0.25, 0.25]], dtype=torch.bfloat16)
    found, clean = processor.post_process_diagnosis(outputs)
    assert found["reference_scores"] == [0.5, 0.75]
    assert found["score_std"] == pytest.approx(0.25 / 2**0.5)
    assert clean["score_std"] == 0


def test_outputs_without_maps(processor):
    with pytest.raises(ValueError, match="hold no maps"):
        processor.post_process_diagnosis(DefectDiagnosisOutput())


# Save and load


def test_round_trip(processor, tmp_path, images):
    processor.object_name, processor.system_prompt = "magnetic tile", "Be brief."
    processor.calibration["zero_shot"]["image"]["value"] = 1 / 3
    processor.max_text_length = 99
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    names = ("calibration", "object_name", "system_prompt", "num_image_tokens", "max_prompt_length", "max_text_length")
    for name in (*names, "normal_states", "abnormal_states", "templates"):
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


def test_a_detectors_processor_makes_no_text(processor, tmp_path, images):
    made = SpgddGptProcessor(
        processor.image_processor, processor.clip_tokenizer, processor.clip_tokenizer, num_image_tokens=0
    )
    made.save_pretrained(tmp_path)
    for detector in (made, AutoProcessor.from_pretrained(tmp_path)):
        assert detector.tokenizer.get_vocab() == detector.clip_tokenizer.get_vocab()
        inputs = detector(images=images[:2], reference_images=images[2:4], object_names="magnetic tile")
        assert inputs.keys() == {"pixel_values", "prompt_input_ids", "reference_pixel_values"}
        full = processor(images=images[:2], object_names="magnetic tile")
        assert all(torch.equal(inputs[name], full[name]) for name in ("pixel_values", "prompt_input_ids"))
        assert (
            detector(images=images[0], text="Is there any defect in this image?").keys() == full.keys() & inputs.keys()
        )
        with pytest.raises(ValueError, match="answers: this checkpoint is a detector without a language model"):
            detector(images=images[:1], answers=["No."])
        with pytest.raises(
            ValueError, match=r"text: this checkpoint is a detector .* leave text out or load a complete"
        ):
            detector(images=images[:1], text="Why?")
