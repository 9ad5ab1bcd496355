"""A user's copies of images, found by their content wherever they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from defect_hub.dataset_scripts.fingerprints import fingerprint
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.folders import IMAGE_SUFFIXES, walk_files
from defect_hub.dataset_scripts.readers.images import FORMATS, read_image
from defect_hub.dataset_scripts.workers import chunks, map_in_order

CHUNK = 50
HASHES = ("sha256", "source_sha256", "pixel_sha256")


@dataclass
class Copies:
    """Where the user's copies of wanted images are.

    Attributes:
        by_bytes: File by SHA-256 of its bytes.
        by_pixels: File by digest of its pixels.
        names: The hash by which each file was found, also of further copies; by resolved path.
        problems: Files that could not be read.
    """

    by_bytes: dict[str, Path] = field(default_factory=dict)
    by_pixels: dict[str, Path] = field(default_factory=dict)
    names: dict[Path, str] = field(default_factory=dict)
    problems: list[DataError] = field(default_factory=list)

    def note(self, found: dict[str, Path], digest: str, path: Path) -> None:
        found.setdefault(digest, path)
        self.names[path.resolve()] = digest

    def name_of(self, row: Mapping[str, Any]) -> str | None:
        """The hash by which a file for a row was found."""
        places = zip(HASHES, (self.by_bytes, self.by_bytes, self.by_pixels), strict=True)
        return next((row[name] for name, found in places if row[name] in found), None)


def image_files(raw: Path) -> list[Path]:
    """All image files below a folder, in a fixed order."""
    files = [path for path in walk_files(raw) if path.name.lower().endswith(IMAGE_SUFFIXES)]
    if not files:
        suffixes = " or ".join(IMAGE_SUFFIXES)
        raise DataError(raw, "folder", f"holds no {suffixes} file", "Name the folder of your copies of the sets")
    return files


def find_copies(wanted: Sequence[Mapping[str, Any]], files: Sequence[Path], workers: int) -> Copies:
    """Look for files with the bytes, then among the other files for those with the pixels of wanted images."""
    copies = Copies()
    hashes = {row[name] for row in wanted for name in ("sha256", "source_sha256")}
    others = []
    for path, digest in _by_file(_file_hash, files, "files", workers):
        if isinstance(digest, DataError):
            copies.problems.append(digest)
        elif digest in hashes:
            copies.note(copies.by_bytes, digest, path)
        else:
            others.append(path)
    missing = [row for row in wanted if copies.name_of(row) is None]
    pixels = {row["pixel_sha256"] for row in missing}
    measure = partial(_pixel_hash, sizes=frozenset((row["width"], row["height"]) for row in missing))
    for path, digest in _by_file(measure, others if missing else [], "pixels", workers):
        if isinstance(digest, DataError):
            copies.problems.append(digest)
        elif digest in pixels:
            copies.note(copies.by_pixels, digest, path)
    return copies


def _by_file(
    measure: Callable[[Path], str | DataError], files: Sequence[Path], what: str, workers: int
) -> Iterator[tuple[Path, str | DataError]]:
    """Each file with what was measured of it, with a progress bar."""
    with tqdm(total=len(files), desc=what, unit="file", disable=not files) as progress:
        for measured in map_in_order(partial(_measure_all, measure), chunks(files, CHUNK), workers):
            progress.update(len(measured))
            yield from measured


def _measure_all(measure: Callable[[Path], str | DataError], files: Sequence[Path]) -> list[tuple[Path, Any]]:
    return [(path, measure(path)) for path in files]


def _file_hash(path: Path) -> str | DataError:
    try:
        return hashlib.sha256(read_file(path)).hexdigest()
    except DataError as error:
        return error


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(path, "image", f"cannot be read ({error.strerror})", "Supply a readable copy") from error


def _pixel_hash(path: Path, sizes: Collection[tuple[int, int]]) -> str | DataError:
    """Digest of the pixels; empty for an image of a size (width, height) that nobody wants, which is not decoded."""
    try:
        if _size(path) not in sizes:
            return ""
        return fingerprint(read_image(path).gray).pixel_sha256.hex()
    except DataError as error:
        return error


def _size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path, formats=FORMATS) as picture:
            return picture.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(path, "image", "is not an image", "Supply an intact copy") from error
