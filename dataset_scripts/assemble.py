"""Write a complete data set folder: shards, card, split list; all problems reported at once."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Features
from tqdm import tqdm

from defect_hub.dataset_scripts.cards import ConfigFacts, DatasetFacts, render_card
from defect_hub.dataset_scripts.output import check_replaceable, replace_folder
from defect_hub.dataset_scripts.parquet import ShardWriter
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.records import Sample, make_record
from defect_hub.dataset_scripts.schema import COLUMN_CONFIGS, TEXT_LEVELS, record_features, text_features


@dataclass(frozen=True)
class Recipe:
    """What a builder fixes for all its images.

    Attributes:
        class_names: Label space in label order.
        card_template: Body of the card with `$`-placeholders, see `cards.render_card`.
        card_header: First keys of the card's front matter: pretty_name, license, tags, ...
    """

    class_names: Sequence[str]
    card_template: str
    card_header: Mapping[str, Any]


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        out: The folder.
        digest: SHA-256 over the content of all rows in order.
        counts: Images by split and class name.
        warnings: One line for everything that was left out.
    """

    out: Path
    digest: str
    counts: Mapping[str, Counter[str]]
    warnings: Sequence[str]

    def lines(self) -> list[str]:
        """The report for a terminal."""
        splits = ", ".join(f"{name} {counts.total()}" for name, counts in self.counts.items())
        shown = [f"note: {warning}" for warning in self.warnings[:5]]
        if len(self.warnings) > len(shown):
            shown.append(f"note: {len(self.warnings) - len(shown)} more in the card")
        return [*shown, f"{self.out}: {splits} images, digest {self.digest[:16]}"]


@dataclass
class _Tally:
    """What accumulates while the rows pass."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    facts: Counter[str] = field(default_factory=Counter)
    files: list[tuple[str, str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[DataError] = field(default_factory=list)
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, split: str, record: Mapping[str, Any]) -> None:
        self.counts[split][record["label"]] += 1
        self.facts["annotated"] += record["mask"] is not None
        self.facts["defective"] += bool(record["is_defective"])
        self.facts.update(level for level in TEXT_LEVELS if record["descriptions"][level])
        self.files.append((record["image_id"], record["sha256"], split))
        # The image stands in by its SHA-256, which is a column.
        mask = record["mask"] and hashlib.sha256(record["mask"]["bytes"]).hexdigest()
        row = {**record, "image": record["image"]["path"], "mask": mask, "split": split}
        self.digest.update(json.dumps(row, sort_keys=True).encode())


def write_dataset(
    out: Path, recipe: Recipe, splits: Mapping[str, Sequence[Sample]], problems: Iterable[DataError] = ()
) -> BuildReport:
    """Build a data set folder from samples.

    Every sample is tried, so that one run names all problems; with any problem nothing is written.

    Args:
        out: Folder to write; an earlier build is replaced when the new one is complete.
        recipe: What is common to all images.
        splits: Samples of each split, in their final order.
        problems: Problems that the reader found already.

    Returns:
        The report.

    Raises:
        DataError: `out` is not ours to replace, or the data has problems: the first one, with the number of others and
            the name of the file beside `out` that lists them all.
    """
    check_replaceable(out)
    error_list = out.with_name(f"{out.name}.errors.txt")
    error_list.unlink(missing_ok=True)
    tally = _Tally(problems=[*problems, *_repeated_ids(splits)])
    with replace_folder(out) as folder:
        written = _write_shards(folder, recipe, splits, tally)
        if tally.problems:
            raise _joined(tally.problems, error_list)
        digest = hashlib.sha256(json.dumps(list(recipe.class_names)).encode() + tally.digest.digest()).hexdigest()
        facts = DatasetFacts(
            name=out.name,
            digest=digest,
            configs=_configs(folder, written),
            class_names=recipe.class_names,
            counts=tally.counts,
            totals=tally.facts,
            warnings=tally.warnings,
        )
        (folder / "README.md").write_text(render_card(recipe.card_template, recipe.card_header, facts), "utf-8")
        with (folder / "splits.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("image_id", "sha256", "split"), *tally.files])
    return BuildReport(out, digest, tally.counts, tally.warnings)


def _write_shards(
    folder: Path, recipe: Recipe, splits: Mapping[str, Sequence[Sample]], tally: _Tally
) -> dict[str, dict[str, ShardWriter]]:
    """Write all rows; return the closed writers by config and split."""
    features = {"default": record_features(recipe.class_names)}
    features |= {level.lower(): text_features(recipe.class_names) for level in TEXT_LEVELS}
    written: dict[str, dict[str, ShardWriter]] = {name: {} for name in features}
    for split, samples in splits.items():
        tally.counts[split] = Counter()
        with ExitStack() as stack:
            for name, columns in features.items():
                writer = ShardWriter(folder / "data" / name, split, columns)
                written[name][split] = stack.enter_context(writer)
            for sample in tqdm(samples, desc=split, unit="image"):
                _write_sample(sample, {name: written[name][split] for name in features}, split, tally)
    return written


def _configs(folder: Path, written: Mapping[str, Mapping[str, ShardWriter]]) -> dict[str, ConfigFacts]:
    """Facts of each config; those and their splits without rows are removed, for `datasets` refuses to load them."""
    configs = {}
    for name, writers in written.items():
        filled = {split: writer for split, writer in writers.items() if writer.num_examples}
        for split in set(writers) - set(filled):
            for shard in (folder / "data" / name).glob(f"{split}-*.parquet"):
                shard.unlink()
        if not filled:
            (folder / "data" / name).rmdir()
            continue
        configs[name] = _config_facts(name, None, filled)
        if name == "default":
            columns = COLUMN_CONFIGS.items()
            configs |= {selection: _config_facts(name, names, filled) for selection, names in columns}
    return configs


def _config_facts(folder: str, columns: Sequence[str] | None, writers: Mapping[str, ShardWriter]) -> ConfigFacts:
    """Facts of a config that reads some columns of a folder, or with None all."""
    features = next(iter(writers.values())).features
    features = Features({name: features[name] for name in columns or features})
    sizes = {
        split: (writer.num_examples, sum(writer.column_bytes[name] for name in features))
        for split, writer in writers.items()
    }
    return ConfigFacts(folder, features, sizes)


def _write_sample(sample: Sample, writers: Mapping[str, ShardWriter], split: str, tally: _Tally) -> None:
    try:
        record, warnings = make_record(sample)
    except DataError as error:
        tally.problems.append(error)
        return
    if tally.problems:
        return  # Nothing will be kept; only further problems matter.
    tally.warnings += warnings
    tally.add(split, record)
    label = writers["default"].features["label"].str2int(record["label"])
    writers["default"].write({**record, "label": label})
    for level, text in record["descriptions"].items():
        if text:
            writers[level.lower()].write({"image": record["image"], "label": label, "text": text})


def _repeated_ids(splits: Mapping[str, Sequence[Sample]]) -> list[DataError]:
    counts = Counter(sample.image_id for samples in splits.values() for sample in samples)
    problem = "occurs more than once", "Rename or remove one of the images"
    return [DataError(image_id, "image_id", *problem) for image_id, count in counts.items() if count > 1]


def _joined(problems: Sequence[DataError], error_list: Path) -> DataError:
    """The first problem as an error that points to the list of all, which is written here if there are others."""
    first, *others = problems
    if not others:
        return first
    error_list.write_text("".join(f"{problem}\n" for problem in problems), "utf-8")
    remedy = f"{first.remedy} (and {len(others)} more, see {error_list})"
    return DataError(first.where, first.field, first.problem, remedy)
