"""Output folders that appear complete or not at all."""

from __future__ import annotations

import errno
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from defect_hub.dataset_scripts.readers.errors import DataError

BUILD_MARK = "build_digest"
"""Key in the front matter of every card of ours; a folder without it is never replaced."""
DISK_ERRORS = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


def is_build(folder: Path) -> bool:
    """Whether a folder is an earlier output of a builder."""
    card = folder / "README.md"
    return card.is_file() and f"\n{BUILD_MARK}: " in card.read_text("utf-8", errors="replace")


def row_shards(folder: Path) -> list[Path]:
    """The Parquet files of a built folder that together hold every row once, sorted."""
    return sorted(path for path in folder.glob("data/*/*.parquet") if path.parent.name != "few_shot")


def check_replaceable(out: Path) -> None:
    """Raise a `DataError` where `out` exists and is not an earlier output of a builder."""
    if out.exists() and not is_build(out) and (out.is_file() or any(out.iterdir())):
        raise DataError(out, "output", "exists and is not a built data set", "Choose another --out or remove it")


@contextmanager
def explain_full_disk(out: Path) -> Iterator[None]:
    """Turn the operating system's errors of a full disk into a `DataError` about `out`."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        reason = os.strerror(error.errno)
        raise DataError(out, "output", reason, "Free some space or write to another disk") from error


@contextmanager
def replace_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `out` that takes its place when the block ends without an error.

    Raises:
        DataError: `out` is not ours to replace, or the disk is full; an earlier output is intact.
    """
    check_replaceable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(out)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with explain_full_disk(out):
            temporary.mkdir()
            yield temporary
        put_in_place(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_stale(out: Path) -> None:
    """Remove what earlier processes left that were killed outright."""
    for folder in out.parent.glob(f".{glob.escape(out.name)}.*.tmp"):
        process = folder.name.removesuffix(".tmp").rpartition(".")[2]
        if process.isdigit() and not Path("/proc", process).exists() and Path("/proc").exists():
            shutil.rmtree(folder, ignore_errors=True)


def put_in_place(new: Path, out: Path) -> None:
    """Rename the folder `new` to `out`; an earlier `out` is removed when the new one is there, and else kept."""
    earlier = out.with_name(f".{out.name}.{os.getpid()}.old")
    if out.exists():
        out.rename(earlier)
    try:
        new.rename(out)
    except OSError:
        if earlier.exists():
            earlier.rename(out)
        raise
    shutil.rmtree(earlier, ignore_errors=True)
