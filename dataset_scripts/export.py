"""A built data set as folders of images with COCO and YOLO annotations, for what trains detectors from those."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from string import Template
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from datasets import Features
from tqdm import tqdm

from defect_hub.dataset_scripts.annotations import NORMAL, UNKNOWN
from defect_hub.dataset_scripts.cards import markdown_table
from defect_hub.dataset_scripts.category_list import CATEGORIES_FILE, read_categories
from defect_hub.dataset_scripts.output import BUILD_MARK, replace_folder, row_shards
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.rewrite import Card, check_apart, counts_line, read_card

NO_DEFECT = (NORMAL, UNKNOWN)
"""Names of the label space that no object has."""
KEPT = (
    *("image_id", "sha256", "source", "source_file", "scene", "object_name", "super_category", "is_defective"),
    *("annotation", "official_split", "redistributable", "caption"),
)
"""Columns that stand as further keys in the COCO entry of an image."""
COLUMNS = ("image", "image_number", "width", "height", "label", "license", "objects", *KEPT)
REFUSED = re.compile(r'[\x00-\x1f<>:"\\|?*]')
"""Characters that a file system may refuse in names."""
LONGEST_STEM = 200
"""Bytes; file systems take names of up to 255."""
README = """---
$mark: $digest
---

# $name: config `$config` for object detection

```
Images/<split>/<image number>_<name of the original file>
labels/<split>/<the same stem>.txt
annotations/<split>.json
classes.txt
```

$table

- Images are the files of the build, byte by byte. Their rights are those of their sources: `license_name` and
  `redistributable` of each image in `annotations/`.
- `labels/`: YOLO, `class cx cy width height` as fractions of the image. Classes count from 0 in the order of
  `classes.txt`. An image without objects has an empty file.
- `annotations/`: COCO, `bbox` is `[x, y, width, height]` in pixels. Category ids count from 1: YOLO class + 1. The id
  of an image is its `image_number`, the id of an annotation that of the object in the build. Images also have the keys
  `$kept`, `label` (a name) and `license_name`; annotations have `is_novel`; categories have `scene`, `prompt` and
  `novel` where the build lists them.
- Trainers that look for `images` beside `labels` in lower case, as Ultralytics does, need `Images` renamed.
- COCO marks crowds by `iscrowd`; YOLO cannot, and has their boxes like others.
- Images that may not be passed on are missing where the build was made without them; their annotations are here.
"""


@dataclass(frozen=True)
class ExportReport:
    """What an export holds.

    Attributes:
        out: The folder.
        images: Entries of images by split.
        boxes: Boxes by split.
        missing: Rows without image of each source; they are entries without a file.
        unannotated: Images without objects that are not known to be normal.
        aliases: Splits left out because they have the files of another.
    """

    out: Path
    images: Mapping[str, int]
    boxes: Mapping[str, int]
    missing: Mapping[str, int]
    unannotated: int
    aliases: Sequence[str]

    def lines(self) -> list[str]:
        """The report for a terminal."""
        notes = [f"{split}: the files of another split, not written again" for split in self.aliases]
        if self.missing:
            notes.append(f"{sum(self.missing.values())} rows without image ({counts_line(self.missing)})")
        if self.unannotated:
            notes.append(f"{self.unannotated} images have no objects and are not known to be normal")
        total = ", ".join(f"{split} {count:,} ({self.boxes[split]:,} boxes)" for split, count in self.images.items())
        return [*(f"note: {note}" for note in notes), f"{self.out}: {total} images"]


@dataclass
class _Tally:
    """What is counted over all splits."""

    numbers: set[int] = field(default_factory=set)
    images: Counter[str] = field(default_factory=Counter)
    boxes: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    unannotated: int = 0

    def add(self, split: str, row: Mapping[str, Any], written: bool) -> None:
        """Count a row.

        Raises:
            DataError: An earlier row has its number.
        """
        if row["image_number"] in self.numbers:
            problem = f"image number {row['image_number']} occurs twice"
            raise DataError(row["image_id"], split, problem, "Choose a config whose splits share no images")
        self.numbers.add(row["image_number"])
        self.images[split] += 1
        self.boxes[split] += len(row["objects"]["id"])
        if not written:
            self.missing[row["source"]] += 1
        self.unannotated += not row["objects"]["id"] and row["is_defective"] is not False


def export_detection(folder: Path, out: Path, config: str = "default") -> ExportReport:
    """Write the rows of a config as `Images/`, `labels/` (YOLO), `annotations/` (COCO) and `classes.txt`.

    Category ids are 1-based in COCO, as its tools expect, and 0-based in YOLO; both follow the names of
    `objects.category` without "normal" and "unknown". Rows without image keep their annotations.

    Args:
        folder: Built data set; of its images one row group is in memory.
        out: Folder to write; an earlier one of ours is replaced when the new one is complete.
        config: Whose rows: its files and filters in the card's front matter; all columns are used.

    Raises:
        DataError: `folder` is not a built data set or was built by an earlier version; it has no such config, or one
            without images or objects, or whose splits share images; `out` is not ours to replace.
    """
    card = read_card(folder)
    check_apart(folder, out)
    entry = _config_entry(card, folder, config)
    features = read_features(folder)
    names = object_categories(features)
    splits, aliases = _split_shards(folder, entry)
    tally = _Tally()
    with replace_folder(out) as new:
        info = {"description": card.front.get("pretty_name", folder.resolve().name), "version": card.front[BUILD_MARK]}
        head = {"info": info, "categories": _coco_categories(read_categories(folder), names)}
        for split, shards in splits.items():
            _write_split(new, split, _shown_rows(shards, entry, split), features, head, tally)
        (new / "classes.txt").write_text("".join(f"{name}\n" for name in names), "utf-8")
        if (folder / CATEGORIES_FILE).is_file():
            shutil.copyfile(folder / CATEGORIES_FILE, new / CATEGORIES_FILE)
        (new / "README.md").write_text(_readme(folder, config, info["version"], tally), "utf-8")
    return ExportReport(out, tally.images, tally.boxes, tally.missing, tally.unannotated, aliases)


def read_features(folder: Path) -> Features:
    """Features of the rows of a built data set.

    Raises:
        DataError: It has no rows, or lacks columns that builds of today have.
    """
    shard = next(iter(row_shards(folder)), None)
    features = Features.from_arrow_schema(pq.read_schema(shard)) if shard else Features()
    if missing := [name for name in COLUMNS if name not in features]:
        raise DataError(folder, "columns", f"lacks {', '.join(missing)}", "Build the data set again")
    return features


def object_categories(features: Features) -> list[str]:
    """Names of the categories that objects can have, in the order of their ids."""
    return [name for name in features["objects"]["category"].feature.names if name not in NO_DEFECT]


def _config_entry(card: Card, folder: Path, config: str) -> dict[str, Any]:
    """The config's entry in the front matter."""
    fit = {
        name: entry
        for name, (entry, _) in card.configs.items()
        if {"image", "objects"} <= set(entry.get("columns", COLUMNS))
    }
    if config not in fit:
        problem = "has no images with objects" if config in card.configs else "is not in the card"
        raise DataError(folder, f"config {config}", problem, f"Choose one of {', '.join(fit)}")
    return fit[config]


def _split_shards(folder: Path, entry: Mapping[str, Any]) -> tuple[dict[str, list[Path]], list[str]]:
    """Shards of each split, and the splits that only rename an earlier one."""
    splits: dict[str, list[Path]] = {}
    aliases = []
    for part in entry["data_files"]:
        patterns = [part["path"]] if isinstance(part["path"], str) else part["path"]
        shards = sorted({shard for pattern in patterns for shard in folder.glob(pattern)})
        if shards in splits.values():
            aliases.append(part["split"])
        else:
            splits[part["split"]] = shards
    return splits, aliases


def _shown_rows(shards: Sequence[Path], entry: Mapping[str, Any], split: str) -> Iterator[dict[str, Any]]:
    """The rows of a split that its config shows, with a progress bar over row groups."""
    filters = [[tuple(condition) for condition in group] for group in entry.get("filters", ())]
    conditions = pq.filters_to_expression(filters) if filters else None
    columns = [*{*COLUMNS, *(column for group in filters for column, *_ in group)}]
    groups = [(shard, group) for shard in shards for group in range(pq.read_metadata(shard).num_row_groups)]
    for shard, group in tqdm(groups, desc=split, unit="group"):
        with pq.ParquetFile(shard) as file:
            table = file.read_row_group(group, columns)
        shown = table if conditions is None else table.filter(conditions)
        yield from shown.select(COLUMNS).to_pylist()


def _write_split(
    new: Path, split: str, rows: Iterator[dict[str, Any]], features: Features, head: Mapping[str, Any], tally: _Tally
) -> None:
    """Write images, labels and COCO file of a split."""
    images, labels = new / "Images" / split, new / "labels" / split
    for folder in (images, labels, new / "annotations"):
        folder.mkdir(parents=True, exist_ok=True)
    ids = {category["name"]: category["id"] for category in head["categories"]}
    names = features["objects"]["category"].feature.names
    coco_ids = {number: ids[name] for number, name in enumerate(names) if name in ids}
    licenses: dict[str | None, int] = {}
    image_lines: list[str] = []
    object_lines: list[str] = []
    for row in rows:
        name = _file_name(row)
        data = (row["image"] or {}).get("bytes")
        tally.add(split, row, data is not None)
        if data is not None:
            (images / name).write_bytes(data)
        objects = list(_coco_objects(row, coco_ids))
        text = "".join(f"{_yolo_line(item, row['width'], row['height'])}\n" for item in objects)
        (labels / f"{PurePosixPath(name).stem}.txt").write_text(text, "utf-8")
        license_id = licenses.setdefault(row["license"], len(licenses) + 1)
        image = _coco_image(row, name, license_id, features["label"].names[row["label"]])
        # As text, each is a fraction of what it is as a dict.
        image_lines.append(json.dumps(image))
        object_lines += map(json.dumps, objects)
    listed = [{"id": number, "name": name, "url": ""} for name, number in licenses.items()]
    start = json.dumps({**head, "licenses": listed}).removesuffix("}")
    with (new / "annotations" / f"{split}.json").open("w", encoding="utf-8") as file:
        file.write(f'{start}, "images": [\n')
        file.write(",\n".join(image_lines))
        file.write('\n], "annotations": [\n')
        file.write(",\n".join(object_lines))
        file.write("\n]}\n")


def _file_name(row: Mapping[str, Any]) -> str:
    """Name of the image: its number, which no other has, and the name of the original file."""
    given = (row["image"] or {}).get("path") or row["source_file"] or row["image_id"]
    name = PurePosixPath(REFUSED.sub("_", PurePosixPath(given).name))
    stem = name.stem.encode()[:LONGEST_STEM].decode("utf-8", "ignore")
    return f"{row['image_number']:06d}_{stem}{name.suffix}"


def _coco_image(row: Mapping[str, Any], name: str, license_id: int, label: str) -> dict[str, Any]:
    entry = {"id": row["image_number"], "file_name": name, "width": row["width"], "height": row["height"]}
    kept = {column: row[column] for column in KEPT}
    return {**entry, "license": license_id, "license_name": row["license"], "label": label, **kept}


def _coco_objects(row: Mapping[str, Any], coco_ids: Mapping[int, int]) -> Iterator[dict[str, Any]]:
    """COCO annotations of a row; `coco_ids` by id of the class label."""
    lists = row["objects"]
    keys = ("id", "bbox", "category", "area", "iscrowd", "is_novel")
    for number, bbox, category, area, is_crowd, is_novel in zip(*(lists[key] for key in keys), strict=True):
        if category not in coco_ids:
            problem = f"an object is of a category {' or '.join(NO_DEFECT)}"
            raise DataError(row["image_id"], "objects", problem, "Correct its annotation and build again")
        yield {
            "id": number,
            "image_id": row["image_number"],
            "category_id": coco_ids[category],
            "bbox": [_shortest(value) for value in bbox],
            "area": _shortest(area),
            "iscrowd": int(is_crowd),
            "is_novel": is_novel,
        }


def _shortest(value: float) -> float:
    """The decimal of fewest digits that is the same float32: 0.1, not 0.10000000149011612."""
    return float(str(np.float32(value)))


def _yolo_line(item: Mapping[str, Any], width: int, height: int) -> str:
    """Class and relative box; nine decimals are 0.0001 px in an image of 100,000 px."""
    x, y, across, down = item["bbox"]
    fractions = ((x + across / 2) / width, (y + down / 2) / height, across / width, down / height)
    return " ".join([str(item["category_id"] - 1), *(f"{value:.9f}" for value in fractions)])


def _coco_categories(about: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    columns = {"supercategory": "super_category", "scene": "scene", "prompt": "prompt"}
    return [
        {"id": number, "name": name}
        | {key: text for key, column in columns.items() if (text := about.get(name, {}).get(column))}
        | ({"novel": about[name]["novel"]} if name in about else {})
        for number, name in enumerate(names, start=1)
    ]


def _readme(folder: Path, config: str, digest: str, tally: _Tally) -> str:
    splits = [[split, f"{count:,}", f"{tally.boxes[split]:,}"] for split, count in tally.images.items()]
    return Template(README).substitute(
        mark=BUILD_MARK,
        digest=digest,
        name=folder.resolve().name,
        config=config,
        table=markdown_table(["split", "images", "boxes"], splits),
        kept="`, `".join(KEPT),
    )
