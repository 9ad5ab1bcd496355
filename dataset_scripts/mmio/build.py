"""Build MMIO from its release, or from the user's own copies of public sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from defect_hub.dataset_scripts.assemble import BuildReport, Recipe, write_dataset
from defect_hub.dataset_scripts.mmio.categories import Category, choose_novel, label_space, read_novel
from defect_hub.dataset_scripts.mmio.data import SYSTEMATIC, MmioData
from defect_hub.dataset_scripts.mmio.matching import read_matches
from defect_hub.dataset_scripts.mmio.plan import plan_mmio
from defect_hub.dataset_scripts.mmio.release import Origin, read_mmio_release
from defect_hub.dataset_scripts.mmio.report import card_sections
from defect_hub.dataset_scripts.mmio.scenes import load_scenes
from defect_hub.dataset_scripts.plans import Plan
from defect_hub.dataset_scripts.rows import Groups, Rows
from defect_hub.dataset_scripts.samples import Sample, Source
from defect_hub.dataset_scripts.source_sets.report import set_lines

CARD_HEADER = {
    "pretty_name": "MMIO, multi-modal industrial open data",
    "license": "other",
    "license_name": "per-source",
    "language": ["en"],
    "task_categories": ["object-detection", "zero-shot-object-detection"],
    "tags": ["industrial-inspection", "defect-detection", "open-vocabulary", "vision-language"],
}


def build_mmio(
    data: MmioData,
    out: Path,
    *,
    prompts: Path | None = None,
    skip_bad: bool = False,
    workers: int = 1,
) -> BuildReport:
    """Build MMIO (Zhang et al. 2025): boxes of defects in 18 scenes, for closed and zero-shot detection.

    Args:
        data: From `read_release` or `collection.collect`.
        out: Folder to write.
        prompts: Reviewed table of `matching.match_categories`: its accepted texts become the categories' prompts.
        skip_bad: Leave out images with problems and list them in the card.
        workers: Processes; the result does not depend on it.

    Returns:
        The report of the build; `sources` says what was found of each set.

    Raises:
        DataError: The raw data has problems, `prompts` is unusable, or `out` cannot be written; an earlier output is
            intact.
    """
    if prompts is not None:
        data = replace(data, categories=_with_prompts(data.categories, prompts))
    notes: list[str] = []

    def plan(rows: Rows, groups: Groups) -> Plan:
        notes.extend(set_lines(data.found, rows, data.notes) if data.found else data.notes)
        return plan_mmio(rows, groups, data, lambda parts: card_sections(data, rows, parts))

    card = (files(__package__) / "card.md").read_text("utf-8")
    names = [category.name for category in data.categories]
    recipe = Recipe(label_space(data.categories), card, CARD_HEADER, studies=True, planner=plan, categories=names)
    # The splits follow once every image is known; until then there is one.
    report = write_dataset(out, recipe, {"all": data.samples}, data.problems, skip_bad=skip_bad, workers=workers)
    return replace(report, sources=notes)


def read_release(raw: Path, novel: Path | None = None, origin: Origin | None = None) -> MmioData:
    """Read a folder in the release layout.

    Args:
        raw: Folder with `Images`, `labels` and `annotations`.
        novel: File of novel categories; None: `choose_novel` on the boxes of the release.
        origin: Whose images they are; None: see `release.read_mmio_release`.

    Raises:
        DataError: The folder is not laid out so, a list is malformed, or `novel` is unusable.
    """
    release = read_mmio_release(raw, {category.name: category for category in load_scenes().categories}, origin)
    if novel is not None:
        names, chosen = read_novel(novel, release.categories), f"those of `{novel.name}`, given to the build"
    else:
        names, chosen = choose_novel(release.categories, release.box_counts), SYSTEMATIC
    return MmioData(
        samples=_with_novel(release.samples, frozenset(names)),
        problems=release.problems,
        categories=release.categories,
        novel=names,
        novel_origin=chosen,
        official=True,
        notes=release.notes,
    )


def _with_novel(samples: Sequence[Sample], novel: frozenset[str]) -> list[Sample]:
    """Samples whose sources know the novel categories; sources stay shared."""
    sources: dict[int, Source] = {}
    for sample in samples:
        sources.setdefault(id(sample.source), replace(sample.source, novel=novel))
    return [replace(sample, source=sources[id(sample.source)]) for sample in samples]


def _with_prompts(categories: Sequence[Category], path: Path) -> list[Category]:
    accepted = read_matches(path, [category.name for category in categories])
    return [replace(each, prompt=accepted.get(each.name, each.prompt)) for each in categories]
