"""The table of source sets, and their files in a raw folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from defect_hub.dataset_scripts.readers.class_folders import Entry, Layout, Listing, list_layout, plain_name
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.steeldefectx.release import load_classes

TABLE = "sources.yaml"
REQUIRED = ("title", "homepage", "citation", "license", "redistributable", "images", "folders", "layouts", "classes")


@dataclass(frozen=True)
class SourceSet:
    """What is known about a source set; the head of sources.yaml explains the keys.

    Attributes:
        name: Its key in the table.
        layouts: (example for people, layout) in the order of trial.
        classes: One class by plain raw name, or the two that polarity decides between: the bright, the dark one.
        expected: Images by plain raw name.
    """

    name: str
    title: str
    homepage: str
    citation: str
    license: str
    redistributable: bool
    images: int
    verified: bool
    extra: bool
    note: str
    folders: Sequence[str]
    layouts: Sequence[tuple[str, Layout]]
    classes: Mapping[str, tuple[str, ...]]
    ignored_boxes: frozenset[str]
    expected: Mapping[str, int]

    def layout_hint(self) -> str:
        """The layouts by example, for a message."""
        return " or ".join(example for example, _ in self.layouts)


@dataclass(frozen=True)
class FoundSource:
    """A source set in the raw folder.

    Attributes:
        source: What is known about it.
        root: Folder that its files are named from.
        listing: Its files.
        unread: Names of further folders of the same source, which are not read.
    """

    source: SourceSet
    root: Path
    listing: Listing
    unread: Sequence[str]

    def path_of(self, entry: Entry) -> str:
        """Path of an image within the source set."""
        return entry.image.relative_to(self.root).as_posix()


def load_sources(path: Path | None = None) -> list[SourceSet]:
    """Read a table of source sets.

    Args:
        path: Table in the form of sources.yaml; None reads that one.

    Raises:
        DataError: The table is missing or malformed, or maps to a class that is none of the 25.
    """
    where = TABLE if path is None else path
    try:
        text = (files(__package__) / TABLE).read_text("utf-8") if path is None else path.read_text("utf-8")
        table = yaml.safe_load(text)
        rows = dict(table["sources"])
    except OSError as error:
        raise DataError(where, "sources", f"cannot be read ({error.strerror})", "Supply the table") from error
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, ValueError) as error:
        raise DataError(where, "sources", "no table of sources", f"Write it in the form of {TABLE}") from error
    known = frozenset(load_classes().defects)
    return [_source(str(name), row, known, where) for name, row in rows.items()]


def _source(name: str, row: Any, known: frozenset[str], where: str | Path) -> SourceSet:
    missing = [key for key in REQUIRED if not isinstance(row, dict) or key not in row]
    if missing:
        raise DataError(where, name, f"lacks {', '.join(missing)}", f"Describe the source in the form of {TABLE}")
    try:
        classes = {plain_name(str(raw)): _targets(value, known) for raw, value in row["classes"].items()}
        expected = {plain_name(str(raw)): int(count) for raw, count in row.get("expected", {}).items()}
        if unmapped := sorted(set(expected) - set(classes)):
            raise ValueError(f"expected: {', '.join(unmapped)} is not in classes")
        return SourceSet(
            name=name,
            **{key: row[key] for key in ("title", "homepage", "citation", "license", "redistributable", "images")},
            verified=row.get("verified", False),
            extra=row.get("extra", False),
            note=row.get("note", ""),
            folders=[str(folder) for folder in row["folders"]],
            layouts=[_layout(layout) for layout in row["layouts"]],
            classes=classes,
            ignored_boxes=frozenset(plain_name(str(raw)) for raw in row.get("ignored_boxes", ())),
            expected=expected,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(where, name, f"malformed ({error})", f"Describe the source in the form of {TABLE}") from error


def _layout(row: Mapping[str, Any]) -> tuple[str, Layout]:
    values = dict(row)
    example = values.pop("example")
    if values["class_of"] not in ("folder", "stem"):
        raise ValueError(f"class_of is {values['class_of']!r}, neither folder nor stem")
    return example, Layout(**values)


def _targets(value: Any, known: frozenset[str]) -> tuple[str, ...]:
    targets = (value,) if isinstance(value, str) else tuple(value["by_polarity"])
    if unknown := [name for name in targets if name not in known]:
        raise ValueError(f"{', '.join(map(repr, unknown))} is none of the 25 classes")
    if not isinstance(value, str) and len(targets) != 2:
        raise ValueError("by_polarity does not name two classes")
    return targets


def find_sources(raw: Path, table: Sequence[SourceSet], *, skip_missing: bool = False) -> list[FoundSource]:
    """Find the source sets in a raw folder.

    Args:
        raw: Folder that holds a folder for each source set.
        table: The source sets.
        skip_missing: Go on without those that are not there.

    Returns:
        Those that are there, in the order of the table.

    Raises:
        DataError: `raw` does not exist or holds none of them; one that is no extra is missing; the folder of one holds
            no image in a layout that the table knows.
    """
    if not raw.is_dir():
        raise DataError(raw, "folder", "does not exist", "Check the path of the raw data")
    found = [item for source in table if (item := _find(raw, source))]
    names = {item.source.name for item in found}
    missing = [source for source in table if source.name not in names]
    required = [source for source in missing if not source.extra]
    if required and not (skip_missing and found):
        expected = "; ".join(f"{source.name} as {source.layout_hint()}" for source in required)
        remedy = f"Supply {expected}{'' if not found else '; or go on without them with --skip-missing'}"
        raise DataError(raw, "sources", f"{', '.join(source.name for source in required)} not found", remedy)
    return found


def _find(raw: Path, source: SourceSet) -> FoundSource | None:
    names = [plain_name(name) for name in source.folders]
    folders = sorted((path for path in raw.iterdir() if plain_name(path.name) in names and path.is_dir()), key=str)
    folders.sort(key=lambda path: names.index(plain_name(path.name)))
    for number, folder in enumerate(folders):
        inner = sorted(path for path in folder.iterdir() if plain_name(path.name) in names and path.is_dir())
        for root in (folder, *inner):
            for _, layout in source.layouts:
                listing = list_layout(root, layout)
                if listing.entries:
                    return FoundSource(source, root, listing, [path.name for path in folders[number + 1 :]])
    if folders:
        remedy = f"Lay it out as {source.layout_hint()}, or describe its layout in a table of your own (--sources)"
        raise DataError(folders[0], "layout", f"holds no image where {source.name} has them", remedy)
    return None
