"""Check raw data before a build, and a built folder after a copy or a download: all problems at once."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from defect_hub.dataset_scripts.assemble import make_batches, repeated_ids, without_repeats
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.rewrite import read_card
from defect_hub.dataset_scripts.samples import Sample
from defect_hub.dataset_scripts.schema import record_features
from defect_hub.dataset_scripts.workers import map_in_order

REBUILD = "Copy or fetch the folder again, or build it anew"
CHECKED_COLUMNS = ["image_id", "image", "sha256", "width", "height", "mask"]


@dataclass(frozen=True)
class Validation:
    """What a check found.

    Attributes:
        images: Number of images that were read.
        problems: What a build would refuse, or skip on request.
        warnings: What a build would leave out or only note.
    """

    images: int
    problems: Sequence[DataError]
    warnings: Sequence[str] = ()

    def lines(self) -> list[str]:
        """Everything found, one line each, and a last line that sums up."""
        found = [f"error: {problem}" for problem in self.problems] + [f"note: {warning}" for warning in self.warnings]
        total = f"{self.images} images without problems, {len(self.problems)} problems, {len(self.warnings)} notes"
        return [*found, total]


def validate_samples(
    class_names: Sequence[str],
    splits: Mapping[str, Sequence[Sample]],
    problems: Sequence[DataError],
    workers: int = 1,
    *,
    categories: Sequence[str] | None = None,
) -> Validation:
    """Read every image and annotation as a build would, and write nothing.

    Args:
        class_names: Label space in label order.
        splits: Samples of each split, from a reader.
        problems: Problems that the reader found.
        workers: Processes that read.
        categories: Categories of objects in order; None: the label space.
    """
    found = [*problems, *repeated_ids(splits)]
    warnings: list[str] = []
    images = 0
    schema = record_features(class_names, categories).arrow_schema
    for _, batch in make_batches(without_repeats(splits), schema, workers):
        images += len(batch.table)
        found += batch.problems
        warnings += batch.warnings
        warnings += [f"{image_id}: {line}" for image_id, line in batch.disagreements]
        warnings += [f"{image_id}: {repair}" for image_id, repair in batch.repairs]
    return Validation(images, found, warnings)


def validate_build(folder: Path, workers: int = 1) -> Validation:
    """Check a built folder: files and row counts against the card, every image and mask against its columns.

    Of a row without image, as a release has them, only its place in the list of splits is checked.

    Raises:
        DataError: The folder is not a built data set.
    """
    front = read_card(folder).front
    rows = {path: pq.read_metadata(path).num_rows for path in sorted(folder.glob("data/*/*.parquet"))}
    problems = _check_counts(folder, front, rows)
    groups = [(path, group) for path in rows for group in range(pq.read_metadata(path).num_row_groups)]
    hashes: dict[str, str] = {}
    absent: set[str] = set()
    for read, without, bad in map_in_order(_check_group, tqdm(groups, desc="row groups", unit="group"), workers):
        hashes |= read
        absent |= without
        problems += bad
    problems += _check_split_list(folder / "splits.csv", hashes)
    warnings = [f"{len(absent)} rows without image"] if absent else []
    return Validation(len(hashes) - len(absent), problems, warnings)


def _check_counts(folder: Path, front: Mapping[str, Any], rows: Mapping[Path, int]) -> list[DataError]:
    """The default config's rows by split."""
    files = next(config["data_files"] for config in front["configs"] if config["config_name"] == "default")
    info = next(info for info in front["dataset_info"] if info["config_name"] == "default")
    expected = {split["name"]: split["num_examples"] for split in info["splits"]}
    problems = []
    for entry in files:
        patterns = entry["path"] if isinstance(entry["path"], list) else [entry["path"]]
        found = sum(count for path, count in rows.items() for pattern in patterns if path.match(pattern))
        if found != expected[entry["split"]]:
            what = f"has {found} rows where the card says {expected[entry['split']]}"
            problems.append(DataError(folder, entry["split"], what, REBUILD))
    return problems


def _check_group(place: tuple[Path, int]) -> tuple[dict[str, str], set[str], list[DataError]]:
    """Hash of each good row's image in a row group, which of them lack it, and what is wrong with the others."""
    path, group = place
    good: dict[str, str] = {}
    absent: set[str] = set()
    problems: list[DataError] = []
    for row in pq.ParquetFile(path).read_row_group(group, columns=CHECKED_COLUMNS).to_pylist():
        bad = _row_problem(row)
        if bad:
            problems.append(DataError(f"{path}: {row['image_id']}", *bad, REBUILD))
        else:
            good[row["image_id"]] = row["sha256"]
            if row["image"] is None:
                absent.add(row["image_id"])
    return good, absent, problems


def _row_problem(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """(field, problem) of a row, if any."""
    if row["image"] is not None and hashlib.sha256(row["image"]["bytes"]).hexdigest() != row["sha256"]:
        return "sha256", "is not that of the image"
    size = row["width"], row["height"]
    for field in ("image", "mask"):
        if row[field] is None:
            continue
        try:
            with Image.open(io.BytesIO(row[field]["bytes"])) as picture:
                picture.load()
        except (OSError, SyntaxError, ValueError) as error:
            return field, f"does not decode ({error})"
        if picture.size != size:
            return field, f"has {picture.size[0]}x{picture.size[1]} px where the row says {size[0]}x{size[1]} px"
    return None


def _check_split_list(path: Path, hashes: Mapping[str, str]) -> list[DataError]:
    with path.open(encoding="utf-8", newline="") as file:
        listed = {row["image_id"]: row["sha256"] for row in csv.DictReader(file)}
    different = sorted(name for name in {*listed, *hashes} if listed.get(name) != hashes.get(name))
    return [DataError(path, name, "is not listed as it is in the shards", REBUILD) for name in different]
