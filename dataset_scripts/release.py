"""A copy of a built data set to publish: without the images that must not be redistributed."""

from __future__ import annotations

import re
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
    _check_sources(folder, keep)
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
        # Where nobody says whether an image may be passed on, it may not.
        kept = pc.is_in(table["source"], pa.array(keep, "string"))
        free = pc.or_(pc.fill_null(table["redistributable"], False), kept)
        there = pc.or_(*(pc.is_valid(table[name]) for name in IMAGE_COLUMNS))
        changed = pc.and_(pc.invert(free), there)
        changes = [f"{image_id} withheld" for image_id in table["image_id"].filter(changed).to_pylist()]
        if changes:
            for name in IMAGE_COLUMNS:
                table = with_values(table, name, changed, None)
        yield Group(shard, table, changes)


def _check_sources(folder: Path, keep: Collection[str]) -> None:
    """Raise a `DataError` for a source to keep of which there are no rows: most likely its name is misspelt."""
    if not keep:
        return
    known: set[str] = set()
    for shard in row_shards(folder):
        known.update(pq.read_table(shard, columns=["source"])["source"].to_pylist())
    if unknown := sorted(set(keep) - known):
        problem = f"there are no rows of {', '.join(unknown)}"
        raise DataError(folder, "keep", problem, f"Name one of {', '.join(sorted(known))}")


def _without_pictures(card: Card) -> Card:
    """The card without the figures that show images, and the paragraph below each."""
    shown = "|".join(map(re.escape, PLAIN_STATISTICS))
    figure = rf"^!\[[^\]]*\]\(statistics/(?!(?:{shown})\))[^)]*\)\n\n(?:.+\n)*\n?"
    return Card(card.front, re.sub(figure, "", card.body, flags=re.MULTILINE))
