"""From what the table says of a layout's annotation to a reader of one image's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defect_hub.dataset_scripts.readers.boxes import Box
from defect_hub.dataset_scripts.readers.class_folders import plain_name
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.images import MASK_THRESHOLD
from defect_hub.dataset_scripts.readers.labelme import read_labelme
from defect_hub.dataset_scripts.readers.masks import (
    read_category_masks,
    read_colour_mask,
    read_index_mask,
    read_masks,
)
from defect_hub.dataset_scripts.readers.mat import read_mat
from defect_hub.dataset_scripts.readers.voc import read_voc
from defect_hub.dataset_scripts.tadd.listing import Entry, Files
from defect_hub.dataset_scripts.tadd.subsets import NORMAL, Subset

Regions = dict[str, NDArray[np.bool_]]


def annotation_of(entry: Entry, files: Files, subset: Subset) -> dict[str, Any] | None:
    """The fields of `Sample` that say how the annotation of an image is read; None where it has no annotation file."""
    rule = entry.layout.regions
    if rule is None:
        return None
    if rule["kind"] == "category_masks":
        paths = {raw: path for raw, file in rule["files"].items() if (path := files.find(file, entry.values))}
        if not paths:
            return None
        where = next(iter(paths.values()))
        return {"regions": _labelled(read_category_masks, subset, where, paths=paths, above=_above(rule))}
    templates = rule["files"] if "files" in rule else [rule["file"]]
    found = [path for template in templates if (path := files.find(template, entry.values))]
    if not found:
        return None
    if rule.get("first"):
        found = found[:1]
    if rule["kind"] == "voc":
        return {"boxes": partial(_read_boxes, path=found[0], subset=subset.name, labels=subset.categories)}
    if rule["kind"] == "mask" and len(found) == 1 and _above(rule) == MASK_THRESHOLD and entry.raw_category:
        return {"mask": found[0]}
    return {"regions": _reader(rule, found, entry, subset)}


def _above(rule: Mapping[str, Any]) -> int:
    return int(rule.get("above", MASK_THRESHOLD))


def _reader(rule: Mapping[str, Any], found: Sequence[Path], entry: Entry, subset: Subset) -> partial[Regions]:
    kind, path = rule["kind"], found[0]
    if kind == "mask":
        category = entry.raw_category or ""
        return _labelled(read_masks, subset, path, paths=found, category=category, above=_above(rule))
    if kind == "index_mask":
        values = {int(value): str(raw) for value, raw in rule["values"].items()}
        interpolated = rule.get("interpolated", False)
        return _labelled(read_index_mask, subset, path, path=path, values=values, interpolated=interpolated)
    if kind == "colour_mask":
        colours = {tuple(map(int, str(rgb).split(","))): raw for rgb, raw in rule["colours"].items()}
        return _labelled(read_colour_mask, subset, path, path=path, colours=colours)
    if kind == "mat":
        names = ("variable", "background", "category")
        return _labelled(read_mat, subset, path, path=path, **{name: rule[name] for name in names})
    if kind == "labelme":
        return _labelled(read_labelme, subset, path, path=path)
    raise ValueError(f"{subset.name}: unknown kind of regions {kind!r} in the table")


def _labelled(read: Callable[..., Regions], subset: Subset, where: Path, **rules: Any) -> partial[Regions]:
    """A region reader with these rules whose categories are labels; `where` is the file that errors name."""
    reader = partial(read, **rules)
    return partial(_with_labels, reader=reader, where=where, subset=subset.name, labels=subset.categories)


def _with_labels(
    image_size: tuple[int, int],
    *,
    reader: Callable[[tuple[int, int]], Regions],
    where: Path,
    subset: str,
    labels: Mapping[str, str],
) -> Regions:
    """Regions by label; raw categories of one label are united, and those that are no defect left out."""
    regions: Regions = {}
    for raw, defect in reader(image_size).items():
        label = label_of(raw, subset, labels, where)
        if label != NORMAL:
            regions[label] = regions[label] | defect if label in regions else defect
    return regions


def label_of(raw: str, subset: str, labels: Mapping[str, str], where: Path) -> str:
    """Label of a raw category.

    Raises:
        DataError: The subset has no such category.
    """
    label = labels.get(plain_name(raw))
    if label is None:
        known = ", ".join(dict.fromkeys(labels.values()))
        problem = f"{raw!r} is no category of {subset}"
        raise DataError(where, "category", problem, f"Use one of {known}, or leave the image out")
    return label


def _read_boxes(image_size: tuple[int, int], *, path: Path, subset: str, labels: Mapping[str, str]) -> list[Box]:
    """Boxes of a VOC file with labels as categories."""
    annotation = read_voc(path, image_size)
    named = [(label_of(box.category, subset, labels, path), box) for box in annotation.boxes]
    return [Box(label, box.x, box.y, box.width, box.height) for label, box in named]
