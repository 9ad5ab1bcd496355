"""The table of TADD's subsets: layouts, categories, licences."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

from defect_hub.dataset_scripts.annotations import UNKNOWN
from defect_hub.dataset_scripts.readers.class_folders import plain_name

NORMAL = "normal"
DEFECT = "defect"
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
    """One way in which a subset's files lie; the head of subsets.yaml explains the keys.

    Attributes:
        images: Matches the path of an image below the subset's folder.
        category: Raw category of all images; None: the path, a table or the annotation tells.
        regions: Kind and files of the annotation; None: there is none.
        missing: What an image without annotation file is: "problem", "normal", "unknown" or "defective".
        empty: What an annotation without a defect pixel means: "normal" or "unannotated".
        folders: Folders to look in instead of the subset's own.
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
    official: bool = True
    style: str = "own"
    other: str | None = None


@dataclass(frozen=True)
class Subset:
    """What is known about a subset; the head of subsets.yaml explains the keys.

    Attributes:
        object_name: What the pictures show.
        objects: The same by the raw name that the path captures, for sets of several objects.
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
    paper_images: int
    license: str
    license_url: str
    redistributable: bool
    homepage: str
    citation: str
    annotation: str
    mask_rule: str
    normal: str
    verified: str
    objects: Mapping[str, str] = field(default_factory=dict)
    nouns: Mapping[str, str] = field(default_factory=dict)
    alike: bool = False

    @property
    def labels(self) -> list[str]:
        """Labels of its images, the class without defects last."""
        defects = dict.fromkeys(label for label in self.categories.values() if label != NORMAL)
        return [*defects, NORMAL]

    def knows_object(self, raw: str) -> bool:
        """Whether a raw object name, empty where the path names none, is in the table."""
        return not self.objects or plain_name(raw) in self.objects

    def noun_of(self, raw_object: str) -> str:
        """What a picture of an object shows, for texts."""
        return self.objects.get(plain_name(raw_object), self.object_name)

    def layout_hint(self) -> str:
        """Its first layouts by example, for a message."""
        own = [layout.example for layout in self.layouts if not layout.folders and layout.style != AUTHORS_LAYOUT]
        return " or ".join([*own[:HINTED], self.layouts[-1].example])


@lru_cache(maxsize=1)
def load_subsets() -> dict[str, Subset]:
    """The subsets of subsets.yaml by name, in its order."""
    table = yaml.safe_load((files(__package__) / "subsets.yaml").read_text("utf-8"))
    return {name: _subset(name, row) for name, row in table.items()}


def label_space() -> list[str]:
    """Labels of all subsets in order; the same whichever of them a build holds."""
    labels = {label for subset in load_subsets().values() for label in subset.labels} - {NORMAL}
    return [NORMAL, *sorted({*labels, DEFECT}), UNKNOWN]


def _subset(name: str, row: Mapping[str, Any]) -> Subset:
    values = dict(row)
    categories = {plain_name(str(raw)): str(label) for raw, label in values.pop("categories").items()}
    # The authors' folders are named by raw name or label.
    categories = {**{plain_name(label): label for label in categories.values()}, **categories}
    layouts = [_layout(layout) for layout in values.pop("layouts")]
    objects = {plain_name(raw): noun for raw, noun in values.pop("objects", {}).items()}
    return Subset(
        name=name,
        object_name=values.pop("object"),
        objects=objects,
        categories={**categories, **dict.fromkeys(GOOD, NORMAL)},
        layouts=[*layouts, _authors_layout(bool(objects))],
        **values,
    )


def _layout(row: Mapping[str, Any]) -> Layout:
    values = dict(row)
    pattern = re.compile(values.pop("images"), re.IGNORECASE)
    return Layout(images=pattern, folders=values.pop("in", ()), **values)


def _authors_layout(with_objects: bool) -> Layout:
    """The layout in which the authors of TADD keep every subset, after MVTec AD."""
    place = "{object}/" if with_objects else ""
    stems = ("{stem}_mask", "{stem}")
    return Layout(
        example=f"{place.format(object='<object>')}test/<category>/<stem>.png with "
        f"{place.format(object='<object>')}ground_truth/<category>/<stem>_mask.png",
        images=re.compile(
            ("(?P<object>[^/]+)/" if with_objects else "")
            + r"(?P<phase>train(?=/good/)|test)/(?P<category>(?!(?:images?|masks?|labels?)/)[^/]+)/"
            + r"(?P<stem>[^/]+)\.(?:png|jpe?g|bmp)",
            re.IGNORECASE,
        ),
        regions={
            "kind": "mask",
            "files": [
                f"{place}ground_truth/{{category}}/{stem}.{end}" for end in ("png", "jpg", "bmp") for stem in stems
            ],
            "first": True,
        },
        style=AUTHORS_LAYOUT,
        other=DEFECT,
    )
