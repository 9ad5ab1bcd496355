"""Build the sets that SteelDefectX tests zero-shot transfer on, from their class folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from defect_hub.dataset_scripts.assemble import BuildReport, Recipe, write_dataset
from defect_hub.dataset_scripts.readers.class_folders import Layout, Listing, list_layout
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.samples import Sample, Source

CARD_HEADER = {
    "license": "other",
    "license_name": "not-stated",
    "language": ["en"],
    "task_categories": ["image-classification", "zero-shot-image-classification"],
    "tags": ["surface-defects", "industrial-inspection", "zero-shot-transfer"],
}


def transfer_table() -> dict[str, dict[str, Any]]:
    """`sets.yaml`: what is known about each set, by name."""
    return yaml.safe_load((files(__package__) / "sets.yaml").read_text("utf-8"))


def build_transfer(
    name: str,
    raw: Path,
    out: Path,
    *,
    classes: Sequence[str] | None = None,
    skip_bad: bool = False,
    workers: int = 1,
) -> BuildReport:
    """Build a test set for zero-shot transfer; all its images are in the split `test`.

    Args:
        name: A name from `sets.yaml`: "msd-cls" or "cgfsds-9".
        raw: Folder of the class folders.
        out: Folder to write.
        classes: Class folders to take; None takes all, which must then be as many as the paper tests on.
        skip_bad: Leave out images with problems and list them in the card.
        workers: Processes; the result does not depend on it.

    Returns:
        The report of the build.

    Raises:
        DataError: The raw data has problems, the class folders are others than wanted, or `out` cannot be written; an
            earlier output is intact.
        ValueError: An unknown set.
    """
    table = transfer_table()
    if name not in table:
        raise ValueError(f"unknown set {name}; there are {', '.join(table)}")
    about = table[name]
    listing = _listing(raw, about)
    names = _class_names(raw, listing, about, classes)
    samples = [
        _sample(name, about, raw, entry.image, entry.mask, names[entry.class_name])
        for entry in listing.entries
        if entry.class_name in names
    ]
    problems = [
        *listing.problems,
        *(DataError(path, "mask", "has no image of the same stem", "Supply it") for path in listing.unused),
    ]
    header = {"pretty_name": about["title"], **CARD_HEADER}
    recipe = Recipe(list(names.values()), _card(about, samples), header)
    return write_dataset(out, recipe, {"test": samples}, problems, skip_bad=skip_bad, workers=workers)


def _listing(raw: Path, about: Mapping[str, Any]) -> Listing:
    """The files of the first layout that finds an image."""
    if not raw.is_dir():
        raise DataError(raw, "folder", "does not exist", "Check the path of the raw data")
    examples = []
    for row in about["layouts"]:
        values = dict(row)
        examples.append(values.pop("example"))
        listing = list_layout(raw, Layout(**values))
        if listing.entries:
            return listing
    raise DataError(raw, "folder", "holds no class folder with images", f"Lay it out as {' or '.join(examples)}")


def _class_names(
    raw: Path, listing: Listing, about: Mapping[str, Any], classes: Sequence[str] | None
) -> dict[str, str]:
    """Class name by folder, in the order of the folders."""
    found = sorted({entry.class_name for entry in listing.entries})
    if classes is None and len(found) != about["classes"]:
        problem = f"found {len(found)} ({', '.join(found)}) where the paper tests on {about['classes']}"
        raise DataError(raw, "class folders", problem, "Choose with --classes")
    if missing := sorted(set(classes or ()) - set(found)):
        remedy = f"Choose from {', '.join(found)}"
        raise DataError(raw, "class folders", f"there is no {', '.join(missing)}", remedy)
    names = {name: " ".join(name.replace("_", " ").split()) for name in found if not classes or name in classes}
    twins = [name for name, count in Counter(names.values()).items() if count > 1]
    if twins:
        problem = f"several are called {', '.join(map(repr, twins))} once their underscores are spaces"
        raise DataError(raw, "class folders", problem, "Rename them")
    return names


def _sample(name: str, about: Mapping[str, Any], raw: Path, image: Path, mask: Path | None, class_name: str) -> Sample:
    path = image.relative_to(raw)
    return Sample(
        image_id=f"{name}/{path.with_suffix('').as_posix()}",
        image=image,
        mask=mask,
        class_name=class_name,
        source=Source(
            name=about["title"].partition(",")[0],
            object_name=about["object_name"],
            super_category="metallurgy",
            license=about["license"],
            redistributable=about["redistributable"],
            split_id=f"{name}-all-test",
            text_source="composed",
        ),
        is_defective=True,
        # The paper's wording for sets of other materials (section 4.4); `t0` else names the object.
        texts={"t0": f"A photo of surface defect: {class_name}."},
        source_file=path.as_posix(),
    )


def _card(about: Mapping[str, Any], samples: Sequence[Sample]) -> str:
    """The card template with what is known of the set."""
    card = (files(__package__) / "card.md").read_text("utf-8")
    count = len({sample.class_name for sample in samples})
    filled = {
        **{f"$about_{key}": about[key] for key in ("title", "homepage", "license", "citation", "note", "annotation")},
        "$about_classes": f"{count} classes; the paper tests on {about['classes']}",
    }
    for placeholder, text in filled.items():
        card = card.replace(placeholder, text)
    return card
