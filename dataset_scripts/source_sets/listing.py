"""The files of a set: its images and the annotation files that belong to them. No file is decoded."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from defect_hub.dataset_scripts.readers.class_folders import plain_name
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.folders import walk_files
from defect_hub.dataset_scripts.readers.images import read_bytes
from defect_hub.dataset_scripts.readers.tables import read_table
from defect_hub.dataset_scripts.source_sets.table import AUTHORS_LAYOUT, SPLIT_NAMES, Layout, SourceSet

PathLister = Callable[[Path], Sequence[str]]


@dataclass(frozen=True)
class Files:
    """The files below a folder.

    Attributes:
        root: The folder.
        paths: Paths below it by their lower-case form, with `/`, sorted.
    """

    root: Path
    paths: Mapping[str, str]

    def find(self, template: str, values: Mapping[str, str]) -> Path | None:
        """The file that a template names, whatever the case; None where there is none."""
        path = self.paths.get(template.format_map(values).casefold())
        return None if path is None else self.root / path


@dataclass(frozen=True)
class Entry:
    """An image of a set.

    Attributes:
        path: Path below the set's folder.
        layout: The layout that it matches.
        values: What the path says: stem, category, object, split, group, ...
        row: What tables say of it: category, split.
    """

    path: str
    layout: Layout
    values: Mapping[str, str]
    row: Mapping[str, str] = field(default_factory=dict)

    @property
    def official_split(self) -> str | None:
        """The set's own split of the image."""
        name = self.row.get("split") or (self.values.get("split") if self.layout.official else None)
        return SPLIT_NAMES.get(name.lower()) if name else None

    @property
    def raw_category(self) -> str | None:
        """The category in the set's own words, the first of several; None where only the annotation tells."""
        listed = self.row.get("category", "").split(",")[0].strip()
        return self.layout.category or self.values.get("category") or listed or None


@dataclass(frozen=True)
class Listing:
    """A set's folder.

    Attributes:
        source_set: What it is.
        files: All files.
        entries: Its images.
        used: Paths of the images and of the annotation files that belong to them.
        absent_tables: Tables of its layouts that are not there.
        unread: Further folders of the set, which are not read.
    """

    source_set: SourceSet
    files: Files
    entries: Sequence[Entry]
    used: frozenset[str]
    absent_tables: Sequence[str]
    unread: Sequence[str] = ()


def find_set(raw: Path, source_set: SourceSet, paths_of: PathLister, *, here: bool = False) -> Listing | None:
    """Find a set in a raw folder.

    Args:
        raw: Folder that holds a folder of the set, or (by its name or `here`) is that folder.
        source_set: What to look for.
        paths_of: `list_paths`, or what remembers its answers: several sets look into the same folders.
        here: Whether `raw` may be the folder whatever its name.

    Returns:
        The first folder that holds images of it; None where there is no folder of it.

    Raises:
        DataError: There is a folder of that name, but no image in it lies as in a known layout, or images lie in two.
    """
    folders = _folders(raw, source_set, here)
    for number, (folder, layouts) in enumerate(folders):
        listing = _list_folder(folder, source_set, layouts, paths_of)
        if listing is not None:
            further = folders[number + 1 :]
            others = (other.name for other, known in further if _list_folder(other, source_set, known, paths_of))
            return replace(listing, unread=[name for name in dict.fromkeys(others) if name != folder.name])
    own = [folder for folder, layouts in folders if not layouts[0].folders]
    if own and _shows_wanted_objects(own[0], source_set, paths_of):
        remedy = f"Lay it out as {source_set.layout_hint()}"
        raise DataError(own[0], "layout", f"holds no image where {source_set.name} has them", remedy)
    return None


def _shows_wanted_objects(folder: Path, source_set: SourceSet, paths_of: PathLister) -> bool:
    """Whether a folder of the set's name should hold images of it: of some sets, only folders of objects are taken."""
    tops = {plain_name(part) for path in paths_of(folder) for part in path.split("/")[:2]}
    return not source_set.only_objects or not tops.isdisjoint(source_set.only_objects)


def _folders(raw: Path, source_set: SourceSet, here: bool) -> list[tuple[Path, list[Layout]]]:
    """Folders that may hold the set with the layouts to try: its own first, then those it shares with others."""
    own = [layout for layout in source_set.layouts if not layout.folders]
    names = [_joined(name) for name in source_set.folders]
    children = sorted((path for path in raw.iterdir() if path.is_dir()), key=lambda path: path.name)
    found = [(path, own) for name in names for path in children if _joined(path.name) == name]
    named = _joined(raw.resolve().name) in names
    if not found and named:
        found.append((raw, own))
    for layout in source_set.layouts:
        shared = [_joined(name) for name in layout.folders]
        places = [path for path in (*children, raw) if _joined(path.resolve().name) in shared]
        found += [(path, [layout]) for path in places]
    return found if found or not here else [(raw, own)]


def _joined(name: str) -> str:
    """A folder name for comparison: "OUC-Crack" and "OUCCrack" are equal."""
    return plain_name(name).replace(" ", "")


def _list_folder(
    folder: Path, source_set: SourceSet, layouts: Sequence[Layout], paths_of: PathLister
) -> Listing | None:
    """The images in the folder itself or, where none are, in the folders within it."""
    paths = paths_of(folder)
    inner = sorted({path.partition("/")[0] for path in paths if "/" in path})
    for prefix in ("", *(f"{name}/" for name in inner)):
        below = {path[len(prefix) :].casefold(): path[len(prefix) :] for path in paths if path.startswith(prefix)}
        files = Files(folder / prefix, below)
        entries = list(_match(files, source_set, layouts))
        if entries:
            _check_one_style(files.root, source_set, entries)
            tables = {table["file"] for entry in entries for table in (*entry.layout.tables, *entry.layout.lists)}
            absent = sorted(table for table in tables if not files.find(table, {}))
            return Listing(source_set, files, _with_tables(files, entries), _used(files, entries), absent)
    return None


def list_paths(folder: Path) -> list[str]:
    """Paths of all files below a folder, with `/`, sorted."""
    return [path.relative_to(folder).as_posix() for path in walk_files(folder)]


def _match(files: Files, source_set: SourceSet, layouts: Sequence[Layout]) -> Iterator[Entry]:
    for path in files.paths.values():
        for layout in layouts:
            match = layout.images.fullmatch(path)
            if match and source_set.takes(match.groupdict().get("object") or ""):
                yield Entry(path, layout, {name: value or "" for name, value in match.groupdict().items()})
                break


def _check_one_style(root: Path, source_set: SourceSet, entries: Sequence[Entry]) -> None:
    """Raise where some images lie as the set's owners lay them out, others as the authors' layout has them."""
    styles = Counter(entry.layout.style for entry in entries)
    if len(styles) > 1:
        examples = {entry.layout.style: entry.path for entry in reversed(entries)}
        problem = "mixes layouts: " + ", ".join(
            f"{count} images as {examples[style]}" for style, count in styles.most_common()
        )
        others = [style for style in styles if style != AUTHORS_LAYOUT]
        remedy = (
            f"Keep the files of one layout, of {source_set.name} in its {' or '.join((*others, AUTHORS_LAYOUT))} form"
        )
        raise DataError(root, "layout", problem, remedy)


def _with_tables(files: Files, entries: Sequence[Entry]) -> list[Entry]:
    """The entries with what the tables of their layouts say."""
    read: dict[tuple[Path, str], dict[str, dict[str, str]]] = {}
    names_in = cache(_listed_names)
    found = []
    for entry in entries:
        row: dict[str, str] = {}
        for table in entry.layout.tables:
            path = files.find(table["file"], entry.values)
            if path is None:
                continue
            place = path, table["key"]
            if place not in read:
                rows = read_table(path, key=table["key"], root=table.get("root"))
                read[place] = {key.casefold(): value for key, value in rows.items()}
            columns = read[place].get(entry.path.casefold()) or read[place].get(Path(entry.path).name.casefold(), {})
            row |= {name: columns[table[name]] for name in ("split", "category") if name in table and columns}
        for listed in entry.layout.lists:
            path = files.find(listed["file"], entry.values)
            if path is not None and listed["name"].format_map(entry.values).casefold() in names_in(path):
                row["split"] = listed["split"]
        found.append(Entry(entry.path, entry.layout, entry.values, row) if row else entry)
    return found


def _listed_names(path: Path) -> frozenset[str]:
    """The first word of each line of a list of files, in lower case."""
    lines = read_bytes(path, "list").decode("utf-8-sig", "replace").splitlines()
    return frozenset(line.split()[0].casefold() for line in lines if line.strip())


def _used(files: Files, entries: Sequence[Entry]) -> frozenset[str]:
    named = (
        files.paths.get(template.format_map(entry.values).casefold())
        for entry in entries
        for template in annotation_files(entry.layout)
    )
    return frozenset([*(entry.path for entry in entries), *(path for path in named if path)])


def annotation_files(layout: Layout) -> list[str]:
    """Templates of the annotation files of a layout's images."""
    regions = layout.regions or {}
    files = regions.get("files", regions.get("file", ()))
    if isinstance(files, str):
        return [files]
    return list(files.values()) if isinstance(files, Mapping) else list(files)


def resembles(folder: Path, source_sets: Sequence[SourceSet], paths_of: PathLister) -> list[str]:
    """Names of the sets whose own layouts find images in a folder; for a message."""
    paths = paths_of(folder)

    def fits(pattern: re.Pattern[str]) -> bool:
        return any(pattern.fullmatch(path) for path in paths)

    return [
        source_set.name
        for source_set in source_sets
        if any(layout.style == "own" and fits(layout.images) for layout in source_set.layouts)
    ]
