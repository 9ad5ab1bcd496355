"""Where the images of a prediction come from: a folder of files, a data set on disk, or a stream.

Every source is cut into parts that any process can read without the others' rows. Nothing is decoded here.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from defect_hub.modeling.inspection_images import IMAGE_SUFFIXES

COLUMNS = ("image_id", "object_name", "sha256")
FEW_FILES = 64
"""A stream of fewer files is cut at the row groups of its files: more would take long to look up."""
_ROWS_AT_ONCE = 16
_END_BYTES = 65536


@dataclass(frozen=True)
class InputRow:
    """An image before it is decoded.

    Attributes:
        image_id: from the data set, or the file's path inside its folder; None: unknown.
        object_name: what the image shows; None: unknown.
        sha256: of the encoded image.
        data: the encoded image; None where it cannot be read.
        problem: why it cannot be read.
    """

    image_id: str | None
    object_name: str | None
    sha256: str | None
    data: bytes | None
    problem: str = ""


class Source(Protocol):
    """Rows in a fixed order, in parts that follow each other.

    Attributes:
        num_parts: of them.
        num_rows: of all parts; None: unknown.
    """

    num_parts: int
    num_rows: int | None

    def rows(self, part: int, start: int) -> Iterator[InputRow]:
        """Rows of a part from its row `start` on."""
        ...


def is_image_folder(data: str) -> bool:
    """Whether a folder holds image files, not a data set: that has Parquet files, at most two folders down."""
    folder = Path(data)
    tables = chain.from_iterable(folder.glob(f"{depth}*.parquet") for depth in ("", "*/", "*/*/"))
    return folder.is_dir() and next(tables, None) is None


def image_paths(folder: str | Path) -> Iterator[str]:
    """Paths of the image files below a folder, in the order of their names, folder by folder; hidden ones left out."""
    with os.scandir(folder) as entries:
        inside = sorted(
            (entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries if not entry.name.startswith(".")
        )
    for name, is_folder in inside:
        path = os.path.join(folder, name)  # noqa: PTH118 (a Path for each of millions of files takes seconds)
        if is_folder:
            yield from image_paths(path)
        elif name.lower().endswith(IMAGE_SUFFIXES):
            yield path


def list_images(folder: Path, listing: Path, rows_per_part: int) -> str:
    """Write down the image files below a folder, in constant memory but for the names inside one folder.

    Args:
        folder: to search.
        listing: Parquet file to write, a row group a part.
        rows_per_part: files in a part.

    Returns:
        Digest of their paths and order.

    Raises:
        ValueError: if there is no image.
    """
    digest = hashlib.sha256()
    schema = pa.schema({"path": pa.binary()})  # names of files need not be text
    with pq.ParquetWriter(listing, schema) as writer:
        paths = (os.fsencode(os.path.relpath(path, folder)) for path in image_paths(folder))
        count = 0
        while part := list(islice(paths, rows_per_part)):
            digest.update(b"\0".join(part) + b"\0")
            writer.write_table(pa.table({"path": part}, schema))
            count += len(part)
    if not count:
        raise ValueError(f"{folder}: folder: holds no image ({' '.join(IMAGE_SUFFIXES)}). Check --data")
    return digest.hexdigest()[:16]


class ListedImages:
    """Image files named by `list_images`.

    Args:
        folder: that they are in.
        listing: their paths inside it.
    """

    def __init__(self, folder: Path, listing: Path) -> None:
        self.folder = folder
        self.listing = listing
        metadata = pq.read_metadata(listing)
        self.num_parts: int = metadata.num_row_groups
        self.num_rows: int | None = metadata.num_rows

    def rows(self, part: int, start: int) -> Iterator[InputRow]:
        """See [`Source.rows`]."""
        with pq.ParquetFile(self.listing) as listing:
            paths = listing.read_row_group(part)["path"].to_pylist()[start:]
        for path in paths:
            name = os.fsdecode(path).encode(errors="replace").decode()
            try:
                data = (self.folder / os.fsdecode(path)).read_bytes()
            except OSError as error:
                yield InputRow(name, None, None, None, f"the file cannot be read ({error.strerror})")
            else:
                yield InputRow(name, None, hashlib.sha256(data).hexdigest(), data)


class TableRows:
    """A split on disk, read where it is needed.

    Args:
        rows: of `load_dataset`.
        rows_per_part: how it is cut.
    """

    def __init__(self, rows: datasets.Dataset, rows_per_part: int) -> None:
        self._rows, self._image = _undecoded(rows)
        self.rows_per_part = rows_per_part
        self.num_rows: int | None = len(rows)
        self.num_parts = -(-len(rows) // rows_per_part)

    def rows(self, part: int, start: int) -> Iterator[InputRow]:
        """See [`Source.rows`]."""
        first = part * self.rows_per_part
        members = range(first + start, min(first + self.rows_per_part, len(self._rows)))
        return (_input_row(self._rows[index], self._image) for index in members)


class StreamedRows:
    """A split that is not on disk, or not to be copied; a part is a file, or of few Parquet files a row group.

    Args:
        rows: of `load_dataset(..., streaming=True)`.
    """

    def __init__(self, rows: datasets.IterableDataset) -> None:
        known = rows.info.splits or {}
        self.num_rows: int | None = known[str(rows.split)].num_examples if str(rows.split) in known else None
        undecoded, self._image = _undecoded(rows if rows.features else rows._resolve_features())
        self._rows = undecoded.reshard() if undecoded.num_shards < FEW_FILES else undecoded
        self.num_parts: int = self._rows.num_shards

    def rows(self, part: int, start: int) -> Iterator[InputRow]:
        """See [`Source.rows`]; the rows before `start` are read and dropped."""
        rows = self._rows.shard(self.num_parts, part).skip(start)
        # Not one by one: inside a loader's worker that would leave parts out, which is decided here already.
        for batch in rows.iter(_ROWS_AT_ONCE):
            for values in zip(*batch.values(), strict=True):
                yield _input_row(dict(zip(batch, values, strict=True)), self._image)


def load_source(data: str, config: str, split: str, streaming: bool, rows_per_part: int) -> Source:
    """A split of a data set, by folder or Hub id.

    Raises:
        ValueError: if there is no such data set, config or split, or it has no images.
    """
    rows = _named(data, lambda: _loaded(data, config, split, streaming))
    try:
        return TableRows(rows, rows_per_part) if isinstance(rows, datasets.Dataset) else StreamedRows(rows)
    except KeyError as error:
        raise ValueError(f"{data}: {error.args[0]}") from error


def _loaded(data: str, config: str, split: str, streaming: bool) -> datasets.Dataset | datasets.IterableDataset:
    try:
        return datasets.load_dataset(data, config, split=split, streaming=streaming)
    except ValueError as error:
        if "corresponds to no data" not in str(error):
            raise
    return datasets.load_dataset(data, config, split=split, streaming=True)  # Tables cannot be empty.


def split_digest(data: str, config: str, split: str) -> str:
    """Digest of a split's files: names, sizes and ends (of Parquet, the footer), or on the Hub names and commit."""
    builder = _named(data, lambda: datasets.load_dataset_builder(data, config))
    files = (builder.config.data_files or {}).get(split)
    if files is None:  # known from the cache alone
        return str(builder.hash)
    digest = hashlib.sha256()
    for file in map(Path, files):
        if file.is_file():
            size = file.stat().st_size
            with file.open("rb") as content:
                content.seek(max(0, size - _END_BYTES))
                end = content.read()
            digest.update(f"{os.path.relpath(file, Path(data).resolve())} {size} ".encode() + end)
        else:
            digest.update(f"{file}\n".encode())
    return digest.hexdigest()[:16]


def _named(data: str, load: Callable[[], Any]) -> Any:
    """What `load` gives; its errors become one that names the data."""
    try:
        return load()
    except (ConnectionError, FileNotFoundError) as error:
        raise ValueError(
            f"{data}: no such folder, and not to be had from the Hub ({_line(error)}). Check --data"
        ) from error
    except ValueError as error:
        raise ValueError(f"{data}: {_line(error)} Check --data, --config and --split") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _undecoded(rows: Any) -> tuple[Any, str]:
    """The columns that are needed, images as they are stored, and the name of their column.

    Raises:
        KeyError: if there is no such column, or several.
    """
    images = [name for name, feature in rows.features.items() if isinstance(feature, datasets.Image)]
    image = "image" if "image" in images else images[0] if len(images) == 1 else None
    if image is None:
        found = ", ".join(images) or "none"
        raise KeyError(f"image: no such column of images (found: {found}). Give a data set with one")
    texts = [name for name in COLUMNS if getattr(rows.features.get(name), "dtype", None) == "string"]
    return rows.select_columns([image, *texts]).cast_column(image, datasets.Image(decode=False)), image


def _input_row(row: dict[str, Any], image: str) -> InputRow:
    stored = row[image] or {}
    data, path = stored.get("bytes"), stored.get("path")
    image_id = row.get("image_id") or (os.path.basename(path) if path else None)  # noqa: PTH119 (may be a URL)
    about = (image_id, row.get("object_name"))
    try:
        if data is None and path:
            with fsspec.open(path, "rb") as file:
                data = file.read()
    except OSError as error:
        return InputRow(*about, row.get("sha256"), None, f"the file cannot be read ({error.strerror})")
    if data is None:
        return InputRow(*about, row.get("sha256"), None, "the row holds none")
    return InputRow(*about, row.get("sha256") or hashlib.sha256(data).hexdigest(), data)
