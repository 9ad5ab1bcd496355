"""A copy of a built data set to publish: without the images that must not be redistributed."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from defect_hub.dataset_scripts.output import replace_folder, row_shards
from defect_hub.dataset_scripts.parquet import IMAGE_COLUMNS
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.rewrite import (
    Card,
    Group,
    check_apart,
    copy_lists,
    counts_line,
    read_card,
    row_groups,
    with_values,
    write_card,
    write_shards,
)

PLAIN_STATISTICS = ("statistics.json", "classes.png", "texts.png", "tsne.png", "box_sizes.png", "long_tail.png")
"""What `statistics.write_statistics` writes without showing an image."""
RIGHTS_COLUMNS = ["source", "license", "redistributable", *(f"{name}.path" for name in IMAGE_COLUMNS)]


@dataclass(frozen=True)
class ReleaseReport:
    """What a release holds.

    Attributes:
        out: The folder.
        digest: SHA-256 over the content of all rows.
        rows: Rows of each source.
        withheld: Rows without image of each source.
    """

    out: Path
    digest: str
    rows: Mapping[str, int]
    withheld: Mapping[str, int]

    def lines(self) -> list[str]:
        """The report for a terminal."""
        withheld = sum(self.withheld.values())
        named = f" ({counts_line(self.withheld)})" if withheld else ""
        total = f"{withheld} of {sum(self.rows.values())} rows without image{named}"
        return [f"{self.out}: {total}, digest {self.digest[:16]}"]


@dataclass(frozen=True)
class Rights:
    """The rows of a source under one licence.

    Attributes:
        source: Name of the source.
        license: As its owner states it; None: not stated.
        rows: Number of rows.
        published: Number of images that a release shows.
        withheld: Rows whose image or mask a release leaves out.
        kept: Rows that are whole although marked as not redistributable.
    """

    source: str
    license: str | None
    rows: int
    published: int
    withheld: int
    kept: int


def count_rights(folder: Path, keep: Collection[str] = ()) -> list[Rights]:
    """What a release of a built data set shows and withholds, sorted by source and licence; no image is read.

    Args:
        folder: Built data set.
        keep: As for `write_release`.

    Raises:
        DataError: There are no rows of a source to keep: most likely its name is misspelt.
    """
    counts: dict[tuple[str, str | None], Counter[str]] = defaultdict(Counter)
    for shard in row_shards(folder):
        with pq.ParquetFile(shard) as file:
            table = file.read(columns=RIGHTS_COLUMNS)
        withheld = _withheld(table, keep)
        held = pc.and_(_there(table), pc.invert(_permitted(table)))
        found = {
            "published": pc.and_(pc.is_valid(table["image"]), pc.invert(withheld)),
            "withheld": withheld,
            "kept": pc.and_(held, pc.invert(withheld)),
        }
        columns = [column.to_pylist() for column in (table["source"], table["license"], *found.values())]
        for source, licence, *values in zip(*columns, strict=True):
            counts[source, licence].update(rows=1, **dict(zip(found, map(int, values), strict=True)))
    known = {source for source, _ in counts}
    if unknown := sorted(set(keep) - known):
        problem = f"there are no rows of {', '.join(unknown)}"
        raise DataError(folder, "keep", problem, f"Name one of {', '.join(sorted(known))}")
    in_order = sorted(counts.items(), key=lambda item: (item[0][0], item[0][1] or ""))
    return [Rights(source, licence, **count) for (source, licence), count in in_order]


def write_release(folder: Path, out: Path, keep: Collection[str] = ()) -> ReleaseReport:
    """Copy a built data set without the images and masks that must not be redistributed.

    Their rows stay, with hashes, texts, boxes and splits; `join.join_images` restores the images. Configs that show
    masks list only rows whose mask is there. Figures that show images are left out where any image is.

    Args:
        folder: Built data set; one row group at a time is in memory.
        out: Folder to write; an earlier build is replaced when the new one is complete.
        keep: Sources whose rows stay whole although marked as not redistributable: you hold the rights.

    Raises:
        DataError: `folder` is not a built data set or has no rows of a source to keep; `out` is not ours to replace.
    """
    card = read_card(folder)
    check_apart(folder, out)
    count_rights(folder, keep)  # A misspelt source is named before anything is written.
    with replace_folder(out) as new:
        contents = write_shards(folder, new, card, _withheld_groups(folder, keep))
        hidden = contents.missing.total() > 0
        copy_lists(folder, new, PLAIN_STATISTICS if hidden else None)
        write_card(new, _without_pictures(card) if hidden else card, contents, folder, out)
    return ReleaseReport(out, contents.digest, contents.rows, +contents.missing)


def _withheld_groups(folder: Path, keep: Collection[str]) -> Iterator[Group]:
    for shard, group in row_groups(folder):
        with pq.ParquetFile(shard) as file:
            table = file.read_row_group(group)
        changed = _withheld(table, keep)
        changes = [f"{image_id} withheld" for image_id in table["image_id"].filter(changed).to_pylist()]
        if changes:
            for name in IMAGE_COLUMNS:
                table = with_values(table, name, changed, None)
        yield Group(shard, table, changes)


def _withheld(table: pa.Table, keep: Collection[str]) -> pa.ChunkedArray:
    """Whether a row has an image or a mask that a release leaves out."""
    kept = pc.is_in(table["source"], pa.array(keep, "string"))
    return pc.and_(_there(table), pc.invert(pc.or_(_permitted(table), kept)))


def _permitted(table: pa.Table) -> pa.ChunkedArray:
    """Whether a row's image may be passed on; where nobody says so, it may not."""
    return pc.fill_null(table["redistributable"], False)


def _there(table: pa.Table) -> pa.ChunkedArray:
    return pc.or_(*(pc.is_valid(table[name]) for name in IMAGE_COLUMNS))


def _without_pictures(card: Card) -> Card:
    """The card without the figures that show images, and the paragraph below each."""
    shown = "|".join(map(re.escape, PLAIN_STATISTICS))
    figure = rf"^!\[[^\]]*\]\(statistics/(?!(?:{shown})\))[^)]*\)\n\n(?:.+\n)*\n?"
    return Card(card.front, re.sub(figure, "", card.body, flags=re.MULTILINE))
