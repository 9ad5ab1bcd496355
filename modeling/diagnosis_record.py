"""The record of one image: regions and attributes of its mask, its texts, and claims that the map does not support."""

from typing import Any

import numpy as np
from scipy import ndimage

from .claims import box_cell, unsupported_claims
from .mask_attributes import Components, components, mask_attributes, polarity_value
from .template_sentences import normal_answer, template_sentence, unplaced_answer

NOUN = "defect"
"""Stands for the class, which no map knows."""


def diagnosis_record(
    anomaly_map: np.ndarray,
    score: float,
    *,
    threshold: float,
    pixel_threshold: float,
    object_name: str,
    text: str = "",
    gray: np.ndarray | None = None,
    reference_scores: list[float] | None = None,
) -> dict[str, Any]:
    """Decide on one image and put together what is known of it.

    Every region of the mask counts for the attributes, however small: the calibrated pixel threshold is the one place
    where specks are told from defects.

    Args:
        anomaly_map: (H, W) at the image's size, 0-1.
        score: of the image, 0-1.
        threshold: from this score on, the image is defective.
        pixel_threshold: from this value on, a pixel of a defective image belongs to the mask.
        object_name: what the image shows.
        text: of the language model; empty where there is none.
        gray: the image (H, W), uint8; None leaves out polarity, saliency and contrast.
        reference_scores: the score with each of K >= 2 references in the place of the best one, in the units of all of
            them; None below two.

    Returns:
        The record that `SpgddGptProcessor.post_process_diagnosis` documents.
    """
    is_defective = score >= threshold
    mask = (anomaly_map >= pixel_threshold) & is_defective
    parts = components(mask) if mask.any() else None
    regions = [] if parts is None else _regions(parts, anomaly_map)
    attributes = None
    if parts is not None:
        measured = mask_attributes(gray, mask, NOUN, parts)
        attributes = _record_attributes(measured, parts, mask.size)
        if gray is not None:
            attributes["contrast"] = polarity_value(gray, mask)
        sentence = template_sentence(measured, object_name, NOUN)
    else:
        sentence = unplaced_answer(object_name, NOUN) if is_defective else normal_answer(object_name)
    return {
        "score": score,
        "score_std": None if reference_scores is None else float(np.std(reference_scores, ddof=1)),
        "reference_scores": reference_scores,
        "is_defective": is_defective,
        "threshold": threshold,
        "anomaly_map": anomaly_map,
        "mask": mask.astype(np.uint8) * 255,
        "regions": regions,
        "attributes": attributes,
        "description": text or sentence,
        "text_source": "language model" if text else "template",
        "template_sentence": sentence,
        "unsupported_claims": unsupported_claims(text, regions, is_defective, *mask.shape) if text else [],
    }


def mask_regions(mask: np.ndarray, anomaly_map: np.ndarray) -> list[dict[str, Any]]:
    """Connected regions (8-neighbourhood) of a mask, largest first.

    Args:
        mask: (H, W), bool.
        anomaly_map: (H, W), 0-1.

    Returns:
        "box" [x, y, w, h] and "area_px" in pixels, "position" (cell of the 3x3 grid that holds the box's centre) and
        "score" (maximum of the map) of each.
    """
    return _regions(components(mask), anomaly_map) if mask.any() else []


def _regions(parts: Components, anomaly_map: np.ndarray) -> list[dict[str, Any]]:
    left, top = parts.boxes[:, :2].min(axis=0)
    height, width = parts.labels.shape
    inside = anomaly_map[top : top + height, left : left + width]
    scores = ndimage.maximum(inside, parts.labels, index=range(1, len(parts.areas) + 1))
    regions = [
        {"box": box, "area_px": area, "position": box_cell(box, *anomaly_map.shape), "score": float(score)}
        for box, area, score in zip(parts.boxes.tolist(), parts.areas.tolist(), scores, strict=True)
    ]
    return sorted(regions, key=lambda region: -region["area_px"])


def _record_attributes(measured: dict[str, Any], parts: Components, image_area: int) -> dict[str, Any]:
    contrast = {name.lower(): measured[name] for name in ("Polarity", "Saliency") if name in measured}
    return {
        "number": len(parts.areas),
        "position": measured["Position"],
        "scale": measured["Scale"],
        "scale_ratio": int(parts.areas.sum()) / image_area,
        "shape": measured["Shape"],
        "direction": measured["Direction"],
        "distribution": measured["Spatial Distribution"],
        **contrast,
    }
