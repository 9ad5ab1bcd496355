"""Boxes in Pascal VOC XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from defect_hub.dataset_scripts.readers.boxes import Box
from defect_hub.dataset_scripts.readers.errors import DataError

TOLERANCE = 1
"""Pixels that a corner may lie outside the image: tools that count from 0 write 0 or width + 1."""


@dataclass(frozen=True)
class VocAnnotation:
    """Boxes of one image.

    Attributes:
        width: Width of the image in pixels, as the file says.
        height: Its height.
        boxes: Boxes in the order of the file, in pixels from 0, with the names of the file.
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
    images 200 px wide. Such a box becomes x 0, width 200. A corner up to 1 px outside the image is moved onto its
    edge. `folder`, `filename`, `depth` and everything else in the file are not read: they are wrong in most sets.

    Args:
        path: The XML file.
        image_size: (width, height) of the image, which the file must state; None: not known.

    Raises:
        DataError: The file is missing, is not well-formed or has a DOCTYPE; the size of the image, a name or a corner
            is missing or no number; a box leaves the image, has swapped corners or no extent; the image has another
            size.
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
    return VocAnnotation(width, height, [_box(item, width, height, path) for item in root.iter("object")])


def _box(item: ET.Element, width: int, height: int, path: Path) -> Box:
    name = (item.findtext("name") or "").strip()
    if not name:
        raise DataError(path, "object", "has no name", "Name the class of the box")
    xmin, ymin, xmax, ymax = (_number(item, f"bndbox/{key}", path) for key in ("xmin", "ymin", "xmax", "ymax"))
    corners = f"box of {name} ({xmin:g}, {ymin:g}) to ({xmax:g}, {ymax:g})"
    if xmax <= xmin or ymax <= ymin:
        raise DataError(path, corners, "has no extent or swapped corners", "Correct or remove the box")
    if min(xmin, ymin) < 1 - TOLERANCE or xmax > width + TOLERANCE or ymax > height + TOLERANCE:
        raise DataError(path, corners, f"leaves the image of {width}x{height} px", "Correct or remove the box")
    left, top = max(xmin, 1) - 1, max(ymin, 1) - 1
    return Box(name, left, top, min(xmax, width) - left, min(ymax, height) - top)


def _number(item: ET.Element, key: str, path: Path) -> float:
    text = item.findtext(key)
    try:
        number = float(text or "")
        if not abs(number) < 1e6:  # Neither infinite nor "nan".
            raise ValueError
    except ValueError as error:
        found = "is missing" if text is None else f"is no pixel coordinate: {text.strip()!r}"
        raise DataError(path, key, found, "Correct or remove the entry") from error
    return number
