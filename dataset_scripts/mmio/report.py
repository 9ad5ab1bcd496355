"""What was found, for the card of MMIO."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from defect_hub.dataset_scripts.cards import markdown_table
from defect_hub.dataset_scripts.mmio.data import MmioData
from defect_hub.dataset_scripts.mmio.plan import SEEN, TWIN, UNPLACED, UNSEEN
from defect_hub.dataset_scripts.mmio.scenes import load_scenes
from defect_hub.dataset_scripts.rows import Rows
from defect_hub.dataset_scripts.source_sets.report import missing_sets, other_remarks, set_sections

PAPER_PARTS = {SEEN: "18,811", UNSEEN: "3,025"}
PART_MEANINGS = {
    SEEN: "train: no object of a novel category",
    UNSEEN: "test: at least one object of a novel category",
    TWIN: "left out: looks like an image of the test part, shows the same part, or has a novel class and no box of it",
    UNPLACED: "left out: a defect that nothing places, or nobody says whether there is one",
}


def card_sections(data: MmioData, rows: Rows, parts: Sequence[str]) -> dict[str, str]:
    """Text of the card's placeholders.

    Args:
        data: What the rows were made of.
        rows: All rows.
        parts: Part of the zero-shot study of each row.
    """
    boxes = Counter(name for names in rows.categories for name in names)
    novel = set(data.novel)
    base = [each.name for each in data.categories if each.name not in novel]
    return {
        "origin": _origin(data),
        "boxes": f"{rows.num_objects:,}",
        "base_count": str(len(base)),
        "novel_count": str(len(data.novel)),
        "base": _named(base, boxes),
        "novel": _named(data.novel, boxes),
        "novel_origin": data.novel_origin,
        "scene_table": _scene_table(data, rows),
        "zero_shot_table": _zero_shot_table(rows, parts, novel),
        "sets": _sets(data, rows),
        "comparison": _comparison(rows),
    }


def _origin(data: MmioData) -> str:
    if data.found is None:
        return "Built from a folder in the layout of the release."
    there = {load_scenes().sets[listing.source_set.name].scene for listing in data.found.listings}
    return (
        f"Assembled from {len(data.found.listings)} public sets, which show {len(there)} of the "
        f"{len(load_scenes().scenes)} scenes of the table."
    )


def _named(names: Iterable[str], boxes: Counter[str]) -> str:
    """Categories, with their boxes where there are some here."""
    return ", ".join(f"{name} ({boxes[name]:,})" if boxes[name] else name for name in names)


def _scene_table(data: MmioData, rows: Rows) -> str:
    """Scenes with images, boxes and categories, those without images too."""
    scene_of = {category.name: category.scene for category in data.categories}
    images, boxes = Counter(rows.scenes), Counter[str | None]()
    seen: dict[str | None, set[str]] = defaultdict(set)
    sources: dict[str | None, set[str]] = defaultdict(set)
    for scene, source, names in zip(rows.scenes, rows.sources, rows.categories, strict=True):
        sources[scene].add(source)
        for name in names:
            boxes[scene_of[name]] += 1
            seen[scene_of[name]].add(name)
    scenes: dict[str | None, tuple[str | None, int]] = {}
    for category in data.categories:
        _, count = scenes.get(category.scene, (None, 0))
        scenes[category.scene] = category.super_category, count + 1
    lines = [
        [
            scene or "not told",
            super_category or "not told",
            ", ".join(sorted(sources[scene])) or "none here",
            f"{images[scene]:,}",
            f"{boxes[scene]:,}",
            f"{len(seen[scene])} of {count}",
        ]
        for scene, (super_category, count) in scenes.items()
    ]
    return markdown_table(["scene", "super-category", "sets", "images", "boxes", "categories with boxes"], lines)


def _zero_shot_table(rows: Rows, parts: Sequence[str], novel: set[str]) -> str:
    images, base, unseen = Counter(parts), Counter[str](), Counter[str]()
    for part, names in zip(parts, rows.categories, strict=True):
        count = sum(name in novel for name in names)
        unseen[part] += count
        base[part] += len(names) - count
    lines = [
        [f"`{part}`", meaning, f"{images[part]:,}", f"{base[part]:,}", f"{unseen[part]:,}", PAPER_PARTS.get(part, "-")]
        for part, meaning in PART_MEANINGS.items()
    ]
    return markdown_table(["part", "use", "images", "base boxes", "novel boxes", "images in the paper"], lines)


def _sets(data: MmioData, rows: Rows) -> str:
    """Sections of the public sets, and what is known of scenes without one."""
    if data.found is None:
        return (
            "\n".join(f"- {note}." for note in data.notes)
            or "All images are of one release; each row names its source."
        )
    open_scenes = [scene for scene in load_scenes().scenes.values() if not scene.sets]
    lines = [
        set_sections(data.found, rows),
        f"Sets that are not here (images of the whole set): {missing_sets(data.found)}.",
        *(f"Scene without a public set: {scene.name} ({scene.note.strip().rstrip('.')})." for scene in open_scenes),
        *(f"{remark}." for remark in other_remarks(data.found)),
    ]
    return "\n\n".join(lines)


def _comparison(rows: Rows) -> str:
    """How far the two annotations of a release agree."""
    compared = rows.totals["compared"]
    if not compared:
        return "No image has two annotations to compare."
    if not rows.disagreements:
        return f"COCO and YOLO files agree on all {compared:,} images that both annotate."
    images = len({image_id for image_id, _ in rows.disagreements})
    return (
        f"Of {compared:,} images that both COCO and YOLO files annotate, {images:,} differ; `disagreements.csv` lists "
        "every difference. The COCO file counts."
    )
