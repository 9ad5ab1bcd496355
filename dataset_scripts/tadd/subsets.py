"""The table of TADD's subsets: layouts, categories, licences."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

from defect_hub.dataset_scripts.annotations import NORMAL, UNKNOWN
from defect_hub.dataset_scripts.readers.class_folders import plain_name
from defect_hub.dataset_scripts.source_sets.table import (
    AUTHORS_LAYOUT,
    Layout,
    SourceSet,
    parse_categories,
    parse_layouts,
)

DEFECT = "defect"


@dataclass(frozen=True, kw_only=True)
class Subset(SourceSet):
    """A subset.

    Attributes:
        paper_images: Images that the paper counts.
    """

    paper_images: int


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
    categories = parse_categories(values.pop("categories"))
    layouts = parse_layouts(values.pop("layouts"))
    objects = {plain_name(raw): noun for raw, noun in values.pop("objects", {}).items()}
    return Subset(
        name=name,
        object_name=values.pop("object"),
        objects=objects,
        categories=categories,
        layouts=[*layouts, _authors_layout(bool(objects))],
        **values,
    )


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
