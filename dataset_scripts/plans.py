"""Which shards hold which rows, and which shards each config reads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from defect_hub.dataset_scripts.rows import Groups, Rows
from defect_hub.dataset_scripts.schema import VIEWS, View
from defect_hub.dataset_scripts.splits import draw_shots, seen_in_train

SHOTS = (1, 2, 4, 8)
SHOT_SEED = 42

Shard = tuple[str, str]
"""Folder below `data/` and stem of the files: ("default", "train") is `data/default/train-*.parquet`."""


@dataclass(frozen=True)
class PlannedConfig:
    """A config.

    Attributes:
        view: Columns and rows that it reads.
        splits: Shards of each split.
    """

    view: View
    splits: Mapping[str, Sequence[Shard]]


@dataclass(frozen=True)
class Plan:
    """How the rows of a build become files.

    Attributes:
        splits: Split of each row.
        split_names: All splits in order.
        targets: Shards that hold each row.
        configs: Configs by name.
        lists: Further CSV files by name: head and lines.
        sections: Further placeholders of the card with their text.
        moved: Rows that `leak_free` moves to `train`; None where there is no such config.
    """

    splits: Sequence[str]
    split_names: Sequence[str]
    targets: Sequence[Sequence[Shard]]
    configs: Mapping[str, PlannedConfig]
    lists: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]] = field(default_factory=dict)
    sections: Mapping[str, str] = field(default_factory=dict)
    moved: int | None = None


Planner = Callable[[Rows, Groups], Plan]
"""From all rows and the groups that show the same to the plan."""


def plain_plan(rows: Rows, groups: Groups) -> Plan:
    """Every row once, in the configs of `VIEWS`."""
    names = list(dict.fromkeys(rows.splits))
    own = {split: [("default", split)] for split in names}
    return Plan(rows.splits, names, [[("default", split)] for split in rows.splits], _views(own))


def study_plan(rows: Rows, groups: Groups) -> Plan:
    """The configs of `VIEWS`, `leak_free` and `few_shot_*`; needs the splits `train` and `val`.

    Nothing but the few-shot draws is stored twice: rows outside `train` that have a duplicate in it are kept apart.
    """
    seen = seen_in_train(rows.splits, groups)
    shots = draw_shots(rows.sha256, rows.labels, rows.splits, groups, max(SHOTS), SHOT_SEED)
    targets: list[list[Shard]] = []
    for row, split in enumerate(rows.splits):
        targets.append([("seen" if row in seen else "default", split)])
        if row in shots:
            targets[-1].append(("few_shot", str(next(count for count in SHOTS if shots[row] < count))))
    shards = list(dict.fromkeys(target for several in targets for target in several))
    own: dict[str, list[Shard]] = {}
    for folder, split in shards:
        if folder != "few_shot":
            own.setdefault(split, []).append((folder, split))
    apart = {split: [part for part in parts if part[0] == "default"] for split, parts in own.items()}
    apart.setdefault("train", []).extend(shard for shard in shards if shard[0] == "seen")
    configs = _views(own) | {"leak_free": PlannedConfig(VIEWS["default"], apart)}
    for count in SHOTS:
        drawn = [shard for shard in shards if shard[0] == "few_shot" and int(shard[1]) <= count]
        few = PlannedConfig(VIEWS["default"], {**own, "train": drawn})
        configs[f"few_shot_{count}_seed{SHOT_SEED}"] = few
    return Plan(rows.splits, list(dict.fromkeys(rows.splits)), targets, configs, moved=len(seen))


def _views(own: Mapping[str, Sequence[Shard]]) -> dict[str, PlannedConfig]:
    return {name: PlannedConfig(view, own) for name, view in VIEWS.items()}


def rows_together(rows: Rows, groups: Groups, alike: Collection[str]) -> list[list[int]]:
    """Groups of rows that must share a split: of one photo or part as their source says it, and those that look alike.

    Args:
        rows: All rows.
        groups: Rows that look the same.
        alike: Sources of parts in one pose, of which nearly equal pictures may show different parts: only rows of
            equal pixels are kept together.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(rows.source_groups):
        if name:
            members[name].append(row)
    found = list(members.values())
    for group in groups:
        same: dict[bytes, list[int]] = defaultdict(list)
        for row in group:
            same[rows.fingerprints[row].pixel_sha256].append(row)
        found += same.values()
        found.append([row for row in group if rows.sources[row] not in alike])
    return [group for group in found if len(group) > 1]
