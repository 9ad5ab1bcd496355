"""Build SteelDefectX from the authors' release layout."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from defect_hub.dataset_scripts.assemble import BuildReport, Recipe, write_dataset
from defect_hub.dataset_scripts.samples import Source
from defect_hub.dataset_scripts.steeldefectx.release import load_classes, read_release

SOURCE = Source(
    name="SteelDefectX",
    object_name="steel surface",
    super_category="metallurgy",
    license="not stated",
    redistributable=False,
    split_id="steeldefectx-official",
    text_source="released",
)
CARD_HEADER = {
    "pretty_name": "SteelDefectX",
    "license": "other",
    "license_name": "several-sources",
    "language": ["en"],
    "task_categories": ["image-classification", "image-segmentation", "image-to-text"],
    "tags": ["steel", "surface-defects", "industrial-inspection", "vision-language"],
}
ALIASES = {"test": "val"}


def build_steeldefectx(raw: Path, out: Path, *, skip_bad: bool = False, workers: int = 1) -> BuildReport:
    """Build SteelDefectX (Zhao et al. 2026) with its official train and val splits.

    Args:
        raw: Folder in the release layout, see `release.read_release`.
        out: Folder to write.
        skip_bad: Leave out images with problems and list them in the card.
        workers: Processes; the result does not depend on it.

    Returns:
        The report of the build.

    Raises:
        DataError: The raw data has problems, or `out` cannot be written; an earlier output is intact.
    """
    classes = load_classes()
    splits, problems = read_release(raw, classes, SOURCE)
    card = (files(__package__) / "card.md").read_text("utf-8")
    recipe = Recipe(classes.label_space(splits), card, CARD_HEADER, ALIASES, studies=True)
    return write_dataset(out, recipe, splits, problems, skip_bad=skip_bad, workers=workers)
