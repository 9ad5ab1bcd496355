"""Splits, shards and configs of MMIO."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from defect_hub.dataset_scripts.category_list import CATEGORIES_FILE, CATEGORY_COLUMNS
from defect_hub.dataset_scripts.mmio.categories import Category
from defect_hub.dataset_scripts.mmio.data import SEED, TEST_SHARE, MmioData
from defect_hub.dataset_scripts.plans import Plan, PlannedConfig, Shard, rows_together
from defect_hub.dataset_scripts.rows import Groups, Rows
from defect_hub.dataset_scripts.schema import VIEWS, View
from defect_hub.dataset_scripts.splits import SPLITS, hold_out

CLOSED_SPLITS = ("train", "test")
SEEN, UNSEEN, TWIN, UNPLACED = "seen", "unseen", "twin", "unplaced"
ZERO_SHOT_FILE = "zero_shot.csv"
OBJECTS = ("image", "image_id", "image_number", "width", "height", "scene", "objects")
VIEWS_OF_BOXES = {
    "detection": View(OBJECTS),
    "grounding": View((*OBJECTS, "caption", "phrases"), (("caption", "!=", ""),)),
}


def plan_mmio(
    rows: Rows,
    groups: Groups,
    data: MmioData,
    sections: Callable[[Sequence[str]], Mapping[str, str]],
) -> Plan:
    """Draw the closed split, find the parts of the zero-shot study, and lay out the configs.

    Args:
        rows: All rows.
        groups: Rows that look the same.
        data: What the rows were made of.
        sections: Makes text for the card from the part of the zero-shot study of each row.
    """
    together = rows_together(rows, groups, data.alike)
    parts = zero_shot_parts(rows, together, frozenset(data.novel))
    # Of a category that some sets only name and others place, both kinds of images are divided.
    placed = [part != UNPLACED for part in parts]
    strata = ["/".join(map(str, key)) for key in zip(rows.scenes, rows.labels, placed, strict=True)]
    splits = hold_out(strata, rows.sha256, together, TEST_SHARE, SEED)
    # The release's own split is one of whole files, like the others.
    folders = parts
    if data.official:
        folders = [f"{part}_{own or 'none'}" for part, own in zip(parts, rows.official_splits, strict=True)]
    targets: list[list[Shard]] = [[shard] for shard in zip(folders, splits, strict=True)]
    lists: dict[str, tuple[Sequence[str], Sequence[Sequence[str]]]] = {
        CATEGORIES_FILE: (CATEGORY_COLUMNS, _category_lines(data.categories, data.novel)),
        ZERO_SHOT_FILE: (("image_id", "sha256", "part"), list(zip(rows.image_ids, rows.sha256, parts, strict=True))),
    }
    shards = sorted({shard for several in targets for shard in several})
    scenes = list(dict.fromkeys(filter(None, rows.scenes)))
    own_splits = [split for split in SPLITS if data.official and split in rows.official_splits]
    return Plan(splits, CLOSED_SPLITS, targets, _configs(shards, scenes, own_splits), lists, sections(parts))


def zero_shot_parts(rows: Rows, together: Groups, novel: frozenset[str]) -> list[str]:
    """Part of the zero-shot study that each row belongs to.

    Returns:
        "unplaced": it has a defect that nothing places, or nobody says whether it has one. "unseen": it shows an
        object of a novel category. "twin": it does not, but looks like one that does, shows the same part, or is of a
        novel class without a box of it: neither trained on nor tested. "seen": the rest.
    """
    unseen = {row for row, names in enumerate(rows.categories) if not novel.isdisjoint(names)}
    twins = {row for group in together if not unseen.isdisjoint(group) for row in group} - unseen
    twins |= {row for row, label in enumerate(rows.labels) if label in novel} - unseen
    parts = []
    for row, annotation in enumerate(rows.annotations):
        if annotation == "none" and rows.is_defective[row] is not False:
            parts.append(UNPLACED)
        else:
            parts.append(UNSEEN if row in unseen else TWIN if row in twins else SEEN)
    return parts


def _category_lines(categories: Sequence[Category], novel: Sequence[str]) -> list[tuple[str, ...]]:
    return [
        (
            each.name,
            each.super_category or "",
            each.scene or "",
            each.prompt or "",
            "yes" if each.name in novel else "no",
        )
        for each in categories
    ]


def _configs(shards: Sequence[Shard], scenes: Sequence[str], own_splits: Sequence[str]) -> dict[str, PlannedConfig]:
    everything = _by_split(shards)
    placed = _by_split([shard for shard in shards if not shard[0].startswith(UNPLACED)])
    parts = {name: [shard for shard in shards if shard[0].split("_")[0] == name] for name in (SEEN, UNSEEN, UNPLACED)}
    zero_shot = {"train": parts[SEEN], "test": parts[UNSEEN]}
    configs = {name: PlannedConfig(view, everything) for name, view in VIEWS.items()}
    configs["closed"] = PlannedConfig(VIEWS["default"], placed)
    configs["zero_shot"] = PlannedConfig(VIEWS["default"], zero_shot)
    for name, view in VIEWS_OF_BOXES.items():
        configs[name] = PlannedConfig(view, placed)
    generalized = {"train": _by_split(parts[SEEN])["train"], "test": [*_by_split(parts[SEEN])["test"], *parts[UNSEEN]]}
    configs["generalized_zero_shot"] = PlannedConfig(VIEWS["default"], generalized)
    configs["zero_shot_detection"] = PlannedConfig(VIEWS_OF_BOXES["detection"], zero_shot)
    configs["image_level"] = PlannedConfig(VIEWS["default"], _by_split(parts[UNPLACED]))
    if own_splits:
        own = {split: [shard for shard in shards if shard[0].endswith(f"_{split}")] for split in own_splits}
        configs["official"] = PlannedConfig(VIEWS["default"], own)
    for scene in scenes:
        # The scenes of a release are free text, and may be named like a config or without a letter.
        name = f"scene_{scene_config(scene)}" if scene_config(scene) in {"", *configs} else scene_config(scene)
        configs[name] = PlannedConfig(View(filters=(("scene", "==", scene),)), everything)
    return configs


def scene_config(scene: str) -> str:
    """Name of the config of a scene."""
    return re.sub(r"\W+", "_", scene.lower()).strip("_")


def _by_split(shards: Sequence[Shard]) -> dict[str, list[Shard]]:
    return {split: [shard for shard in shards if shard[1] == split] for split in CLOSED_SPLITS}
