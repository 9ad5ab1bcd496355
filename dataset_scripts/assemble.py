"""Write a complete data set folder: shards, card, lists of splits and duplicates; all problems reported at once."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Features
from tqdm import tqdm

from defect_hub.dataset_scripts.cards import ConfigFacts, DatasetFacts, render_card
from defect_hub.dataset_scripts.duplicates import duplicate_groups, find_duplicates
from defect_hub.dataset_scripts.fingerprints import Fingerprint
from defect_hub.dataset_scripts.output import check_replaceable, replace_folder
from defect_hub.dataset_scripts.parquet import ShardWriter
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.records import Sample
from defect_hub.dataset_scripts.row_batches import RowBatch, Spool, make_batch
from defect_hub.dataset_scripts.schema import TEXT_LEVELS, VIEWS, View, record_features
from defect_hub.dataset_scripts.splits import draw_shots, seen_in_train
from defect_hub.dataset_scripts.workers import chunks, map_in_order

CHUNK = 50
SHOTS = (1, 2, 4, 8)
SHOT_SEED = 42


@dataclass(frozen=True)
class Recipe:
    """What a builder fixes for all its images.

    Attributes:
        class_names: Label space in label order.
        card_template: Body of the card with `$`-placeholders, see `cards.render_card`.
        card_header: First keys of the card's front matter: pretty_name, license, tags, ...
        aliases: Further names of splits, for example {"test": "val"}.
        studies: Whether to look for duplicates and to add the configs `leak_free` and `few_shot_*`; needs the splits
            `train` and `val`.
    """

    class_names: Sequence[str]
    card_template: str
    card_header: Mapping[str, Any]
    aliases: Mapping[str, str] = field(default_factory=dict)
    studies: bool = False


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        out: The folder.
        digest: SHA-256 over the content of all rows in order.
        counts: Images by split and class name.
        warnings: One line for everything that was left out.
        skipped: Problems of the samples that a build with `skip_bad` left out.
    """

    out: Path
    digest: str
    counts: Mapping[str, Counter[str]]
    warnings: Sequence[str]
    skipped: Sequence[DataError] = ()

    def lines(self) -> list[str]:
        """The report for a terminal."""
        splits = ", ".join(f"{name} {counts.total()}" for name, counts in self.counts.items())
        notes = [*(f"skipped {problem}" for problem in self.skipped), *self.warnings]
        shown = [f"note: {note}" for note in notes[:5]]
        if len(notes) > len(shown):
            shown.append(f"note: {len(notes) - len(shown)} more in the card")
        return [*shown, f"{self.out}: {splits} images, digest {self.digest[:16]}"]


@dataclass
class _Rows:
    """What is known of the rows on the spool, in its order, and of the samples that gave none."""

    class_names: Sequence[str]
    image_ids: list[str] = field(default_factory=list)
    sha256: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    fingerprints: list[Fingerprint] = field(default_factory=list)
    totals: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    problems: list[DataError] = field(default_factory=list)
    disagreements: list[tuple[str, str]] = field(default_factory=list)

    def add(self, split: str, batch: RowBatch) -> None:
        table = batch.table
        self.image_ids += table["image_id"].to_pylist()
        self.sha256 += table["sha256"].to_pylist()
        self.labels += [self.class_names[label] for label in table["label"].to_pylist()]
        self.splits += [split] * len(table)
        self.totals["defective"] += sum(map(bool, table["is_defective"].to_pylist()))
        self.totals.update(table["annotation"].to_pylist())
        self.totals.update({level: len(table) - table[level].null_count for level in TEXT_LEVELS})
        self.totals["compared"] += batch.compared
        self.digests += batch.digests
        self.fingerprints += batch.fingerprints
        self.warnings += batch.warnings
        self.problems += batch.problems
        self.disagreements += batch.disagreements

    def counts(self, splits: Iterable[str]) -> dict[str, Counter[str]]:
        """Images by split and class."""
        counts: dict[str, Counter[str]] = {split: Counter() for split in splits}
        for split, label in zip(self.splits, self.labels, strict=True):
            counts[split][label] += 1
        return counts

    def digest(self) -> str:
        """SHA-256 over label space, splits and rows in order."""
        total = hashlib.sha256(json.dumps([list(self.class_names), self.splits]).encode())
        for digest in self.digests:
            total.update(digest)
        return total.hexdigest()


@dataclass(frozen=True)
class _Studies:
    """Duplicates among the rows and what is drawn from them."""

    groups: Sequence[Sequence[int]] = ()
    kinds: Mapping[str, int] = field(default_factory=dict)
    seen: frozenset[int] = frozenset()
    shots: Mapping[int, int] = field(default_factory=dict)


def write_dataset(
    out: Path,
    recipe: Recipe,
    splits: Mapping[str, Sequence[Sample]],
    problems: Iterable[DataError] = (),
    *,
    skip_bad: bool = False,
    workers: int = 1,
) -> BuildReport:
    """Build a data set folder from samples.

    Every sample is tried, so that one run names all problems; with any problem nothing is written, unless `skip_bad`.

    Args:
        out: Folder to write; an earlier build is replaced when the new one is complete.
        recipe: What is common to all images.
        splits: Samples of each split, in their final order.
        problems: Problems that the reader found already.
        skip_bad: Leave out samples with problems and list them in the card.
        workers: Processes that decode; the result does not depend on it.

    Returns:
        The report.

    Raises:
        DataError: `out` is not ours to replace, or the data has problems: the first one, with the number of others and
            the name of the file beside `out` that lists them all.
    """
    check_replaceable(out)
    error_list = out.with_name(f"{out.name}.errors.txt")
    error_list.unlink(missing_ok=True)
    features = record_features(recipe.class_names)
    with replace_folder(out) as folder, Spool(folder / "rows.arrow", features.arrow_schema) as spool:
        rows = _Rows(recipe.class_names, problems=[*problems, *repeated_ids(splits)])
        for split, batch in make_batches(without_repeats(splits), spool.schema, recipe.studies, workers):
            rows.add(split, batch)
            spool.append(batch.table)
        if rows.problems and not (skip_bad and rows.image_ids):
            raise _joined(rows.problems, error_list)
        spool.finish()
        studies = _study(rows, spool) if recipe.studies else _Studies()
        configs = _write_shards(folder, recipe, rows, spool, studies, features)
        facts = DatasetFacts(
            name=out.name,
            digest=rows.digest(),
            configs=configs,
            class_names=recipe.class_names,
            counts=rows.counts(splits),
            totals=rows.totals,
            warnings=rows.warnings,
            skipped=[str(problem) for problem in rows.problems],
            disagreements=rows.disagreements,
            duplicates=_duplicate_facts(rows, studies) if recipe.studies else None,
        )
        (folder / "README.md").write_text(render_card(recipe.card_template, recipe.card_header, facts), "utf-8")
        _write_lists(folder, rows, studies)
    return BuildReport(out, facts.digest, facts.counts, rows.warnings, rows.problems)


def make_batches(
    splits: Mapping[str, Sequence[Sample]], schema: pa.Schema, with_fingerprints: bool, workers: int
) -> Iterator[tuple[str, RowBatch]]:
    """Turn the samples of all splits into rows, with a progress bar."""
    work = partial(_make_batch, schema=schema, with_fingerprints=with_fingerprints)
    pieces = [(split, chunk) for split, samples in splits.items() for chunk in chunks(samples, CHUNK)]
    with tqdm(total=sum(len(chunk) for _, chunk in pieces), desc="images", unit="image") as progress:
        for split, batch in map_in_order(work, pieces, workers):
            progress.update(len(batch.table) + len(batch.problems))
            yield split, batch


def _make_batch(piece: tuple[str, list[Sample]], schema: pa.Schema, with_fingerprints: bool) -> tuple[str, RowBatch]:
    split, samples = piece
    return split, make_batch(samples, schema, with_fingerprints)


def repeated_ids(splits: Mapping[str, Sequence[Sample]]) -> list[DataError]:
    """One problem for every id that several samples have."""
    counts = Counter(sample.image_id for samples in splits.values() for sample in samples)
    problem = "occurs more than once", "Rename or remove one of the images"
    return [DataError(image_id, "image_id", *problem) for image_id, count in counts.items() if count > 1]


def without_repeats(splits: Mapping[str, Sequence[Sample]]) -> dict[str, list[Sample]]:
    """The first sample of each id."""
    known: set[str] = set()
    kept: dict[str, list[Sample]] = {split: [] for split in splits}
    for split, samples in splits.items():
        for sample in samples:
            if sample.image_id not in known:
                kept[split].append(sample)
            known.add(sample.image_id)
    return kept


def _study(rows: _Rows, spool: Spool) -> _Studies:
    pairs = find_duplicates(rows.fingerprints, rows.sha256, spool.gray)
    groups = duplicate_groups(len(rows.image_ids), pairs)
    return _Studies(
        groups=groups,
        kinds=Counter(pair.kind for pair in pairs),
        seen=frozenset(seen_in_train(rows.splits, groups)),
        shots=draw_shots(rows.sha256, rows.labels, rows.splits, groups, max(SHOTS), SHOT_SEED),
    )


def _duplicate_facts(rows: _Rows, studies: _Studies) -> dict[str, int]:
    """Numbers for the card."""
    return {
        "groups": len(studies.groups),
        "images": sum(map(len, studies.groups)),
        "across": sum(len({rows.splits[row] for row in group}) > 1 for group in studies.groups),
        "moved": len(studies.seen),
        "conflicts": sum(len({rows.labels[row] for row in group}) > 1 for group in studies.groups),
        **{f"{kind} pairs": count for kind, count in sorted(studies.kinds.items())},
    }


def _targets(row: int, split: str, studies: _Studies) -> list[tuple[str, str]]:
    """(folder, split) of the files that hold a row."""
    folder = "seen" if row in studies.seen else "default"
    if row not in studies.shots:
        return [(folder, split)]
    shots = next(shots for shots in SHOTS if studies.shots[row] < shots)
    return [(folder, split), ("few_shot", str(shots))]


def _write_shards(
    folder: Path, recipe: Recipe, rows: _Rows, spool: Spool, studies: _Studies, features: Features
) -> dict[str, ConfigFacts]:
    """Write every row to its files and return the facts of all configs."""
    targets = [_targets(row, split, studies) for row, split in enumerate(rows.splits)]
    with ExitStack() as stack:
        writers = {
            target: stack.enter_context(ShardWriter(folder / "data" / target[0], target[1], features, VIEWS))
            for target in dict.fromkeys(target for several in targets for target in several)
        }
        for start, table in tqdm(spool.tables(), desc="write", unit="batch", leave=False):
            for target, writer in writers.items():
                chosen = [row for row in range(len(table)) if target in targets[start + row]]
                if chosen:
                    writer.write(table if len(chosen) == len(table) else table.take(np.array(chosen)))
    return dict(_configs(recipe, features, writers))


def _configs(
    recipe: Recipe, features: Features, writers: Mapping[tuple[str, str], ShardWriter]
) -> Iterator[tuple[str, ConfigFacts]]:
    """Facts of each config; splits and configs without rows are left out, for `datasets` refuses to load them."""
    own: dict[str, list[tuple[str, str]]] = {}
    for folder, split in writers:
        if folder != "few_shot":
            own.setdefault(split, []).append((folder, split))
    for name, view in VIEWS.items():
        yield from _config(name, name, view, own, recipe, features, writers)
    if not recipe.studies:
        return
    apart = {split: [(folder, split) for folder, _ in parts if folder == "default"] for split, parts in own.items()}
    apart.setdefault("train", []).extend(target for target in writers if target[0] == "seen")
    yield from _config("leak_free", "default", VIEWS["default"], apart, recipe, features, writers)
    for shots in SHOTS:
        drawn = [target for target in writers if target[0] == "few_shot" and int(target[1]) <= shots]
        few = {**own, "train": drawn}
        yield from _config(
            f"few_shot_{shots}_seed{SHOT_SEED}", "default", VIEWS["default"], few, recipe, features, writers
        )


def _config(
    name: str,
    view_name: str,
    view: View,
    splits: Mapping[str, Sequence[tuple[str, str]]],
    recipe: Recipe,
    features: Features,
    writers: Mapping[tuple[str, str], ShardWriter],
) -> Iterator[tuple[str, ConfigFacts]]:
    """The config, if any split of it has rows."""
    shown = Features({column: features[column] for column in view.columns or features})
    sizes, files = {}, {}
    aliases = {alias: split for alias, split in recipe.aliases.items() if split in splits}
    for split, parts in {**splits, **{alias: splits[split] for alias, split in aliases.items()}}.items():
        rows = sum(writers[part].rows[view_name] for part in parts)
        if rows:
            sizes[split] = rows, sum(writers[part].sizes[view_name] for part in parts)
            files[split] = [f"data/{folder}/{stem}-*.parquet" for folder, stem in sorted(parts)]
    if sizes:
        yield name, ConfigFacts(files, shown, view.columns, view.filters, sizes)


def _write_lists(folder: Path, rows: _Rows, studies: _Studies) -> None:
    """`splits.csv`, and `duplicates.csv` and `disagreements.csv` where there are any."""
    listed = [*zip(rows.image_ids, rows.sha256, rows.splits, strict=True)]
    _write_csv(folder / "splits.csv", ("image_id", "sha256", "split"), listed)
    members = [
        (number, rows.image_ids[row], rows.splits[row], rows.labels[row])
        for number, group in enumerate(studies.groups)
        for row in group
    ]
    if members:
        _write_csv(folder / "duplicates.csv", ("group", "image_id", "split", "class"), members)
    if rows.disagreements:
        _write_csv(folder / "disagreements.csv", ("image_id", "attribute"), rows.disagreements)


def _write_csv(path: Path, head: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *lines])


def _joined(problems: Sequence[DataError], error_list: Path) -> DataError:
    """The first problem as an error that points to the list of all, which is written here if there are others."""
    first, *others = problems
    if not others:
        return first
    error_list.write_text("".join(f"{problem}\n" for problem in problems), "utf-8")
    remedy = f"{first.remedy} (and {len(others)} more, see {error_list})"
    return DataError(first.where, first.field, first.problem, remedy)
