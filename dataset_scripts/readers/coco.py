"""Boxes of a whole set in one JSON file of COCO's object-detection format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from defect_hub.dataset_scripts.readers.boxes import LARGEST, Box, from_points, pixel_number
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.jsonfile import read_json

Id = int | str
MIN_BOXES = 3
"""From so many boxes on, that all are tiny is no accident."""


@dataclass(frozen=True)
class CocoCategory:
    """A category.

    Attributes:
        id: Its id; digits in text count as the integer.
        name: Its name.
        supercategory: None where the file gives none.
        extra: What else the file says.
    """

    id: Id
    name: str
    supercategory: str | None
    extra: Mapping[str, Any]


@dataclass(frozen=True)
class CocoImage:
    """An image.

    Attributes:
        id: Its id; digits in text count as the integer.
        file_name: As given, with "/" between folders.
        width: Width in pixels; None where the file gives none.
        height: Height, likewise.
        extra: What else the file says.
    """

    id: Id
    file_name: str
    width: int | None
    height: int | None
    extra: Mapping[str, Any]


@dataclass(frozen=True)
class CocoFile:
    """Content of a file.

    Attributes:
        categories: In the order of the file; none where it has no list of them.
        images: By file name, in the order of the file.
        boxes: Boxes of every image by file name, in the order of the file; empty for an image without any.
        problems: What could not be used, by file name; under "" what belongs to no known image.
    """

    categories: Sequence[CocoCategory]
    images: Mapping[str, CocoImage]
    boxes: Mapping[str, Sequence[Box]]
    problems: Mapping[str, Sequence[DataError]]


@dataclass
class _Reading:
    """A file while it is read: `names` and `files` hold names of categories and of image files by id."""

    path: Path
    names: dict[Id | None, str]
    images: dict[str, CocoImage] = field(default_factory=dict)
    files: dict[Id | None, str] = field(default_factory=dict)
    problems: dict[str, list[DataError]] = field(default_factory=dict)

    def report(self, file_name: str, place: str, problem: str, remedy: str = "Correct or remove it") -> None:
        self.problems.setdefault(file_name, []).append(DataError(self.path, place, problem, remedy))


def read_coco(path: Path) -> CocoFile:
    """Read a file of images, categories and annotations.

    The box of an annotation is its `bbox`, or without one the bounding box of the polygons of its `segmentation`. Ids
    may be numbers or text. An annotation that cannot be used is left out and reported; one that repeats the id of
    another is reported and used. In a file without categories, the id of a category is its name.

    Several entries of one image count as one, also under several ids; they are reported where they contradict each
    other. An image under the id of another is reported and left out.

    Raises:
        DataError: The file is missing or malformed, has no list of images or annotations, a category without an id of
            its own and a name, or fractions instead of pixels.
    """
    content = read_json(path, dict)
    categories = _categories(path, content)
    reading = _Reading(path, {category.id: category.name for category in categories})
    for number, item in enumerate(_items(path, content, "images"), start=1):
        _add_image(reading, number, item)
    boxes: dict[str, list[Box]] = {name: [] for name in reading.images}
    seen: set[Id | None] = set()
    for number, item in enumerate(_items(path, content, "annotations"), start=1):
        key = _id(item.get("id"))
        place = f"annotation {number} of the list" if key is None else f"annotation {key}"
        file_name = reading.files.get(_id(item.get("image_id")), "")
        try:
            if not file_name:
                raise ValueError(f"is of an unknown image ({item.get('image_id')!r:.40})")
            boxes[file_name].append(_box(item, reading.names))
        except ValueError as error:
            reading.report(file_name, place, str(error))
        if key is not None and key in seen:
            reading.report(file_name, place, "has the id of an earlier one", "Renumber the annotations")
        seen.add(key)
    _check_pixels(path, boxes)
    return CocoFile(categories, reading.images, boxes, reading.problems)


def _check_pixels(path: Path, boxes: Mapping[str, Sequence[Box]]) -> None:
    """Raise a `DataError` where no box reaches beyond the first pixel of its image."""
    sides = [max(box.x + box.width, box.y + box.height) for several in boxes.values() for box in several]
    if len(sides) >= MIN_BOXES and max(sides) <= 2:
        problem = "all boxes lie within two pixels, as fractions of the image size would"
        raise DataError(path, "bbox", problem, "Give x, y, width and height in pixels")


def _items(path: Path, content: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    items = content.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise DataError(path, key, "is no list of objects", "Check that this is a file of COCO's object detection")
    return items


def _id(value: Any) -> Id | None:
    """An id in the one form in which ids are compared; None: it is none."""
    if type(value) is int:  # `bool` is none.
        return value
    if isinstance(value, str):
        text = value.strip()
        return int(text) if text.isdecimal() and len(text) < 20 else text or None
    return int(value) if isinstance(value, float) and value.is_integer() else None


def _categories(path: Path, content: Mapping[str, Any]) -> list[CocoCategory]:
    categories: dict[Id, CocoCategory] = {}
    for number, item in enumerate(_items(path, content, "categories") if content.get("categories") else (), start=1):
        key, name, above = _id(item.get("id")), item.get("name"), item.get("supercategory")
        place = f"category {number} of the list"
        if key is None or not isinstance(name, str) or not name.strip():
            raise DataError(path, place, "has no id or no name", "Give it both")
        if key in categories:
            problem = f"has the id {key} of {categories[key].name}"
            raise DataError(path, place, problem, "Renumber the categories")
        above = above if isinstance(above, str) else None
        categories[key] = CocoCategory(key, name.strip(), above, _without(item, "id", "name", "supercategory"))
    return list(categories.values())


def _without(item: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key not in keys}


def _add_image(reading: _Reading, number: int, item: Mapping[str, Any]) -> None:
    key, name = _id(item.get("id")), item.get("file_name")
    if key is None or not isinstance(name, str) or not name.strip():
        reading.report("", f"image {number} of the list", "has no id or no file_name")
        return
    name = name.replace("\\", "/")
    place = f"image {key}"
    other = reading.files.setdefault(key, name)
    if other != name:  # Nobody can tell whose the annotations are.
        for file_name in (other, name):
            reading.report(file_name, place, f"is the id of two images, {other} and {name}", "Renumber the images")
        return
    width, height = (_side(reading, name, place, item, side) for side in ("width", "height"))
    extra = _without(item, "id", "file_name", "width", "height")
    image = reading.images.setdefault(name, CocoImage(key, name, width, height, extra))
    if (image.width, image.height, image.extra) != (width, height, extra):
        reading.report(name, place, f"contradicts an earlier entry of {name}", "Remove one of the entries")


def _side(reading: _Reading, name: str, place: str, item: Mapping[str, Any], key: str) -> int | None:
    if item.get(key) is None:
        return None
    try:
        side = pixel_number(item[key])
        if side < 1 or not side.is_integer():
            raise ValueError(f"is no number of pixels: {item[key]!r:.40}")
    except ValueError as error:
        reading.report(name, place, f"{key} {error}", "Correct it")
        return None
    return int(side)


def _box(item: Mapping[str, Any], names: Mapping[Id | None, str]) -> Box:
    """The box of an annotation.

    Raises:
        ValueError: There is none, or it has no known category; the text says which.
    """
    key = _id(item.get("category_id"))
    category = names.get(key) if names or key is None else str(key)
    if category is None:
        raise ValueError(f"is of an unknown category ({item.get('category_id')!r:.40})")
    area = item.get("area")
    area = float(area) if isinstance(area, (int, float)) and 0 < area < LARGEST**2 else None
    is_crowd = item.get("iscrowd") in (1, "1")
    given = item.get("bbox")
    if not given:
        box = from_points(category, _points(item.get("segmentation")))
        return Box(category, box.x, box.y, box.width, box.height, area, is_crowd)
    if not isinstance(given, list) or len(given) != 4:
        raise ValueError(f"has a bbox that is not four numbers: {given!r:.40}")
    x, y, width, height = map(pixel_number, given)
    return Box(category, x, y, width, height, area, is_crowd)


def _points(segmentation: Any) -> list[tuple[float, float]]:
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("has neither a bbox nor polygons")
    points: list[tuple[float, float]] = []
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"has no bbox, and a polygon that is not three or more points: {polygon!r:.40}")
        numbers = [pixel_number(value) for value in polygon]
        points += zip(numbers[::2], numbers[1::2], strict=True)
    return points
