"""What a table says of a public set: layouts, categories, licence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from defect_hub.dataset_scripts.annotations import NORMAL
from defect_hub.dataset_scripts.readers.class_folders import plain_name

GOOD = ("good", NORMAL)
"""Raw names of the class without defects, in every set."""
AUTHORS_LAYOUT = "authors"
HINTED = 2
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Layout:
    """One way in which a set's files lie; the head of tadd/subsets.yaml explains the keys.

    Attributes:
        images: Matches the path of an image below the set's folder.
        category: Raw category of all images; None: the path, a table or the annotation tells.
        regions: Kind and files of the annotation; None: there is none.
        missing: What an image without annotation file is: "problem", "normal", "unknown" or "defective".
        empty: What an annotation without a defect pixel means: "normal" or "unannotated".
        folders: Folders to look in instead of the set's own.
        tables: CSV or JSON files that tell split or category.
        lists: Plain lists of the images of a split.
        official: Whether a captured split is the set's own.
        style: "own" or the authors'.
        other: Label of categories that the table does not know; None: they are a problem.
    """

    example: str
    images: re.Pattern[str]
    category: str | None = None
    regions: Mapping[str, Any] | None = None
    missing: str = "problem"
    empty: str = "unannotated"
    folders: Sequence[str] = ()
    tables: Sequence[Mapping[str, Any]] = ()
    lists: Sequence[Mapping[str, str]] = ()
    official: bool = True
    style: str = "own"
    other: str | None = None


@dataclass(frozen=True, kw_only=True)
class SourceSet:
    """What is known about a set; the head of tadd/subsets.yaml explains the keys.

    Attributes:
        object_name: What the pictures show.
        objects: The same by the raw name that the path captures, for sets of several objects.
        only_objects: Plain raw names of the objects to take; empty: all.
        categories: Label by plain raw name, those of the class without defects included.
        expected: Images of the whole set by label, or {"all": count}.
    """

    name: str
    title: str
    folders: Sequence[str]
    object_name: str
    super_category: str
    layouts: Sequence[Layout]
    categories: Mapping[str, str]
    expected: Mapping[str, int]
    license: str
    license_url: str | None
    redistributable: bool
    homepage: str
    citation: str
    annotation: str
    mask_rule: str
    normal: str
    verified: str
    objects: Mapping[str, str] = field(default_factory=dict)
    only_objects: Sequence[str] = ()
    nouns: Mapping[str, str] = field(default_factory=dict)
    alike: bool = False

    @property
    def labels(self) -> list[str]:
        """Labels of its images, the class without defects last."""
        defects = dict.fromkeys(label for label in self.categories.values() if label != NORMAL)
        return [*defects, NORMAL]

    def takes(self, raw_object: str) -> bool:
        """Whether images of an object, empty where the path names none, are wanted."""
        return not self.only_objects or plain_name(raw_object) in self.only_objects

    def knows_object(self, raw: str) -> bool:
        """Whether a raw object name, empty where the path names none, is in the table."""
        return not self.objects or plain_name(raw) in self.objects

    def noun_of(self, raw_object: str) -> str:
        """What a picture of an object shows, for texts."""
        return self.objects.get(plain_name(raw_object), self.object_name)

    def layout_hint(self) -> str:
        """Its first layouts by example, for a message."""
        own = [layout.example for layout in self.layouts if not layout.folders and layout.style != AUTHORS_LAYOUT]
        authors = [layout.example for layout in self.layouts if layout.style == AUTHORS_LAYOUT]
        return " or ".join([*own[:HINTED], *authors])


def parse_layouts(rows: Sequence[Mapping[str, Any]]) -> list[Layout]:
    """Layouts from their entries in a table."""
    return [_layout(row) for row in rows]


def _layout(row: Mapping[str, Any]) -> Layout:
    values = dict(row)
    pattern = re.compile(values.pop("images"), re.IGNORECASE)
    return Layout(images=pattern, folders=values.pop("in", ()), **values)


def parse_categories(raw: Mapping[Any, str]) -> dict[str, str]:
    """Label by plain raw name; labels stand for themselves, and the class without defects is in every set."""
    categories = {plain_name(str(name)): str(label) for name, label in raw.items()}
    # Copies of a set may be named by raw name or label.
    return {**{plain_name(label): label for label in categories.values()}, **categories, **dict.fromkeys(GOOD, NORMAL)}
