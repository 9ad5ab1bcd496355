"""The release layout of SteelDefectX, which steelsynth shares."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.folders import list_files, pair_by_stem
from defect_hub.dataset_scripts.readers.jsonfile import read_json
from defect_hub.dataset_scripts.records import Sample, Source

SPLITS = ("train", "val")
ATTRIBUTE_KEYS = {
    "Defect type",
    "Shape",
    "Direction",
    "Spatial Distribution",
    "Number of Defects",
    "Position",
    "Scale",
    "Polarity",
    "Saliency",
}
TEXT_KEYS = {"T2": "natural_language_description", "T4": "template_sentence"}


@dataclass(frozen=True)
class ClassTable:
    """Label space of a release.

    Attributes:
        causes: Likely cause of each class, None where there is none, in label order.
        normal: Name of the class without defects, if the release has one.
    """

    causes: Mapping[str, str | None]
    normal: str | None = None


def load_classes(*, with_normal: bool) -> ClassTable:
    """`classes.yaml`: the 25 classes, and the normal surfaces that only steelsynth has behind them."""
    table = yaml.safe_load((files(__package__) / "classes.yaml").read_text("utf-8"))
    causes = {row["name"]: row["cause"] for row in table["classes"]}
    normal = table["normal"]["name"]
    return ClassTable(causes | {normal: None}, normal) if with_normal else ClassTable(causes)


def read_release(raw: Path, classes: ClassTable, source: Source) -> tuple[dict[str, list[Sample]], list[DataError]]:
    """Find the samples of a release; images are not opened yet.

    Args:
        raw: Folder with `train/ train_mask/ train-text.json val/ val_mask/ val-text.json class_descriptions.json`.
        classes: Its label space.
        source: What its images share.

    Returns:
        Samples of each split by file name, and all problems found.

    Raises:
        DataError: A folder is missing or empty, or a JSON file is malformed.
    """
    descriptions = read_json(raw / "class_descriptions.json", dict)
    splits: dict[str, list[Sample]] = {}
    problems: list[DataError] = []
    for split in SPLITS:
        pairs, unpaired = pair_by_stem(list_files(raw / split), list_files(raw / f"{split}_mask", (".png",)))
        problems += unpaired
        text_file = raw / f"{split}-text.json"
        entries = _entries_by_image(text_file, problems)
        splits[split] = []
        for image, mask in pairs:
            try:
                entry = _checked_entry(entries.pop(image.name, None), image, text_file, classes)
                if mask is None:
                    expected = raw / f"{split}_mask" / f"{image.stem}.png"
                    raise DataError(image, "mask", "is missing", f"Supply {expected} or remove the image")
            except DataError as error:
                problems.append(error)
                continue
            splits[split].append(_sample(f"{split}/{image.stem}", image, mask, entry, descriptions, classes, source))
        for name in entries:
            remedy = f"Supply {split}/{name} or remove the entry"
            problems.append(DataError(text_file, name, "has an entry but no image", remedy))
    return splits, problems


def _entries_by_image(text_file: Path, problems: list[DataError]) -> dict[str, Mapping[str, Any]]:
    entries: dict[str, Mapping[str, Any]] = {}
    for number, entry in enumerate(read_json(text_file, list)):
        name = entry.get("image_name") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            remedy = "Give every entry an image_name"
            problems.append(DataError(text_file, f"entry {number}", "has no image_name", remedy))
        elif name in entries:
            problems.append(DataError(text_file, name, "has two entries", "Remove one of them"))
        else:
            entries[name] = entry
    return entries


def _checked_entry(
    entry: Mapping[str, Any] | None, image: Path, text_file: Path, classes: ClassTable
) -> Mapping[str, Any]:
    if entry is None:
        raise DataError(image, "text", f"has no entry in {text_file.name}", "Add the entry or remove the image")
    where = f"{text_file}: {image.name}"
    name, attributes = entry.get("class_name"), entry.get("structured_attributes")
    if name not in classes.causes:
        raise DataError(where, "class_name", f"{name!r} is not a class", "Use a name from classes.yaml")
    if attributes is not None and not (isinstance(attributes, dict) and set(attributes) == ATTRIBUTE_KEYS):
        remedy = f"Give exactly the keys {', '.join(sorted(ATTRIBUTE_KEYS))}"
        raise DataError(where, "structured_attributes", "has missing or unknown keys", remedy)
    for key in TEXT_KEYS.values():
        if not isinstance(entry.get(key), str | None):
            raise DataError(where, key, "is not a text", "Give a string")
    return entry


def _sample(
    image_id: str,
    image: Path,
    mask: Path,
    entry: Mapping[str, Any],
    descriptions: Mapping[str, str],
    classes: ClassTable,
    source: Source,
) -> Sample:
    class_name = entry["class_name"]
    texts = {level: _without_slip(entry[key]) for level, key in TEXT_KEYS.items() if entry.get(key)}
    if class_name in descriptions:
        texts["T1"] = descriptions[class_name]
    return Sample(
        image_id=image_id,
        image=image,
        mask=mask,
        class_name=class_name,
        source=source,
        is_defective=class_name != classes.normal,
        texts=texts,
        attributes=entry.get("structured_attributes"),
        cause=classes.causes[class_name],
    )


def _without_slip(text: str) -> str:
    """The release's template repeats the polarity of a class name ("A tiny bright Bright scratch")."""
    return re.sub(r"\b(bright|dark) (?=\1\b)", "", text, flags=re.IGNORECASE)
