"""From what the table says of a layout's annotation to a reader of one image's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from defect_hub.dataset_scripts.annotations import NORMAL
from defect_hub.dataset_scripts.readers.box_rows import read_box_rows
from defect_hub.dataset_scripts.readers.box_tables import read_box_table
from defect_hub.dataset_scripts.readers.boxes import Box, BoxList
from defect_hub.dataset_scripts.readers.class_folders import plain_name
from defect_hub.dataset_scripts.readers.coco import CocoFile, read_coco
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.images import MASK_THRESHOLD
from defect_hub.dataset_scripts.readers.labelme import read_labelme, read_labelme_boxes
from defect_hub.dataset_scripts.readers.masks import (
    read_category_masks,
    read_colour_mask,
    read_index_mask,
    read_masks,
)
from defect_hub.dataset_scripts.readers.mat import read_mat
from defect_hub.dataset_scripts.readers.voc import read_voc
from defect_hub.dataset_scripts.readers.yolo import read_yolo
from defect_hub.dataset_scripts.source_sets.listing import Entry, Files, Listing, annotation_files
from defect_hub.dataset_scripts.source_sets.table import SourceSet

Regions = dict[str, NDArray[np.bool_]]
Rule = Mapping[str, Any]
Size = tuple[int, int]
T = TypeVar("T")
CACHED_FILES = 4
"""Images of one list come one after the other."""
BOX_FILES = ("voc", "rows", "yolo", "labelme_boxes")
"""Kinds of annotation with a file of boxes for each image."""
BOX_LISTS = ("numbered_rows", "coco", "box_table")
"""Kinds with one file of boxes for many images."""


def annotation_of(entry: Entry, files: Files, source_set: SourceSet) -> dict[str, Any] | None:
    """The fields of `Sample` that say how the annotation of an image is read; None where it has none.

    Raises:
        DataError: A file that lists the boxes of many images is unusable, or what it says of this one.
    """
    rule = entry.layout.regions
    if rule is None:
        return None
    if rule["kind"] == "category_masks":
        paths = {raw: path for raw, file in rule["files"].items() if (path := files.find(file, entry.values))}
        if not paths:
            return None
        where = next(iter(paths.values()))
        return {"regions": _labelled(read_category_masks, source_set, where, paths=paths, above=_above(rule))}
    templates = rule["files"] if "files" in rule else [rule["file"]]
    found = [path for template in templates if (path := files.find(template, entry.values))]
    if not found:
        return None
    if rule["kind"] in BOX_LISTS:
        return _listed_boxes(entry, rule, found, source_set)
    if rule.get("first"):
        found = found[:1]
    if rule["kind"] in BOX_FILES:
        name, labels = source_set.name, source_set.categories
        return {"boxes": partial(_read_boxes, rule=rule, path=found[0], set_name=name, labels=labels)}
    if rule["kind"] == "mask" and len(found) == 1 and _above(rule) == MASK_THRESHOLD and entry.raw_category:
        return {"mask": found[0]}
    return {"regions": _reader(rule, found, entry, source_set)}


def _above(rule: Rule) -> int:
    return int(rule.get("above", MASK_THRESHOLD))


def _reader(rule: Rule, found: Sequence[Path], entry: Entry, source_set: SourceSet) -> partial[Regions]:
    kind, path = rule["kind"], found[0]
    if kind == "mask":
        category = entry.raw_category or ""
        return _labelled(read_masks, source_set, path, paths=found, category=category, above=_above(rule))
    if kind == "index_mask":
        values = {int(value): str(raw) for value, raw in rule["values"].items()}
        interpolated = rule.get("interpolated", False)
        return _labelled(read_index_mask, source_set, path, path=path, values=values, interpolated=interpolated)
    if kind == "colour_mask":
        colours = {tuple(map(int, str(rgb).split(","))): raw for rgb, raw in rule["colours"].items()}
        return _labelled(read_colour_mask, source_set, path, path=path, colours=colours)
    if kind == "mat":
        names = ("variable", "background", "category")
        return _labelled(read_mat, source_set, path, path=path, **{name: rule[name] for name in names})
    if kind == "labelme":
        return _labelled(read_labelme, source_set, path, path=path)
    raise ValueError(f"{source_set.name}: unknown kind of regions {kind!r} in the table")


def _labelled(read: Callable[..., Regions], source_set: SourceSet, where: Path, **rules: Any) -> partial[Regions]:
    """A region reader with these rules whose categories are labels; `where` is the file that errors name."""
    reader = partial(read, **rules)
    return partial(_with_labels, reader=reader, where=where, set_name=source_set.name, labels=source_set.categories)


def _with_labels(
    image_size: Size,
    *,
    reader: Callable[[Size], Regions],
    where: Path,
    set_name: str,
    labels: Mapping[str, str],
) -> Regions:
    """Regions by label; raw categories of one label are united, and those that are no defect left out."""
    regions: Regions = {}
    for raw, defect in reader(image_size).items():
        label = label_of(raw, set_name, labels, where)
        if label != NORMAL:
            regions[label] = regions[label] | defect if label in regions else defect
    return regions


def label_of(raw: str, set_name: str, labels: Mapping[str, str], where: Path) -> str:
    """Label of a raw category.

    Raises:
        DataError: The set has no such category.
    """
    label = labels.get(plain_name(raw))
    if label is None:
        known = ", ".join(dict.fromkeys(labels.values()))
        problem = f"{raw!r} is no category of {set_name}"
        raise DataError(where, "category", problem, f"Use one of {known}, or leave the image out")
    return label


def _read_boxes(image_size: Size, *, rule: Rule, path: Path, set_name: str, labels: Mapping[str, str]) -> BoxList:
    """Boxes of the file of an image, with labels as categories."""
    boxes: Iterable[Box]
    if rule["kind"] == "voc":
        boxes = read_voc(path, image_size).boxes
    elif rule["kind"] == "yolo":
        boxes = read_yolo(path, rule["names"], image_size)
    elif rule["kind"] == "labelme_boxes":
        boxes = read_labelme_boxes(path, image_size)
    else:
        rows = read_box_rows(path, rule["columns"], image_size if rule.get("relative") else (1, 1))
        boxes = [replace(row.box, category=row.category or rule["category"]) for row in rows]
    return BoxList(_labelled_boxes(boxes, set_name, labels, path))


def _labelled_boxes(boxes: Iterable[Box], set_name: str, labels: Mapping[str, str], where: Path) -> list[Box]:
    """Boxes with labels as categories, without those that are no defect."""
    named = [replace(box, category=label_of(box.category, set_name, labels, where)) for box in boxes]
    return [box for box in named if box.category != NORMAL]


def _listed_boxes(entry: Entry, rule: Rule, found: Sequence[Path], source_set: SourceSet) -> dict[str, Any] | None:
    """The boxes of an image in files that list those of many; None where none of them names it."""
    for path in found:
        boxes = _boxes_in(path, entry, rule)
        if boxes is not None:
            return {"boxes": _labelled_boxes(boxes, source_set.name, source_set.categories, path)}
    return None


def lost_boxes(listing: Listing) -> list[DataError]:
    """Boxes in the COCO files of a set that belong to no image the file knows."""
    files = {
        path
        for entry in listing.entries
        if entry.layout.regions is not None and entry.layout.regions["kind"] == "coco"
        for template in annotation_files(entry.layout)
        if (path := listing.files.find(template, entry.values))
    }
    lost: list[DataError] = []
    for path in sorted(files):
        try:
            lost += _coco_file(path).problems.get("", ())
        except DataError:  # Every image said so.
            continue
    return lost


def _boxes_in(path: Path, entry: Entry, rule: Rule) -> Sequence[Box] | None:
    if rule["kind"] == "numbered_rows":
        number = int(rule["number"].format_map(entry.values))
        return _numbered_rows(path, tuple(rule["columns"]), rule["category"]).get(number)
    names = (entry.path, Path(entry.path).name)
    if rule["kind"] == "box_table":
        table = _box_table(path, rule["image"], rule["bbox"], rule["category"])
        return next((table[name] for name in names if name in table), None)
    content = _coco_file(path)
    for name in names:
        if problems := content.problems.get(name):
            raise problems[0]
        if name in content.images:
            return content.boxes.get(name, ())
    return None


def _read_once(read: Callable[..., T]) -> Callable[..., T]:
    """`read` that reads a file, also an unusable one, again only when it has changed: thousands of images need it."""

    @lru_cache(maxsize=CACHED_FILES)
    def outcome(path: Path, state: tuple[int, int], *rule: str | tuple[str, ...]) -> T | DataError:
        try:
            return read(path, *rule)
        except DataError as error:
            return error

    def answer(path: Path, *rule: str | tuple[str, ...]) -> T:
        about = path.stat()
        found = outcome(path, (about.st_mtime_ns, about.st_size), *rule)
        if isinstance(found, DataError):
            raise found.with_traceback(None)
        return found

    return answer


@_read_once
def _numbered_rows(path: Path, columns: tuple[str, ...], category: str) -> dict[int, list[Box]]:
    """Boxes by the number of their image."""
    found: dict[int, list[Box]] = {}
    for row in read_box_rows(path, columns):
        if row.image is None or not row.image.isdecimal():
            remedy = "Correct or remove the line"
            raise DataError(path, "boxes", f"{row.image!r} is no number of an image", remedy)
        found.setdefault(int(row.image), []).append(replace(row.box, category=category))
    return found


@_read_once
def _box_table(path: Path, image: str, bbox: str, category: str) -> dict[str, list[Box]]:
    return read_box_table(path, image=image, bbox=bbox, category=category)


@_read_once
def _coco_file(path: Path) -> CocoFile:
    return read_coco(path)
