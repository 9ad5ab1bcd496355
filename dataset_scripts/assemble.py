"""Write a complete data set folder: shards, card, lists of splits and duplicates; all problems reported at once."""

from __future__ import annotations

import csv
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
from defect_hub.dataset_scripts.output import check_replaceable, replace_folder
from defect_hub.dataset_scripts.parquet import ShardWriter
from defect_hub.dataset_scripts.plans import Plan, PlannedConfig, Planner, Shard, plain_plan, study_plan
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.row_batches import RowBatch, Spool, load_stored, make_batch, with_numbers
from defect_hub.dataset_scripts.rows import Groups, Rows
from defect_hub.dataset_scripts.samples import Sample
from defect_hub.dataset_scripts.schema import record_features
from defect_hub.dataset_scripts.workers import chunks, map_in_order

CHUNK = 50
LISTED = 5
SUSPICIOUS = 0.25
"""Part of all boxes that leave their image from which on something is wrong with all of them."""
REPAIRS_FILE = "box_repairs.csv"
REPAIR_COLUMNS = (
    *("image_id", "number", "category", "problem", "x", "y", "width", "height"),
    *("used_x", "used_y", "used_width", "used_height"),
)


@dataclass(frozen=True)
class Recipe:
    """What a builder fixes for all its images.

    Attributes:
        class_names: Label space in label order.
        card_template: Body of the card with `$`-placeholders, see `cards.render_card`.
        card_header: First keys of the card's front matter: pretty_name, license, tags, ...
        aliases: Further names of splits, for example {"test": "val"}.
        studies: Whether to look for duplicates.
        planner: Splits, shards and configs; None: the given splits in `plans.plain_plan`, with studies
            `plans.study_plan`.
        categories: Categories of objects in order, which head the label space; None: all of it.
    """

    class_names: Sequence[str]
    card_template: str
    card_header: Mapping[str, Any]
    aliases: Mapping[str, str] = field(default_factory=dict)
    studies: bool = False
    planner: Planner | None = None
    categories: Sequence[str] | None = None


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        out: The folder.
        digest: SHA-256 over the content of all rows in order.
        counts: Images by split and class name.
        warnings: One line for everything that was left out.
        skipped: Problems of the samples that a build with `skip_bad` left out.
        sources: One line for each set that the images come from.
    """

    out: Path
    digest: str
    counts: Mapping[str, Counter[str]]
    warnings: Sequence[str]
    skipped: Sequence[DataError] = ()
    sources: Sequence[str] = ()

    def lines(self) -> list[str]:
        """The report for a terminal."""
        splits = ", ".join(f"{name} {counts.total()}" for name, counts in self.counts.items())
        notes = [*(f"skipped {problem}" for problem in self.skipped), *self.warnings]
        shown = [*self.sources, *(f"note: {note}" for note in notes[:LISTED])]
        if len(notes) > LISTED:
            shown.append(f"note: {len(notes) - LISTED} more in the card")
        return [*shown, f"{self.out}: {splits} images, digest {self.digest[:16]}"]


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
        splits: Samples of each split, in their final order; a planner may draw other splits.
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
    features = record_features(recipe.class_names, recipe.categories)
    with replace_folder(out) as folder, Spool(folder / "rows.arrow", features.arrow_schema) as spool:
        rows = Rows(recipe.class_names, problems=[*problems, *repeated_ids(splits)])
        for split, batch in make_batches(without_repeats(splits), spool.schema, workers):
            spool.append(with_numbers(batch.table, len(rows), rows.num_objects), batch.miniatures)
            rows.add(split, batch)
        if rows.problems and not (skip_bad and len(rows)):
            raise _joined(rows.problems, error_list)
        spool.finish()
        groups, found = _compare(rows, spool, workers) if recipe.studies else ([], {})
        plan = (recipe.planner or (study_plan if recipe.studies else plain_plan))(rows, groups)
        rows.splits = list(plan.splits)
        configs = _write_shards(folder, recipe, plan, spool, features)
        warnings = [*_repair_note(rows), *_difference_note(rows), *rows.warnings]
        facts = DatasetFacts(
            name=out.name,
            digest=rows.digest(plan.lists),
            configs=configs,
            class_names=recipe.class_names,
            counts=rows.counts(plan.split_names),
            totals=rows.totals,
            warnings=warnings,
            skipped=[str(problem) for problem in rows.problems],
            disagreements=rows.disagreements,
            duplicates={**found, **_straddling(plan, groups)} if recipe.studies else None,
            sections=plan.sections,
        )
        (folder / "README.md").write_text(render_card(recipe.card_template, recipe.card_header, facts), "utf-8")
        _write_lists(folder, rows, plan, groups)
    return BuildReport(out, facts.digest, facts.counts, warnings, rows.problems)


def make_batches(
    splits: Mapping[str, Sequence[Sample]], schema: pa.Schema, workers: int
) -> Iterator[tuple[str, RowBatch]]:
    """Turn the samples of all splits into rows, with a progress bar."""
    work = partial(_make_batch, schema=schema)
    pieces = [(split, chunk) for split, samples in splits.items() for chunk in chunks(samples, CHUNK)]
    with tqdm(total=sum(len(chunk) for _, chunk in pieces), desc="images", unit="image") as progress:
        for split, batch in map_in_order(work, pieces, workers):
            progress.update(len(batch.table) + len(batch.problems))
            yield split, batch


def _make_batch(piece: tuple[str, list[Sample]], schema: pa.Schema) -> tuple[str, RowBatch]:
    split, samples = piece
    return split, make_batch(samples, schema)


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


def _compare(rows: Rows, spool: Spool, workers: int) -> tuple[Groups, dict[str, int]]:
    """Groups of rows that show the same, and numbers of them for the card."""
    digests, pictures = rows.sha256, spool.miniatures
    pairs = find_duplicates(rows.fingerprints, digests, load_stored, sources=pictures, workers=workers)
    groups = duplicate_groups(len(rows), pairs)
    kinds = Counter(pair.kind for pair in pairs)
    return groups, {
        "groups": len(groups),
        "images": sum(map(len, groups)),
        "conflicts": sum(len({rows.labels[row] for row in group}) > 1 for group in groups),
        **{f"{kind} pairs": count for kind, count in sorted(kinds.items())},
    }


def _straddling(plan: Plan, groups: Groups) -> dict[str, int]:
    """Numbers for the card on groups with images of several splits."""
    across = sum(len({plan.splits[row] for row in group}) > 1 for group in groups)
    return {"across": across, **({} if plan.moved is None else {"moved": plan.moved})}


def _write_shards(
    folder: Path, recipe: Recipe, plan: Plan, spool: Spool, features: Features
) -> dict[str, ConfigFacts]:
    """Write every row to its files and return the facts of all configs."""
    names = {config.view: name for name, config in plan.configs.items()}
    views = {name: view for view, name in names.items()}
    last = {shard: row for row, several in enumerate(plan.targets) for shard in several}
    with ExitStack() as stack:
        writers = {
            shard: stack.enter_context(ShardWriter(folder / "data" / shard[0], shard[1], features, views))
            for shard in last
        }
        for start, table in tqdm(spool.tables(), desc="write", unit="batch", leave=False):
            chosen: dict[Shard, list[int]] = {}
            for row in range(len(table)):
                for shard in plan.targets[start + row]:
                    chosen.setdefault(shard, []).append(row)
            for shard, numbers in chosen.items():
                writers[shard].write(table if len(numbers) == len(table) else table.take(np.array(numbers)))
                if last[shard] < start + len(table):
                    writers[shard].finish()  # Rows that wait for a full row group stay in memory until then.
    return {
        name: facts
        for name, config in plan.configs.items()
        if (facts := _config(config, names[config.view], recipe.aliases, features, writers))
    }


def _config(
    config: PlannedConfig,
    counted_as: str,
    aliases: Mapping[str, str],
    features: Features,
    writers: Mapping[Shard, ShardWriter],
) -> ConfigFacts | None:
    """The config's facts; its view's rows are counted under a name.

    Splits and configs without rows are left out, for `datasets` refuses to load them.
    """
    view = config.view
    shown = Features({column: features[column] for column in view.columns or features})
    known = {alias: config.splits[split] for alias, split in aliases.items() if split in config.splits}
    sizes, files = {}, {}
    for split, parts in {**config.splits, **known}.items():
        rows = sum(writers[part].rows[counted_as] for part in parts if part in writers)
        if rows:
            sizes[split] = rows, sum(writers[part].sizes[counted_as] for part in parts if part in writers)
            files[split] = _patterns([part for part in parts if part in writers], list(writers))
    return ConfigFacts(files, shown, view.columns, view.filters, sizes) if sizes else None


def _patterns(parts: Sequence[Shard], shards: Sequence[Shard]) -> list[str]:
    """Patterns of the files of some shards: one where they are many and all of their name."""
    stems = {stem for _, stem in parts}
    if len(parts) > 2 and len(stems) == 1 and len(parts) == sum(stem in stems for _, stem in shards):
        return [f"data/*/{stems.pop()}-*.parquet"]
    return [f"data/{folder}/{stem}-*.parquet" for folder, stem in sorted(parts)]


def _write_lists(folder: Path, rows: Rows, plan: Plan, groups: Groups) -> None:
    """`splits.csv`, and the lists of duplicates, disagreements, repairs and of the plan where there are any."""
    listed = [*zip(rows.image_ids, rows.sha256, plan.splits, strict=True)]
    _write_csv(folder / "splits.csv", ("image_id", "sha256", "split"), listed)
    members = [
        (number, rows.image_ids[row], plan.splits[row], rows.labels[row])
        for number, group in enumerate(groups)
        for row in group
    ]
    if members:
        _write_csv(folder / "duplicates.csv", ("group", "image_id", "split", "class"), members)
    if rows.disagreements:
        _write_csv(folder / "disagreements.csv", ("image_id", "attribute"), rows.disagreements)
    if rows.repairs:
        lines = [
            (image_id, item.number, item.category, item.problem, *_plain(item.given), *_plain(item.used or ()))
            for image_id, item in rows.repairs
        ]
        _write_csv(folder / REPAIRS_FILE, REPAIR_COLUMNS, lines)
    for name, (head, listed_rows) in plan.lists.items():
        _write_csv(folder / name, head, listed_rows)


def _repair_note(rows: Rows) -> list[str]:
    """One line on the boxes that are not as their files give them."""
    if not rows.repairs:
        return []
    counts = Counter(repair.problem for _, repair in rows.repairs)
    parts = ", ".join(f"{count:,} {problem}" for problem, count in counts.most_common())
    note = f"boxes changed or left out: {parts}; `{REPAIRS_FILE}` lists them"
    given = rows.num_objects + sum(repair.used is None for _, repair in rows.repairs)
    if counts["clipped"] + counts["outside"] > SUSPICIOUS * given:
        note += f". So many of {given:,} boxes leave their image that they may be given in another form"
    return [note]


def _difference_note(rows: Rows) -> list[str]:
    """One line on given attributes or boxes that differ from others."""
    images = len({image_id for image_id, _ in rows.disagreements})
    compared = rows.totals["compared"]
    return [f"{images:,} of {compared:,} compared images differ; `disagreements.csv` lists them"] if images else []


def _plain(sides: Sequence[float]) -> list[str]:
    """Sides of a box as text, empty where there is none."""
    return [f"{side:.2f}".rstrip("0").rstrip(".") for side in sides] or [""] * 4


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
