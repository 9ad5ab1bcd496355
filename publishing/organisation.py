"""Everything an organisation of the Hub holds, as `organisation.yaml` lists it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.publishing.staged import RepoType

Kind = Literal["dataset", "model", "metric", "space"]
# Section of the file -> kind of its entries, and the fields they may have besides `folder`. In the order of
# publishing: the card of a Space names models and data sets, which are there by then.
_SECTIONS: Mapping[str, tuple[Kind, tuple[str, ...]]] = {
    "datasets": ("dataset", ("build",)),
    "models": ("model", ("build",)),
    "metrics": ("metric", ()),
    "spaces": ("space", ("models", "datasets")),
}
MAX_DESCRIPTION = 150
MAX_NOTE = 500
"""Characters that the Hub takes."""


@dataclass(frozen=True)
class Entry:
    """A repository of the organisation.

    Attributes:
        kind: What it holds.
        name: Its name, without the organisation.
        folder: What is published.
        build: Command that makes the folder; None where it belongs to the project.
        models: Names of the models that a Space runs or compares.
        datasets: Names of the data sets that a Space shows.
    """

    kind: Kind
    name: str
    folder: Path
    build: str | None = None
    models: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()

    @property
    def repo_type(self) -> RepoType:
        """Kind of repository: metrics are Spaces."""
        return "space" if self.kind == "metric" else self.kind

    @property
    def is_built(self) -> bool:
        """Whether the folder is there."""
        return self.folder.is_dir()

    def repo_id(self, org: str) -> str:
        """Its id in an organisation."""
        return f"{org}/{self.name}"

    def line(self, org: str) -> str:
        """The entry for a terminal, with the command that makes a missing folder."""
        remedy = self.build or "it is part of a clone of the project"
        state = "" if self.is_built else f"   is missing: {remedy}"
        return f"{self.kind:<8} {self.repo_id(org):<40} {self.folder}{state}"


@dataclass(frozen=True)
class Item:
    """A repository in a collection.

    Attributes:
        entry: The repository.
        note: What the collection says of it.
    """

    entry: Entry
    note: str | None = None


@dataclass(frozen=True)
class Collection:
    """A collection of repositories.

    Attributes:
        title: By which it is found.
        description: One sentence.
        items: In this order.
    """

    title: str
    description: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Organisation:
    """What an organisation holds.

    Attributes:
        entries: Repositories in the order of publishing.
        collections: In the order of the file.
    """

    entries: tuple[Entry, ...]
    collections: tuple[Collection, ...]


def load_organisation(path: Path) -> Organisation:
    """Read the table of an organisation.

    Args:
        path: The file; folders in it are relative to its own.

    Raises:
        DataError: It is missing, or a field is unknown, missing or unusable.
    """
    try:
        table = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        remedy = "Run this in a clone of the project, or name the file; the installed package holds none"
        raise DataError(path, "file", "does not exist", remedy) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(path, "file", f"cannot be read ({error})", "Correct the YAML") from error
    sections = _mapping(path, "file", table, (), (*_SECTIONS, "collections"))
    entries: dict[str, Entry] = {}
    for section, (kind, options) in _SECTIONS.items():
        for name, value in _mapping(path, section, sections.get(section, {})).items():
            field = f"{section}.{name}"
            if name in entries:
                raise DataError(path, field, f"{entries[name].kind} has this name too", "Choose another")
            entries[name] = _entry(path, field, kind, name, _mapping(path, field, value, ("folder",), options))
    for entry in entries.values():
        _check_names(path, f"spaces.{entry.name}.models", entry.models, entries, "model")
        _check_names(path, f"spaces.{entry.name}.datasets", entry.datasets, entries, "dataset")
    listed = _list(path, "collections", sections.get("collections", []))
    collections = [_collection(path, f"collections[{index}]", value, entries) for index, value in enumerate(listed)]
    return Organisation(tuple(entries.values()), tuple(collections))


def _entry(path: Path, field: str, kind: Kind, name: str, values: Mapping[str, Any]) -> Entry:
    try:
        validate_repo_id(f"org/{name}")
    except HFValidationError as error:
        raise DataError(path, field, "is no name of a repository", "Use letters, digits, - and _") from error
    texts = {key: _text(path, f"{field}.{key}", values[key]) for key in ("folder", "build") if key in values}
    lists = {
        key: tuple(_text(path, f"{field}.{key}", each) for each in _list(path, f"{field}.{key}", values[key]))
        for key in ("models", "datasets")
        if key in values
    }
    return Entry(kind, name, path.parent / texts["folder"], texts.get("build"), **lists)


def _collection(path: Path, field: str, value: object, entries: Mapping[str, Entry]) -> Collection:
    values = _mapping(path, field, value, ("title", "description", "items"))
    items = []
    for index, each in enumerate(_list(path, f"{field}.items", values["items"])):
        place = f"{field}.items[{index}]"
        item = _mapping(path, place, each, ("name",), ("note",))
        _check_names(path, f"{place}.name", [item["name"]], entries)
        note = _text(path, f"{place}.note", item["note"], MAX_NOTE) if "note" in item else None
        items.append(Item(entries[item["name"]], note))
    description = _text(path, f"{field}.description", values["description"], MAX_DESCRIPTION)
    return Collection(_text(path, f"{field}.title", values["title"]), description, tuple(items))


def _mapping(
    path: Path, field: str, value: object, required: Sequence[str] = (), optional: Sequence[str] = ()
) -> dict[str, Any]:
    """A mapping that has these fields and no others; without any named, one of any texts."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise DataError(path, field, "is no mapping of names", "Write it as `name: value` lines")
    known = (*required, *optional)
    for name in value:
        if known and name not in known:
            raise DataError(path, f"{field}.{name}", "is not a known field", f"Known are {', '.join(known)}")
    for name in required:
        if name not in value:
            raise DataError(path, f"{field}.{name}", "is missing", "Add it")
    return value


def _list(path: Path, field: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise DataError(path, field, "is no list", "Write it as `- ...` lines")
    return value


def _text(path: Path, field: str, value: object, longest: int | None = None) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(path, field, f"is {value!r}, not a text", "Write a text, in quotes if it looks like a number")
    if longest is not None and len(value) > longest:
        raise DataError(path, field, f"has {len(value)} characters", f"The Hub takes {longest}: shorten it")
    return value


def _check_names(
    path: Path, field: str, names: Sequence[Any], entries: Mapping[str, Entry], kind: Kind | None = None
) -> None:
    known = [entry.name for entry in entries.values() if kind in (None, entry.kind)]
    for name in names:
        if name not in known:
            raise DataError(path, field, f"names {name!r}, which is not in the file", f"Known are {', '.join(known)}")
