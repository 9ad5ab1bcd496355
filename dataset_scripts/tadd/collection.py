"""The subsets of TADD that a user has, as samples."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from tqdm import tqdm

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.samples import Sample, Source
from defect_hub.dataset_scripts.source_sets.collection import FoundSets, find_sets, listed_samples, make_sample
from defect_hub.dataset_scripts.source_sets.listing import Entry, Listing
from defect_hub.dataset_scripts.tadd.subsets import load_subsets
from defect_hub.dataset_scripts.tadd.texts import find_texts, read_descriptions, read_texts

SEED = 42
SPLIT_ID = f"tadd-70-15-15-seed{SEED}"
TEXTS_FILE = "TADD_text.json"
DESCRIPTIONS_FILE = "descriptions.jsonl"
Texts = Mapping[tuple[str, str], tuple[str | None, str]]
"""The description of an image, by subset and path, and where it comes from."""


@dataclass(frozen=True)
class Collection:
    """What a raw folder gives.

    Attributes:
        samples: In the order of subsets and paths.
        problems: Everything that is wrong with files and categories.
        found: The subsets that are there.
        notes: What else was left out.
    """

    samples: Sequence[Sample]
    problems: Sequence[DataError]
    found: FoundSets
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
    found = find_sets(raw, load_subsets(), subsets, "TADD", "name that by --subsets")
    problems = list(found.problems)
    notes: list[str] = []
    texts = _given_texts(raw, found.listings, notes)
    samples = [
        sample
        for listing in found.listings
        for sample in listed_samples(listing, partial(_sample, listing, texts), found.taken, problems)
    ]
    return Collection(samples, problems, found, notes)


def _sample(listing: Listing, texts: Texts, entry: Entry) -> Sample:
    text, text_source = texts[listing.source_set.name, entry.path]
    source = _source(listing.source_set.name, entry.values.get("object", ""), text_source if text else "composed")
    return make_sample(listing, entry, source, {"t2": text} if text else {})


def _given_texts(raw: Path, listings: Sequence[Listing], notes: list[str]) -> Texts:
    """The descriptions that the user has: the authors' text is taken first, then that of a description pipeline."""
    images = [(listing, entry) for listing in listings for entry in listing.entries]
    released: Sequence[str | None] = [None] * len(images)
    if (raw / TEXTS_FILE).is_file():
        names = [(listing.source_set.name, entry.path) for listing, entry in images]
        texts = read_texts(raw / TEXTS_FILE)
        released = find_texts(texts, names)
        used, ambiguous = sum(map(bool, released)), sum(not text for text in texts.values())
        notes.append(f"{TEXTS_FILE}: {used:,} images described; {ambiguous:,} of {len(texts):,} names are ambiguous")
    generated = read_descriptions(raw / DESCRIPTIONS_FILE) if (raw / DESCRIPTIONS_FILE).is_file() else {}
    found: dict[tuple[str, str], tuple[str | None, str]] = {}
    for text, (listing, entry) in zip(
        tqdm(released, "texts", leave=False, disable=not generated), images, strict=True
    ):
        text_source = "released"
        if text is None and generated:
            digest = hashlib.sha256((listing.files.root / entry.path).read_bytes()).hexdigest()
            text, text_source = generated.get(digest), "generated"
        found[listing.source_set.name, entry.path] = text, text_source
    return found


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
