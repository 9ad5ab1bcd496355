"""Write rows to Parquet shards with embedded images and small row groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

ROW_GROUP = 100
MAX_SHARD_BYTES = 500_000_000


class ShardWriter:
    """Writes `<folder>/<split>-00000-of-0000N.parquet`; use as a context manager.

    Args:
        folder: Folder of the shards, made if missing.
        split: Name of the split.
        features: Features of the rows; they are stored in the Arrow schema, so that `datasets` finds them.
        max_shard_bytes: Bound on the rows of one shard, in memory; a single row group may exceed it.

    Attributes:
        num_examples: Rows written.
        column_bytes: Bytes in memory of each column.
    """

    def __init__(self, folder: Path, split: str, features: Features, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
        self.folder, self.split, self.max_shard_bytes = folder, split, max_shard_bytes
        self.features, self.schema = features, features.arrow_schema
        self.num_examples = 0
        self.column_bytes: Counter[str] = Counter()
        self._rows: list[Mapping[str, Any]] = []
        self._shards: list[Path] = []
        self._shard_bytes = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = self._open()

    def _open(self) -> pq.ParquetWriter:
        path = self.folder / f"{self.split}-{len(self._shards):05d}.parquet"
        self._shards.append(path)
        self._shard_bytes = 0
        return pq.ParquetWriter(path, self.schema, compression="snappy", write_page_index=True)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one row; images are `{"path": file name, "bytes": data}`, labels are ids."""
        self._rows.append(row)
        self.num_examples += 1
        if len(self._rows) == ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        table = pa.Table.from_pylist(self._rows, schema=self.schema)
        if self._shard_bytes and self._shard_bytes + table.nbytes > self.max_shard_bytes:
            self._writer.close()
            self._writer = self._open()
        self._writer.write_table(table)
        self._rows.clear()
        self._shard_bytes += table.nbytes
        self.column_bytes.update({name: table.column(name).nbytes for name in table.column_names})

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        for shard in self._shards:
            shard.rename(shard.with_stem(f"{shard.stem}-of-{len(self._shards):05d}"))
