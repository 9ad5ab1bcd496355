"""Images whose class is named by their folder or by their own name, with annotation files of the same stem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.folders import IMAGE_SUFFIXES

ANY = "*"


@dataclass(frozen=True)
class Layout:
    """Where a set keeps its files. Folders are relative paths, compared by `plain_name`; `*` is any one folder.

    Attributes:
        images: Folders of images.
        class_of: "folder": the folder that `*` stands for is the class; "stem": the file name without its number is,
            as in `rolled-in_scale_12.jpg`.
        boxes: Folders of VOC files.
        masks: Folders of mask images.
    """

    images: Sequence[str]
    class_of: str
    boxes: Sequence[str] = ()
    masks: Sequence[str] = ()


@dataclass(frozen=True)
class Entry:
    """An image and what belongs to it.

    Attributes:
        image: Image file.
        class_name: Class as the folder or the file name says it.
        boxes: VOC file; None where there is none.
        mask: Mask file; None where there is none.
    """

    image: Path
    class_name: str
    boxes: Path | None
    mask: Path | None


@dataclass(frozen=True)
class Listing:
    """Files of a set.

    Attributes:
        entries: Images by folder and name.
        unused: Annotation files without an image.
        problems: Annotation files that share a stem, so that nobody can tell whose they are.
    """

    entries: Sequence[Entry]
    unused: Sequence[Path]
    problems: Sequence[DataError]


def plain_name(name: str) -> str:
    """A name for comparison: lower case, with single spaces for `-`, `_` and runs of them."""
    return " ".join(name.casefold().replace("-", " ").replace("_", " ").split())


def list_layout(root: Path, layout: Layout) -> Listing:
    """Find the images of a layout and their annotations; no file is opened.

    Args:
        root: Folder of the set.
        layout: How it is laid out. Without a single image in its folders the listing is empty.
    """
    problems: list[DataError] = []
    boxes = _by_stem(root, layout.boxes, (".xml",), problems)
    masks = _by_stem(root, layout.masks, IMAGE_SUFFIXES, problems)
    entries = []
    used: set[Path | None] = set()
    for folder, star in _folders(root, layout.images):
        for image in _files(folder, IMAGE_SUFFIXES):
            keys = ((star, image.stem), ("", image.stem))
            box, mask = (next((files[key] for key in keys if key in files), None) for files in (boxes, masks))
            used.update((box, mask))
            entries.append(Entry(image, star if layout.class_of == "folder" else _without_number(image), box, mask))
    unused = [path for path in (*boxes.values(), *masks.values()) if path not in used]
    return Listing(entries, unused, problems)


def _folders(root: Path, patterns: Sequence[str]) -> list[tuple[Path, str]]:
    """Existing folders that match one of the patterns, each with the name that `*` stands for, or ""."""
    matches: dict[Path, str] = {}
    for pattern in patterns:
        found = [(root, "")]
        for part in Path(pattern).parts:
            wanted = plain_name(part)
            found = [
                (sub, sub.name if part == ANY else star)
                for folder, star in found
                for sub in sorted(folder.iterdir())
                if sub.is_dir() and (part == ANY or plain_name(sub.name) == wanted)
            ]
        for folder, star in found:
            matches.setdefault(folder, star)
    return list(matches.items())


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.is_file())


def _by_stem(
    root: Path, patterns: Sequence[str], suffixes: Sequence[str], problems: list[DataError]
) -> dict[tuple[str, str], Path]:
    """Annotation files by (class folder or "", stem), wherever among the folders of the set they lie."""
    files: dict[tuple[str, str], Path] = {}
    for folder, star in _folders(root, patterns):
        for path in _files(folder, suffixes):
            if other := files.get((star, path.stem)):
                problem = f"has the same stem as {other.relative_to(root)}"
                problems.append(DataError(path, "annotation", problem, "Remove or rename one of them"))
            else:
                files[star, path.stem] = path
    return files


def _without_number(image: Path) -> str:
    return image.stem.rpartition("_")[0] or image.stem
