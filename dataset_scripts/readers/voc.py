"""Boxes in Pascal VOC XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from defect_hub.dataset_scripts.readers.boxes import Box, from_voc, pixel_number
from defect_hub.dataset_scripts.readers.errors import DataError


@dataclass(frozen=True)
class VocAnnotation:
    """Boxes of one image.

    Attributes:
        width: Width of the image in pixels, as the file says.
        height: Its height.
        boxes: Boxes in the order of the file, in pixels from 0, with the names of the file. They are as the file gives
            them: they may leave the image or have no extent.
    """

    width: int
    height: int
    boxes: Sequence[Box]


class _Builder(ET.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        # Entities that multiply can only be declared in a document type; no annotation tool writes one.
        raise ET.ParseError("has a DOCTYPE")


def read_voc(path: Path, image_size: tuple[int, int] | None = None) -> VocAnnotation:
    """Read an annotation in Pascal VOC XML.

    VOC counts pixels from 1 and both corners belong to the box: NEU-DET has boxes from `xmin` 1 to `xmax` 200 in
    images 200 px wide. Such a box becomes x 0, width 200; in general x is xmin - 1 and width xmax - xmin + 1.
    Files that count from 0 are read the same way: `xmin` 0 gives x -1, which `clean_boxes` cuts off. `folder`,
    `filename`, `depth` and everything else in the file are not read: they are wrong in most sets.

    Args:
        path: The XML file.
        image_size: (width, height) of the image, which the file must state; None: not known.

    Raises:
        DataError: The file is missing, is not well-formed or has a DOCTYPE; the size of the image, a name or a corner
            is missing or no number; the image has another size.
    """
    try:
        root = ET.fromstring(path.read_bytes(), parser=ET.XMLParser(target=_Builder()))
    except OSError as error:
        raise DataError(path, "XML", f"cannot be read ({error.strerror})", "Supply the file") from error
    except (ET.ParseError, ValueError, LookupError) as error:  # The last two: an encoding that is wrong or unknown.
        raise DataError(path, "XML", f"malformed ({error})", "Correct the file or fetch it again") from error
    width, height = (int(_number(root, f"size/{side}", path)) for side in ("width", "height"))
    if min(width, height) < 1:
        raise DataError(path, "size", f"{width}x{height} px", "Give the size of the image")
    if image_size is not None and (width, height) != image_size:
        problem = f"is for {width}x{height} px where its image has {image_size[0]}x{image_size[1]} px"
        raise DataError(path, "size", problem, "Supply the annotation of this image")
    return VocAnnotation(width, height, [_box(item, path) for item in root.iter("object")])


def _box(item: ET.Element, path: Path) -> Box:
    name = (item.findtext("name") or "").strip()
    if not name:
        raise DataError(path, "object", "has no name", "Name the class of the box")
    xmin, ymin, xmax, ymax = (_number(item, f"bndbox/{key}", path) for key in ("xmin", "ymin", "xmax", "ymax"))
    return from_voc(name, xmin, ymin, xmax, ymax)


def _number(item: ET.Element, key: str, path: Path) -> float:
    text = item.findtext(key)
    if text is None:
        raise DataError(path, key, "is missing", "Correct or remove the entry")
    try:
        return pixel_number(text.strip())
    except ValueError as error:
        raise DataError(path, key, str(error), "Correct or remove the entry") from error
