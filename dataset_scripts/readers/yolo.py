"""Boxes in YOLO's text files: one file an image, one object a line, in fractions of the image size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from defect_hub.dataset_scripts.readers.box_rows import read_numbers, split_lines
from defect_hub.dataset_scripts.readers.boxes import Box, from_points, from_yolo, pixel_number
from defect_hub.dataset_scripts.readers.errors import DataError

LARGEST_FRACTION = 2.0
"""Boxes may leave the image a little; what is larger is a pixel, or a number with a decimal comma."""


def read_yolo(path: Path, names: Sequence[str], image_size: tuple[int, int]) -> list[Box]:
    """Read the objects of one image.

    A line is a class id with centre x, centre y, width and height, or with at least three points of a polygon, whose
    bounding box counts. Ids may be written as "3.0".

    Args:
        path: The text file; an empty one is an image without objects.
        names: Name of each class id.
        image_size: (width, height) of the image in pixels.

    Returns:
        Boxes in pixels, in the order of the file.

    Raises:
        DataError: The file is missing or no text; a line has another number of fields, a class id without a name, or a
            coordinate that is no number or no fraction of the image size.
    """
    boxes = []
    for line, fields in split_lines(path):
        place = f"line {line}"
        category = _category(fields[0], names, path, place)
        numbers = read_numbers(fields[1:], path, place)
        if max(map(abs, numbers), default=0) > LARGEST_FRACTION:
            problem = f"holds {max(numbers, key=abs):g}, which is no fraction of the image size"
            raise DataError(path, place, problem, "Divide by width and height, and write decimal points")
        if len(numbers) == 4:
            cx, cy, width, height = numbers
            boxes.append(from_yolo(category, cx, cy, width, height, image_size))
        elif len(numbers) >= 6 and len(numbers) % 2 == 0:
            xs = [x * image_size[0] for x in numbers[::2]]
            ys = [y * image_size[1] for y in numbers[1::2]]
            boxes.append(from_points(category, zip(xs, ys, strict=True)))
        else:
            problem = (
                f"has {len(numbers)} numbers after the class id, neither a box (4) nor 3 or more points (6, 8, ...)"
            )
            raise DataError(path, place, problem, "Correct or remove the line")
    return boxes


def _category(field: str, names: Sequence[str], path: Path, place: str) -> str:
    try:
        number = pixel_number(field)
        if not number.is_integer():
            raise ValueError
    except ValueError as error:
        raise DataError(path, place, f"class id {field!r:.40} is no integer", "Correct or remove the line") from error
    if not 0 <= number < len(names):
        problem = f"class id {field!r:.40} has no name: there are names for 0 to {len(names) - 1}"
        raise DataError(path, place, problem, "Correct the line or complete the list of names")
    return names[int(number)]
