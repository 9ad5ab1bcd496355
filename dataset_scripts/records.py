"""From what a reader knows of one image to a row of the schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from defect_hub.dataset_scripts.attributes import EIGHT_CONNECTED, mask_attributes
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.images import encode_mask, read_image, read_mask
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
        mask: Mask file; None where the image has no annotation.
        class_name: Name from the label space.
        source: Where it comes from.
        is_defective: None where unknown.
        texts: Given texts by level; levels left out are composed from the mask.
        attributes: Given structured attributes, in the keys of the release; None: measured on the mask.
        cause: Likely cause of the defect, for the conversation.
    """

    image_id: str
    image: Path
    mask: Path | None
    class_name: str
    source: Source
    is_defective: bool | None
    texts: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Any] | None = None
    cause: str | None = None


def make_record(sample: Sample) -> tuple[dict[str, Any], list[str]]:
    """Read the files of a sample and complete its row.

    An empty mask of a defective image says that nobody annotated it: the row's mask is null.

    Returns:
        The row, and a warning for everything that was left out of it.

    Raises:
        DataError: A file is unusable or contradicts the class.
    """
    image = read_image(sample.image)
    height, width = image.gray.shape
    mask = None if sample.mask is None else read_mask(sample.mask, (width, height))
    warnings = []
    if mask is not None and sample.is_defective is False and mask.any():
        problem = f"marks defects on an image of class {sample.class_name}"
        raise DataError(str(sample.mask), "mask", problem, "Correct the class or the mask")
    if mask is not None and sample.is_defective and not mask.any():
        warnings.append(f"{sample.image_id}: empty mask of a defect ({sample.class_name}), taken as no annotation")
        mask = None
    attributes = sample.attributes
    if attributes is None and mask is not None and mask.any():
        attributes = mask_attributes(image.gray, mask, sample.class_name)
    record = {
        "image": {"path": image.name, "bytes": image.data},
        "image_id": sample.image_id,
        "sha256": image.sha256,
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
        "mask": None if mask is None else {"path": f"{sample.image.stem}.png", "bytes": encode_mask(mask)},
        "objects": [] if mask is None else mask_objects(mask, sample.class_name),
        "descriptions": _descriptions(sample, attributes),
        "text_source": sample.source.text_source,
        "attributes": None if attributes is None else _attribute_struct(attributes),
        "conversation": _conversation(sample, attributes),
    }
    return record, warnings


def mask_objects(mask: NDArray[np.bool_], category: str) -> list[dict[str, Any]]:
    """8-connected components of a mask (H, W) as objects in the COCO convention, in reading order."""
    labels, count = ndimage.label(mask, EIGHT_CONNECTED)
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return [
        {
            "bbox": [cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start],
            "category": category,
            "area": int(area),
            "iscrowd": False,
        }
        for (rows, cols), area in zip(ndimage.find_objects(labels), areas, strict=True)
    ]


def _descriptions(sample: Sample, attributes: Mapping[str, Any] | None) -> dict[str, str | None]:
    object_name = sample.source.object_name
    texts: dict[str, str | None] = dict.fromkeys(TEXT_LEVELS)
    if sample.is_defective is False:
        normal = f"{with_article(object_name)} without defects."
        texts |= {"T0": f"A photo of {normal}", "T4": f"{normal[0].upper()}{normal[1:]}"}
    elif sample.is_defective:
        texts["T0"] = t0(sample.class_name, object_name)
    if attributes is not None:
        texts["T3"] = attribute_line(attributes)
        texts["T4"] = template_sentence(attributes, object_name)
    return {**texts, **sample.texts}


def _attribute_struct(attributes: Mapping[str, Any]) -> dict[str, Any]:
    struct = {key.lower().replace(" ", "_"): value for key, value in attributes.items()}
    struct["position"] = [{"cell": cell, "fraction": fraction} for cell, fraction in attributes["Position"]]
    return struct


def _conversation(sample: Sample, attributes: Mapping[str, Any] | None) -> list[dict[str, str]]:
    object_name = sample.source.object_name
    if sample.is_defective is None:
        return []
    turns = diagnosis_turns(object_name, attributes, sample.cause)
    if sample.is_defective and attributes is None:
        # Without a mask neither count nor place is known.
        turns[1]["value"] = f"Yes, the {object_name} shows a defect of the category {sample.class_name.lower()}."
    return turns
