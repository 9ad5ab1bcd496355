"""The release layout of MMIO-80K: folders of images, and their boxes in YOLO files, COCO files or both."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from defect_hub.dataset_scripts.annotations import UNKNOWN
from defect_hub.dataset_scripts.mmio.categories import Category
from defect_hub.dataset_scripts.mmio.cross_check import compare_boxes
from defect_hub.dataset_scripts.readers.boxes import Box, BoxList
from defect_hub.dataset_scripts.readers.coco import CocoCategory, CocoFile, CocoImage, read_coco
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.folders import IMAGE_SUFFIXES, walk_files
from defect_hub.dataset_scripts.readers.images import read_bytes
from defect_hub.dataset_scripts.readers.yolo import read_yolo
from defect_hub.dataset_scripts.samples import Sample, Source
from defect_hub.dataset_scripts.source_sets.table import NORMAL, SPLIT_NAMES

NAME = "MMIO-80K"
LICENSE = "MMIO release agreement (signed, not redistributable)"
OBJECT_NAME = "industrial product"
SPLIT_ID = "mmio-official"
CLASS_LIST = "classes.txt"
LISTED = 3

Key = tuple[str, str]
"""Split and path below its folder, which for a YOLO file has no suffix."""


@dataclass(frozen=True)
class Release:
    """What a release holds.

    Attributes:
        samples: In the order of the image files.
        categories: In the order of the class ids.
        problems: What a build refuses, or leaves out on request.
        notes: What else is remarkable.
        box_counts: Boxes of each category over the images of all samples, before any repair.
    """

    samples: Sequence[Sample]
    categories: Sequence[Category]
    problems: Sequence[DataError]
    notes: Sequence[str]
    box_counts: Mapping[str, int]


@dataclass(frozen=True)
class Entry:
    """What a COCO file says of an image."""

    file: Path
    image: CocoImage
    boxes: Sequence[Box]


@dataclass(frozen=True)
class Item:
    """An image and its annotations.

    Attributes:
        key: Where it is.
        image: Its file.
        place: Its path below the release's folder.
        entry: Of a COCO file; None: it has none.
        txt: Its YOLO file; None: it has none.
        names: Name of each class id of the YOLO file.
        both: Whether images of its split have both.
    """

    key: Key
    image: Path
    place: str
    entry: Entry | None
    txt: Path | None
    names: Sequence[str]
    both: bool


@dataclass
class _Files:
    """What lies in the folders of a release, sorted by path."""

    root: Path
    images: dict[Key, Path] = field(default_factory=dict)
    labels: dict[Key, Path] = field(default_factory=dict)
    coco: list[Path] = field(default_factory=list)
    class_lists: list[Path] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def read_mmio_release(raw: Path, known: Mapping[str, Category] | None = None) -> Release:
    """Find the samples of a release; no image is opened.

    The layout is `Images/{train,validation,test}/`, `labels/{train,validation,test}/` with a YOLO file for each image,
    and `annotations/*.json` in COCO format, each for one split or several. Where both annotate an image the COCO file
    counts, and its boxes are compared with those of the YOLO file when the image is read. An image whose annotation
    lists no box is normal; one without annotation is just not annotated. Further keys of COCO images, as the export of
    a build writes them, fill the sample.

    Args:
        raw: Folder that holds `Images`, and `labels` or `annotations`.
        known: Categories by name, for what the files do not say of theirs.

    Raises:
        DataError: There are no images, no annotations or no names of classes; a COCO file is malformed.
    """
    problems: list[DataError] = []
    files = _find_files(raw, problems)
    coco = {path: read_coco(path) for path in files.coco}
    yolo_names, names = _class_names(files, coco, problems)
    categories = _categories(names, coco, known or {})
    notes = _listed("files are not read", files.others)
    entries, bad = _entries(coco, files, problems, notes)
    _check_labels(files, problems)
    splits = {"COCO": {split for split, _ in entries}, "YOLO": {split for split, _ in files.labels}}
    samples: list[Sample] = []
    counts: Counter[str] = Counter()
    for key, image in files.images.items():
        if key in bad:
            continue
        both = all(key[0] in having for having in splits.values())
        place = image.relative_to(raw).as_posix()
        item = Item(key, image, place, entries.get(key), files.labels.get(_stem(key)), yolo_names, both)
        try:
            found = _categories_in(item)
            samples.append(_sample(item, found, categories))
        except DataError as error:
            problems.append(error)
        else:
            counts.update(found)
    for form, having in splits.items():
        lacking = sorted({split for split, _ in files.images} - having) if having else ()
        notes += [f"{split}: has no {form} annotation, others have" for split in lacking]
    bare = [key for key in files.images if key not in entries and _stem(key) not in files.labels]
    notes += _listed("images have no annotation", [files.images[key].relative_to(raw).as_posix() for key in bare])
    return Release(samples, list(categories.values()), problems, notes, counts)


def read_boxes(item: Item, image_size: tuple[int, int]) -> BoxList:
    """The boxes of an image that has an annotation, and how its two annotations differ.

    Args:
        item: The image and its annotations.
        image_size: (width, height) of the image in pixels.

    Raises:
        DataError: The YOLO file is malformed, or the COCO file says another size of the image.
    """
    entry = item.entry
    if entry is not None:
        _check_size(entry, image_size)
    yolo = None if item.txt is None else read_yolo(item.txt, item.names, image_size)
    if entry is None:
        return BoxList(yolo or [], ["boxes: no entry in COCO"] if item.both else [])
    if yolo is None:
        # YOLO needs no file for an image without boxes.
        return BoxList(entry.boxes, ["boxes: no file in YOLO"] if item.both and entry.boxes else [])
    return BoxList(entry.boxes, compare_boxes(entry.boxes, yolo, image_size))


def _check_size(entry: Entry, image_size: tuple[int, int]) -> None:
    width, height = (
        given or own for given, own in zip((entry.image.width, entry.image.height), image_size, strict=True)
    )
    if (width, height) != image_size:
        problem = f"is {width}x{height} px where the file has {image_size[0]}x{image_size[1]} px"
        remedy = "Supply the image that was annotated, or correct the entry"
        raise DataError(entry.file, f"size of {entry.image.file_name}", problem, remedy)


def _find_files(raw: Path, problems: list[DataError]) -> _Files:
    if not raw.is_dir():
        raise DataError(raw, "folder", "does not exist", "Check the path of the raw data")
    files = _Files(raw)
    for child in sorted(raw.iterdir()):
        if child.is_file() and child.name.casefold() == CLASS_LIST:
            files.class_lists.append(child)
        elif child.is_dir() and child.name.casefold() in ("images", "labels", "annotations"):
            for path in walk_files(child):
                _add_file(files, child, path, problems)
    if not files.images:
        remedy = "Name the folder that holds Images, labels and annotations"
        raise DataError(raw, "Images", "holds no image below train, validation or test", remedy)
    if not files.labels and not files.coco:
        raise DataError(raw, "annotations", "there is neither a YOLO nor a COCO file", "Supply labels or annotations")
    return files


def _add_file(files: _Files, folder: Path, path: Path, problems: list[DataError]) -> None:
    place = path.relative_to(folder)
    first, *rest = place.parts
    split = SPLIT_NAMES.get(first.casefold()) if rest else None
    kind, suffix = folder.name.casefold(), path.suffix.lower()
    if kind == "images" and suffix in IMAGE_SUFFIXES:
        if split is None:
            remedy = "Move it to train, validation or test"
            problems.append(DataError(path, "split", "lies in the folder of no split", remedy))
        else:
            _put(files.images, (split, "/".join(rest)), path, problems)
    elif kind == "labels" and path.name.casefold() == CLASS_LIST:
        files.class_lists.append(path)
    elif kind == "labels" and suffix == ".txt":
        # Without a split it belongs to no image, which is said later.
        _put(files.labels, _stem((split, "/".join(rest)) if split else ("", place.as_posix())), path, problems)
    elif kind == "annotations" and suffix == ".json":
        files.coco.append(path)
    else:
        files.others.append(path.relative_to(files.root).as_posix())


def _put(found: dict[Key, Path], key: Key, path: Path, problems: list[DataError]) -> None:
    """Add a file; two folders may be the same split, as `val` and `validation`."""
    if found.setdefault(key, path) != path:
        problems.append(DataError(path, "split", f"stands for the same as {found[key]}", "Remove one of them"))


def _stem(key: Key) -> Key:
    split, place = key
    return split, place[: place.rindex(".")]


def _class_names(
    files: _Files, coco: Mapping[Path, CocoFile], problems: list[DataError]
) -> tuple[tuple[str, ...], list[str]]:
    """The name of each class id of YOLO files, and all names; lists of names that differ are a problem."""
    given = {path: _read_class_list(path) for path in files.class_lists}
    for path, file in coco.items():
        if file.categories:
            given[path] = [category.name for category in sorted(file.categories, key=_order)]
        elif any(file.boxes.values()):
            raise DataError(path, "categories", "has no list of them", "Supply it with the id and name of each")
    for path, listed in given.items():
        for name, count in Counter(listed).items():
            if count > 1 or name in (NORMAL, UNKNOWN):
                problem = "occurs twice" if count > 1 else "stands for images without a category"
                raise DataError(path, f"class {name!r}", problem, "Rename the class")
    if not given:
        problem = "is missing, and there is no COCO file that names the classes of the YOLO files"
        remedy = "Supply one name a line in the order of class ids"
        raise DataError(files.root / CLASS_LIST, "classes", problem, remedy)
    (first, names), *others = given.items()
    for path, other in others:
        for number, (expected, found) in enumerate(zip_longest(names, other)):
            if expected != found:
                shown = ["nothing" if name is None else repr(name) for name in (found, expected)]
                problem = f"is {shown[0]} where {first.relative_to(files.root)} has {shown[1]}"
                problems.append(DataError(path, f"class {number}", problem, "Make names and order equal"))
                break
    return tuple(names), list(dict.fromkeys(chain(*given.values())))


def _order(category: CocoCategory) -> tuple[bool, int | str]:
    """Ids in order, numbers before text."""
    return isinstance(category.id, str), category.id


def _read_class_list(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in read_bytes(path, "classes").decode("utf-8-sig").rstrip().splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(path, "classes", f"malformed ({error})", "Supply it as UTF-8 text") from error
    if not lines or "" in lines:
        place = f"line {lines.index('') + 1}" if lines else "classes"
        raise DataError(path, place, "has no name", "Give one name a line in the order of class ids")
    return lines


def _categories(
    names: Iterable[str], coco: Mapping[Path, CocoFile], known: Mapping[str, Category]
) -> dict[str, Category]:
    """Each category as its COCO file describes it, else as it is known."""
    own: dict[str, tuple[Path, CocoCategory]] = {}
    for path, file in coco.items():
        for category in file.categories:
            own.setdefault(category.name, (path, category))
    found = {}
    for name in names:
        table = known.get(name, Category(name))
        texts: dict[str, str | None] = {}
        if name in own:
            path, category = own[name]
            texts = {key: _text(path, f"category {name!r}", category.extra, key) for key in ("scene", "prompt")}
            texts["super_category"] = category.supercategory
        keys = ("super_category", "scene", "prompt")
        found[name] = Category(name, *(texts.get(key) or getattr(table, key) for key in keys))
    return found


def _text(path: Path, where: str, extra: Mapping[str, Any], key: str) -> str | None:
    value = extra.get(key)
    if value is not None and not isinstance(value, str):
        raise DataError(path, where, f"{key} is no text: {value!r:.40}", "Give a text or remove the key")
    return value


def _entries(
    coco: Mapping[Path, CocoFile], files: _Files, problems: list[DataError], notes: list[str]
) -> tuple[dict[Key, Entry], set[Key]]:
    """The entries of COCO files by image, and the images whose entries have problems."""
    by_name: dict[str, list[Key]] = defaultdict(list)
    for key in files.images:
        by_name[key[1].rpartition("/")[2]].append(key)
    entries: dict[Key, Entry] = {}
    bad: set[Key] = set()
    for path, file in coco.items():
        split = _split_of(path)
        repeated = 0
        for name, image in file.images.items():
            found = _matches(name, split, files.images, by_name)
            if len(found) != 1:
                problem = "can be any of " + ", ".join(map("/".join, found)) if found else "has an entry but no image"
                remedy = "Give its path below Images" if found else "Supply the image or remove the entry"
                problems.append(DataError(path, name, problem, remedy))
                continue
            entry = Entry(path, image, tuple(file.boxes.get(name, ())))
            earlier = entries.setdefault(found[0], entry)
            if earlier is entry:
                continue
            repeated += 1
            if (earlier.boxes, earlier.image.width, earlier.image.height) != (entry.boxes, image.width, image.height):
                problem = f"contradicts the entry in {earlier.file.name}"
                problems.append(DataError(path, name, problem, "Remove one of the entries"))
                bad.add(found[0])
        if repeated:
            notes.append(f"{path.relative_to(files.root)}: {repeated:,} images have an earlier entry")
        for name, errors in file.problems.items():
            problems += errors
            if name:  # Else it belongs to no image.
                bad.update(_matches(name, split, files.images, by_name))
    return entries, bad


def _split_of(path: Path) -> str | None:
    """The one split that a file's name tells, as `instances_val2017.json` does."""
    words = re.findall(r"[a-z]+", path.stem.casefold())
    named = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return named.pop() if len(named) == 1 else None


def _matches(
    name: str, split: str | None, images: Mapping[Key, Path], by_name: Mapping[str, Sequence[Key]]
) -> list[Key]:
    """The images that a COCO file may mean: by path below the split or below `Images`, or by a bare unique name.

    Args:
        name: `file_name`.
        split: Split of the COCO file; None: any.
        images: All images.
        by_name: Their keys by file name.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    folders = [part.casefold() for part in parts[:-1]]
    if "images" in folders:
        parts = parts[len(folders) - folders[::-1].index("images") :]
    path = "/".join(parts)
    splits = [split] if split else list(dict.fromkeys(SPLIT_NAMES.values()))
    found = [(one, path) for one in splits if (one, path) in images]
    if not found and len(parts) > 1 and (named := SPLIT_NAMES.get(parts[0].casefold())):
        found = [key for key in [(named, "/".join(parts[1:]))] if key in images]
    if not found and len(parts) == 1:
        found = [key for key in by_name.get(path, ()) if key[0] in splits]
    return found


def _check_labels(files: _Files, problems: list[DataError]) -> None:
    stems = {_stem(key) for key in files.images}
    for key, path in files.labels.items():
        if key not in stems:
            problem = "has no image of the same path below Images"
            problems.append(DataError(path, "labels", problem, "Supply the image or remove the file"))


def _categories_in(item: Item) -> Counter[str]:
    """Boxes of each category; bad lines of a YOLO file are left out here and reported when the image is read."""
    if item.entry is not None:
        return Counter(box.category for box in item.entry.boxes)
    if item.txt is None:
        return Counter()
    words = (line.split(maxsplit=1)[:1] for line in read_bytes(item.txt, "labels").splitlines())
    numbers = (int(word[0]) for word in words if word and word[0].isdigit())
    return Counter(item.names[number] for number in numbers if number < len(item.names))


def _largest(item: Item, found: Counter[str]) -> str:
    """The category of the largest area, as it becomes the class of the image; by YOLO files the most frequent one."""
    weights: Mapping[str, float] = found
    if item.entry is not None:
        weights = dict.fromkeys(found, 0.0)
        for box in item.entry.boxes:
            weights[box.category] += abs(box.width * box.height) if box.area is None else box.area
    return max(weights, key=weights.__getitem__, default="")


def _sample(item: Item, found: Counter[str], categories: Mapping[str, Category]) -> Sample:
    """The sample of an image.

    Args:
        item: The image and its annotations.
        found: Its boxes of each category.
        categories: All categories by name.

    Raises:
        DataError: A further key of the image in the COCO file has a bad value or contradicts the YOLO file.
    """
    extra = {} if item.entry is None else item.entry.image.extra
    path, name = (item.image, "") if item.entry is None else (item.entry.file, item.entry.image.file_name)
    text, flag = partial(_text, path, name, extra), partial(_flag, path, name, extra)
    label = text("label") or None
    if label not in {None, NORMAL, UNKNOWN, *categories}:
        raise DataError(path, name, f"label {label!r} is no category", f"Name a category, {NORMAL} or {UNKNOWN}")
    image_level = extra.get("annotation") == "none" and not found
    if image_level and item.txt is not None and read_bytes(item.txt, "labels").strip():
        problem = f"has boxes where {path.name} says that nobody placed any"
        raise DataError(item.txt, "labels", problem, "Correct one of them")
    annotated = not image_level and (item.entry is not None or item.txt is not None)
    category = categories.get(label or "") or categories.get(_largest(item, found), Category(""))
    return Sample(
        image_id=text("image_id") or "/".join(_stem(item.key)),
        image=item.image,
        mask=None,
        class_name=label,
        source=_source(
            text("source") or NAME,
            text("object_name") or OBJECT_NAME,
            text("super_category") or category.super_category or UNKNOWN,
            text("scene") or category.scene,
            text("license_name") or LICENSE,
            flag("redistributable") or False,
        ),
        is_defective=flag("is_defective"),
        boxes=partial(read_boxes, item) if annotated else None,
        empty_class=NORMAL if annotated else None,
        source_file=text("source_file") or item.place,
        official_split=text("official_split") if "official_split" in extra else item.key[0],
    )


def _flag(path: Path, where: str, extra: Mapping[str, Any], key: str) -> bool | None:
    value = extra.get(key)
    if value is not None and not isinstance(value, bool):
        raise DataError(path, where, f"{key} is neither true nor false: {value!r:.40}", "Correct or remove the key")
    return value


@cache
def _source(
    name: str, object_name: str, super_category: str, scene: str | None, license_name: str, redistributable: bool
) -> Source:
    return Source(
        name=name,
        object_name=object_name,
        super_category=super_category,
        license=license_name,
        redistributable=redistributable,
        split_id=SPLIT_ID,
        text_source="composed",
        scene=scene,
    )


def _listed(what: str, paths: Sequence[str]) -> list[str]:
    """A line with the number of some paths and the first ones; none where there are none."""
    more = ", ..." if len(paths) > LISTED else ""
    return [f"{len(paths):,} {what}: {', '.join(paths[:LISTED])}{more}"] if paths else []
