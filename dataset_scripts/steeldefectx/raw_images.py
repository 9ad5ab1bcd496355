"""One raw image of a source set: its hashes, its class and its boxes, from a single decoding."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from defect_hub.dataset_scripts.polarity import line_polarity
from defect_hub.dataset_scripts.readers.boxes import Box
from defect_hub.dataset_scripts.readers.class_folders import Entry, plain_name
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.images import LoadedImage, read_image
from defect_hub.dataset_scripts.readers.voc import read_voc
from defect_hub.dataset_scripts.steeldefectx.sources import SourceSet


@dataclass(frozen=True)
class RawImage:
    """What is known of a raw image.

    Attributes:
        sha256: Hash of the file.
        pixels: Hash of size and gray values: equal for copies in other formats, if no value was lost.
        class_name: One of the 25 classes.
        possible: The classes that its raw class may mean; several where polarity decided.
        boxes: Boxes in pixels of the file, named by the 25 classes.
        ignored_boxes: Boxes left out because the table says so.
    """

    sha256: str
    pixels: str
    class_name: str
    possible: tuple[str, ...]
    boxes: tuple[Box, ...]
    ignored_boxes: int


@dataclass(frozen=True)
class Unreadable:
    """An image that does not decode or is of a mode or size that is not accepted, and why."""

    reason: str


def load_raw(entry: Entry, source: SourceSet) -> RawImage | Unreadable:
    """Decode an image and settle its class and boxes.

    Args:
        entry: The image; its class is in the class map of the source.
        source: Where it is from.

    Raises:
        DataError: Its annotation is unusable, for another size, or names a class that the source does not map.
    """
    try:
        image = read_image(entry.image)
    except DataError as error:
        return Unreadable(error.problem)
    boxes, ignored = ([], 0) if entry.boxes is None else _read_boxes(entry.boxes, image, source)
    possible = source.classes[plain_name(entry.class_name)]
    polarity = _polarity(image.gray, boxes, possible, source)
    pixels = hashlib.sha256(repr(image.source_size).encode() + image.gray.tobytes()).hexdigest()
    return RawImage(
        sha256=image.source_sha256,
        pixels=pixels,
        class_name=_settled(possible, polarity),
        possible=possible,
        boxes=tuple(replace(box, category=_settled(source.classes[box.category], polarity)) for box in boxes),
        ignored_boxes=ignored,
    )


def _read_boxes(path: Path, image: LoadedImage, source: SourceSet) -> tuple[list[Box], int]:
    """Boxes with plain raw names, and the number of ignored ones."""
    annotation = read_voc(path, image.source_size)
    named = [replace(box, category=plain_name(box.category)) for box in annotation.boxes]
    boxes = [box for box in named if box.category not in source.ignored_boxes]
    for box in boxes:
        if box.category not in source.classes:
            raise unknown_class(path, "box", box.category, source)
    return boxes, len(named) - len(boxes)


def unknown_class(where: Path, field: str, name: str, source: SourceSet) -> DataError:
    """The error of a class that the table does not know."""
    problem = f"class {name!r} is not in the class map of {source.name}"
    return DataError(where, field, problem, "Map it in a table like sources.yaml and pass that with --sources")


def _polarity(gray: NDArray[np.uint8], boxes: Sequence[Box], possible: Sequence[str], source: SourceSet) -> float:
    """Polarity of the scratches of an image (H, W): within their boxes where there are any. 0 where no class needs it.

    One value decides for image and boxes alike, so that boxes of the image's class stay of its class.
    """
    lines = [box for box in boxes if len(source.classes[box.category]) > 1]
    if len(possible) == 1 and not lines:
        return 0.0
    return line_polarity(gray, np.array([(box.x, box.y, box.width, box.height) for box in lines]) if lines else None)


def _settled(possible: Sequence[str], polarity: float) -> str:
    """The first class of two for a bright defect; the only one otherwise."""
    return possible[0] if polarity > 0 else possible[-1]
