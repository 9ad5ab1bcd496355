"""Put images and masks back into a published data set that came without them, from a user's own copies."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from defect_hub.dataset_scripts.copies import HASHES, Copies, find_copies, image_files, read_file
from defect_hub.dataset_scripts.fingerprints import fingerprint
from defect_hub.dataset_scripts.output import check_replaceable, replace_folder, row_shards
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.images import read_image
from defect_hub.dataset_scripts.records import make_record
from defect_hub.dataset_scripts.rewrite import (
    Contents,
    Group,
    check_apart,
    copy_lists,
    counts_line,
    read_card,
    row_groups,
    update_hashes,
    with_values,
    write_card,
    write_shards,
)
from defect_hub.dataset_scripts.samples import Sample
from defect_hub.dataset_scripts.workers import map_in_order

SampleReader = Callable[[Path], Iterable[Sample]]
"""Finds the samples of one source in the folder of the user's copies."""
LOOKED_UP = ["image.path", "mask.path", "annotation", "source", "width", "height", *HASHES]
"""What tells which rows miss something: a null image has a null path and costs nothing to read."""


@dataclass(frozen=True)
class JoinReport:
    """What a join restored; counts are images by source.

    Attributes:
        out: The folder.
        digest: SHA-256 over the content of all rows.
        by_bytes: Images found by the hash of their file.
        by_pixels: Images found by the hash of their pixels, in files that were saved anew.
        missing: Images still missing.
        masks: Masks restored.
        missing_masks: Masks still missing.
        problems: Files that could not be read or used, one problem each.
    """

    out: Path
    digest: str
    by_bytes: Mapping[str, int]
    by_pixels: Mapping[str, int]
    missing: Mapping[str, int]
    masks: Mapping[str, int]
    missing_masks: Mapping[str, int]
    problems: Sequence[DataError] = ()

    def lines(self) -> list[str]:
        """The report for a terminal."""
        named = (
            ("restored by the bytes of the file", self.by_bytes),
            ("restored by their pixels", self.by_pixels),
            ("still missing", self.missing),
            ("masks restored", self.masks),
            ("masks still missing", self.missing_masks),
        )
        shown = [f"note: {problem}" for problem in self.problems[:5]]
        if len(self.problems) > len(shown):
            shown.append(f"note: {len(self.problems) - len(shown)} more files with problems")
        shown += [f"{what}: {sum(counts.values()):,} ({counts_line(counts)})" for what, counts in named if counts]
        return [*shown, f"{self.out}: digest {self.digest[:16]}"]


@dataclass(frozen=True)
class _Task:
    """What to restore in a row group.

    Attributes:
        shard: File of the row group.
        group: Its number.
        files: File for the image of a row and the hash by which it was found, by number of the row.
        samples: Samples whose mask a row may have, by number of the row.
    """

    shard: Path
    group: int
    files: Mapping[int, tuple[Path, str]]
    samples: Mapping[int, Sequence[Sample]]


@dataclass(frozen=True)
class _Restored:
    """A row group with what could be restored.

    Attributes:
        group: The row group.
        counts: Number of rows by (what, source); `what` is an attribute of the report.
        hashes: SHA-256 of the image where it is another than before, by image id.
        problems: Masks that could not be used.
    """

    group: Group
    counts: Counter[tuple[str, str]]
    hashes: Mapping[str, str]
    problems: Sequence[DataError]


def join_images(
    folder: Path, raw: Path, out: Path, readers: Mapping[str, SampleReader] | None = None, workers: int = 1
) -> JoinReport:
    """Copy a built data set and put missing images and masks into it.

    Rows are matched with files by the SHA-256 of the bytes, so names and folders do not matter; what is then still
    missing, by the digest of the gray values, so a copy in another lossless format does; colours are not compared. Its
    row gets the user's bytes and their hash. Where the builder had resized an image, the original is resized again.

    Args:
        folder: Data set with null images, such as `release.write_release` makes.
        raw: Folder with the user's copies, searched with all folders below it.
        out: Folder to write; an earlier build is replaced when the new one is complete.
        readers: For each source, what finds its samples in `raw`; their annotations restore the masks. Without one the
            masks of the source stay null.
        workers: Processes; the result does not depend on it.

    Returns:
        The report. Rows that stay without image are no error.

    Raises:
        DataError: `folder` is not a built data set, `raw` holds no image, or `out` is not ours to replace.
    """
    card = read_card(folder)
    check_apart(folder, out)
    check_replaceable(out)
    files = image_files(raw)
    own = row_shards(folder)
    wanted = [row for shard in own for row in _incomplete_rows(shard)]
    copies = find_copies(wanted, files, workers)
    problems = copies.problems
    samples = _find_samples(wanted, raw, readers or {}, copies, problems)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    hashes: dict[str, str] = {}

    def restored_groups() -> Iterator[Group]:
        for restored in map_in_order(_restore_group, _tasks(folder, copies, samples), workers):
            hashes.update(restored.hashes)
            if restored.group.shard in own:
                problems.extend(restored.problems)
                for (what, source), count in restored.counts.items():
                    counts[what][source] += count
            yield restored.group

    with replace_folder(out) as new:
        contents = write_shards(folder, new, card, restored_groups())
        copy_lists(folder, new)
        update_hashes(new, hashes)
        write_card(new, card, contents, folder, out)
    return _report(out, contents, counts, problems)


def _report(
    out: Path, contents: Contents, counts: Mapping[str, Counter[str]], problems: Sequence[DataError]
) -> JoinReport:
    return JoinReport(
        out=out,
        digest=contents.digest,
        by_bytes=counts["by_bytes"],
        by_pixels=counts["by_pixels"],
        missing=+contents.missing,
        masks=counts["masks"],
        missing_masks={source: len(ids) for source, ids in contents.missing_masks.items()},
        problems=tuple({str(problem.where): problem for problem in problems}.values()),
    )


def _lacks(row: Mapping[str, Any]) -> bool:
    return row["image"] is None or (row["annotation"] == "mask" and row["mask"] is None)


def _incomplete_rows(shard: Path) -> Iterator[dict[str, Any]]:
    """What identifies the rows of a shard that lack their image or mask."""
    with pq.ParquetFile(shard) as file:
        for group in range(file.num_row_groups):
            yield from filter(_lacks, file.read_row_group(group, columns=LOOKED_UP).to_pylist())


def _find_samples(
    wanted: Sequence[Mapping[str, Any]],
    raw: Path,
    readers: Mapping[str, SampleReader],
    copies: Copies,
    problems: list[DataError],
) -> dict[tuple[str, str], list[Sample]]:
    """Samples by source and hash of their image file, for the sources that lack masks."""
    lacking = {row["source"] for row in wanted if row["annotation"] == "mask" and row["mask"] is None}
    found: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for source in sorted(lacking & readers.keys()):
        try:
            for sample in readers[source](raw):
                name = copies.names.get(sample.image.resolve())
                if name is not None:
                    found[source, name].append(sample)
        except DataError as error:
            problems.append(error)
    return found


def _tasks(folder: Path, copies: Copies, samples: Mapping[tuple[str, str], list[Sample]]) -> Iterator[_Task]:
    for shard, group in row_groups(folder):
        with pq.ParquetFile(shard) as file:
            rows = file.read_row_group(group, columns=LOOKED_UP).to_pylist()
        names = {number: copies.name_of(row) for number, row in enumerate(rows) if _lacks(row)}
        found = {number: name for number, name in names.items() if name is not None}
        files = {
            number: (copies.by_bytes.get(name) or copies.by_pixels[name], name)
            for number, name in found.items()
            if rows[number]["image"] is None
        }
        of_masks = {
            number: samples[rows[number]["source"], name]
            for number, name in found.items()
            if rows[number]["annotation"] == "mask" and (rows[number]["source"], name) in samples
        }
        yield _Task(shard, group, files, of_masks)


def _restore_group(task: _Task) -> _Restored:
    with pq.ParquetFile(task.shard) as file:
        table = file.read_row_group(task.group)
    rows = table.drop_columns(["image", "mask"]).to_pylist() if task.files or task.samples else []
    values: dict[str, dict[int, Any]] = defaultdict(dict)
    counts: Counter[tuple[str, str]] = Counter()
    problems: list[DataError] = []
    for number, (path, name) in task.files.items():
        try:
            what, restored = _restore_image(rows[number], path, name)
        except DataError as error:
            problems.append(error)
            continue
        counts[what, rows[number]["source"]] += 1
        for column, value in restored.items():
            values[column][number] = value
    for number, samples in task.samples.items():
        if number in values["image"] or number not in task.files:
            mask = _restore_mask(rows[number], samples, problems)
            if mask is not None:
                counts["masks", rows[number]["source"]] += 1
                values["mask"][number] = mask
    for column, filled in values.items():
        numbers = range(len(table))
        chosen = pa.array([number in filled for number in numbers])
        table = with_values(table, column, chosen, [filled.get(number) for number in numbers])
    changes = [
        f"{rows[number]['image_id']} {values['sha256'].get(number, '')} {_digest(values['mask'].get(number))}"
        for number in sorted({*values["image"], *values["mask"]})
    ]
    new = {number: sha256 for number, sha256 in values["sha256"].items() if sha256 != rows[number]["sha256"]}
    hashes = {rows[number]["image_id"]: sha256 for number, sha256 in new.items()}
    return _Restored(Group(task.shard, table, changes), counts, hashes, problems)


def _digest(image: Mapping[str, Any] | None) -> str:
    return "" if image is None else hashlib.sha256(image["bytes"]).hexdigest()


def _restore_image(row: Mapping[str, Any], path: Path, found_by: str) -> tuple[str, dict[str, Any]]:
    """How a row's image was found, and the values of its columns.

    Args:
        row: Values by column.
        path: File of the image.
        found_by: Hash by which it was found.

    Raises:
        DataError: The file is no longer what it was, or gives another picture when it is resized.
    """
    original = Path(row["source_file"] or path.name)
    resized = row["sha256"] != row["source_sha256"]
    name = f"{original.stem}.png" if resized else original.name
    data = read_file(path)
    sha256 = hashlib.sha256(data).hexdigest()
    if found_by in (row["sha256"], row["source_sha256"]) and found_by != sha256:
        raise DataError(path, "image", "changed during the join", "Join again")
    if sha256 == row["sha256"]:
        return "by_bytes", {"image": {"path": name, "bytes": data}, "sha256": sha256}
    if sha256 != row["source_sha256"]:
        image = {"path": path.name, "bytes": data}
        return "by_pixels", {"image": image, "sha256": sha256, "source_sha256": sha256}
    resized_image = read_image(path, (row["width"], row["height"]))
    other_bytes = resized_image.sha256 != row["sha256"]
    if other_bytes and fingerprint(resized_image.gray).pixel_sha256.hex() != row["pixel_sha256"]:
        found = f"resized to {row['width']}x{row['height']} px it is not the picture of {row['image_id']}"
        raise DataError(path, "image", found, "Use the version of Pillow that built the data set")
    return "by_bytes", {"image": {"path": name, "bytes": resized_image.data}, "sha256": resized_image.sha256}


def _restore_mask(
    row: Mapping[str, Any], samples: Sequence[Sample], problems: list[DataError]
) -> dict[str, Any] | None:
    """The mask of the first sample whose annotation marks what the row says, the sample of the row's id first."""
    for sample in sorted(samples, key=lambda sample: sample.image_id != row["image_id"]):
        try:
            found = make_record(sample).row
        except DataError as error:
            problems.append(error)
            continue
        if found["mask"] is not None and _outline(found) == _outline(row):
            name = Path(row["source_file"] or sample.image.name).stem
            return {"path": f"{name}.png", "bytes": found["mask"]["bytes"]}
    return None


def _outline(row: Mapping[str, Any]) -> tuple[int, int, list[list[float]]]:
    """Size of the image, and boxes and areas of the parts of its mask: whole numbers, so they compare exactly."""
    objects = row["objects"]
    parts = sorted([*bbox, area] for bbox, area in zip(objects["bbox"], objects["area"], strict=True))
    return row["width"], row["height"], parts
