"""The sets of a table that a user has, as samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from defect_hub.dataset_scripts.annotations import NORMAL
from defect_hub.dataset_scripts.readers.class_folders import plain_name
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.folders import IMAGE_SUFFIXES
from defect_hub.dataset_scripts.samples import Sample, Source
from defect_hub.dataset_scripts.source_sets.listing import (
    Entry,
    Listing,
    PathLister,
    find_set,
    list_paths,
    resembles,
)
from defect_hub.dataset_scripts.source_sets.regions import annotation_of, label_of, lost_boxes
from defect_hub.dataset_scripts.source_sets.table import Layout, SourceSet

SampleMaker = Callable[[Entry], Sample]
"""Makes the sample of an image.

Raises `DataError` where its category or object is unknown, or its annotation is missing.
"""


@dataclass(frozen=True)
class FoundSets:
    """The sets of a table that a raw folder holds.

    Attributes:
        listings: The sets that are there.
        missing: Those that are not.
        problems: Sets whose files lie as no layout has them, and images that two sets claim.
        taken: (set, path) of images that an earlier set has claimed.
        unread: Image files that are neither images nor masks, by set or by folder of several sets.
    """

    listings: Sequence[Listing]
    missing: Sequence[SourceSet]
    problems: Sequence[DataError] = ()
    taken: Container[tuple[str, str]] = frozenset()
    unread: Mapping[str, Sequence[str]] = field(default_factory=dict)


def find_sets(
    raw: Path, table: Mapping[str, SourceSet], names: Sequence[str] | None, family: str, choice: str
) -> FoundSets:
    """Find the sets of a table in a raw folder.

    Args:
        raw: Folder that holds a folder for each set, or the folder of the only one.
        table: All sets.
        names: Those to take, which must all be there; None: all that are there.
        family: What the table is of, for messages, as the next one.
        choice: How a user names the only set of a folder.

    Raises:
        DataError: `raw` does not exist; a set that was named is not there, or none is; the only one is not laid out as
            the table knows it (one of several becomes a problem).
        ValueError: An unknown name.
    """
    if unknown := sorted(set(names or ()) - set(table)):
        raise ValueError(f"unknown set {', '.join(unknown)}; there are {', '.join(table)}")
    if not raw.is_dir():
        raise DataError(raw, "folder", "does not exist", "Check the path of the raw data")
    wanted = [table[name] for name in names or table]
    problems: list[DataError] = []
    listings: list[Listing] = []
    absent: list[SourceSet] = []
    paths_of = cache(list_paths)
    for source_set in wanted:
        try:
            listing = _find(raw, source_set, table, paths_of, here=len(wanted) == 1)
        except DataError as error:
            problems.append(error)
        else:
            if listing is None:
                absent.append(source_set)
            else:
                listings.append(listing)
    if not listings and problems:
        raise problems[0]
    there = {listing.source_set.name for listing in listings}
    if absent and (names or not there):
        raise _not_found(raw, absent, table, (family, choice), paths_of)
    taken = _claimed_twice(listings, problems)
    missing = [source_set for source_set in table.values() if source_set.name not in there]
    return FoundSets(listings, missing, problems, taken, _unread(listings))


def _not_found(
    raw: Path,
    absent: Sequence[SourceSet],
    table: Mapping[str, SourceSet],
    words: tuple[str, str],
    paths_of: PathLister,
) -> DataError:
    family, choice = words
    if len(absent) < len(table):
        hints = "; ".join(f"a folder {each.folders[0]} with {each.layout_hint()}" for each in absent)
        return DataError(raw, "sets", f"{', '.join(each.name for each in absent)} not found", f"Supply {hints}")
    problem = f"holds no folder that is named like a set of {family}"
    if looks := resembles(raw, absent, paths_of):
        return DataError(raw, "sets", problem, f"It looks like {' or '.join(looks)} itself: {choice}")
    return DataError(raw, "sets", problem, f"Name the folders after the sets: {', '.join(table)}")


def _find(
    raw: Path, source_set: SourceSet, table: Mapping[str, SourceSet], paths_of: PathLister, *, here: bool
) -> Listing | None:
    """The set's files; where its folder holds another set's, the error says whose."""
    try:
        return find_set(raw, source_set, paths_of, here=here)
    except DataError as error:
        others = [other for other in table.values() if other.name != source_set.name]
        if error.field != "layout" or not (names := resembles(Path(error.where), others, paths_of)):
            raise
        problem = f"{error.problem}; it looks like {' or '.join(names)}"
        raise DataError(error.where, error.field, problem, error.remedy) from error


def _claimed_twice(listings: Sequence[Listing], problems: list[DataError]) -> set[tuple[str, str]]:
    """(set, path) of every image that an earlier set takes for its own, each of which is a problem."""
    owners: dict[Path, str] = {}
    claimed = set()
    for listing in listings:
        name = listing.source_set.name
        for entry in listing.entries:
            image = (listing.files.root / entry.path).resolve()
            owner = owners.setdefault(image, name)
            if owner != name:
                problem = f"is claimed by {owner} and by {name}"
                problems.append(DataError(image, "set", problem, "Keep the sets in folders of their own"))
                claimed.add((name, entry.path))
    return claimed


def _unread(listings: Sequence[Listing]) -> dict[str, list[str]]:
    """Image files that nobody read, by set, or by folder where several sets may lie in one."""
    used: dict[Path, set[str]] = {}
    sharing = Counter(listing.files.root for listing in listings)
    for listing in listings:
        used.setdefault(listing.files.root, set()).update(listing.used)
    unread = {}
    for listing in listings:
        root = listing.files.root
        shared = sharing[root] > 1 or any(entry.layout.folders for entry in listing.entries)
        left = [path for path in listing.files.paths.values() if path not in used[root]]
        unread[root.name if shared else listing.source_set.name] = [
            path for path in left if path.lower().endswith(IMAGE_SUFFIXES)
        ]
    return {name: paths for name, paths in unread.items() if paths}


def listed_samples(
    listing: Listing, make: SampleMaker, taken: Container[tuple[str, str]], problems: list[DataError]
) -> Iterator[Sample]:
    """The samples of a set; one problem for each unknown category or bad list of boxes, of however many images.

    Args:
        listing: The set.
        make: Makes the sample of an image.
        taken: (set, path) of images to leave out.
        problems: Is added to.
    """
    errors: dict[str, list[DataError]] = {}
    for entry in listing.entries:
        if (listing.source_set.name, entry.path) in taken:
            continue
        try:
            yield make(entry)
        except DataError as error:
            errors.setdefault(error.problem if error.field == "category" else str(error), []).append(error)
    problems += lost_boxes(listing)
    for first, *others in errors.values():
        count = f" ({len(others) + 1} images)" if others or first.field == "category" else ""
        problems.append(DataError(first.where, first.field, f"{first.problem}{count}", first.remedy))


def make_sample(listing: Listing, entry: Entry, source: Source, texts: Mapping[str, str] | None = None) -> Sample:
    """One image.

    Args:
        listing: Its set.
        entry: What the set's files say of it.
        source: What it shares with others.
        texts: Given texts by level.

    Raises:
        DataError: Its category or object is unknown, or its annotation is missing.
    """
    source_set, image = listing.source_set, listing.files.root / entry.path
    raw_object = entry.values.get("object", "")
    if not source_set.knows_object(raw_object):
        problem = f"{raw_object!r} is no object of {source_set.name}"
        raise DataError(image, "object", problem, f"Use one of {', '.join(source_set.objects)}")
    group = entry.values.get("group")
    return Sample(
        image_id=f"{source_set.name}/{Path(entry.path).with_suffix('').as_posix()}",
        image=image,
        **_annotation(listing, entry, image),
        source=source,
        texts=texts or {},
        source_file=entry.path,
        official_split=entry.official_split,
        group=f"{source_set.name}/{group}" if group else "",
    )


def _annotation(listing: Listing, entry: Entry, image: Path) -> dict[str, Any]:
    """The fields of a sample that say what it shows."""
    source_set, layout, raw = listing.source_set, entry.layout, entry.raw_category
    label = None if raw is None else _label(raw, source_set, layout, image)
    found = annotation_of(entry, listing.files, source_set)
    if found is None:
        return _without_annotation(entry, image, label)
    state = None if label is None else label != NORMAL
    fields = {"mask": None, "class_name": label, "is_defective": state}
    return {**fields, **found, "empty_class": NORMAL if layout.empty == "normal" else None}


def _label(raw: str, source_set: SourceSet, layout: Layout, image: Path) -> str:
    if layout.other is not None and plain_name(raw) not in source_set.categories:
        return layout.other
    return label_of(raw, source_set.name, source_set.categories, image)


def _without_annotation(entry: Entry, image: Path, label: str | None) -> dict[str, Any]:
    missing = "normal" if label == NORMAL else entry.layout.missing
    if missing == "problem":
        remedy = f"Supply its annotation as in {entry.layout.example}, or remove the image"
        raise DataError(image, "annotation", "is missing", remedy)
    states = {"normal": (NORMAL, False), "unknown": (None, None), "defective": (label, True)}
    class_name, is_defective = states[missing]
    return {"mask": None, "class_name": class_name, "is_defective": is_defective}
