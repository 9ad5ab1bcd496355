"""From what a reader knows of one image to a row of the schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defect_hub.dataset_scripts.annotations import Annotation, annotate
from defect_hub.dataset_scripts.descriptions import converse, describe
from defect_hub.dataset_scripts.fingerprints import Fingerprint, fingerprint, miniature
from defect_hub.dataset_scripts.grounding import grounding_caption
from defect_hub.dataset_scripts.readers.boxes import BoxRepair
from defect_hub.dataset_scripts.readers.images import LoadedImage, read_image
from defect_hub.dataset_scripts.samples import Sample, Source
from defect_hub.dataset_scripts.schema import TEXT_LEVELS
from defect_hub.dataset_scripts.texts import attribute_line, diagnosis_turns, t0, t4
from defect_hub.modeling.template_sentences import with_article


@dataclass(frozen=True)
class Record:
    """A finished row.

    Attributes:
        row: Values by column, the label as its name.
        fingerprint: Of the image.
        miniature: Of the image, for the search for duplicates.
        warnings: What was left out of the row.
        disagreements: How given attributes or boxes differ from others; None where nothing was compared.
        repairs: Boxes that were changed or left out.
    """

    row: dict[str, Any]
    fingerprint: Fingerprint
    miniature: NDArray[np.uint8]
    warnings: Sequence[str]
    disagreements: Sequence[str] | None
    repairs: Sequence[BoxRepair]


def make_record(sample: Sample) -> Record:
    """Read the files of a sample and complete its row.

    An empty mask of a defective image says that nobody annotated it: the row's mask is null.

    Raises:
        DataError: A file is unusable or contradicts the class.
    """
    image = read_image(sample.image, sample.size)
    annotation = annotate(sample, image)
    print_ = fingerprint(image.gray)
    row = _row(sample, image, annotation, print_.pixel_sha256.hex())
    warnings, differing = list(annotation.warnings), annotation.disagreements
    return Record(row, print_, miniature(image.gray), warnings, differing, annotation.repairs)


def _row(sample: Sample, image: LoadedImage, annotation: Annotation, pixel_sha256: str) -> dict[str, Any]:
    height, width = image.gray.shape
    source, attributes = sample.source, annotation.attributes
    texts = _texts(sample, annotation, int(image.source_sha256[:8], 16))
    return {
        "image": {"path": image.name, "bytes": image.data},
        "image_id": sample.image_id,
        "sha256": image.sha256 if sample.size else image.source_sha256,
        "pixel_sha256": pixel_sha256,
        "source_file": sample.source_file,
        "source_sha256": image.source_sha256,
        "width": width,
        "height": height,
        "source": source.name,
        "license": source.license,
        "redistributable": source.redistributable,
        "split_id": source.split_id,
        "official_split": sample.official_split,
        "object_name": source.object_name,
        "scene": source.scene,
        "label": annotation.class_name,
        "super_category": source.super_category,
        "is_defective": annotation.is_defective,
        "annotation": annotation.kind,
        "mask": None if annotation.mask is None else {"path": f"{sample.image.stem}.png", "bytes": annotation.mask},
        "objects": _object_lists(annotation, source),
        **_caption(annotation, source, (width, height)),
        **texts,
        "text_source": source.text_source,
        "class_description": sample.class_description,
        "attributes": None if attributes is None else _attribute_struct(attributes),
        "conversation": _conversation(sample, annotation, texts["t2"], int(image.source_sha256[8:16], 16)),
    }


def _object_lists(annotation: Annotation, source: Source) -> dict[str, list[Any]]:
    """The objects as a struct of lists."""
    lists = {key: [item[key] for item in annotation.objects] for key in ("bbox", "category", "area", "iscrowd")}
    novel = source.novel
    return {**lists, "is_novel": [None if novel is None else name in novel for name in lists["category"]]}


def _caption(annotation: Annotation, source: Source, image_size: tuple[int, int]) -> dict[str, Any]:
    """The caption that names every object, and what each of its phrases names."""
    objects = [(item["bbox"], item["category"]) for item in annotation.objects]
    caption = grounding_caption(objects, image_size, source.nouns)
    phrases = caption.phrases if caption else ()
    return {
        "caption": caption.text if caption else None,
        "phrases": {
            "start": [phrase.start for phrase in phrases],
            "end": [phrase.end for phrase in phrases],
            "objects": [list(phrase.objects) for phrase in phrases],
        },
    }


def _texts(sample: Sample, annotation: Annotation, variant: int) -> dict[str, str | None]:
    """Given texts and composed ones for the levels that were not given."""
    object_name = sample.source.object_name
    texts: dict[str, str | None] = dict.fromkeys(TEXT_LEVELS)
    if annotation.is_defective is False:
        normal = f"{with_article(object_name)} without defects."
        texts |= {"t0": f"A photo of {normal}", "t4": f"{normal[0].upper()}{normal[1:]}"}
    elif annotation.is_defective:
        texts["t0"] = t0(annotation.class_name, object_name)
    if annotation.is_defective is not None and "t2" not in sample.texts:
        texts["t2"] = describe(object_name, annotation.findings, variant)
    if annotation.attributes is not None:
        texts["t3"] = attribute_line(annotation.attributes)
        if "t4" not in sample.texts:
            noun = sample.source.nouns.get(annotation.class_name)
            texts["t4"] = t4(annotation.attributes, object_name, noun=noun)
    return {**texts, **sample.texts}


def _attribute_struct(attributes: Mapping[str, Any]) -> dict[str, Any]:
    struct = {key.lower().replace(" ", "_"): value for key, value in attributes.items()}
    struct["position"] = [{"cell": cell, "fraction": fraction} for cell, fraction in attributes["Position"]]
    return struct


def _conversation(
    sample: Sample, annotation: Annotation, description: str | None, variant: int
) -> list[dict[str, str]]:
    """The question that every model is asked, its answer, and further pairs; empty where nobody knows the answer."""
    object_name = sample.source.object_name
    if annotation.is_defective is None or description is None:
        return []
    cause = sample.class_description["cause"] if sample.class_description else None
    attributes, noun = annotation.attributes, sample.source.nouns.get(annotation.class_name)
    placed = attributes if attributes and attributes["Position"] else None
    turns = diagnosis_turns(object_name, placed, cause, noun=noun)
    if annotation.is_defective and placed is None:
        # Without an annotation neither count nor place is known.
        category = annotation.class_name.lower()
        turns[1]["value"] = f"Yes, the {object_name} shows a defect of the category {category}."
    return [*turns, *converse(object_name, annotation.findings, description, variant)]
