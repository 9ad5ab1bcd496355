"""The pipeline: what it encodes how often, and what it passes on."""

import numpy as np
import pytest
import torch
from transformers import pipeline


@pytest.fixture
def pipe(tiny_checkpoint):
    return pipeline("defect-diagnosis", model=str(tiny_checkpoint))


@pytest.fixture
def encoded(pipe):
    """Numbers of images that pass the image encoder, one a pass."""
    passes: list[int] = []
    pipe.model.model.clip.vision_model.embeddings.register_forward_hook(
        lambda module, inputs, output: passes.append(len(output))
    )
    return passes


def test_references_are_encoded_once_for_a_list_of_images(pipe, encoded, images):
    together = pipe(images[:3], reference_images=images[3:5], describe=False)
    assert sorted(encoded) == [1, 1, 1, 2]
    alone = [pipe(image, reference_images=images[3:5], describe=False) for image in images[:3]]
    assert [record["score"] for record in together] == pytest.approx([record["score"] for record in alone])
    assert together[0]["score"] != pytest.approx(pipe(images[0], describe=False)["score"])


def test_encoded_references_serve_many_calls(pipe, encoded, images):
    features = pipe.encode_references(images[3:5])
    encoded.clear()
    records = [pipe(image, reference_features=features, describe=False) for image in images[:2]]
    assert encoded == [1, 1]
    expected = pipe(images[:2], reference_images=images[3:5], describe=False)
    for found, wanted in zip(records, expected, strict=True):
        np.testing.assert_array_equal(found["anomaly_map"], wanted["anomaly_map"])
        assert found["reference_scores"] == wanted["reference_scores"]


def test_other_references_of_another_call_count(pipe, images):
    references = [images[3]]
    first = pipe(images[0], reference_images=references, describe=False)
    references[0] = images[4]  # the same list, another picture
    second = pipe(images[0], reference_images=references, describe=False)
    assert not np.array_equal(first["anomaly_map"], second["anomaly_map"])


def test_records_know_image_object_and_references(pipe, images):
    found = pipe(
        images[0],
        reference_images=images[1:4],
        object_name="magnetic tile",
        describe=False,
        threshold=0,
        pixel_threshold=0,
    )
    assert found["anomaly_map"].shape == (images[0].height, images[0].width)
    assert found["attributes"]["scale_ratio"] == 1
    assert {"polarity", "saliency", "contrast"} <= found["attributes"].keys()
    assert "on the magnetic tile." in found["description"]
    assert len(found["reference_scores"]) == 3
    assert found["score_std"] == pytest.approx(np.std(found["reference_scores"], ddof=1))


@pytest.mark.parametrize("options", [{}, {"reference_images": None}])
def test_without_references_it_is_zero_shot(pipe, images, options):
    pipe.processor.calibration["zero_shot"]["image"]["value"] = 0.125
    assert pipe(images[0], describe=False, **options)["threshold"] == 0.125


def test_a_named_bank_takes_the_place_of_references(tiny_checkpoint, images):
    pipe = pipeline("defect-diagnosis", model=str(tiny_checkpoint), model_kwargs={"memory_capacity": 2})
    pipe.model.remember(pipe.processor.pixel_values(images[1:3]))
    found = pipe(images[0], memory_bank="default", describe=False)
    expected = pipe(images[0], reference_images=images[1:3], describe=False)
    np.testing.assert_allclose(found["anomaly_map"], expected["anomaly_map"], atol=1e-6)
    assert found["reference_scores"] == pytest.approx(expected["reference_scores"])
    assert pipe(images[0], describe=False)["reference_scores"] is None
    with pytest.raises(ValueError, match="memory_bank"):
        pipe(images[0], reference_images=images[1:3], memory_bank="default")


def test_references_given_badly(pipe, images):
    with pytest.raises(ValueError, match="reference_images: an empty list"):
        pipe(images[0], reference_images=[])
    features = pipe.encode_references(images[1:3])
    with pytest.raises(ValueError, match="reference_images, reference_features: give one of the two"):
        pipe(images[0], reference_images=images[1:3], reference_features=features)


def test_maps_of_a_bfloat16_model_are_float32(tiny_checkpoint, images):
    pipe = pipeline("defect-diagnosis", model=str(tiny_checkpoint), dtype=torch.bfloat16)
    found = pipe(images[0], reference_images=images[1:3], describe=False)
    assert found["anomaly_map"].dtype == np.float32
    assert isinstance(found["score_std"], float)


def test_misspelt_arguments_are_refused(pipe, images):
    with pytest.raises(ValueError, match="thresold: no argument of this pipeline"):
        pipe(images[0], thresold=0.2)


def test_one_reference_may_come_without_a_list(pipe, images, tmp_path):
    images[3].save(tmp_path / "ok.png")
    single = pipe(images[0], reference_images=str(tmp_path / "ok.png"), describe=False)
    listed = pipe(images[0], reference_images=[images[3]], describe=False)
    assert single["score"] == pytest.approx(listed["score"])
