"""Tables of predictions: chunks that processes write on their own, and their merge in the order of the input.

A file bears its name only when complete, and the name says which rows it holds; so whatever is there after a crash
counts, and nothing else is needed to go on.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from defect_hub.train.prediction.loading import Job

CHUNK_ROWS = 256
MAX_FILE_BYTES = 256_000_000
"""Of a merged file, but for what one chunk is above it."""
_GROUP_ROWS = 512
_GROUP_BYTES = 64_000_000
_NAME = re.compile(r"(\d+)-(\d+)-(\d+)(-last)?\.parquet")


@dataclass(frozen=True, order=True)
class Chunk:
    """Rows `start` to `stop` of a part; `last`: the part ends there."""

    part: int
    start: int
    stop: int
    last: bool

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.part:06d}-{self.start:09d}-{self.stop:09d}{'-last' if self.last else ''}.parquet"


class ChunkWriter:
    """Writes one chunk, batch by batch.

    Args:
        folder: of the chunks.
        schema: of the rows.
        first: the part, and the chunk's first row in it.
    """

    def __init__(self, folder: Path, schema: pa.Schema, first: Job) -> None:
        self._folder = folder
        self._first = first
        self._partial = folder / f"{first.part:06d}-{first.start:09d}.tmp"
        self._writer = pq.ParquetWriter(self._partial, schema)
        self.count = 0

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Append rows."""
        if rows:
            self._writer.write_table(pa.Table.from_pylist(rows, self._writer.schema))
            self.count += len(rows)

    def finish(self, last: bool) -> None:
        """Give the chunk its name.

        Args:
            last: whether the part ends here.
        """
        self._writer.close()
        chunk = Chunk(self._first.part, self._first.start, self._first.start + self.count, last)
        self._partial.replace(self._folder / chunk.name)

    def discard(self) -> None:
        """Remove what was written."""
        with suppress(OSError):  # A full disk has no room even for the end of a file that nobody wants.
            self._writer.close()
        self._partial.unlink(missing_ok=True)


class ChunkWriters:
    """Chunks of several parts at once; those not full are complete, too, when a `with` block is left in peace.

    Args:
        folder: of the chunks.
        schema: of the rows.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder = folder
        self._schema = schema
        self._open: dict[int, ChunkWriter] = {}

    def write(self, job: Job, rows: list[dict[str, Any]], last: bool) -> None:
        """Append rows to the chunk of their part.

        Args:
            job: the part, and where in it the rows start.
            rows: that follow those before.
            last: whether the part ends with them.
        """
        if job.part not in self._open:
            self._open[job.part] = ChunkWriter(self._folder, self._schema, job)
        chunk = self._open[job.part]
        chunk.write(rows)
        if last or chunk.count >= CHUNK_ROWS:
            chunk.finish(last)
            del self._open[job.part]

    def __enter__(self) -> "ChunkWriters":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for chunk in self._open.values():
            if kind is None:
                chunk.finish(last=False)
            else:
                chunk.discard()


def chunks_of(folder: Path) -> dict[int, list[Chunk]]:
    """Complete chunks by part, in order.

    Raises:
        ValueError: if they do not follow each other.
    """
    found = (_NAME.fullmatch(path.name) for path in folder.iterdir())
    chunks = sorted(Chunk(int(m[1]), int(m[2]), int(m[3]), bool(m[4])) for m in found if m)
    by_part: defaultdict[int, list[Chunk]] = defaultdict(list)
    for chunk in chunks:
        before = by_part[chunk.part]
        if chunk.start != (before[-1].stop if before else 0):
            raise ValueError(
                f"{folder / chunk.name}: does not follow the chunk before it. Remove all {chunk.part:06d}-* there"
            )
        before.append(chunk)
    return dict(by_part)


def remaining_jobs(chunks: dict[int, list[Chunk]], parts: range) -> list[Job]:
    """What is still to be done of some parts."""
    ends = {part: chunks[part][-1] if part in chunks else None for part in parts}
    return [Job(part, end.stop if end else 0) for part, end in ends.items() if end is None or not end.last]


@dataclass(frozen=True)
class MergedFile:
    """A file of the result: whole chunks, and the number of its first row."""

    name: str
    first_row: int
    chunks: tuple[Chunk, ...]


def plan_merge(folder: Path, split: str) -> list[MergedFile]:
    """Which chunks go into which file; at least one file, which is empty where there is no row."""
    groups: list[list[Chunk]] = [[]]
    size = 0
    for _, chunks in sorted(chunks_of(folder).items()):
        for chunk in chunks:
            bytes_more = (folder / chunk.name).stat().st_size
            if groups[-1] and size + bytes_more > MAX_FILE_BYTES:
                groups.append([])
                size = 0
            groups[-1].append(chunk)
            size += bytes_more
    files, first = [], 0
    for number, group in enumerate(groups):
        files.append(MergedFile(f"{split}-{number:05d}-of-{len(groups):05d}.parquet", first, tuple(group)))
        first += sum(chunk.stop - chunk.start for chunk in group)
    return files


def merge_file(plan: MergedFile, chunks: Path, merged: Path, schema: pa.Schema) -> None:
    """Write one file of the result, in memory for one row group.

    Args:
        plan: which one.
        chunks: folder to read from.
        merged: folder to write to.
        schema: of the result: that of the chunks, and "row" in front.

    Raises:
        ValueError: if a chunk is damaged.
    """
    partial = (merged / plan.name).with_suffix(".tmp")
    try:
        with pq.ParquetWriter(partial, schema) as writer:
            row = plan.first_row
            for table in _row_groups(plan, chunks):
                numbers = pa.array(range(row, row + len(table)), pa.int64())
                writer.write_table(table.add_column(0, "row", numbers).cast(schema))
                row += len(table)
        partial.replace(merged / plan.name)
    finally:
        partial.unlink(missing_ok=True)


def _row_groups(plan: MergedFile, folder: Path) -> Iterator[pa.Table]:
    """Yield the rows of the chunks in tables of a size that readers like."""
    held: list[pa.Table] = []
    for chunk in plan.chunks:
        for table in _tables(folder, chunk):
            held.append(table)
            if sum(map(len, held)) >= _GROUP_ROWS or sum(part.nbytes for part in held) >= _GROUP_BYTES:
                yield pa.concat_tables(held)
                held = []
    if held:
        yield pa.concat_tables(held)


def _tables(folder: Path, chunk: Chunk) -> Iterator[pa.Table]:
    path = folder / chunk.name
    try:
        with pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                yield file.read_row_group(number)
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{path}: is damaged ({error}). Remove all {chunk.part:06d}-* there, and run the same command again"
        ) from error


@contextmanager
def explained_disk_errors(out: Path) -> Iterator[None]:
    """Errors of writing become one that says how to go on."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise OSError(f"{out}: cannot be written ({reason}). Mend that; the same command then goes on") from error
