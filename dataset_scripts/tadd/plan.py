"""Splits, shards and configs of TADD."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from defect_hub.dataset_scripts.plans import Plan, PlannedConfig, Shard, rows_together
from defect_hub.dataset_scripts.rows import Groups, Rows
from defect_hub.dataset_scripts.schema import VIEWS, View
from defect_hub.dataset_scripts.splits import SPLITS, assign_splits, draw_shots

SEED = 42
REFERENCE_SEEDS = range(42, 47)
MAX_REFERENCES = 4
REFERENCE_COLUMNS = ("source", "object_name", "seed", "rank", "image_id", "sha256")
NORMAL_ONLY = View(filters=(("is_defective", "==", False),))
# Only a row with a verdict has a description.
CONVERSATIONS = View(("image_id", "image", "label", "conversation"), (("t2", "!=", ""),))
OFFICIAL_TEST = View(filters=(("official_split", "==", "test"),))
MVTEC, VISA = "MVTec-AD", "VisA"


def plan_tadd(rows: Rows, groups: Groups, alike: Collection[str], sections: Mapping[str, str]) -> Plan:
    """Draw splits and references, and lay out the configs.

    Args:
        rows: All rows.
        groups: Rows that look the same.
        alike: Subsets of parts in one pose, of which nearly equal pictures may show different parts: only equal ones
            are kept together.
        sections: For the card.
    """
    together = rows_together(rows, groups, alike)
    categories = ["/".join(key) for key in zip(rows.sources, rows.object_names, rows.labels, strict=True)]
    splits = assign_splits(categories, rows.sha256, together, SEED)
    targets: list[list[Shard]] = [[shard] for shard in zip(rows.sources, splits, strict=True)]
    lists = {"references.csv": (REFERENCE_COLUMNS, list(_references(rows, splits, together)))}
    configs = _configs(list(dict.fromkeys(rows.sources)))
    return Plan(splits, SPLITS, targets, configs, lists, sections)


def _references(rows: Rows, splits: Sequence[str], together: Groups) -> Iterable[tuple[str, str, int, int, str, str]]:
    """Normal training images of each object, drawn for each seed: those of a rank below k are the k-shot draw."""
    chosen = [row for row, defective in enumerate(rows.is_defective) if defective is False]
    number = {row: index for index, row in enumerate(chosen)}
    groups = [[number[row] for row in group if row in number] for group in together]
    objects = [f"{rows.sources[row]}/{rows.object_names[row]}" for row in chosen]
    hashes, own = [rows.sha256[row] for row in chosen], [splits[row] for row in chosen]
    for seed in REFERENCE_SEEDS:
        drawn = draw_shots(hashes, objects, own, [group for group in groups if group], MAX_REFERENCES, seed)
        for index, rank in sorted(drawn.items(), key=lambda item: (objects[item[0]], item[1])):
            row = chosen[index]
            yield rows.sources[row], rows.object_names[row], seed, rank, rows.image_ids[row], rows.sha256[row]


def _configs(subsets: Sequence[str]) -> dict[str, PlannedConfig]:
    everything = _shards(subsets)
    configs = {name: PlannedConfig(view, everything) for name, view in VIEWS.items()}
    configs["all"] = configs["default"]
    configs["normal_only"] = PlannedConfig(NORMAL_ONLY, everything)
    configs["conversations"] = PlannedConfig(CONVERSATIONS, everything)
    for name in subsets:
        configs[name] = PlannedConfig(VIEWS["default"], _shards([name]))
    if {MVTEC, VISA} <= set(subsets):
        configs["mvtec_visa"] = PlannedConfig(VIEWS["default"], _shards([MVTEC, VISA]))
        for train, test in ((VISA, MVTEC), (MVTEC, VISA)):
            parts = {"train": _all_of(train), "test": _all_of(test)}
            name = f"zero_shot_{_short(train)}_to_{_short(test)}"
            configs[name] = PlannedConfig(OFFICIAL_TEST, parts)
    return configs


def _shards(subsets: Sequence[str]) -> dict[str, list[Shard]]:
    return {split: [(name, split) for name in subsets] for split in SPLITS}


def _all_of(subset: str) -> list[Shard]:
    return [(subset, split) for split in SPLITS]


def _short(subset: str) -> str:
    return subset.partition("-")[0].lower()
