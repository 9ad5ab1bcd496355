"""The release layout of SteelDefectX, which steelsynth shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from defect_hub.dataset_scripts.class_descriptions import parse_class_description
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.folders import list_files, pair_by_stem
from defect_hub.dataset_scripts.readers.jsonfile import read_json
from defect_hub.dataset_scripts.samples import Sample, Source
from defect_hub.dataset_scripts.texts import without_doubled_polarity
from defect_hub.modeling.mask_attributes import CELLS

SPLITS = ("train", "val")
ENTRY_KEYS = {
    "image_name",
    "class_name",
    "natural_language_description",
    "structured_attributes",
    "template_sentence",
}
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
TEXT_KEYS = {"t2": "natural_language_description", "t4": "template_sentence"}
DESCRIPTIONS_FILE = "class_descriptions.json"


@dataclass(frozen=True)
class ClassTable:
    """Classes that a release may name, in label order.

    Attributes:
        defects: The 25 classes of defects.
        normal: Class without defects, which only steelsynth has; it stands behind the others.
    """

    defects: tuple[str, ...]
    normal: str

    def label_space(self, splits: Mapping[str, Sequence[Sample]]) -> list[str]:
        """The 25 classes, and the normal one if any sample is of it."""
        used = any(sample.class_name == self.normal for samples in splits.values() for sample in samples)
        return [*self.defects, self.normal] if used else list(self.defects)


def load_classes() -> ClassTable:
    """The names in `classes.yaml`."""
    table = yaml.safe_load((files(__package__) / "classes.yaml").read_text("utf-8"))
    return ClassTable(tuple(row["name"] for row in table["classes"]), table["normal"]["name"])


def read_release(raw: Path, classes: ClassTable, source: Source) -> tuple[dict[str, list[Sample]], list[DataError]]:
    """Find the samples of a release; images are not opened yet.

    Args:
        raw: Folder with `train/ train_mask/ train-text.json val/ val_mask/ val-text.json class_descriptions.json`.
        classes: The classes that it may name.
        source: What its images share.

    Returns:
        Samples of each split by file name, and all problems found.

    Raises:
        DataError: A folder is missing or empty, or a JSON file is malformed.
    """
    problems: list[DataError] = []
    descriptions = _class_descriptions(raw / DESCRIPTIONS_FILE, classes, problems)
    splits: dict[str, list[Sample]] = {}
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
            splits[split].append(_sample(split, image, mask, entry, descriptions, classes, source))
        for name in entries:
            remedy = f"Supply {split}/{name} or remove the entry"
            problems.append(DataError(text_file, name, "has an entry but no image", remedy))
    _check_described(raw / DESCRIPTIONS_FILE, splits, descriptions, problems)
    return splits, problems


def _class_descriptions(
    path: Path, classes: ClassTable, problems: list[DataError]
) -> dict[str, tuple[str, dict[str, str | None] | None]]:
    """Sentence by class, and its parts where it has the expected form."""
    descriptions: dict[str, tuple[str, dict[str, str | None] | None]] = {}
    for name, sentence in read_json(path, dict).items():
        parts: dict[str, str | None] | None = None
        try:
            if name not in (*classes.defects, classes.normal):
                raise DataError(path, name, "is not a class", "Use a name from classes.yaml")
            if not isinstance(sentence, str):
                raise DataError(path, name, "is not a text", "Give one sentence")
            if name == classes.normal:
                parts = {"name": name, "visual_attributes": None, "cause": None}
            else:
                parts = asdict(parse_class_description(sentence, path)) | {"name": name}
        except DataError as error:
            problems.append(error)
        descriptions[name] = str(sentence), parts
    return descriptions


def _check_described(
    path: Path, splits: Mapping[str, list[Sample]], descriptions: Mapping[str, Any], problems: list[DataError]
) -> None:
    used = {sample.class_name or "" for samples in splits.values() for sample in samples}
    for name in sorted(used - set(descriptions)):
        problems.append(DataError(path, name, "has no description", "Add a sentence for the class"))


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
    _check_keys(where, "entry", entry, ENTRY_KEYS)
    name = entry["class_name"]
    if name not in (*classes.defects, classes.normal):
        raise DataError(where, "class_name", f"{name!r} is not a class", "Use a name from classes.yaml")
    for key in TEXT_KEYS.values():
        if not isinstance(entry[key], str):
            raise DataError(where, key, "is not a text", "Give a string")
    if entry["structured_attributes"] is not None or name != classes.normal:
        _check_attributes(where, entry["structured_attributes"])
    return entry


def _check_keys(where: str, field: str, entry: Mapping[str, Any], expected: set[str]) -> None:
    missing, unknown = sorted(expected - set(entry)), sorted(map(str, set(entry) - expected))
    found = [f"{kind} {', '.join(keys)}" for kind, keys in (("lacks", missing), ("has unknown", unknown)) if keys]
    if found:
        raise DataError(where, field, " and ".join(found), f"Give exactly the keys {', '.join(sorted(expected))}")


def _check_attributes(where: str, attributes: Any) -> None:
    field = "structured_attributes"
    if not isinstance(attributes, dict):
        raise DataError(where, field, "is not an object", "Give the nine attributes")
    _check_keys(where, field, attributes, ATTRIBUTE_KEYS)
    for key in sorted(ATTRIBUTE_KEYS - {"Position"}):
        if not isinstance(attributes[key], str):
            raise DataError(where, f"{field}: {key}", "is not a text", "Give a string")
    position = attributes["Position"]
    if not (isinstance(position, list) and all(map(_is_share, position))):
        remedy = f"Give [cell, fraction] pairs with the cells {', '.join(CELLS)} and fractions from 0 to 1"
        raise DataError(where, f"{field}: Position", "is no list of cells with fractions", remedy)


def _is_share(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and pair[0] in CELLS and _is_fraction(pair[1])


def _is_fraction(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _sample(
    split: str,
    image: Path,
    mask: Path,
    entry: Mapping[str, Any],
    descriptions: Mapping[str, tuple[str, dict[str, str | None] | None]],
    classes: ClassTable,
    source: Source,
) -> Sample:
    class_name = entry["class_name"]
    texts = {level: without_doubled_polarity(entry[key]) for level, key in TEXT_KEYS.items() if entry[key]}
    sentence, parts = descriptions.get(class_name, (None, None))
    if sentence:
        texts["t1"] = sentence
    return Sample(
        image_id=f"{split}/{image.stem}",
        image=image,
        mask=mask,
        class_name=class_name,
        source=source,
        is_defective=class_name != classes.normal,
        texts=texts,
        attributes=entry["structured_attributes"],
        class_description=parts,
        source_file=f"{split}/{image.name}",
        official_split=split,
    )
