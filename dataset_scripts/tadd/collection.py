"""The subsets of TADD that a user has, as samples."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from defect_hub.dataset_scripts.readers.class_folders import plain_name
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.folders import IMAGE_SUFFIXES
from defect_hub.dataset_scripts.samples import Sample, Source
from defect_hub.dataset_scripts.tadd.listing import Entry, Listing, PathLister, find_subset, list_paths, resembles
from defect_hub.dataset_scripts.tadd.regions import annotation_of, label_of
from defect_hub.dataset_scripts.tadd.subsets import NORMAL, Layout, Subset, load_subsets
from defect_hub.dataset_scripts.tadd.texts import find_texts, read_descriptions, read_texts

SEED = 42
SPLIT_ID = f"tadd-70-15-15-seed{SEED}"
TEXTS_FILE = "TADD_text.json"
DESCRIPTIONS_FILE = "descriptions.jsonl"


@dataclass(frozen=True)
class Collection:
    """What a raw folder gives.

    Attributes:
        samples: In the order of subsets and paths.
        problems: Everything that is wrong with files and categories.
        listings: The subsets that are there.
        missing: The subsets that are not.
        unread: Image files that are neither images nor masks, by subset or by folder of several subsets.
        notes: What else was left out.
    """

    samples: Sequence[Sample]
    problems: Sequence[DataError]
    listings: Sequence[Listing]
    missing: Sequence[Subset]
    unread: Mapping[str, Sequence[str]]
    notes: Sequence[str] = ()


def collect(raw: Path, subsets: Sequence[str] | None = None) -> Collection:
    """Find the subsets in a raw folder and list their images.

    Args:
        raw: Folder that holds a folder for each subset, or the folder of the only one.
        subsets: Names of those to take, which must all be there; None: all that are there.

    Raises:
        DataError: `raw` does not exist; a subset that was named is not there, or none is; the only one is not laid out
            as the table knows it (one of several becomes a problem of the collection).
        ValueError: An unknown subset.
    """
    table = load_subsets()
    if unknown := sorted(set(subsets or ()) - set(table)):
        raise ValueError(f"unknown subset {', '.join(unknown)}; there are {', '.join(table)}")
    if not raw.is_dir():
        raise DataError(raw, "folder", "does not exist", "Check the path of the raw data")
    wanted = [table[name] for name in subsets or table]
    problems: list[DataError] = []
    listings: list[Listing] = []
    absent: list[Subset] = []
    paths_of = cache(list_paths)
    for subset in wanted:
        try:
            listing = _find(raw, subset, paths_of, here=len(wanted) == 1)
        except DataError as error:
            problems.append(error)
        else:
            if listing is None:
                absent.append(subset)
            else:
                listings.append(listing)
    if not listings and problems:
        raise problems[0]
    names = {listing.subset.name for listing in listings}
    if absent and (subsets or not names):
        raise _not_found(raw, absent, paths_of)
    taken = _claimed_twice(listings, problems)
    notes: list[str] = []
    texts = iter(_given_texts(raw, listings, notes))
    samples = [
        sample
        for listing in listings
        for sample in _samples(listing, list(islice(texts, len(listing.entries))), taken, problems)
    ]
    missing = [subset for subset in table.values() if subset.name not in names]
    return Collection(samples, problems, listings, missing, _unread(listings), notes)


def _not_found(raw: Path, absent: Sequence[Subset], paths_of: PathLister) -> DataError:
    if len(absent) < len(load_subsets()):
        hints = "; ".join(f"a folder {subset.folders[0]} with {subset.layout_hint()}" for subset in absent)
        return DataError(raw, "subsets", f"{', '.join(subset.name for subset in absent)} not found", f"Supply {hints}")
    problem = "holds no folder that is named like a subset of TADD"
    if looks := resembles(raw, absent, paths_of):
        return DataError(raw, "subsets", problem, f"It looks like {' or '.join(looks)} itself: name that by --subsets")
    return DataError(raw, "subsets", problem, "Name the folders after the sets: MT, NEU-DET, MVTec-AD, VisA, ...")


def _find(raw: Path, subset: Subset, paths_of: PathLister, *, here: bool) -> Listing | None:
    """The subset's files; where its folder holds another set's, the error says whose."""
    try:
        return find_subset(raw, subset, paths_of, here=here)
    except DataError as error:
        others = [other for other in load_subsets().values() if other.name != subset.name]
        if error.field != "layout" or not (names := resembles(Path(error.where), others, paths_of)):
            raise
        problem = f"{error.problem}; it looks like {' or '.join(names)}"
        raise DataError(error.where, error.field, problem, error.remedy) from error


def _claimed_twice(listings: Sequence[Listing], problems: list[DataError]) -> set[tuple[str, str]]:
    """(subset, path) of every image that an earlier subset takes for its own, each of which is a problem."""
    owners: dict[Path, str] = {}
    claimed = set()
    for listing in listings:
        for entry in listing.entries:
            image = (listing.files.root / entry.path).resolve()
            owner = owners.setdefault(image, listing.subset.name)
            if owner != listing.subset.name:
                problem = f"is claimed by {owner} and by {listing.subset.name}"
                problems.append(DataError(image, "subset", problem, "Keep the subsets in folders of their own"))
                claimed.add((listing.subset.name, entry.path))
    return claimed


def _unread(listings: Sequence[Listing]) -> dict[str, list[str]]:
    """Image files that nobody read, by subset, or by folder where several subsets may lie in one."""
    used: dict[Path, set[str]] = {}
    for listing in listings:
        used.setdefault(listing.files.root, set()).update(listing.used)
    unread = {}
    for listing in listings:
        root, shared = listing.files.root, any(entry.layout.folders for entry in listing.entries)
        left = [path for path in listing.files.paths.values() if path not in used[root]]
        unread[root.name if shared else listing.subset.name] = [
            path for path in left if path.lower().endswith(IMAGE_SUFFIXES)
        ]
    return {name: paths for name, paths in unread.items() if paths}


def _given_texts(raw: Path, listings: Sequence[Listing], notes: list[str]) -> list[tuple[str | None, str]]:
    """The description that the user has of each image, in the order of the listings, and where it comes from.

    The authors' text is taken first, then that of a description pipeline.
    """
    images = [(listing, entry) for listing in listings for entry in listing.entries]
    released: Sequence[str | None] = [None] * len(images)
    if (raw / TEXTS_FILE).is_file():
        names = [(listing.subset.name, entry.path) for listing, entry in images]
        texts = read_texts(raw / TEXTS_FILE)
        released = find_texts(texts, names)
        used, ambiguous = sum(map(bool, released)), sum(not text for text in texts.values())
        notes.append(f"{TEXTS_FILE}: {used:,} images described; {ambiguous:,} of {len(texts):,} names are ambiguous")
    generated = read_descriptions(raw / DESCRIPTIONS_FILE) if (raw / DESCRIPTIONS_FILE).is_file() else {}
    found: list[tuple[str | None, str]] = []
    for text, (listing, entry) in zip(
        tqdm(released, "texts", leave=False, disable=not generated), images, strict=True
    ):
        if text is None and generated:
            digest = hashlib.sha256((listing.files.root / entry.path).read_bytes()).hexdigest()
            found.append((generated.get(digest), "generated"))
        else:
            found.append((text, "released"))
    return found


def _samples(
    listing: Listing,
    texts: Sequence[tuple[str | None, str]],
    taken: Container[tuple[str, str]],
    problems: list[DataError],
) -> list[Sample]:
    """The samples of a subset; one problem for each image without an annotation, one for each unknown category.

    Args:
        listing: The subset.
        texts: Description and source of it for each image.
        taken: (subset, path) of images to leave out.
        problems: Is added to.
    """
    unknown: Counter[str] = Counter()
    errors: dict[str, DataError] = {}
    samples = []
    for entry, (text, text_source) in zip(listing.entries, texts, strict=True):
        if (listing.subset.name, entry.path) in taken:
            continue
        try:
            samples.append(_sample(listing, entry, text, text_source if text else "composed"))
        except DataError as error:
            if error.field == "category":
                unknown[str(entry.raw_category)] += 1
                errors.setdefault(str(entry.raw_category), error)
            else:
                problems.append(error)
    for raw, count in unknown.items():
        first = errors[raw]
        problems.append(DataError(first.where, first.field, f"{first.problem} ({count} images)", first.remedy))
    return samples


def _sample(listing: Listing, entry: Entry, text: str | None, text_source: str) -> Sample:
    """One image.

    Raises:
        DataError: Its category or object is unknown, or its annotation is missing.
    """
    subset, image = listing.subset, listing.files.root / entry.path
    raw_object = entry.values.get("object", "")
    if not subset.knows_object(raw_object):
        problem = f"{raw_object!r} is no object of {subset.name}"
        raise DataError(image, "object", problem, f"Use one of {', '.join(subset.objects)}")
    group = entry.values.get("group")
    return Sample(
        image_id=f"{subset.name}/{Path(entry.path).with_suffix('').as_posix()}",
        image=image,
        **_annotation(listing, entry, image),
        source=_source(subset.name, raw_object, text_source),
        texts={"t2": text} if text else {},
        source_file=entry.path,
        official_split=entry.official_split,
        group=f"{subset.name}/{group}" if group else "",
    )


def _annotation(listing: Listing, entry: Entry, image: Path) -> dict[str, Any]:
    """The fields of a sample that say what it shows."""
    subset, layout, raw = listing.subset, entry.layout, entry.raw_category
    label = None if raw is None else _label(raw, subset, layout, image)
    found = annotation_of(entry, listing.files, subset)
    if found is None:
        return _without_annotation(listing, entry, image, label)
    state = None if label is None else label != NORMAL
    fields = {"mask": None, "class_name": label, "is_defective": state}
    return {**fields, **found, "empty_class": NORMAL if layout.empty == "normal" else None}


def _label(raw: str, subset: Subset, layout: Layout, image: Path) -> str:
    if layout.other is not None and plain_name(raw) not in subset.categories:
        return layout.other
    return label_of(raw, subset.name, subset.categories, image)


def _without_annotation(listing: Listing, entry: Entry, image: Path, label: str | None) -> dict[str, Any]:
    missing = "normal" if label == NORMAL else entry.layout.missing
    if missing == "problem":
        remedy = f"Supply its annotation as in {entry.layout.example}, or remove the image"
        raise DataError(image, "annotation", "is missing", remedy)
    states = {"normal": (NORMAL, False), "unknown": (None, None), "defective": (label, True)}
    class_name, is_defective = states[missing]
    return {"mask": None, "class_name": class_name, "is_defective": is_defective}


@cache
def _source(name: str, raw_object: str, text_source: str) -> Source:
    subset = load_subsets()[name]
    return Source(
        name=name,
        object_name=subset.noun_of(raw_object),
        super_category=subset.super_category,
        license=subset.license,
        redistributable=subset.redistributable,
        split_id=SPLIT_ID,
        text_source=text_source,
        nouns=subset.nouns,
    )
