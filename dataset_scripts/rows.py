"""What is known of the rows of a build before they are written to their shards."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Features

from defect_hub.dataset_scripts.fingerprints import Fingerprint
from defect_hub.dataset_scripts.readers.boxes import BoxRepair
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.row_batches import RowBatch
from defect_hub.dataset_scripts.schema import TEXT_LEVELS

Groups = Sequence[Sequence[int]]
"""Rows that belong together, by number; each group has at least two."""


@dataclass
class Rows:
    """What is known of each row in order, and of the samples that gave none.

    Attributes:
        class_names: Label space in label order.
        image_ids: Column of this name, as the next ones.
        sha256: Of the images.
        labels: Class names.
        sources: Data sets that the images come from.
        object_names: What is in the pictures.
        scenes: Kinds of product or process; None: not told apart.
        annotations: What places the defects.
        categories: Categories of each row's objects, one for each object.
        num_objects: Objects of all rows.
        is_defective: None where unknown.
        official_splits: The source's own split of each row; None: it has none.
        splits: Split of each row.
        source_groups: Photo or part that the source says the image shows; empty: none of several.
        digests: SHA-256 of the row's content.
        fingerprints: Of the images.
        totals: Number of rows "defective", with each kind of annotation, with a text of each level, and "compared".
        warnings: What was left out of rows.
        problems: Samples that gave no row.
        disagreements: (image id, what differs) where given attributes or boxes differ from others.
        repairs: (image id, change) of every box that was changed or left out.
    """

    class_names: Sequence[str]
    image_ids: list[str] = field(default_factory=list)
    sha256: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    object_names: list[str] = field(default_factory=list)
    scenes: list[str | None] = field(default_factory=list)
    annotations: list[str] = field(default_factory=list)
    categories: list[tuple[str, ...]] = field(default_factory=list)
    num_objects: int = 0
    is_defective: list[bool | None] = field(default_factory=list)
    official_splits: list[str | None] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    source_groups: list[str] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    fingerprints: list[Fingerprint] = field(default_factory=list)
    totals: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    problems: list[DataError] = field(default_factory=list)
    disagreements: list[tuple[str, str]] = field(default_factory=list)
    repairs: list[tuple[str, BoxRepair]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.image_ids)

    def add(self, split: str, batch: RowBatch) -> None:
        """Add the rows of a batch."""
        table = batch.table
        self.image_ids += table["image_id"].to_pylist()
        self.sha256 += table["sha256"].to_pylist()
        self.labels += [self.class_names[label] for label in table["label"].to_pylist()]
        self.sources += table["source"].to_pylist()
        self.object_names += table["object_name"].to_pylist()
        self.official_splits += table["official_split"].to_pylist()
        self.scenes += table["scene"].to_pylist()
        self.annotations += table["annotation"].to_pylist()
        categories = _category_names(table)
        self.categories += categories
        self.num_objects += sum(map(len, categories))
        self.is_defective += table["is_defective"].to_pylist()
        self.splits += [split] * len(table)
        self.source_groups += batch.groups
        self.totals["defective"] += sum(map(bool, table["is_defective"].to_pylist()))
        self.totals.update(table["annotation"].to_pylist())
        self.totals.update({level: len(table) - table[level].null_count for level in TEXT_LEVELS})
        self.totals["compared"] += batch.compared
        self.digests += batch.digests
        self.fingerprints += batch.fingerprints
        self.warnings += batch.warnings
        self.problems += batch.problems
        self.disagreements += batch.disagreements
        self.repairs += batch.repairs

    def counts(self, splits: Iterable[str]) -> dict[str, Counter[str]]:
        """Images by split and class."""
        counts: dict[str, Counter[str]] = {split: Counter() for split in splits}
        for split, label in zip(self.splits, self.labels, strict=True):
            counts[split][label] += 1
        return counts

    def digest(self, lists: Mapping[str, Any]) -> str:
        """SHA-256 over label space, splits, the plan's own lists, and rows in order."""
        total = hashlib.sha256(json.dumps([list(self.class_names), self.splits, lists]).encode())
        for digest in self.digests:
            total.update(digest)
        return total.hexdigest()


def _category_names(table: pa.Table) -> list[tuple[str, ...]]:
    """Categories of each row's objects."""
    names = Features.from_arrow_schema(table.schema)["objects"]["category"].feature.names
    return [
        tuple(names[item] for item in items) for items in pc.struct_field(table["objects"], "category").to_pylist()
    ]
