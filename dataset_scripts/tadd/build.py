"""Build TADD from the user's own copies of its subsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from defect_hub.dataset_scripts.assemble import BuildReport, Recipe, write_dataset
from defect_hub.dataset_scripts.plans import Plan
from defect_hub.dataset_scripts.rows import Groups, Rows
from defect_hub.dataset_scripts.source_sets.report import set_lines
from defect_hub.dataset_scripts.tadd.collection import collect
from defect_hub.dataset_scripts.tadd.plan import plan_tadd
from defect_hub.dataset_scripts.tadd.report import card_sections
from defect_hub.dataset_scripts.tadd.subsets import label_space

CARD_HEADER = {
    "pretty_name": "TADD, text-augmented defect data",
    "license": "other",
    "license_name": "per-subset",
    "language": ["en"],
    "task_categories": ["image-classification", "image-segmentation", "image-to-text", "visual-question-answering"],
    "tags": ["anomaly-detection", "industrial-inspection", "vision-language"],
}


def build_tadd(
    raw: Path, out: Path, subsets: Sequence[str] | None = None, *, skip_bad: bool = False, workers: int = 1
) -> BuildReport:
    """Build TADD (An & Dong 2026, section IV), split 70/15/15 within each category.

    Args:
        raw: Folder that holds a folder for each subset, or the folder of the only one. `TADD_text.json` and
            `descriptions.jsonl` in it give descriptions.
        out: Folder to write.
        subsets: Names from `subsets.yaml`, which must be there; None: all that are there.
        skip_bad: Leave out images with problems and list them in the card.
        workers: Processes; the result does not depend on it.

    Returns:
        The report of the build; `sources` says what was found of each subset.

    Raises:
        DataError: The raw data has problems, or `out` cannot be written; an earlier output is intact.
        ValueError: An unknown subset.
    """
    collection = collect(raw, subsets)
    alike = {each.source_set.name for each in collection.found.listings if each.source_set.alike}
    notes: list[str] = []

    def plan(rows: Rows, groups: Groups) -> Plan:
        notes.extend(set_lines(collection.found, rows, collection.notes))
        return plan_tadd(rows, groups, alike, card_sections(collection, rows))

    card = (files(__package__) / "card.md").read_text("utf-8")
    recipe = Recipe(label_space(), card, CARD_HEADER, studies=True, planner=plan)
    # The splits follow once every image is known; until then there is one.
    splits = {"all": collection.samples}
    report = write_dataset(out, recipe, splits, collection.problems, skip_bad=skip_bad, workers=workers)
    return replace(report, sources=notes)
