"""Folders of images, and masks paired with them by file stem."""

from __future__ import annotations

import os
from pathlib import Path

from defect_hub.dataset_scripts.readers.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


def list_files(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[Path]:
    """Files of a folder with one of the suffixes (any case), sorted by name.

    Raises:
        DataError: The folder is missing or holds no such file.
    """
    if not folder.is_dir():
        raise DataError(folder, "folder", "does not exist", "Check the path of the raw data")
    with os.scandir(folder) as entries:  # knows what is a file without asking again
        names = sorted(entry.name for entry in entries if entry.is_file())
    files = [folder / name for name in names if name.lower().endswith(suffixes)]
    if not files:
        raise DataError(folder, "folder", f"holds no {' or '.join(suffixes)} file", "Check the path of the raw data")
    return files


def walk_files(root: Path) -> list[Path]:
    """All files below a folder in a fixed order; linked folders are followed, each folder is read once."""
    seen: set[Path] = set()
    found = []
    for place, folders, names in os.walk(root, followlinks=True):
        folder = Path(place)
        if folder.resolve() in seen:  # A link back to a folder above would never end.
            folders.clear()
            continue
        seen.add(folder.resolve())
        folders.sort()
        found += [folder / name for name in names]
    return sorted(found)


def pair_by_stem(images: list[Path], masks: list[Path]) -> tuple[list[tuple[Path, Path | None]], list[DataError]]:
    """Pair each image with the mask of the same stem.

    Args:
        images: Image files.
        masks: Mask files.

    Returns:
        The pairs in the order of the images, None where no mask exists; and one problem for every mask without an
        image and every second image of one stem.
    """
    by_stem = {mask.stem: mask for mask in masks}
    pairs: dict[str, tuple[Path, Path | None]] = {}
    problems = []
    for image in images:
        if image.stem in pairs:
            other = pairs[image.stem][0].name
            problems.append(DataError(image, "image", f"has the same stem as {other}", "Rename or remove one of them"))
        else:
            pairs[image.stem] = image, by_stem.pop(image.stem, None)
    for mask in by_stem.values():
        problems.append(
            DataError(mask, "mask", "has no image of the same stem", "Supply the image or remove the mask")
        )
    return list(pairs.values()), problems
