"""Find images that show the same within and across splits and data sets, and what that means for an honest split."""

from __future__ import annotations

import io
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Features
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from defect_hub.dataset_scripts.duplicates import DuplicatePair, SearchResult, duplicate_groups, search_duplicates
from defect_hub.dataset_scripts.fingerprints import ORIENTATIONS, Fingerprint, fingerprint
from defect_hub.dataset_scripts.output import explain_full_disk, row_shards
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.folders import IMAGE_SUFFIXES
from defect_hub.dataset_scripts.readers.images import read_image
from defect_hub.dataset_scripts.workers import chunks, map_in_order

COLUMNS = ["image", "image_id", "sha256", "label"]
CHUNK = 50
CACHED_ROW_GROUPS = 16
SHOWN = 5
KINDS = {"bytes": "equal files", "pixels": "equal pixels", "near": "nearly equal"}
RELATIONS = ("within a split", "across splits", "across data sets")


@dataclass(frozen=True)
class AuditedImage:
    """An image and where it stands.

    Attributes:
        dataset: Name of the data set.
        split: Its split; in a plain folder the folder of the image, "." for the root.
        image_id: Its id; in a plain folder the path below the root.
        label: Class name; None where unknown.
        sha256: Of the image file.
        side: The split that it has in the config `leak_free`; in a plain folder "train", "val" or "test" where a part
            of its path begins so, else its split.
    """

    dataset: str
    split: str
    image_id: str
    label: str | None
    sha256: str
    side: str


@dataclass(frozen=True)
class AuditGroup:
    """Images that show the same.

    Attributes:
        members: Indices of the images.
        pairs: The pairs that connect them.
        relations: Which of `RELATIONS` occur.
        labels: Class names, where they contradict each other; else empty.
    """

    members: Sequence[int]
    pairs: Sequence[DuplicatePair]
    relations: Sequence[str]
    labels: Sequence[str]


@dataclass(frozen=True)
class Move:
    """An image that has to change sides so that no group of duplicates lies on two."""

    image: int
    to: str


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Attributes:
        images: All images that were read.
        problems: Files that were not.
        absent: Number of rows that have no image.
        search: Pairs of duplicates, by indices of `images`, and the limits of the search.
        groups: Images that pairs connect.
        summary: For each of `KINDS` the groups and images that pairs of this kind and the more exact ones connect,
            and the number of groups in each of `RELATIONS`.
        moves: What a leak-free split must change.
    """

    images: Sequence[AuditedImage]
    problems: Sequence[DataError]
    absent: int
    search: SearchResult
    groups: Sequence[AuditGroup]
    summary: Mapping[str, Mapping[str, int]]
    moves: Sequence[Move]

    def lines(self) -> list[str]:
        """The report for a terminal."""
        counts = Counter(image.dataset for image in self.images)
        lines = [f"{name}: {count} images" for name, count in counts.items()]
        lines += _first([f"not read: {problem}" for problem in self.problems])
        lines += _first([self._pair_line(pair) for pair in self.search.pairs])
        for kind, numbers in self.summary.items():
            parts = ", ".join(f"{numbers[relation]} {relation}" for relation in RELATIONS)
            lines.append(f"{KINDS[kind]}: {numbers['images']} images in {numbers['groups']} groups: {parts}")
        lines.append(f"groups with conflicting labels: {sum(bool(group.labels) for group in self.groups)}")
        lines += self._move_lines()
        if self.absent:
            lines.append(f"note: {self.absent} rows without image not compared")
        if self.search.flat:
            lines.append(f"note: too even for a comparison, only exact copies are found: {self.search.flat} images")
        if self.search.crowded:
            lines.append(f"note: alike to very many others, not all compared: {self.search.crowded} images")
        return lines

    def write(self, path: Path) -> None:
        """Write everything as JSON; the file appears complete or not at all.

        Raises:
            DataError: The disk is full.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with explain_full_disk(path):
                temporary.write_text(json.dumps(self._content(), indent=1), "utf-8")
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _pair_line(self, pair: DuplicatePair) -> str:
        first, second = (f"{self.images[i].dataset}/{self.images[i].image_id}" for i in (pair.first, pair.second))
        turned = "" if pair.orientation == ORIENTATIONS[0] else f", {pair.orientation}"
        near = f", similarity {pair.similarity:.2f}" if pair.kind == "near" else ""
        return f"{KINDS[pair.kind]}: {first} = {second}{turned}{near}"

    def _move_lines(self) -> list[str]:
        counts = Counter(
            (self.images[move.image].dataset, self.images[move.image].side, move.to) for move in self.moves
        )
        moves = [f"images to move from {old} to {new} in {name}: {n}" for (name, old, new), n in counts.items()]
        return moves or ["images to move for a leak-free split: 0"]

    def _content(self) -> dict[str, Any]:
        def described(index: int) -> dict[str, Any]:
            image = self.images[index]
            return {key: value for key, value in asdict(image).items() if key != "side"}

        return {
            "images": dict(Counter(image.dataset for image in self.images)),
            "not_read": [str(problem) for problem in self.problems],
            "without_image": self.absent,
            "summary": self.summary,
            "too_even": self.search.flat,
            "crowded": self.search.crowded,
            "groups": [
                {
                    "images": {str(index): described(index) for index in group.members},
                    "pairs": [asdict(pair) for pair in group.pairs],
                    "relations": group.relations,
                    "conflicting_labels": group.labels,
                }
                for group in self.groups
            ],
            "moves": [
                {**described(move.image), "from": self.images[move.image].side, "to": move.to} for move in self.moves
            ],
        }


def audit(folders: Sequence[Path] | Mapping[str, Path], workers: int = 1) -> AuditReport:
    """Search built data sets and plain folders of images for duplicates; rows without image are counted.

    Args:
        folders: Each a built data set, or a folder that holds images at any depth; where they are given without names,
            those of the folders.
        workers: Processes that decode and compare.

    Raises:
        DataError: A folder is missing or holds no images.
    """
    named = folders if isinstance(folders, Mapping) else _names(folders)
    pieces = [piece for name, folder in named.items() for piece in _pieces(name, folder)]
    read: list[_ReadImage] = []
    problems: list[DataError] = []
    total = sum(piece.count for piece in pieces)
    with tqdm(total=total, desc="images", unit="image") as progress:
        for piece, (found, failed) in zip(pieces, map_in_order(_read, pieces, workers), strict=True):
            read += found
            problems += failed
            progress.update(piece.count)
    images = [item.image for item in read]
    prints = [item.fingerprint for item in read]
    digests, places = [image.sha256 for image in images], [item.place for item in read]
    _row_images.cache_clear()  # The files may have changed since an earlier audit.
    search = search_duplicates(prints, digests, _load, sources=places, workers=workers)
    groups = _groups(images, search.pairs)
    absent = total - len(read) - len(problems)
    return AuditReport(
        images, problems, absent, search, groups, _summary(images, search.pairs), _moves(images, groups)
    )


@dataclass(frozen=True)
class _Place:
    """Where an image is read from: a file, or a row of a group of rows of a Parquet file."""

    path: Path
    row_group: int | None = None
    row: int = 0


@dataclass(frozen=True)
class _ReadImage:
    image: AuditedImage
    fingerprint: Fingerprint
    place: _Place


@dataclass(frozen=True)
class _Piece:
    """Images that a worker reads at once: files below `root`, or a group of rows of the Parquet file `root`."""

    dataset: str
    root: Path
    count: int
    files: Sequence[Path] = ()
    row_group: int = 0


def _names(folders: Sequence[Path]) -> dict[str, Path]:
    """Name of each data set: that of its folder, with the path where two are named alike."""
    counts = Counter(folder.resolve().name for folder in folders)
    return {
        folder.resolve().name if counts[folder.resolve().name] == 1 else folder.as_posix(): folder
        for folder in folders
    }


def _pieces(name: str, folder: Path) -> Iterator[_Piece]:
    shards = row_shards(folder)
    for shard in shards:
        metadata = _metadata(shard)
        for number in range(metadata.num_row_groups):
            yield _Piece(name, shard, metadata.row_group(number).num_rows, row_group=number)
    if shards:
        return
    if not folder.is_dir():
        raise DataError(folder, "folder", "does not exist", "Check the path")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not files:
        problem = f"holds neither data/*/*.parquet nor a {', '.join(IMAGE_SUFFIXES)} file"
        raise DataError(folder, "folder", problem, "Name a built data set or a folder of images")
    for chunk in chunks(files, CHUNK):
        yield _Piece(name, folder, len(chunk), chunk)


def _metadata(shard: Path) -> pq.FileMetaData:
    try:
        metadata = pq.read_metadata(shard)
    except (pa.ArrowException, OSError) as error:
        raise DataError(shard, "file", f"is not readable as Parquet ({error})", "Build or fetch it again") from error
    missing = set(COLUMNS) - set(metadata.schema.to_arrow_schema().names)
    if missing:
        raise DataError(shard, "columns", f"lacks {', '.join(sorted(missing))}", "Name a data set built by defect-hub")
    return metadata


def _read(piece: _Piece) -> tuple[list[_ReadImage], list[DataError]]:
    """The images of a piece, and those that do not decode; rows without image are neither."""
    read = []
    problems = []
    for load in _file_loads(piece) if piece.files else _row_loads(piece):
        try:
            read.append(load())
        except DataError as error:
            problems.append(error)
    return read, problems


def _file_loads(piece: _Piece) -> Iterator[Callable[[], _ReadImage]]:
    for path in piece.files:
        yield partial(_read_file, piece, path)


def _read_file(piece: _Piece, path: Path) -> _ReadImage:
    loaded = read_image(path)
    split = path.parent.relative_to(piece.root).as_posix()
    named = re.search(r"(?:^|/)(train|val|test)", split.lower())
    side = named[1] if named else split
    image_id = path.relative_to(piece.root).as_posix()
    image = AuditedImage(piece.dataset, split, image_id, None, loaded.source_sha256, side)
    return _ReadImage(image, fingerprint(loaded.gray), _Place(path))


def _row_loads(piece: _Piece) -> Iterator[Callable[[], _ReadImage]]:
    table = pq.ParquetFile(piece.root).read_row_group(piece.row_group, columns=COLUMNS)
    label: ClassLabel = Features.from_arrow_schema(table.schema)["label"]
    for number, row in enumerate(table.to_pylist()):
        name = None if row["label"] is None else label.int2str(row["label"])
        if row["image"] is not None:
            yield partial(_read_row, piece, number, {**row, "label": name})


def _read_row(piece: _Piece, number: int, row: Mapping[str, Any]) -> _ReadImage:
    split = re.sub(r"-\d+-of-\d+$", "", piece.root.stem)
    side = "train" if piece.root.parent.name == "seen" else split
    image = AuditedImage(piece.dataset, split, row["image_id"], row["label"], row["sha256"], side)
    gray = _decoded(row["image"]["bytes"], f"{piece.root}: {row['image_id']}")
    return _ReadImage(image, fingerprint(gray), _Place(piece.root, piece.row_group, number))


def _decoded(data: bytes, where: str) -> NDArray[np.uint8]:
    """Gray values (H, W) of the bytes of an image file."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow raises all of these.
        raise DataError(where, "image", f"does not decode ({error})", "Build or fetch the data set again") from error


def _load(place: _Place) -> NDArray[np.uint8]:
    """Read the gray values (H, W) of an image again."""
    if place.row_group is None:
        return read_image(place.path).gray
    return _decoded(_row_images(place.path, place.row_group)[place.row]["bytes"].as_py(), str(place.path))


@lru_cache(CACHED_ROW_GROUPS)
def _row_images(path: Path, row_group: int) -> pa.ChunkedArray:
    return pq.ParquetFile(path).read_row_group(row_group, columns=["image"])["image"]


def _groups(images: Sequence[AuditedImage], pairs: Sequence[DuplicatePair]) -> list[AuditGroup]:
    pairs_of = defaultdict(list)
    for pair in pairs:
        pairs_of[pair.first].append(pair)
    return [
        AuditGroup(
            members,
            [pair for member in members for pair in pairs_of[member]],
            _relations([images[member] for member in members]),
            _conflict([images[member] for member in members]),
        )
        for members in duplicate_groups(len(images), pairs)
    ]


def _relations(members: Sequence[AuditedImage]) -> list[str]:
    """Which of `RELATIONS` occur among images that show the same."""
    splits = Counter((image.dataset, image.split) for image in members)
    datasets = Counter(dataset for dataset, _ in splits)
    occur = (max(splits.values()) > 1, max(datasets.values()) > 1, len(datasets) > 1)
    return [relation for relation, occurs in zip(RELATIONS, occur, strict=True) if occurs]


def _conflict(members: Sequence[AuditedImage]) -> list[str]:
    """The class names if they differ in more than case and punctuation."""
    names = sorted({image.label for image in members if image.label is not None})
    return names if len({re.sub(r"\W|_", "", name.lower()) for name in names}) > 1 else []


def _summary(images: Sequence[AuditedImage], pairs: Sequence[DuplicatePair]) -> dict[str, dict[str, int]]:
    """Groups that only the pairs of a kind and of the more exact kinds connect, if any is of this kind."""
    summary = {}
    for rank, kind in enumerate(KINDS):
        counted = [pair for pair in pairs if list(KINDS).index(pair.kind) <= rank]
        ends = {pair.first for pair in counted if pair.kind == kind}
        groups = [group for group in duplicate_groups(len(images), counted) if not ends.isdisjoint(group)]
        relations = Counter(name for group in groups for name in _relations([images[member] for member in group]))
        numbers = {"groups": len(groups), "images": sum(map(len, groups))}
        summary[kind] = numbers | {relation: relations[relation] for relation in RELATIONS}
    return summary


def _moves(images: Sequence[AuditedImage], groups: Sequence[AuditGroup]) -> list[Move]:
    """What to move in the data sets that have a `train`: there if the group has images in it, else to most of them."""
    split_sets = {image.dataset for image in images if image.side == "train"}
    moves = []
    for group in groups:
        by_dataset = defaultdict(list)
        for member in group.members:
            by_dataset[images[member].dataset].append(member)
        for members in (by_dataset[name] for name in by_dataset if name in split_sets):
            sides = Counter(images[member].side for member in members)
            to = "train" if "train" in sides else min(sides, key=lambda side: (-sides[side], side))
            moves += [Move(member, to) for member in members if images[member].side != to]
    return moves


def _first(lines: Sequence[str]) -> list[str]:
    """The first lines, and how many more there are."""
    more = [f"... and {len(lines) - SHOWN} more, see --out"] if len(lines) > SHOWN else []
    return [*lines[:SHOWN], *more]
