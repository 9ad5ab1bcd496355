"""Deterministic splits that depend on the images alone, not on the order of files."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SPLITS = ("train", "validation", "test")
SMALL_CATEGORY = 50
MIN_TEST = 10
SplitSizes = Callable[[int], tuple[int, int, int]]
"""From the images of a category to those in train, validation and test."""


def split_sizes(count: int) -> tuple[int, int, int]:
    """Images of a category of `count` images in train, validation and test: 70, 15 and 15 %.

    A category of fewer than 50 images gets at least 10 test images (An & Dong 2026, section IV); one of fewer than 10
    gives half of them, rounded up. What then remains is divided 70 : 15 between train and validation.
    """
    test = round(0.15 * count)
    if count < SMALL_CATEGORY:
        test = MIN_TEST if count >= MIN_TEST else (count + 1) // 2
    validation = round((count - test) * 15 / 85)
    return count - test - validation, validation, test


def assign_splits(
    categories: Sequence[str], sha256: Sequence[str], groups: Iterable[Sequence[int]] = (), seed: int = 42
) -> list[str]:
    """Assign each image to a split, category by category, and groups of images as a whole.

    A group goes to `test` if all its images of the category still fit there, else to `validation`, else to `train`, in
    the order of a hash, so that neither file names nor their order matter. Where groups are so large that a small
    category lacks test images, the smallest groups move from `train` to `test` until it has them; never the last one.

    Args:
        categories: Category of each image, over which `split_sizes` counts.
        sha256: Hash of each image's file.
        groups: Images that share a split, also across categories: what a reader knows to be one part or photo, and
            copies. Groups may overlap.
        seed: Another seed gives another draw.

    Returns:
        Split of each image.
    """
    return _assign(categories, _units(sha256, groups, seed), split_sizes)


def hold_out(
    categories: Sequence[str],
    sha256: Sequence[str],
    groups: Iterable[Sequence[int]] = (),
    share: float = 0.2,
    seed: int = 42,
) -> list[str]:
    """Assign a part of each category to `test` and the rest to `train`, as `assign_splits` does.

    Args:
        categories: Category of each image.
        sha256: Hash of each image's file.
        groups: Images that share a split.
        share: Part of each category that goes to `test`, rounded to whole images.
        seed: Another seed gives another draw.

    Returns:
        Split of each image.
    """

    def sizes(count: int) -> tuple[int, int, int]:
        return count - round(share * count), 0, round(share * count)

    return _assign(categories, _units(sha256, groups, seed), sizes)


def _assign(categories: Sequence[str], units: Sequence[int], sizes: SplitSizes) -> list[str]:
    """Split of each image; images of a unit share it."""
    members: dict[str, Counter[int]] = defaultdict(Counter)
    for image, category in enumerate(categories):
        members[category][units[image]] += 1
    split_of: dict[int, str] = {}
    for category in sorted(members):
        _split_category(members[category], split_of, sizes(members[category].total()))
    return [split_of[unit] for unit in units]


def _units(sha256: Sequence[str], groups: Iterable[Sequence[int]], seed: int) -> list[int]:
    """Number of the unit of each image; units count up in the order of their smallest hash."""
    first: dict[str, int] = {}
    links = [(image, first.setdefault(sha, image)) for image, sha in enumerate(sha256)]
    links += [(image, group[0]) for group in groups for image in group]
    rows, columns = np.array(links).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(sha256), len(sha256)))
    _, component = connected_components(graph, directed=False)
    number: dict[int, int] = {}
    for image in sorted(range(len(sha256)), key=lambda image: _rank(sha256[image], seed)):
        number.setdefault(int(component[image]), len(number))
    return [number[int(label)] for label in component]


def _split_category(sizes: Counter[int], split_of: dict[int, str], room: tuple[int, int, int]) -> None:
    """Put the units of a category, with their numbers of images, into the splits that still have room for them."""
    rooms = dict(zip(("test", "validation"), reversed(room[1:]), strict=True))
    for unit in sorted(sizes):
        if unit not in split_of:
            split_of[unit] = next((split for split in rooms if sizes[unit] <= rooms[split]), "train")
        if split_of[unit] in rooms:
            rooms[split_of[unit]] -= sizes[unit]
    wanted = rooms["test"] if sizes.total() < SMALL_CATEGORY else int(all(split_of[u] != "test" for u in sizes))
    own = sorted((unit for unit in sizes if split_of[unit] == "train"), key=lambda unit: (sizes[unit], unit))
    for unit in own[:-1]:
        if wanted > 0:
            split_of[unit] = "test"
            wanted -= sizes[unit]


def _rank(sha256: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{sha256}".encode()).hexdigest()


def stratified_split(images: Iterable[tuple[str, str, str]], share: float = 0.7, seed: int = 42) -> dict[str, str]:
    """Assign images to `train` and `val`, class by class.

    Args:
        images: (image id, class, SHA-256 of the file) in any order. The hashes alone decide, names do not.
        share: Part of each class that goes to `train`, rounded to whole images.
        seed: Another seed gives another draw.

    Returns:
        Split of each image id.
    """
    members: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for image_id, class_name, sha256 in images:
        members[class_name].append((_rank(sha256, seed), image_id))
    split_of = {}
    for ranked in members.values():
        train = round(share * len(ranked))
        for place, (_, image_id) in enumerate(sorted(ranked)):
            split_of[image_id] = "train" if place < train else "val"
    return split_of


def seen_in_train(split_of: Sequence[str], groups: Iterable[Sequence[int]]) -> set[int]:
    """Rows outside `train` that have a duplicate in it.

    Moving these to `train` keeps each group of duplicates on one side, and what remains outside is a part of the
    official split: whoever trained on the official `train` has seen none of it.

    Args:
        split_of: Split of each row.
        groups: Rows that show the same, see `duplicates.duplicate_groups`.
    """
    seen: set[int] = set()
    for group in groups:
        if any(split_of[row] == "train" for row in group):
            seen.update(row for row in group if split_of[row] != "train")
    return seen


def draw_shots(
    sha256: Sequence[str],
    labels: Sequence[str],
    split_of: Sequence[str],
    groups: Iterable[Sequence[int]],
    shots: int,
    seed: int = 42,
) -> dict[int, int]:
    """Draw up to `shots` training images of each class, no two of them duplicates and none with one in another split.

    Args:
        sha256: Hash of each row's image; the draw depends on it, not on the order of rows.
        labels: Class of each row.
        split_of: Split of each row.
        groups: Rows that show the same.
        shots: Images a class.
        seed: Another seed gives another draw.

    Returns:
        Drawn rows with their rank within the class, from 0: those of a rank below k are the k-shot draw.
    """
    leader: dict[int, int] = {}
    left_out: set[int] = set()
    for group in groups:
        leader.update(dict.fromkeys(group, min(group)))
        if any(split_of[row] != "train" for row in group):
            left_out.update(group)
    drawn: dict[int, int] = {}
    taken: Counter[str] = Counter()
    used: set[int] = set()
    for row in sorted(range(len(labels)), key=lambda row: (_rank(sha256[row], seed), row)):
        first = leader.get(row, row)
        if split_of[row] != "train" or row in left_out or first in used or taken[labels[row]] == shots:
            continue
        used.add(first)
        drawn[row] = taken[labels[row]]
        taken[labels[row]] += 1
    return drawn
