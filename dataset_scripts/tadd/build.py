"""Build TADD subsets from the folders of the public sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from defect_hub.dataset_scripts.assemble import BuildReport, Recipe, write_dataset
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.folders import list_files, pair_by_stem
from defect_hub.dataset_scripts.records import Sample, Source
from defect_hub.dataset_scripts.splits import SPLITS, assign_splits

SEED = 42
CARD_HEADER = {
    "pretty_name": "TADD, text-augmented defect data",
    "license": "other",
    "license_name": "per-subset",
    "language": ["en"],
    "task_categories": ["image-classification", "image-segmentation", "image-to-text"],
    "tags": ["anomaly-detection", "industrial-inspection", "vision-language"],
}


def subset_table() -> dict[str, dict[str, Any]]:
    """`subsets.yaml`: what is known about each subset, by name."""
    return yaml.safe_load((files(__package__) / "subsets.yaml").read_text("utf-8"))


def class_names(subsets: Sequence[str]) -> list[str]:
    """Label space of subsets in label order."""
    table = subset_table()
    return list(dict.fromkeys(name for subset in subsets for name in table[subset]["categories"].values()))


def build_tadd(
    raw: Path, out: Path, subsets: Sequence[str] = ("MT",), *, skip_bad: bool = False, workers: int = 1
) -> BuildReport:
    """Build subsets of TADD (An & Dong 2026, section IV), split 70/15/15 within each category.

    Args:
        raw: The folder of the one subset, or a folder that holds one of the subset's name for each.
        out: Folder to write.
        subsets: Names from `subsets.yaml`.
        skip_bad: Leave out images with problems and list them in the card.
        workers: Processes; the result does not depend on it.

    Returns:
        The report of the build.

    Raises:
        DataError: The raw data has problems, or `out` cannot be written; an earlier output is intact.
        ValueError: An unknown subset.
    """
    table = subset_table()
    splits, problems = read_tadd(raw, subsets)
    samples = [sample for part in splits.values() for sample in part]
    card = (files(__package__) / "card.md").read_text("utf-8")
    card = card.replace("$subsets", "\n\n".join(_describe(name, table[name], samples) for name in subsets))
    recipe = Recipe(class_names(subsets), card, CARD_HEADER)
    return write_dataset(out, recipe, splits, problems, skip_bad=skip_bad, workers=workers)


def read_tadd(raw: Path, subsets: Sequence[str]) -> tuple[dict[str, list[Sample]], list[DataError]]:
    """Samples of each split, and all problems found; see `build_tadd`."""
    table = subset_table()
    if unknown := sorted(set(subsets) - set(table)):
        raise ValueError(f"unknown subset {', '.join(unknown)}; there are {', '.join(table)}")
    samples: list[Sample] = []
    problems: list[DataError] = []
    for name in subsets:
        folder = raw / name if (raw / name).is_dir() else raw
        samples += LAYOUTS[table[name]["layout"]](folder, name, table[name], problems)
    split_of = assign_splits(
        ((s.image_id, f"{s.source.name}/{s.class_name}", sha256(s.image.read_bytes()).hexdigest()) for s in samples),
        SEED,
    )
    splits = {split: [sample for sample in samples if split_of[sample.image_id] == split] for split in SPLITS}
    return splits, problems


def class_folders_with_masks(
    raw: Path, name: str, subset: Mapping[str, Any], problems: list[DataError]
) -> Iterator[Sample]:
    """Samples of a set that keeps `<stem>.jpg` and its mask `<stem>.png` together in one folder for each category."""
    source = Source(
        name=name,
        object_name=subset["object_name"],
        super_category=subset["super_category"],
        license=subset["license"],
        redistributable=subset["redistributable"],
        split_id=f"tadd-70-15-15-seed{SEED}",
        text_source="composed",
    )
    for folder, category in subset["categories"].items():
        place = raw / subset["images"].format(folder=folder)
        try:
            pairs, unpaired = pair_by_stem(list_files(place, (".jpg",)), list_files(place, (".png",)))
        except DataError as error:
            problems.append(error)
            continue
        problems += unpaired
        for image, mask in pairs:
            if mask is None:
                remedy = f"Supply {image.with_suffix('.png')} or remove the image"
                problems.append(DataError(image, "mask", "is missing", remedy))
                continue
            defective = category != subset["normal"]
            yield Sample(
                image_id=f"{name}/{category}/{image.stem}",
                image=image,
                mask=mask,
                class_name=category,
                source=source,
                is_defective=defective,
                source_file=image.relative_to(raw).as_posix(),
            )


LAYOUTS = {"class_folders_with_masks": class_folders_with_masks}


def _describe(name: str, subset: Mapping[str, Any], samples: Sequence[Sample]) -> str:
    """Card section of a subset, with the images found against those that the whole set has."""
    found = Counter(sample.class_name for sample in samples if sample.source.name == name)
    expected = subset["expected"]
    counts = ", ".join(f"{category} {found[category]} of {count}" for category, count in expected.items())
    permission = "may be redistributed" if subset["redistributable"] else "must not be redistributed"
    return f"""### {name}: {subset["title"]}

- Home: <{subset["homepage"]}>
- Images here, of the whole set: {found.total():,} of {sum(expected.values()):,} ({counts}).
- Annotation: {subset["annotation"]}; {subset["mask_rule"]}.
- Licence: {subset["license"]} (<{subset["license_url"]}>); the images {permission}.
- Cite: {subset["citation"]}"""
