"""Regions, attributes and texts of one image."""

import json

import numpy as np
import pytest
from skimage import measure

from defect_hub.modeling.diagnosis_record import diagnosis_record, mask_regions
from defect_hub.modeling.mask_attributes import mask_attributes

BAR = np.full((30, 60), 0.1, np.float32)
BAR[4:6, 3:17] = 0.9
GRAY = np.where(BAR > 0.5, 40, 90).astype(np.uint8)


def record(anomaly_map: np.ndarray = BAR, score: float = 0.9, **options: object) -> dict:
    fixed = {"threshold": 0.5, "pixel_threshold": 0.5, "object_name": "magnetic tile"}
    return diagnosis_record(anomaly_map, score, **(fixed | options))


def test_attributes_are_those_that_data_sets_have() -> None:
    found = record(gray=GRAY)["attributes"]
    expected = mask_attributes(GRAY, BAR > 0.5, "defect")
    assert found == {
        "number": 1,
        "position": [["top-left", 1.0]],
        "scale": expected["Scale"],
        "scale_ratio": 28 / 1800,
        "shape": expected["Shape"],
        "direction": "horizontal",
        "distribution": "isolated",
        "polarity": "dark",
        "saliency": "high",
        "contrast": -50.0,
    }
    assert json.loads(json.dumps(found)) == found


def test_without_the_image_its_contrast_is_unknown() -> None:
    seen, unseen = record(gray=GRAY), record()
    contrast = {"polarity", "saliency", "contrast"}
    assert unseen["attributes"] == {key: seen["attributes"][key] for key in seen["attributes"] if key not in contrast}
    assert "dark" in seen["description"]
    assert "saliency" not in unseen["description"]


def test_the_template_speaks_where_no_language_model_does() -> None:
    found = record(gray=GRAY)
    assert found["text_source"] == "template"
    assert found["description"] == found["template_sentence"]
    assert found["description"].startswith(
        "A small dark defect is observed on the magnetic tile. It has a linear shape."
    )
    assert found["unsupported_claims"] == []


def test_a_language_models_text_is_kept_and_checked() -> None:
    found = record(gray=GRAY, text="Yes, there are two scratches in the top left.")
    assert (found["text_source"], found["description"]) == (
        "language model",
        "Yes, there are two scratches in the top left.",
    )
    assert found["unsupported_claims"] == ['count "two": the map shows 1']
    assert found["template_sentence"] == record(gray=GRAY)["description"]


@pytest.mark.parametrize(
    ("score", "pixel_threshold", "sentence"),
    [(0.4, 0.5, "No, the magnetic tile shows no defect."), (0.9, 0.95, "Yes, the magnetic tile shows a defect.")],
    ids=["normal", "defective without a pixel"],
)
def test_an_empty_mask_has_a_sentence_and_no_attributes(score: float, pixel_threshold: float, sentence: str) -> None:
    found = record(score=score, pixel_threshold=pixel_threshold, gray=GRAY)
    assert (found["attributes"], found["regions"], found["mask"].any()) == (None, [], False)
    assert found["description"] == sentence


def test_every_speck_counts() -> None:
    specks = BAR.copy()
    specks[20, 50] = specks[28, 10] = 0.6
    found = record(specks)
    assert found["attributes"]["number"] == len(found["regions"]) == 3
    assert found["attributes"]["scale_ratio"] == 30 / 1800
    assert "consisting of three regions" in found["description"]


def test_spread_of_the_scores_over_the_references() -> None:
    assert (record()["reference_scores"], record()["score_std"]) == (None, None)
    found = record(reference_scores=[0.5, 0.7, 0.9])
    assert found["reference_scores"] == [0.5, 0.7, 0.9]
    assert found["score_std"] == pytest.approx(0.2)


@pytest.mark.parametrize("density", [0.05, 0.3, 0.6])
def test_regions_equal_scikit_image(density: float) -> None:
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


def test_no_region_in_an_empty_mask() -> None:
    assert mask_regions(np.zeros((4, 4), bool), np.zeros((4, 4), np.float32)) == []
