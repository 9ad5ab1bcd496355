"""What the annotation of an image says: where which defects are, and how they look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defect_hub.dataset_scripts.box_attributes import box_attributes, box_mask
from defect_hub.dataset_scripts.class_descriptions import attribute_disagreements
from defect_hub.dataset_scripts.colours import colour_word
from defect_hub.dataset_scripts.descriptions import Finding
from defect_hub.dataset_scripts.readers.boxes import Box, BoxList, BoxRepair, clean_boxes
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.images import LoadedImage, LoadedMask, encode_mask, read_mask
from defect_hub.dataset_scripts.samples import Sample
from defect_hub.dataset_scripts.texts import countable_noun
from defect_hub.modeling.mask_attributes import (
    Components,
    components,
    gray_total,
    mask_attributes,
    position_fractions,
)

NORMAL = "normal"
"""Class of an image without defects, where its source has no name of its own for it."""
UNKNOWN = "unknown"
"""Class of an image of which nobody says whether it shows a defect."""


@dataclass(frozen=True)
class Annotation:
    """Where the defects of an image are.

    Attributes:
        kind: "mask", "boxes" or "none".
        class_name: Class of the image.
        is_defective: None where unknown.
        objects: bbox, category, area and iscrowd of each, see the schema.
        attributes: Structured attributes of the defects of this class; None where not known.
        findings: One for each category that the image shows, that of the class first; none for a normal image.
        mask: PNG of the defects of all categories; None where there is no pixel annotation.
        disagreements: Given attributes that differ from those measured on the mask, or boxes from those of a second
            annotation; None where nothing was compared.
        repairs: Boxes that were changed or left out.
        warnings: What else was left out.
    """

    kind: str
    class_name: str
    is_defective: bool | None
    objects: Sequence[dict[str, Any]] = ()
    attributes: Mapping[str, Any] | None = None
    findings: Sequence[Finding] = ()
    mask: bytes | None = None
    disagreements: Sequence[str] | None = None
    repairs: Sequence[BoxRepair] = ()
    warnings: Sequence[str] = ()


def annotate(sample: Sample, image: LoadedImage) -> Annotation:
    """Read the annotation of an image and measure it.

    Raises:
        DataError: A file is unusable or contradicts the class.
    """
    if sample.mask is not None:
        mask = read_mask(sample.mask, image.source_size, sample.size)
        found = {sample.class_name or UNKNOWN: mask.defect} if mask.defect.any() else {}
        return _from_regions(sample, image, found, str(sample.mask), mask)
    if sample.regions is not None:
        return _from_regions(sample, image, sample.regions(image.source_size), str(sample.image))
    if sample.boxes is not None:
        given = sample.boxes(image.source_size) if callable(sample.boxes) else BoxList(sample.boxes)
        boxes, repairs = clean_boxes(given.boxes, image.source_size)
        usable = bool(boxes or not given.boxes)
        annotation = _from_boxes(sample, image, boxes) if usable else _from_bad_boxes(sample, given.boxes)
        return replace(annotation, disagreements=given.differences, repairs=repairs)
    return _not_located(sample)


def _not_located(sample: Sample) -> Annotation:
    if sample.is_defective is None:
        return Annotation("none", sample.class_name or UNKNOWN, None, attributes=sample.attributes)
    class_name = sample.class_name or UNKNOWN
    findings = [_finding(sample, class_name, sample.attributes, None)] if sample.is_defective else []
    return Annotation("none", class_name, sample.is_defective, attributes=sample.attributes, findings=findings)


def _from_regions(
    sample: Sample,
    image: LoadedImage,
    regions: Mapping[str, NDArray[np.bool_]],
    where: str,
    mask: LoadedMask | None = None,
) -> Annotation:
    """Annotation from the defect pixels of each category; `mask` is the file that they come from, if it is one."""
    if not regions:
        empty = mask.data if mask is not None else encode_mask(np.zeros(image.gray.shape, dtype=bool))
        return _from_empty(sample, "mask", empty)
    _check_defective(sample, where, "mask")
    union = np.logical_or.reduce(list(regions.values()))
    repairs: list[BoxRepair] = []
    regions = {name: _without_tiny(defect, name, sample.source.min_area, repairs) for name, defect in regions.items()}
    parts = {name: components(defect) for name, defect in regions.items()}
    name, others = _ranked(sample, {name: int(part.areas.sum()) for name, part in parts.items()})
    measured = {
        other: mask_attributes(image.gray, regions[other], other, parts[other])
        for other in (name, *others)
        if other in parts
    }
    attributes: Mapping[str, Any] | None = measured.get(name)
    disagreements = None
    if sample.attributes is not None and name in regions:
        attributes, disagreements = sample.attributes, _compared(sample.attributes, measured[name], mask)
    findings = [
        _finding(sample, other, measured.get(other), _colour(image, regions.get(other))) for other in (name, *others)
    ]
    return Annotation(
        "mask",
        name,
        True,
        objects=[item for other, part in parts.items() for item in _mask_objects(part, other)],
        attributes=attributes,
        findings=findings,
        mask=encode_mask(union) if mask is None else mask.data,
        disagreements=disagreements,
        repairs=repairs,
    )


def _without_tiny(
    defect: NDArray[np.bool_], category: str, min_area: int, repairs: list[BoxRepair]
) -> NDArray[np.bool_]:
    """A region (H, W) without its parts of less than `min_area` pixels; the largest part stays in any case."""
    if min_area <= 1:
        return defect
    parts = components(defect)
    kept = parts.areas >= min(min_area, parts.areas.max())
    if kept.all():
        return defect
    for number in np.flatnonzero(~kept):
        left, top, width, height = map(float, parts.boxes[number])
        repairs.append(BoxRepair(int(number) + 1, category, "tiny", (left, top, width, height), None))
    left, top = parts.boxes[:, :2].min(axis=0)
    height, width = parts.labels.shape
    clean = defect.copy()
    clean[top : top + height, left : left + width] &= np.append(True, kept)[parts.labels]
    return clean


def _from_empty(sample: Sample, kind: str, mask: bytes | None = None) -> Annotation:
    """An annotation that marks nothing: the image is normal, or nobody annotated its defect."""
    if sample.is_defective is False or sample.empty_class is not None:
        given = sample.class_name if sample.is_defective is False else None
        return Annotation(kind, given or sample.empty_class or UNKNOWN, False, mask=mask)
    what = "mask" if kind == "mask" else "list of boxes"
    warning = f"{sample.image_id}: empty {what} of a defect ({sample.class_name or UNKNOWN}), taken as no annotation"
    return replace(_not_located(sample), warnings=[warning])


def _check_defective(sample: Sample, where: str, field: str) -> None:
    if sample.is_defective is False:
        problem = f"marks defects on an image of class {sample.class_name}"
        raise DataError(where, field, problem, f"Correct the class or the {field}")


def _compared(given: Mapping[str, Any], measured: Mapping[str, Any], mask: LoadedMask | None) -> list[str]:
    """How given attributes differ from measured ones."""
    if mask is not None and not mask.binary:
        # The release counts every pixel that is not black for the position, also the grey edges.
        measured = {**measured, "Position": position_fractions(mask.gray > 0)}
    return attribute_disagreements(given, measured)


def _from_bad_boxes(sample: Sample, boxes: Sequence[Box]) -> Annotation:
    """Annotation of an image of whose boxes none is usable: it shows a defect, but nobody knows where."""
    _check_defective(sample, str(sample.image), "boxes")
    class_name = sample.class_name or boxes[0].category
    warning = f"{sample.image_id}: none of its boxes ({len(boxes)}) is usable, taken as no annotation"
    return replace(_not_located(replace(sample, class_name=class_name, is_defective=True)), warnings=[warning])


def _from_boxes(sample: Sample, image: LoadedImage, given: Sequence[Box]) -> Annotation:
    if not given:
        return _from_empty(sample, "boxes")
    _check_defective(sample, str(sample.image), "boxes")
    height, width = image.gray.shape
    scale = np.tile(np.divide((width, height), image.source_size), 2)
    corners = np.array([(box.x, box.y, box.width, box.height) for box in given]).reshape(-1, 4) * scale
    objects = [
        {
            "bbox": bbox.tolist(),
            "category": box.category,
            "area": float(bbox[2] * bbox[3] if box.area is None else box.area * scale[0] * scale[1]),
            "iscrowd": box.is_crowd,
        }
        for box, bbox in zip(given, corners, strict=True)
    ]
    areas: dict[str, float] = {}
    for item in objects:
        areas[item["category"]] = areas.get(item["category"], 0) + item["area"]
    name, others = _ranked(sample, areas)
    measured: dict[str, Mapping[str, Any]] = {}
    findings = []
    total = gray_total(image.gray)
    for other in (name, *others):
        own = corners[[box.category == other for box in given]]
        colour = None
        if len(own):
            measured[other] = box_attributes(image.gray, own, other, total)
            if image.colour is not None:
                colour = _colour(image, box_mask(own, image.gray.shape))
        findings.append(_finding(sample, other, measured.get(other), colour))
    attributes = sample.attributes if sample.attributes is not None else measured.get(name)
    return Annotation("boxes", name, True, objects, attributes, findings)


def _ranked(sample: Sample, areas: Mapping[str, float]) -> tuple[str, list[str]]:
    """The class of the image, and the other categories from the largest to the smallest area."""
    order = sorted(areas, key=lambda name: -areas[name])
    name = sample.class_name or (order[0] if order else UNKNOWN)
    return name, [other for other in order if other != name]


def _finding(sample: Sample, name: str, attributes: Mapping[str, Any] | None, colour: str | None) -> Finding:
    placed = attributes if attributes is not None and attributes["Position"] else None
    return Finding(sample.source.nouns.get(name) or countable_noun(name), placed, colour)


def _colour(image: LoadedImage, defect: NDArray[np.bool_] | None) -> str | None:
    """Colour word of defect pixels (H, W); None for gray images and where nothing is marked."""
    return None if image.colour is None or defect is None else colour_word(image.colour[defect])


def _mask_objects(parts: Components, category: str) -> list[dict[str, Any]]:
    """8-connected components as objects in the COCO convention, in reading order."""
    return [
        {"bbox": bbox, "category": category, "area": area, "iscrowd": False}
        for bbox, area in zip(parts.boxes.tolist(), parts.areas.tolist(), strict=True)
    ]
