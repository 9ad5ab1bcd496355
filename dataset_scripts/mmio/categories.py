"""Categories of defects, and which of them zero-shot detection does not train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from defect_hub.dataset_scripts.annotations import NORMAL, UNKNOWN
from defect_hub.dataset_scripts.category_list import CATEGORIES_FILE
from defect_hub.dataset_scripts.readers.errors import DataError

NOVEL_SHARE = 0.35
"""35 of 100 categories (Zhang et al. 2025, section "Multi-Modal Industrial-Open Dataset")."""


@dataclass(frozen=True)
class Category:
    """A category of defects.

    Attributes:
        name: Unique name.
        super_category: Field of industry; None: not known, as the next ones.
        scene: Kind of product or process.
        prompt: Text that asks a model for it.
    """

    name: str
    super_category: str | None = None
    scene: str | None = None
    prompt: str | None = None


def label_space(categories: Sequence[Category]) -> list[str]:
    """Labels of images: the categories in order, then those of images without a known defect."""
    return [*(category.name for category in categories), NORMAL, UNKNOWN]


def choose_novel(categories: Sequence[Category], boxes: Mapping[str, int], share: float = NOVEL_SHARE) -> list[str]:
    """Choose the novel categories, balanced over scenes and frequencies.

    A systematic sample: categories in a row, scene by scene, sorted by number of boxes, in every second scene the
    other way round, so that neighbours are alike; they are taken at equal distances. A category that has no boxes is
    never novel, for nothing could test it.

    Args:
        categories: All, scenes together.
        boxes: Number of boxes of each; those without number stand last in their scene.
        share: Part of all categories that becomes novel, rounded to whole categories.

    Returns:
        Their names in the order of the categories.
    """
    scenes: dict[str | None, list[Category]] = {}
    for category in categories:
        scenes.setdefault(category.scene, []).append(category)
    row: list[str] = []
    for number, members in enumerate(scenes.values()):
        boxed = [category for category in members if boxes.get(category.name) != 0]
        ranked = sorted(boxed, key=lambda category: (-boxes.get(category.name, 0), category.name))
        row += [category.name for category in (reversed(ranked) if number % 2 else ranked)]
    count = min(round(share * len(categories)), len(row))
    chosen = {row[int((place + 0.5) * len(row) / count)] for place in range(count)}
    return [category.name for category in categories if category.name in chosen]


def read_novel(path: Path, categories: Sequence[Category]) -> list[str]:
    """Names of novel categories, one in each line of a file; blank lines and what follows `#` do not count.

    Raises:
        DataError: The file is missing or names nothing, a category twice, one that does not exist, or all.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(path, "novel categories", f"cannot be read ({error})", "Supply it as UTF-8 text") from error
    known = {category.name for category in categories}
    found: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        name = line.partition("#")[0].strip()
        if not name:
            continue
        if name not in known:
            problem = f"{name!r} is no category"
            raise DataError(path, f"line {number}", problem, f"Use names of {CATEGORIES_FILE} of a built folder")
        if name in found:
            raise DataError(path, f"line {number}", f"names {name!r} again", "Remove one of the lines")
        found.append(name)
    if not found or len(found) == len(known):
        problem = "names no category" if not found else "names all categories, so none is left to train on"
        raise DataError(path, "novel categories", problem, "Name some, one in each line")
    return found


def default_novel(categories: Sequence[Category]) -> list[str]:
    """The novel categories of the assembly, in `novel.txt`."""
    return read_novel(Path(str(files(__package__) / "novel.txt")), categories)
