"""Rows made in worker processes, and kept on disk until it is known into which file each belongs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Features
from numpy.typing import NDArray

from defect_hub.dataset_scripts.fingerprints import Fingerprint
from defect_hub.dataset_scripts.readers.boxes import BoxRepair
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.records import make_record
from defect_hub.dataset_scripts.samples import Sample


@dataclass(frozen=True)
class RowBatch:
    """What became of some samples.

    Attributes:
        table: Their rows, labels as ids.
        digests: SHA-256 of each row's content.
        fingerprints: Of each row's image.
        miniatures: Of each row's image, see `Record`.
        groups: `Sample.group` of each row.
        comparisons: For each row, how given attributes or boxes differ from others; None where nothing was compared.
        repairs: (image id, change) of every box that was changed or left out.
        warnings: What was left out of rows.
        problems: Samples that gave no row.
    """

    table: pa.Table
    digests: list[bytes] = field(default_factory=list)
    fingerprints: list[Fingerprint] = field(default_factory=list)
    miniatures: list[NDArray[np.uint8]] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    comparisons: list[Sequence[str] | None] = field(default_factory=list)
    repairs: list[tuple[str, BoxRepair]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[DataError] = field(default_factory=list)

    @property
    def compared(self) -> int:
        """Number of rows whose given attributes or boxes were compared with others."""
        return sum(lines is not None for lines in self.comparisons)

    @property
    def disagreements(self) -> list[tuple[str, str]]:
        """(image id, what differs) of the rows whose given attributes or boxes differ."""
        image_ids = self.table["image_id"].to_pylist()
        return [(name, line) for name, lines in zip(image_ids, self.comparisons, strict=True) for line in lines or ()]


def make_batch(samples: Sequence[Sample], schema: pa.Schema) -> RowBatch:
    """Turn samples into rows; a bad one becomes a problem and costs the others nothing.

    Args:
        samples: What to read.
        schema: Of the rows, with the features of `datasets` inside.
    """
    features = Features.from_arrow_schema(schema)
    label: ClassLabel = features["label"]
    category: ClassLabel = features["objects"]["category"].feature
    rows: list[dict[str, Any]] = []
    batch = RowBatch(schema.empty_table())
    for sample in samples:
        try:
            record = make_record(sample)
        except DataError as error:
            batch.problems.append(error)
            continue
        batch.digests.append(_digest(record.row))
        batch.fingerprints.append(record.fingerprint)
        batch.miniatures.append(record.miniature)
        batch.groups.append(sample.group)
        batch.warnings.extend(record.warnings)
        batch.comparisons.append(record.disagreements)
        batch.repairs.extend((sample.image_id, repair) for repair in record.repairs)
        objects = record.row["objects"]
        numbered = {**objects, "category": category.str2int(objects["category"])}
        rows.append({**record.row, "label": label.str2int(record.row["label"]), "objects": numbered})
    return replace(batch, table=pa.Table.from_pylist(rows, schema=schema))


def _digest(row: Mapping[str, Any]) -> bytes:
    """SHA-256 of a row in which the image stands by its SHA-256, which is a column."""
    mask = row["mask"] and hashlib.sha256(row["mask"]["bytes"]).hexdigest()
    content = {**row, "image": row["image"]["path"], "mask": mask}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()


def with_numbers(table: pa.Table, image_number: int, object_id: int) -> pa.Table:
    """Rows with `image_number` and the ids of their objects counted up from the given ones."""
    images = pa.array(np.arange(image_number, image_number + len(table), dtype=np.int32))
    table = table.set_column(table.schema.get_field_index("image_number"), table.schema.field("image_number"), images)
    objects = table["objects"].combine_chunks()
    place = objects.type.get_field_index("id")
    offsets = pc.struct_field(objects, "category").offsets
    ids = pa.array(np.arange(object_id, object_id + len(pc.list_flatten(pc.struct_field(objects, "category")))))
    columns = [pc.struct_field(objects, number) for number in range(objects.type.num_fields)]
    columns[place] = pa.ListArray.from_arrays(offsets, ids)
    numbered = pa.StructArray.from_arrays(columns, fields=list(objects.type))
    return table.set_column(table.schema.get_field_index("objects"), table.schema.field("objects"), numbered)


@dataclass(frozen=True)
class StoredGray:
    """Where in a file the gray values of a picture are."""

    path: Path
    start: int
    shape: tuple[int, ...]


def load_stored(stored: StoredGray) -> NDArray[np.uint8]:
    """The gray values (H, W)."""
    return np.fromfile(stored.path, np.uint8, math.prod(stored.shape), offset=stored.start).reshape(stored.shape)


@dataclass
class Spool:
    """Rows in an Arrow file, written once and then read in place, and the miniatures of their images in another.

    Use as a context manager, which removes the files.

    Attributes:
        path: Of the Arrow file.
        schema: Of the rows.
        miniatures: Of each row's image; to be read after `finish`.
    """

    path: Path
    schema: pa.Schema
    miniatures: list[StoredGray] = field(default_factory=list)
    _ends: list[int] = field(default_factory=list)
    _reader: pa.ipc.RecordBatchFileReader | None = None

    def __enter__(self) -> Spool:
        self._writer = pa.ipc.new_file(self.path, self.schema)
        self._gray_file = self.path.with_suffix(".gray").open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self._reader = None
        self.path.unlink(missing_ok=True)
        Path(self._gray_file.name).unlink(missing_ok=True)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def append(self, table: pa.Table, miniatures: Sequence[NDArray[np.uint8]]) -> None:
        """Add rows and the miniatures of their images."""
        for batch in table.combine_chunks().to_batches():
            self._writer.write_batch(batch)
            self._ends.append(len(self) + len(batch))
        for gray in miniatures:
            self.miniatures.append(StoredGray(Path(self._gray_file.name), self._gray_file.tell(), gray.shape))
            self._gray_file.write(np.ascontiguousarray(gray).data)

    def finish(self) -> None:
        """End writing; the rows can be read from here on."""
        self._close()
        self._reader = pa.ipc.open_file(pa.memory_map(str(self.path)))

    def _close(self) -> None:
        self._writer.close()
        self._gray_file.close()

    def tables(self) -> Iterator[tuple[int, pa.Table]]:
        """The rows in pieces, each with the number of its first row."""
        assert self._reader is not None
        for number, end in enumerate(self._ends):
            batch = self._reader.get_batch(number)
            yield end - len(batch), pa.Table.from_batches([batch])
