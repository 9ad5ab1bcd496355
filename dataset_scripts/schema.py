"""The one record schema: a row is one image with everything known about it; configs select its columns and rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datasets import ClassLabel, Features, Image, List, Value

TEXT_LEVELS = ("t0", "t1", "t2", "t3", "t4")
ANNOTATIONS = ("mask", "boxes", "none")

FIELDS = {
    "image": "the file's own bytes; a PNG where the builder resizes",
    "image_id": "unique within the data set",
    "image_number": "running number within the build, for formats whose image ids are numbers",
    "sha256": "of the image bytes here",
    "pixel_sha256": "of size and gray values: equal for copies in other formats, if no value was lost",
    "source_file`, `source_sha256": "raw file that the image was made from, and its hash",
    "width`, `height": "pixels",
    "source": "data set that the image comes from",
    "license`, `redistributable": "what its owner allows",
    "split_id": "how the splits were drawn",
    "official_split": "the source's own split; null: it has none",
    "object_name": "what is in the picture",
    "scene": "kind of product or process within the field of industry; null: not told apart",
    "label`, `super_category": "class and its field of industry",
    "is_defective": "null: unknown",
    "annotation": "what places the defect: mask, boxes or none",
    "mask": "PNG of the image's size, 255 = defect; null: not annotated",
    "objects": "boxes, or 8-connected parts of the mask, as in COCO: bbox [x, y, width, height] and area in pixels; "
    "id is unique within the build; is_novel: of a category that zero-shot detection does not train on; null: no such "
    "study",
    "caption`, `phrases": "names every object with its place; start and end of each phrase, and the objects it names",
    "t0` to `t4": "texts, see above; null: none of this level",
    "text_source": "released, generated or composed",
    "class_description": "name, visual attributes and cause of the class",
    "attributes": "shape, count, position, ... of the defect; null: none or unknown",
    "conversation": "question and answer, for training a describing model",
}
"""Meaning of each column, for the cards."""


@dataclass(frozen=True)
class View:
    """A config that reads some columns and rows of the shared files, so that nothing is stored twice.

    Attributes:
        columns: Names of the columns; empty: all.
        filters: Conditions on rows, all of which must hold, as (column, operator, value) in the form of pyarrow; a
            null fulfils none.
    """

    columns: tuple[str, ...] = ()
    filters: tuple[tuple[str, str, str | bool], ...] = ()


VIEWS = {
    "default": View(),
    **{level: View(("image", "label", level), ((level, "!=", ""),)) for level in TEXT_LEVELS},
    "classification": View(("image", "label")),
    "segmentation": View(("image", "label", "mask"), (("annotation", "==", "mask"),)),
    "retrieval": View(("image_id", "image", "label", *TEXT_LEVELS), (("t0", "!=", ""),)),
}


def record_features(class_names: Sequence[str], categories: Sequence[str] | None = None) -> Features:
    """Features of the default config.

    Args:
        class_names: Names of the label space in label order.
        categories: Names of the categories of objects in order; None: the label space.

    Returns:
        The features. `mask` is a 0/255 PNG of the image's size, null where not annotated; `is_defective` is null where
        unknown. `objects` is a struct of lists, as object detection on the Hub has it: `bbox` is [x, y, width, height]
        in absolute pixels; `area` counts pixels.
    """
    text, position = Value("string"), Value("int32")
    category = ClassLabel(names=list(class_names if categories is None else categories))
    return Features(
        {
            "image": Image(),
            "image_id": text,
            "image_number": Value("int32"),
            "sha256": text,
            "pixel_sha256": text,
            "source_file": text,
            "source_sha256": text,
            "width": Value("int32"),
            "height": Value("int32"),
            "source": text,
            "license": text,
            "redistributable": Value("bool"),
            "split_id": text,
            "official_split": text,
            "object_name": text,
            "scene": text,
            "label": ClassLabel(names=list(class_names)),
            "super_category": text,
            "is_defective": Value("bool"),
            "annotation": text,
            "mask": Image(),
            "objects": {
                "id": List(Value("int64")),
                "bbox": List(List(Value("float32"), length=4)),
                "category": List(category),
                "area": List(Value("float32")),
                "iscrowd": List(Value("bool")),
                "is_novel": List(Value("bool")),
            },
            "caption": text,
            "phrases": {"start": List(position), "end": List(position), "objects": List(List(position))},
            **dict.fromkeys(TEXT_LEVELS, text),
            "text_source": text,
            "class_description": dict.fromkeys(("name", "visual_attributes", "cause"), text),
            "attributes": {
                "defect_type": text,
                "shape": text,
                "direction": text,
                "spatial_distribution": text,
                "number_of_defects": text,
                "position": List({"cell": text, "fraction": Value("float32")}),
                "scale": text,
                "polarity": text,
                "saliency": text,
            },
            "conversation": List({"from": text, "value": text}),
        }
    )
