"""The release layout of MMIO-80K: folders of images, and their boxes in YOLO files, COCO files or both."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import TypeVar

from defect_hub.dataset_scripts.annotations import NORMAL, UNKNOWN
from defect_hub.dataset_scripts.mmio.categories import Category
from defect_hub.dataset_scripts.mmio.cross_check import compare_boxes
from defect_hub.dataset_scripts.mmio.data import SPLIT_ID
from defect_hub.dataset_scripts.readers.boxes import Box, BoxList
from defect_hub.dataset_scripts.readers.coco import CocoCategory, CocoFile, CocoImage, read_coco
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.folders import IMAGE_SUFFIXES, walk_files
from defect_hub.dataset_scripts.readers.images import check_size, read_bytes
from defect_hub.dataset_scripts.readers.yolo import read_yolo
from defect_hub.dataset_scripts.samples import Sample, Source
from defect_hub.dataset_scripts.source_sets.table import SPLIT_NAMES

OBJECT_NAME = "industrial product"
CLASS_LIST = "classes.txt"
LISTED = 3
VALUES = {str: "a text", bool: "true or false"}

_source = cache(partial(Source, split_id=SPLIT_ID, text_source="composed"))
"""One object for all images that share what it says."""
Value = TypeVar("Value", str, bool)
Key = tuple[str, str]
"""Split and path below its folder, which for a YOLO file has no suffix."""


@dataclass(frozen=True)
class Origin:
    """Whose images a release holds, where its files do not say it of each.

    Attributes:
        name: Of the data set.
        license: What its owner allows; None: not stated.
        redistributable: Whether the images may be passed on.
    """

    name: str
    license: str | None = None
    redistributable: bool = False


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


def read_mmio_release(raw: Path, known: Mapping[str, Category] | None = None, origin: Origin | None = None) -> Release:
    """Find the samples of a release; no image is opened.

    The layout is `Images/{train,validation,test}/`, `labels/{train,validation,test}/` with a YOLO file for each image,
    and `annotations/*.json` in COCO format, each for one split or several. Where both annotate an image the COCO file
    counts, and its boxes are compared with those of the YOLO file when the image is read. An image whose annotation
    lists no box is normal; one without annotation is just not annotated. Further keys of COCO images, as the export of
    a build writes them, fill the sample.

    Args:
        raw: Folder that holds `Images`, and `labels` or `annotations`.
        known: Categories by name, for what the files do not say of theirs.
        origin: Whose images they are; None: named like the folder, of a licence that is not stated.

    Raises:
        DataError: There are no images, no annotations or no names of classes; a COCO file is malformed.
    """
    problems: list[DataError] = []
    origin = origin or Origin(raw.resolve().name)
    files = _find_files(raw, problems)
    coco = {path: read_coco(path) for path in files.coco}
    yolo_names, names = _class_names(files, coco, problems)
    categories = _categories(names, coco, known or {})
    notes = _listed("files are not read", files.others)
    entries, bad = _entries(coco, files, problems, notes)
    _check_labels(files, problems)
    annotated = {"COCO": {split for split, _ in entries}, "YOLO": {split for split, _ in files.labels}}
    samples: list[Sample] = []
    counts: Counter[str] = Counter()
    for key, image in files.images.items():
        if key in bad:
            continue
        both = all(key[0] in splits for splits in annotated.values())
        place = image.relative_to(raw).as_posix()
        item = Item(key, image, place, entries.get(key), files.labels.get(_stem(key)), yolo_names, both)
        try:
            boxes = _given_boxes(item)
            samples.append(_sample(item, boxes, categories, origin))
        except DataError as error:
            problems.append(error)
        else:
            counts.update(box.category for box in boxes)
    for form, splits in annotated.items():
        lacking = sorted({split for split, _ in files.images} - splits) if splits else ()
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
        size = entry.image.width or image_size[0], entry.image.height or image_size[1]
        check_size(size, image_size, entry.file, f"entry of {entry.image.file_name}")
    yolo = None if item.txt is None else read_yolo(item.txt, item.names, image_size)
    if entry is None:
        return BoxList(yolo or [], ["boxes: no entry in COCO"] if item.both else None)
    if yolo is None:
        # YOLO needs no file for an image without boxes.
        missing = ["boxes: no file in YOLO"] if entry.boxes else []
        return BoxList(entry.boxes, missing if item.both else None)
    return BoxList(entry.boxes, compare_boxes(entry.boxes, yolo, image_size))


def _given_boxes(item: Item) -> Sequence[Box]:
    """The boxes of an image before it is read: those of a YOLO file are in fractions of the image."""
    if item.entry is not None:
        return item.entry.boxes
    return [] if item.txt is None else read_yolo(item.txt, item.names, (1, 1))


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
    own: dict[str, Category] = {}
    for path, file in coco.items():
        for item in file.categories:
            text = partial(_value, path, f"category {item.name!r}", item.extra, str)
            own.setdefault(item.name, Category(item.name, item.supercategory, text("scene"), text("prompt")))
    found = {}
    for name in names:
        given, table = (categories.get(name, Category(name)) for categories in (own, known))
        found[name] = Category(
            name,
            given.super_category or table.super_category,
            given.scene or table.scene,
            given.prompt or table.prompt,
        )
    return found


def _value(path: Path, where: str, extra: Mapping[str, object], kind: type[Value], key: str) -> Value | None:
    """A further key of an image or a category in a COCO file; None: it has none."""
    value = extra.get(key)
    if value is not None and not isinstance(value, kind):
        raise DataError(path, where, f"{key} is not {VALUES[kind]}: {value!r:.40}", "Correct or remove the key")
    return value


def _entries(
    coco: Mapping[Path, CocoFile], files: _Files, problems: list[DataError], notes: list[str]
) -> tuple[dict[Key, Entry], set[Key]]:
    """The entries of COCO files by image, and the images whose entries have problems."""
    by_path: dict[Key, list[Key]] = defaultdict(list)
    by_name: dict[str, list[Key]] = defaultdict(list)
    for key in files.images:
        folded = key[1].casefold()
        by_path[key[0], folded].append(key)
        by_name[folded.rpartition("/")[2]].append(key)
    entries: dict[Key, Entry] = {}
    bad: set[Key] = set()
    unclear: set[Key] = set()
    for path, file in coco.items():
        split = _split_of(path)
        repeated = 0
        for name, image in file.images.items():
            found = _matches(name, split, by_path, by_name)
            if len(found) != 1:
                problem = "can be any of " + ", ".join(map("/".join, found)) if found else "has an entry but no image"
                remedy = "Give its path below Images" if found else "Supply the image or remove the entry"
                problems.append(DataError(path, name, problem, remedy))
                unclear.update(found)
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
                bad.update(_matches(name, split, by_path, by_name))
    return entries, bad | (unclear - entries.keys())


def _split_of(path: Path) -> str | None:
    """The one split that a file's name tells, as `instances_val2017.json` does."""
    words = re.findall(r"[a-z]+", path.stem.casefold())
    named = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return named.pop() if len(named) == 1 else None


def _matches(
    name: str, split: str | None, by_path: Mapping[Key, Sequence[Key]], by_name: Mapping[str, Sequence[Key]]
) -> list[Key]:
    """The images that a COCO file may mean: by path below the split or below `Images`, or by a bare unique name.

    Case counts only where several images differ by nothing else: `.JPG` is often written for `.jpg`.

    Args:
        name: `file_name`.
        split: Split of the COCO file; None: any.
        by_path: All images by their keys in lower case.
        by_name: The same by file name in lower case.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    folders = [part.casefold() for part in parts[:-1]]
    if "images" in folders:
        parts = parts[len(folders) - folders[::-1].index("images") :]
    path = "/".join(parts)
    first, _, rest = path.casefold().partition("/")
    splits = [split] if split else list(dict.fromkeys(SPLIT_NAMES.values()))
    found = [key for one in splits for key in by_path.get((one, path.casefold()), ())]
    if not found and rest:
        found = list(by_path.get((SPLIT_NAMES.get(first, ""), rest), ()))
    elif not found:
        found = [key for key in by_name.get(first, ()) if key[0] in splits]
    return [key for key in found if path.endswith(key[1]) or key[1].endswith(path)] or found


def _check_labels(files: _Files, problems: list[DataError]) -> None:
    stems = {_stem(key) for key in files.images}
    for key, path in files.labels.items():
        if key not in stems:
            problem = "has no image of the same path below Images"
            problems.append(DataError(path, "labels", problem, "Supply the image or remove the file"))


def _sample(item: Item, boxes: Sequence[Box], categories: Mapping[str, Category], origin: Origin) -> Sample:
    """The sample of an image.

    Args:
        item: The image and its annotations.
        boxes: From `_given_boxes`.
        categories: All categories by name.
        origin: Whose it is, where the COCO file does not say it.

    Raises:
        DataError: A further key of the image in the COCO file has a bad value or contradicts the YOLO file.
    """
    extra = {} if item.entry is None else item.entry.image.extra
    path, name = (item.image, "") if item.entry is None else (item.entry.file, item.entry.image.file_name)
    text, flag = partial(_value, path, name, extra, str), partial(_value, path, name, extra, bool)
    label, is_defective = text("label") or None, flag("is_defective")
    if label not in {None, NORMAL, UNKNOWN, *categories}:
        raise DataError(path, name, f"label {label!r} is no category", f"Name a category, {NORMAL} or {UNKNOWN}")
    image_level = extra.get("annotation") == "none" and not boxes
    if image_level and item.txt is not None and read_bytes(item.txt, "labels").strip():
        problem = f"has boxes where {path.name} says that nobody placed any"
        raise DataError(item.txt, "labels", problem, "Correct one of them")
    annotated = not image_level and (item.entry is not None or item.txt is not None)
    may_be_normal = annotated and label in (None, NORMAL) and not is_defective
    category = categories.get(label or _largest(boxes), Category(""))
    return Sample(
        image_id=text("image_id") or "/".join(_stem(item.key)),
        image=item.image,
        mask=None,
        class_name=label,
        source=_source(
            name=text("source") or origin.name,
            object_name=text("object_name") or OBJECT_NAME,
            super_category=text("super_category") or category.super_category or UNKNOWN,
            license=text("license_name") or origin.license or "not stated",
            redistributable=_first(flag("redistributable"), origin.redistributable),
            scene=text("scene") or category.scene,
        ),
        is_defective=is_defective,
        boxes=partial(read_boxes, item) if annotated else None,
        empty_class=NORMAL if may_be_normal else None,
        source_file=text("source_file") or item.place,
        official_split=item.key[0],
    )


def _first(given: bool | None, otherwise: bool) -> bool:
    return otherwise if given is None else given


def _largest(boxes: Sequence[Box]) -> str:
    """The category of the largest area, as it becomes the class of the image; empty without boxes."""
    areas: dict[str, float] = defaultdict(float)
    for box in boxes:
        areas[box.category] += abs(box.width * box.height) if box.area is None else box.area
    return max(areas, key=areas.__getitem__, default="")


def _listed(what: str, paths: Sequence[str]) -> list[str]:
    """A line with the number of some paths and the first ones; none where there are none."""
    more = ", ..." if len(paths) > LISTED else ""
    return [f"{len(paths):,} {what}: {', '.join(paths[:LISTED])}{more}"] if paths else []
