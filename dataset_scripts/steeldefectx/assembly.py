"""Assemble SteelDefectX from the raw folders of its source sets."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path

import yaml
from tqdm import tqdm

from defect_hub.dataset_scripts.assemble import BuildReport, Recipe, write_dataset
from defect_hub.dataset_scripts.class_descriptions import ClassDescription, compose_class_description
from defect_hub.dataset_scripts.readers.class_folders import Entry, plain_name
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.samples import Sample, Source
from defect_hub.dataset_scripts.splits import stratified_split
from defect_hub.dataset_scripts.steeldefectx.assembly_report import SourceReport, describe_sources
from defect_hub.dataset_scripts.steeldefectx.build import ALIASES, CARD_HEADER
from defect_hub.dataset_scripts.steeldefectx.raw_images import RawImage, Unreadable, load_raw, unknown_class
from defect_hub.dataset_scripts.steeldefectx.release import load_classes
from defect_hub.dataset_scripts.steeldefectx.sources import FoundSource, SourceSet, find_sources, load_sources
from defect_hub.dataset_scripts.workers import chunks, map_in_order

SEED = 42
TRAIN_SHARE = 0.7
SPLIT_ID = f"steeldefectx-assembled-70-30-seed{SEED}"
SIZE = (256, 256)
CHUNK = 50


@dataclass(frozen=True)
class Assembly:
    """What the source sets give.

    Attributes:
        splits: Samples of `train` and `val` in the order of sources and paths.
        problems: Everything that is wrong with class names and annotations.
        reports: What became of the images of each source that is there.
        missing: Source sets that are not there.
    """

    splits: Mapping[str, Sequence[Sample]]
    problems: Sequence[DataError]
    reports: Sequence[SourceReport]
    missing: Sequence[SourceSet]


@dataclass(frozen=True)
class _Candidate:
    """A readable image that no problem bars."""

    found: FoundSource
    report: SourceReport
    entry: Entry
    raw: RawImage

    @property
    def path(self) -> str:
        return self.found.path_of(self.entry)

    @property
    def image_id(self) -> str:
        return f"{self.found.source.name}/{Path(self.path).with_suffix('').as_posix()}"


def build_from_sources(
    raw: Path,
    out: Path,
    *,
    skip_missing: bool = False,
    sources: Path | None = None,
    skip_bad: bool = False,
    workers: int = 1,
) -> BuildReport:
    """Build SteelDefectX from its source sets, resized to 256x256 and split 70/30 within each class.

    Args:
        raw: Folder that holds the folders of the source sets.
        out: Folder to write.
        skip_missing: Go on without source sets that are not there; the card names them.
        sources: Table of source sets in the form of sources.yaml, in place of that one.
        skip_bad: Leave out images with problems and list them in the card.
        workers: Processes; the result does not depend on it.

    Returns:
        The report of the build; `sources` says what became of each source.

    Raises:
        DataError: A source is missing (see `assemble_samples`), the data has problems, or `out` cannot be written; an
            earlier output is intact.
    """
    assembly = assemble_samples(raw, skip_missing=skip_missing, sources=sources, workers=workers)
    class_names = load_classes().defects
    card = (files(__package__) / "assembled_card.md").read_text("utf-8")
    card = describe_sources(card, assembly.reports, assembly.missing, class_names)
    header = {**CARD_HEADER, "pretty_name": "SteelDefectX, assembled from its source sets"}
    recipe = Recipe(class_names, card, header, ALIASES, studies=True)
    report = write_dataset(out, recipe, assembly.splits, assembly.problems, skip_bad=skip_bad, workers=workers)
    notes = [source.line() for source in assembly.reports]
    if assembly.missing:
        notes.append(f"not found: {', '.join(source.name for source in assembly.missing)}")
    return replace(report, sources=notes)


def assemble_samples(
    raw: Path, *, skip_missing: bool = False, sources: Path | None = None, workers: int = 1
) -> Assembly:
    """Find, check and split the images of the source sets.

    Images that do not decode are dropped. Of images with equal gray values the first is kept, in the order of sources
    and paths; where another of them cannot be of its class, none is. The reports list them all.

    Args:
        raw: Folder that holds the folders of the source sets.
        skip_missing: Go on without source sets that are not there.
        sources: Table of source sets in the form of sources.yaml, in place of that one.
        workers: Processes; the result does not depend on it.

    Raises:
        DataError: The table is malformed; a source set is missing or laid out in an unknown way.
    """
    table = load_sources(sources)
    found = find_sources(raw, table, skip_missing=skip_missing)
    reports = [SourceReport(item.source, item.root.relative_to(raw).as_posix(), item.unread) for item in found]
    problems: list[DataError] = []
    kept = _first_of_equals(_load(found, reports, problems, workers))
    split_of = stratified_split(
        ((item.image_id, item.raw.class_name, item.raw.sha256) for item in kept), TRAIN_SHARE, SEED
    )
    descriptions = _descriptions()
    splits: dict[str, list[Sample]] = {"train": [], "val": []}
    for item in kept:
        item.report.keep(item.entry, item.raw)
        splits[split_of[item.image_id]].append(_sample(item, descriptions[item.raw.class_name]))
    names = {item.source.name for item in found}
    return Assembly(splits, problems, reports, [source for source in table if source.name not in names])


def _load(
    found: Sequence[FoundSource], reports: Sequence[SourceReport], problems: list[DataError], workers: int
) -> list[_Candidate]:
    """Decode every image whose class is known; report those that do not decode, collect what is wrong."""
    pieces = []
    for item, report in zip(found, reports, strict=True):
        problems += item.listing.problems
        known = _known_entries(item, report, problems)
        pieces += [(item, report, chunk) for chunk in chunks(known, CHUNK)]
    candidates = []
    work = ((item.source, chunk) for item, _, chunk in pieces)
    with tqdm(total=sum(len(chunk) for *_, chunk in pieces), desc="decode", unit="image") as progress:
        for (item, report, chunk), results in zip(pieces, map_in_order(_load_chunk, work, workers), strict=True):
            progress.update(len(chunk))
            for entry, result in zip(chunk, results, strict=True):
                if isinstance(result, RawImage):
                    candidates.append(_Candidate(item, report, entry, result))
                elif isinstance(result, Unreadable):
                    report.drop(item.path_of(entry), "unreadable", result.reason)
                else:
                    report.failed += 1
                    problems.append(result)
    return candidates


def _known_entries(item: FoundSource, report: SourceReport, problems: list[DataError]) -> list[Entry]:
    """The images whose class the table maps; one problem for every other class."""
    report.found.update(plain_name(entry.class_name) for entry in item.listing.entries)
    report.unused = len(item.listing.unused)
    unknown = Counter(entry.class_name for entry in item.listing.entries)
    unknown = Counter({name: count for name, count in unknown.items() if plain_name(name) not in item.source.classes})
    report.failed += unknown.total()
    for name, count in unknown.items():
        problems.append(unknown_class(item.root, f"{count} images", name, item.source))
    return [entry for entry in item.listing.entries if entry.class_name not in unknown]


def _load_chunk(piece: tuple[SourceSet, list[Entry]]) -> list[RawImage | Unreadable | DataError]:
    source, entries = piece
    results: list[RawImage | Unreadable | DataError] = []
    for entry in entries:
        try:
            results.append(load_raw(entry, source))
        except DataError as error:
            results.append(error)
    return results


def _first_of_equals(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """Drop and report all but the first of images with equal gray values; all of them where their classes differ.

    Bright and dark scratches are no conflict where both copies come from a class that polarity divides: their boxes
    may differ. The first one decides.
    """
    groups: dict[str, list[_Candidate]] = defaultdict(list)
    for candidate in candidates:
        groups[candidate.raw.pixels].append(candidate)
    kept = []
    for candidate in candidates:
        group = groups[candidate.raw.pixels]
        first = group[0]
        if any(first.raw.class_name not in other.raw.possible for other in group):
            others = ", ".join(f"{other.image_id} ({other.raw.class_name})" for other in group if other != candidate)
            candidate.report.drop(candidate.path, "label conflict", f"{candidate.raw.class_name}; equal to {others}")
        elif candidate is first:
            kept.append(candidate)
        else:
            same = "file" if candidate.raw.sha256 == first.raw.sha256 else "pixels"
            candidate.report.drop(candidate.path, "duplicate", f"same {same} as {first.image_id}")
    return kept


def _descriptions() -> dict[str, ClassDescription]:
    """Class descriptions of classes.yaml by class name."""
    table = yaml.safe_load((files(__package__) / "classes.yaml").read_text("utf-8"))
    return {row["name"]: ClassDescription(row["name"], row["visual"], row["cause"]) for row in table["classes"]}


def _sample(item: _Candidate, description: ClassDescription) -> Sample:
    source = item.found.source
    return Sample(
        image_id=item.image_id,
        image=item.entry.image,
        mask=item.entry.mask,
        class_name=item.raw.class_name,
        source=Source(
            name=source.name,
            object_name="steel surface",
            super_category="metallurgy",
            license=source.license,
            redistributable=source.redistributable,
            split_id=SPLIT_ID,
            text_source="composed",
        ),
        is_defective=True,
        texts={"t1": compose_class_description(description)},
        class_description=asdict(description),
        boxes=item.raw.boxes or None,
        size=SIZE,
        source_file=item.path,
    )
