"""From what a reader knows of one image to a row of the schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defect_hub.dataset_scripts.attributes import (
    Components,
    box_attributes,
    components,
    mask_attributes,
    position_fractions,
)
from defect_hub.dataset_scripts.class_descriptions import attribute_disagreements
from defect_hub.dataset_scripts.readers.boxes import Box
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.images import LoadedImage, LoadedMask, read_image, read_mask
from defect_hub.dataset_scripts.schema import TEXT_LEVELS
from defect_hub.dataset_scripts.texts import attribute_line, diagnosis_turns, t0, template_sentence, with_article


@dataclass(frozen=True)
class Source:
    """What all images of one origin share; see the schema for the meaning of each."""

    name: str
    object_name: str
    super_category: str
    license: str
    redistributable: bool
    split_id: str
    text_source: str


@dataclass(frozen=True)
class Sample:
    """One image as a reader found it.

    Attributes:
        image_id: Unique within the data set.
        image: Image file.
        mask: Mask file; None where the image has no pixel annotation.
        class_name: Name from the label space.
        source: Where it comes from.
        is_defective: None where unknown.
        texts: Given texts by level; levels left out are composed from the annotation.
        attributes: Given structured attributes, in the keys of the release; None: measured on the annotation.
        class_description: Name, visual attributes and cause of the class.
        boxes: Boxes in pixels of the file, with categories of the label space; None where there is no such annotation.
        size: (width, height) to resize image and annotation to; None keeps the file's bytes.
        source_file: Path within the source set.
    """

    image_id: str
    image: Path
    mask: Path | None
    class_name: str
    source: Source
    is_defective: bool | None
    texts: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Any] | None = None
    class_description: Mapping[str, str | None] | None = None
    boxes: Sequence[Box] | None = None
    size: tuple[int, int] | None = None
    source_file: str = ""


@dataclass(frozen=True)
class Record:
    """A finished row.

    Attributes:
        row: Values by column, the label as its name.
        gray: Gray values of the image (H, W).
        warnings: What was left out of the row.
        disagreements: Given attributes that differ from those measured on the mask; None where nothing was compared.
    """

    row: dict[str, Any]
    gray: NDArray[np.uint8]
    warnings: Sequence[str]
    disagreements: Sequence[str] | None


@dataclass(frozen=True)
class _Annotation:
    """Where the defect is: objects of the schema and structured attributes, None where not known."""

    kind: str
    objects: list[dict[str, Any]]
    attributes: Mapping[str, Any] | None
    mask: LoadedMask | None = None
    disagreements: Sequence[str] | None = None


def make_record(sample: Sample) -> Record:
    """Read the files of a sample and complete its row.

    An empty mask of a defective image says that nobody annotated it: the row's mask is null.

    Raises:
        DataError: A file is unusable or contradicts the class.
    """
    image = read_image(sample.image, sample.size)
    mask = None if sample.mask is None else read_mask(sample.mask, image.source_size, sample.size)
    warnings = []
    if mask is not None and sample.is_defective is False and mask.defect.any():
        problem = f"marks defects on an image of class {sample.class_name}"
        raise DataError(str(sample.mask), "mask", problem, "Correct the class or the mask")
    if mask is not None and sample.is_defective and not mask.defect.any():
        warnings.append(f"{sample.image_id}: empty mask of a defect ({sample.class_name}), taken as no annotation")
        mask = None
    annotation = _annotation(sample, image, mask)
    return Record(_row(sample, image, annotation), image.gray, warnings, annotation.disagreements)


def _annotation(sample: Sample, image: LoadedImage, mask: LoadedMask | None) -> _Annotation:
    if mask is not None and not mask.defect.any():
        return _Annotation("mask", [], None, mask)
    if mask is not None:
        return _mask_annotation(sample, image, mask)
    if sample.boxes is not None:
        return _box_annotation(sample, image)
    return _Annotation("none", [], sample.attributes)


def _mask_annotation(sample: Sample, image: LoadedImage, mask: LoadedMask) -> _Annotation:
    parts = components(mask.defect)
    objects = _mask_objects(parts, sample.class_name)
    measured = mask_attributes(image.gray, mask.defect, sample.class_name, parts)
    if sample.attributes is None:
        return _Annotation("mask", objects, measured, mask)
    if not mask.binary:
        # The release counts every pixel that is not black for the position, also the grey edges.
        measured["Position"] = position_fractions(mask.gray > 0)
    return _Annotation("mask", objects, sample.attributes, mask, attribute_disagreements(sample.attributes, measured))


def _box_annotation(sample: Sample, image: LoadedImage) -> _Annotation:
    height, width = image.gray.shape
    scale = np.tile(np.divide((width, height), image.source_size), 2)
    given = sample.boxes or ()
    corners = np.array([(box.x, box.y, box.width, box.height) for box in given]).reshape(-1, 4) * scale
    objects = [
        {"bbox": bbox.tolist(), "category": box.category, "area": float(bbox[2] * bbox[3]), "iscrowd": False}
        for box, bbox in zip(given, corners, strict=True)
    ]
    own = corners[[box.category == sample.class_name for box in given]]
    attributes = sample.attributes
    if attributes is None and len(own):
        attributes = box_attributes(image.gray, own, sample.class_name)
    return _Annotation("boxes", objects, attributes)


def _mask_objects(parts: Components, category: str) -> list[dict[str, Any]]:
    """8-connected components as objects in the COCO convention, in reading order."""
    return [
        {"bbox": bbox, "category": category, "area": area, "iscrowd": False}
        for bbox, area in zip(parts.boxes.tolist(), parts.areas.tolist(), strict=True)
    ]


def _row(sample: Sample, image: LoadedImage, annotation: _Annotation) -> dict[str, Any]:
    height, width = image.gray.shape
    mask, attributes = annotation.mask, annotation.attributes
    return {
        "image": {"path": image.name, "bytes": image.data},
        "image_id": sample.image_id,
        "sha256": image.sha256 if sample.size else image.source_sha256,
        "source_file": sample.source_file,
        "source_sha256": image.source_sha256,
        "width": width,
        "height": height,
        "source": sample.source.name,
        "license": sample.source.license,
        "redistributable": sample.source.redistributable,
        "split_id": sample.source.split_id,
        "object_name": sample.source.object_name,
        "label": sample.class_name,
        "super_category": sample.source.super_category,
        "is_defective": sample.is_defective,
        "annotation": annotation.kind,
        "mask": None if mask is None else {"path": f"{sample.image.stem}.png", "bytes": mask.data},
        "objects": annotation.objects,
        **_texts(sample, attributes),
        "text_source": sample.source.text_source,
        "class_description": sample.class_description,
        "attributes": None if attributes is None else _attribute_struct(attributes),
        "conversation": _conversation(sample, attributes),
    }


def _texts(sample: Sample, attributes: Mapping[str, Any] | None) -> dict[str, str | None]:
    object_name = sample.source.object_name
    texts: dict[str, str | None] = dict.fromkeys(TEXT_LEVELS)
    if sample.is_defective is False:
        normal = f"{with_article(object_name)} without defects."
        texts |= {"t0": f"A photo of {normal}", "t4": f"{normal[0].upper()}{normal[1:]}"}
    elif sample.is_defective:
        texts["t0"] = t0(sample.class_name, object_name)
    if attributes is not None:
        texts["t3"] = attribute_line(attributes)
        if "t4" not in sample.texts:
            texts["t4"] = template_sentence(attributes, object_name)
    return {**texts, **sample.texts}


def _attribute_struct(attributes: Mapping[str, Any]) -> dict[str, Any]:
    struct = {key.lower().replace(" ", "_"): value for key, value in attributes.items()}
    struct["position"] = [{"cell": cell, "fraction": fraction} for cell, fraction in attributes["Position"]]
    return struct


def _conversation(sample: Sample, attributes: Mapping[str, Any] | None) -> list[dict[str, str]]:
    object_name = sample.source.object_name
    if sample.is_defective is None:
        return []
    cause = sample.class_description["cause"] if sample.class_description else None
    placed = attributes if attributes and attributes["Position"] else None
    turns = diagnosis_turns(object_name, placed, cause)
    if sample.is_defective and placed is None:
        # Without an annotation neither count nor place is known.
        turns[1]["value"] = f"Yes, the {object_name} shows a defect of the category {sample.class_name.lower()}."
    return turns
