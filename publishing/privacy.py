"""What must not be published by mistake: access tokens and places on the publisher's disk."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import get_token
from tqdm import tqdm

from defect_hub.publishing.hub import PublishError

TOKEN = re.compile(rb"hf_[A-Za-z0-9]{34}")
"""The shape of the Hub's access tokens."""


def refuse_private(files: Mapping[str, Path | bytes], sent: Collection[str]) -> None:
    """Look through every byte that would be sent; Parquet columns are decompressed first.

    Args:
        files: Path in the repository -> local file, or content.
        sent: Those of them that the Hub has not got.

    Raises:
        PublishError: A file holds an access token, the home directory, or the folder that is published.
    """
    private = _private(files)
    for name in tqdm(sent, desc="looking for private data", unit="file", leave=False, delay=1):
        for part in _parts(name, files[name]):
            found = next((what for what, secret in private.items() if secret.search(part)), None)
            if found is None and TOKEN.search(part):
                found = "something of the form of an access token"
            if found:
                raise PublishError(f"{name}: holds {found}; remove it there, or build the folder again without it")


def _private(files: Mapping[str, Path | bytes]) -> dict[str, re.Pattern[bytes]]:
    """What must not occur in a file, by what it is."""
    paths = [content for content in files.values() if isinstance(content, Path)]
    # As the publisher may have named a folder, and where links lead.
    folders = {parent for path in paths for parent in (path.absolute().parent, path.resolve().parent)}
    private = {f"the folder {folder} of this machine": _place(folder) for folder in folders if folder != Path("/")}
    if Path.home() != Path("/"):
        private[f"the home directory {Path.home()}"] = _place(Path.home())
    if token := get_token():
        private["your access token"] = re.compile(re.escape(token.encode()))
    return private


def _place(folder: Path) -> re.Pattern[bytes]:
    """The folder itself or something in it, but not another folder whose name goes on."""
    return re.compile(re.escape(os.fsencode(folder)) + rb"(?![\w.-])")


def _parts(name: str, content: Path | bytes) -> Iterator[bytes | mmap.mmap]:
    """The bytes of a file as its readers see them."""
    if isinstance(content, bytes):
        yield content
    elif content.stat().st_size:  # An empty file cannot be mapped.
        with content.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
        if name.endswith(".parquet"):
            try:
                yield from _columns(content)
            except pa.ArrowException as error:
                raise PublishError(f"{name}: cannot be read as Parquet ({error}); build the folder again") from error


def _columns(shard: Path) -> Iterator[bytes]:
    """The metadata and the decompressed columns of a Parquet file."""
    with pq.ParquetFile(shard) as file:
        yield str(file.schema_arrow.metadata).encode()
        for batch in file.iter_batches(batch_size=100):
            yield from (bytes(buffer) for column in batch.columns for buffer in _buffers(column))


def _buffers(column: pa.Array) -> Iterator[pa.Buffer]:
    return (buffer for buffer in column.buffers() if buffer is not None)
