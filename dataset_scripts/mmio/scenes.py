"""The table of MMIO's scenes: their categories and the public sets that show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

from defect_hub.dataset_scripts.mmio.categories import Category
from defect_hub.dataset_scripts.readers.class_folders import plain_name
from defect_hub.dataset_scripts.source_sets.table import (
    AUTHORS_LAYOUT,
    SourceSet,
    parse_categories,
    parse_layouts,
)
from defect_hub.dataset_scripts.tadd.subsets import load_subsets


@dataclass(frozen=True, kw_only=True)
class SceneSet(SourceSet):
    """A public set that shows a scene.

    Attributes:
        scene: Name of the scene.
        min_area: Smallest part of a mask, in pixels, that becomes a box.
    """

    scene: str
    min_area: int = 1


@dataclass(frozen=True)
class Scene:
    """A kind of product or process.

    Attributes:
        name: Its name.
        super_category: Field of industry.
        categories: Names of its categories.
        sets: Names of the sets that show it; none: nothing public is known.
        boxes: Boxes of a category in the whole public sets, where somebody published the number.
        note: What a person must know.
    """

    name: str
    super_category: str
    categories: Sequence[str]
    sets: Sequence[str]
    boxes: Mapping[str, int] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class SceneTable:
    """The whole table.

    Attributes:
        scenes: By name, in order.
        categories: All, scenes together.
        sets: By name, in the order of the scenes.
    """

    scenes: Mapping[str, Scene]
    categories: Sequence[Category]
    sets: Mapping[str, SceneSet]


@lru_cache(maxsize=1)
def load_scenes() -> SceneTable:
    """The table in scenes.yaml."""
    table = yaml.safe_load((files(__package__) / "scenes.yaml").read_text("utf-8"))
    scenes: dict[str, Scene] = {}
    categories: list[Category] = []
    sets: dict[str, SceneSet] = {}
    for name, row in table["scenes"].items():
        about = row["categories"]
        counts = {category: values["boxes"] for category, values in about.items() if "boxes" in values}
        note = row.get("note", "")
        scenes[name] = Scene(name, row["super_category"], list(about), row["sets"], counts, note)
        categories += [
            Category(category, row["super_category"], name, values["prompt"]) for category, values in about.items()
        ]
        nouns = {category: values["noun"] for category, values in about.items() if "noun" in values}
        for each in row["sets"]:
            sets[each] = _scene_set(each, scenes[name], nouns, table["sets"][each])
    return SceneTable(scenes, categories, sets)


def _scene_set(name: str, scene: Scene, nouns: Mapping[str, str], row: Mapping[str, Any]) -> SceneSet:
    values = dict(row)
    base = _as_in_tadd(values.pop("as_in_tadd")) if "as_in_tadd" in values else {}
    if "object" in values:
        values["object_name"] = values.pop("object")
    if "layouts" in values:
        values["layouts"] = parse_layouts(values["layouts"])
    values["categories"] = parse_categories(values["categories"])
    for key in ("objects", "only_objects"):
        if key in values:
            plain = [plain_name(raw) for raw in values[key]]
            values[key] = dict(zip(plain, values[key].values(), strict=True)) if key == "objects" else plain
    own = {"name": name, "scene": scene.name, "super_category": scene.super_category, "nouns": nouns}
    return SceneSet(**{**base, **values, **own})


def _as_in_tadd(name: str) -> dict[str, Any]:
    """What TADD's table says of a set; the layout of TADD's authors is theirs alone."""
    subset = load_subsets()[name]
    known = {each.name: getattr(subset, each.name) for each in fields(SourceSet)}
    return {**known, "layouts": [layout for layout in subset.layouts if layout.style != AUTHORS_LAYOUT]}
