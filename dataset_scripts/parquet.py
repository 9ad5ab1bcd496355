"""Rows as Arrow tables, and Parquet shards with embedded images and small row groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Features

from defect_hub.dataset_scripts.schema import View

ROW_GROUP = 100
MAX_SHARD_BYTES = 500_000_000
IMAGE_COLUMNS = ("image", "mask")


class ShardWriter:
    """Writes `<folder>/<split>-00000-of-0000N.parquet`; use as a context manager.

    Args:
        folder: Folder of the shards, made if missing.
        split: Name of the split.
        features: Features of the rows; they are stored in the Arrow schema, so that `datasets` finds them.
        views: Configs whose rows and bytes are counted on the way.
        max_shard_bytes: Bound on the rows of one shard, in memory; a single row group may exceed it.

    Attributes:
        num_rows: Rows written.
        rows: Rows of each view.
        sizes: Bytes in memory of each view.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        features: Features,
        views: Mapping[str, View],
        max_shard_bytes: int = MAX_SHARD_BYTES,
    ) -> None:
        self.folder, self.split, self.max_shard_bytes = folder, split, max_shard_bytes
        self.schema, self.views = features.arrow_schema, views
        self.num_rows = 0
        self.rows: Counter[str] = Counter()
        self.sizes: Counter[str] = Counter()
        self._waiting: list[pa.Table] = []
        self._shards: list[Path] = []
        self._shard_bytes = 0
        self._finished = False
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = self._open()

    def _open(self) -> pq.ParquetWriter:
        path = self.folder / f"{self.split}-{len(self._shards):05d}.parquet"
        self._shards.append(path)
        self._shard_bytes = 0
        # Dictionaries and statistics of image bytes cost time and help nobody.
        plain = [name for name in self.schema.names if name not in IMAGE_COLUMNS]
        return pq.ParquetWriter(
            path,
            self.schema,
            compression="snappy",
            write_page_index=True,
            use_dictionary=plain,
            write_statistics=plain,
        )

    def write(self, table: pa.Table) -> None:
        """Add rows in the schema; images are `{"path": file name, "bytes": data}`, labels are ids."""
        self._waiting.append(table)
        self.num_rows += len(table)
        if sum(map(len, self._waiting)) >= ROW_GROUP:
            waiting = pa.concat_tables(self._waiting)
            full = len(waiting) // ROW_GROUP * ROW_GROUP
            for start in range(0, full, ROW_GROUP):
                self._flush(waiting.slice(start, ROW_GROUP))
            self._waiting = [waiting.slice(full)]

    def _flush(self, table: pa.Table) -> None:
        if not len(table):
            return
        if self._shard_bytes and self._shard_bytes + table.nbytes > self.max_shard_bytes:
            self._writer.close()
            self._writer = self._open()
        self._writer.write_table(table)
        self._shard_bytes += table.nbytes
        for name, view in self.views.items():
            rows, size = view_size(table, view)
            self.rows[name] += rows
            self.sizes[name] += size

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._waiting = []
        self.finish()

    def finish(self) -> None:
        """Write what waits and name the files; nothing can be written after it. Leaving the context does the same."""
        if self._finished:
            return
        self._finished = True
        if self._waiting:
            self._flush(pa.concat_tables(self._waiting))
            self._waiting = []
        self._writer.close()
        if not self.num_rows:
            self._shards.pop().unlink()
        for shard in self._shards:
            shard.rename(shard.with_stem(f"{shard.stem}-of-{len(self._shards):05d}"))


def view_size(table: pa.Table, view: View) -> tuple[int, int]:
    """Rows and bytes of what a config shows of a table; images are measured without being copied."""
    shown = table.select(list(view.columns) or table.column_names)
    if not view.filters:
        return len(shown), shown.nbytes
    conditions = table.select(list(dict.fromkeys(name for name, _, _ in view.filters)))
    conditions = conditions.append_column("row", pa.array(np.arange(len(table))))
    rows = conditions.filter(pq.filters_to_expression([list(view.filters)]))["row"]
    if len(rows) == len(table):
        return len(shown), shown.nbytes
    images = [name for name in shown.column_names if name in IMAGE_COLUMNS]
    size = shown.drop_columns(images).take(rows).nbytes
    for name in images:
        for part in ("bytes", "path"):
            size += pc.sum(pc.binary_length(pc.struct_field(table[name], part)).take(rows)).as_py() or 0
    return len(rows), size
