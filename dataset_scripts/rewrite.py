"""Copies of a built data set, row group by row group, with a card that states what they hold."""

from __future__ import annotations

import csv
import hashlib
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from datasets import Features
from tqdm import tqdm

from defect_hub.dataset_scripts.cards import (
    COPY,
    DUMPER,
    LOCAL_COPY,
    configs_table,
    has_block,
    markdown_table,
    renamed,
    with_block,
)
from defect_hub.dataset_scripts.output import BUILD_MARK, is_build, row_shards
from defect_hub.dataset_scripts.parquet import IMAGE_COLUMNS, ShardWriter, view_size
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.schema import View

LIST_SUFFIXES = (".csv", ".json", ".md", ".txt", ".yaml")
"""Of the files beside the shards that a copy keeps: lists, and nothing that could hold a picture."""
FULL_CONFIGS = "full_configs"
"""Key in the front matter: the configs with masks as they are when no mask is missing."""
MARKERS = "<!-- missing images -->", "<!-- /missing images -->"
UNLIMITED = 1 << 62
Entries = tuple[dict[str, Any], dict[str, Any]]
"""A config's entry in `configs` and its entry in `dataset_info`."""


@dataclass(frozen=True)
class Group:
    """A row group of the copy.

    Attributes:
        shard: The file of the earlier folder that it comes from.
        table: Its rows.
        changes: One line for each row that differs from the earlier folder's, naming what it holds now.
    """

    shard: Path
    table: pa.Table
    changes: Sequence[str]


@dataclass(frozen=True)
class Card:
    """README.md in its two parts."""

    front: dict[str, Any]
    body: str

    @property
    def configs(self) -> dict[str, Entries]:
        """The entries of each config, as they are when no mask is missing."""
        infos = {entry["config_name"]: entry for entry in self.front["dataset_info"]}
        features = {feature["name"]: feature for feature in infos["default"]["features"]}
        configs = {}
        for entry in [*self.front["configs"], *self.front.get(FULL_CONFIGS, [])]:
            name = entry["config_name"]
            shown = [features[column] for column in entry.get("columns", features)]
            configs[name] = entry, infos.get(name) or {"config_name": name, "features": deepcopy(shown)}
        return configs


@dataclass
class Contents:
    """What a copy holds; each image counts once.

    Attributes:
        rows: Rows of each source.
        missing: Rows without image of each source.
        masks: Rows with a mask of each source.
        missing_masks: Ids of the rows of each source that say they have a mask and are without.
        sizes: (rows, bytes in memory) of each shard for each config.
        digest: SHA-256 over the content of all rows.
    """

    rows: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    masks: Counter[str] = field(default_factory=Counter)
    missing_masks: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    sizes: dict[str, dict[Path, tuple[int, int]]] = field(default_factory=lambda: defaultdict(dict))
    digest: str = ""

    def add(self, table: pa.Table) -> None:
        """Count rows."""
        columns = [table[name].to_pylist() for name in ("source", "image_id", "annotation")]
        valid = [table[name].is_valid().to_pylist() for name in IMAGE_COLUMNS]
        for source, image_id, annotation, image, mask in zip(*columns, *valid, strict=True):
            self.rows[source] += 1
            self.missing[source] += not image
            self.masks[source] += mask
            if annotation == "mask" and not mask:
                self.missing_masks[source].append(image_id)


def check_apart(folder: Path, out: Path) -> None:
    """Raise a `DataError` where the copy would take the place of what it is made from."""
    source, target = folder.resolve(), out.resolve()
    if source.is_relative_to(target) or target.is_relative_to(source):
        raise DataError(out, "output", f"is not apart from {folder}", "Choose another --out")


def read_card(folder: Path) -> Card:
    """The card of a built data set.

    Raises:
        DataError: The folder is not one.
    """
    if is_build(folder):
        front, _, body = (folder / "README.md").read_text("utf-8").removeprefix("---\n").partition("\n---\n")
        card = Card(yaml.safe_load(front), body)
        if "dataset_info" in card.front:  # An export has a card too, but no configs.
            return card
    raise DataError(folder, "folder", "is not a built data set", "Make one with defect-hub data build")


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("data/*/*.parquet"))


def row_groups(folder: Path) -> Iterator[tuple[Path, int]]:
    """(shard, number of the row group) of all row groups, with a progress bar."""
    places = [(shard, group) for shard in _shards(folder) for group in range(pq.read_metadata(shard).num_row_groups)]
    yield from tqdm(places, desc="row groups", unit="group")


def is_of(shard: Path, entry: Mapping[str, Any], folder: Path) -> bool:
    """Whether a shard belongs to a split of a config, an entry of its `data_files`."""
    patterns = [entry["path"]] if isinstance(entry["path"], str) else entry["path"]
    return any(shard.relative_to(folder).match(pattern) for pattern in patterns)


def with_values(
    table: pa.Table, name: str, chosen: pa.Array | pa.ChunkedArray, values: Sequence[Any] | None
) -> pa.Table:
    """The table with other values in some rows of a column.

    Args:
        table: Rows.
        name: The column; its type and metadata stay.
        chosen: Whether each row changes.
        values: For each row its value, which only chosen rows take; None: null in all of them.
    """
    place, kind = table.schema.get_field_index(name), table.schema.field(name)
    new = pa.scalar(None, kind.type) if values is None else pa.array(values, kind.type)
    return table.set_column(place, kind, pc.if_else(chosen, new, table[name]))


def write_shards(folder: Path, new: Path, card: Card, groups: Iterable[Group]) -> Contents:
    """Write row groups to shards of the same names and count what they hold.

    Args:
        folder: The earlier folder.
        new: Folder to write to.
        card: The earlier card.
        groups: All row groups, shard by shard.
    """
    contents, own = Contents(), set(row_shards(folder))
    digest, changed = hashlib.sha256(card.front[BUILD_MARK].encode()), False
    for shard, several in groupby(groups, lambda group: group.shard):
        target = new / shard.relative_to(folder)
        views = _views(shard, folder, card)
        with ExitStack() as stack:
            writer = None
            for group in several:
                writer = writer or stack.enter_context(_shard_writer(target, group.table))
                writer.write(group.table)
                _measure(group, views, contents)
                if shard in own:
                    contents.add(group.table)
                digest.update("".join(f"{line}\n" for line in group.changes).encode())
                changed = changed or bool(group.changes)
        # One file whatever its size: the bounds of the earlier shards are kept.
        target.with_stem(f"{target.stem}-00000-of-00001").rename(target)
    contents.digest = digest.hexdigest() if changed else card.front[BUILD_MARK]
    return contents


def _shard_writer(target: Path, table: pa.Table) -> ShardWriter:
    return ShardWriter(target.parent, target.stem, Features.from_arrow_schema(table.schema), {}, UNLIMITED)


def _views(shard: Path, folder: Path, card: Card) -> dict[str, View]:
    """What each config shows of a shard while no mask is missing."""
    return {
        name: View(tuple(config.get("columns", ())), tuple(map(tuple, config.get("filters", [[]])[0])))
        for name, (config, _) in card.configs.items()
        if any(is_of(shard, entry, folder) for entry in config["data_files"])
    }


def _measure(group: Group, views: Mapping[str, View], contents: Contents) -> None:
    """Add rows and bytes of each config; several configs show the same."""
    found: dict[str, tuple[int, int]] = {}
    for name, view in views.items():
        if repr(view) not in found:
            found[repr(view)] = view_size(_shown(group.table, view), view)
        rows, size = contents.sizes[name].get(group.shard, (0, 0))
        contents.sizes[name][group.shard] = rows + found[repr(view)][0], size + found[repr(view)][1]


def _shown(table: pa.Table, view: View) -> pa.Table:
    """The rows that a config can show: those whose mask is there, if it is one of those with masks."""
    if "mask" not in view.columns:
        return table
    absent = pc.and_(pc.equal(table["annotation"], "mask"), pc.is_null(table["mask"]))
    return table.filter(pc.invert(absent)) if pc.any(absent).as_py() else table


def copy_lists(folder: Path, new: Path, statistics: Collection[str] | None = None) -> None:
    """Copy the lists beside the shards, and the files of `statistics/` with these names; None: all of them."""
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inner.parts)
        if hidden or inner.parts[0] == "data" or path.is_symlink() or not path.is_file():
            continue
        if inner.parts[0] == "statistics":
            chosen = statistics is None or inner.name in statistics
        else:
            chosen = path.suffix.lower() in LIST_SUFFIXES and inner.name != "README.md"
        if chosen:
            (new / inner).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, new / inner)


def update_hashes(new: Path, hashes: Mapping[str, str]) -> None:
    """Put the SHA-256 of images, by image id, into the CSV files of a copy that list them."""
    for path in sorted(new.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            head, *lines = csv.reader(file)
        if not {"image_id", "sha256"} <= {*head}:
            continue
        image_id, sha256 = head.index("image_id"), head.index("sha256")
        for line in lines:
            line[sha256] = hashes.get(line[image_id], line[sha256])
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([head, *lines])


def write_card(new: Path, card: Card, contents: Contents, folder: Path, out: Path) -> None:
    """Write the card of a copy: sizes, digest, configs and the section on missing images are its own.

    Args:
        new: Folder to write to.
        card: The earlier card.
        contents: What the copy holds.
        folder: The earlier folder, whose shards `contents` names.
        out: Where the copy will lie.
    """
    configs = dict(_configs(card, contents, folder))
    front = {**card.front, BUILD_MARK: contents.digest}
    front["configs"] = [config for config, _ in configs.values()]
    front["dataset_info"] = [info for _, info in configs.values()]
    front.pop(FULL_CONFIGS, None)
    if contents.missing_masks:
        full = [config for config, _ in card.configs.values() if "mask" in config.get("columns", ())]
        front[FULL_CONFIGS] = deepcopy(full)  # YAML would write what is shared with the above as references.
    body = card.body.replace(card.front[BUILD_MARK], contents.digest)
    body = renamed(body, out.resolve().name)
    if has_block(body, COPY):  # The earlier one may speak of the Hub.
        body = with_block(body, COPY, LOCAL_COPY)
    body = _with_configs_table(body, configs)
    body = _with_section(body, _section(contents, out.resolve().name))
    head = yaml.dump(front, Dumper=DUMPER, sort_keys=False, allow_unicode=True, width=120)
    (new / "README.md").write_text(f"---\n{head}---\n{body}", "utf-8")


def _configs(card: Card, contents: Contents, folder: Path) -> Iterator[tuple[str, Entries]]:
    """Front matter of each config without splits and configs that have no rows: `datasets` refuses to load them."""
    for name, (config, info) in card.configs.items():
        files, splits = [], []
        for entry in config["data_files"]:
            parts = [size for shard, size in contents.sizes[name].items() if is_of(shard, entry, folder)]
            rows = sum(part[0] for part in parts)
            if rows:
                files.append(entry)
                splits.append(
                    {"name": entry["split"], "num_bytes": sum(part[1] for part in parts), "num_examples": rows}
                )
        if not splits:
            continue
        total = sum(split["num_bytes"] for split in splits)
        about = {"description": f"build {contents.digest}", "splits": splits, "dataset_size": total}
        shown = {**config, "data_files": files}
        if "mask" in config.get("columns", ()) and contents.missing_masks:
            conditions = list(_mask_conditions(contents))
            shown["filters"] = [[*those, *conditions] for those in config.get("filters", [[]])]
        yield name, (shown, {**info, **about})


def _mask_conditions(contents: Contents) -> Iterator[list[Any]]:
    """Conditions that only rows whose mask is there fulfil; `filters` cannot ask whether an image is null."""
    without = sorted(source for source in contents.missing_masks if not contents.masks[source])
    if without:
        yield ["source", "not in", without]
    partly = contents.missing_masks.keys() - set(without)
    if partly:
        yield ["image_id", "not in", sorted(name for source in partly for name in contents.missing_masks[source])]


def _with_configs_table(body: str, configs: Mapping[str, Entries]) -> str:
    """The body with the table of configs made anew."""
    sizes = {
        name: (config.get("columns", ()), {split["name"]: split["num_examples"] for split in info["splits"]})
        for name, (config, info) in configs.items()
    }
    earlier = re.compile(rf"^{re.escape(configs_table({}))}(\n\|.*)*", re.MULTILINE)
    return earlier.sub(lambda _: configs_table(sizes), body, count=1)


def _with_section(body: str, section: str) -> str:
    """The body with this section on missing images, before the first of its own sections, or with none."""
    first, last = map(re.escape, MARKERS)
    body = re.sub(rf"{first}\n.*?{last}\n\n", "", body, flags=re.DOTALL)
    if not section:
        return body
    heading = re.search(r"^## ", body, re.MULTILINE)
    place = heading.start() if heading else len(body)
    before = body[:place] if body[:place].endswith("\n\n") else body[:place].rstrip("\n") + "\n\n"
    return f"{before}{MARKERS[0]}\n{section}{MARKERS[1]}\n\n{body[place:]}"


def _section(contents: Contents, name: str) -> str:
    """What the card says about rows without image or mask; empty where there are none."""
    sources = sorted({*+contents.missing, *contents.missing_masks})
    if not sources:
        return ""
    rows = [
        [source, f"{contents.rows[source]:,}", f"{contents.missing[source]:,}", f"{len(absent):,}"]
        for source, absent in ((source, contents.missing_masks.get(source, ())) for source in sources)
    ]
    table = markdown_table(["source", "rows", "without their image", "without their mask"], rows)
    return f"""## Rows without images

The images of some sources may not be passed on. Their rows are here with hashes, texts, boxes and splits, but in every
config their `image` and `mask` are null. Configs that show masks leave out the rows whose mask is not here.

{table}

If you have copies of these sets, under any file names, this puts what is in them into a local copy of this data set:

```bash
defect-hub data join {name} --raw YOUR_COPIES --out FULL
```

"""


def counts_line(counts: Mapping[str, int]) -> str:
    """Numbers by source in one line, sorted by name."""
    return ", ".join(f"{source} {counts[source]:,}" for source in sorted(counts))
