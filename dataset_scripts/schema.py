"""The one record schema: a row is one image with everything known about it."""

from __future__ import annotations

from collections.abc import Sequence

from datasets import ClassLabel, Features, Image, List, Value

TEXT_LEVELS = ("T0", "T1", "T2", "T3", "T4")
COLUMN_CONFIGS = {"classification": ("image", "label"), "segmentation": ("image", "label", "mask")}
"""Configs that select columns of the default config and need no data of their own."""

FIELDS = {
    "image": "the file's own bytes, never re-encoded",
    "image_id": "unique within the data set",
    "sha256": "of the image file",
    "width`, `height": "pixels",
    "source": "data set that the image comes from",
    "license`, `redistributable": "what its owner allows",
    "split_id": "how train, validation and test were drawn",
    "object_name": "what is in the picture",
    "label`, `super_category": "class and its field of industry",
    "is_defective": "null: unknown",
    "mask": "PNG of the image's size, 255 = defect; null: not annotated",
    "objects": "8-connected parts of the mask: bbox [x, y, width, height] and area in pixels, COCO convention",
    "descriptions": "texts T0 to T4; null: none of this level",
    "text_source": "released, generated or composed",
    "attributes": "shape, count, position, ... of the defect; null: none or unknown",
    "conversation": "question and answer, for training a describing model",
}
"""Meaning of each column, for the cards."""


def record_features(class_names: Sequence[str]) -> Features:
    """Features of the default config.

    Args:
        class_names: Names of the label space in label order.

    Returns:
        The features. `mask` is a 0/255 PNG of the image's size, null where not annotated; `is_defective` is null where
        unknown; `bbox` is [x, y, width, height] in absolute pixels; `area` counts pixels.
    """
    text = Value("string")
    return Features(
        {
            "image": Image(),
            "image_id": text,
            "sha256": text,
            "width": Value("int32"),
            "height": Value("int32"),
            "source": text,
            "license": text,
            "redistributable": Value("bool"),
            "split_id": text,
            "object_name": text,
            "label": ClassLabel(names=list(class_names)),
            "super_category": text,
            "is_defective": Value("bool"),
            "mask": Image(),
            "objects": List(
                {
                    "bbox": List(Value("float32"), length=4),
                    "category": text,
                    "area": Value("float32"),
                    "iscrowd": Value("bool"),
                }
            ),
            "descriptions": dict.fromkeys(TEXT_LEVELS, text),
            "text_source": text,
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


def text_features(class_names: Sequence[str]) -> Features:
    """Features of the configs `t0` to `t4`: an image and its text of one level."""
    return Features({"image": Image(), "label": ClassLabel(names=list(class_names)), "text": Value("string")})
