import hashlib
import random
from collections import Counter

import pytest

from defect_hub.dataset_scripts.splits import assign_splits, draw_shots, seen_in_train, split_sizes, stratified_split


def images(category: str, count: int) -> list[tuple[str, str, str]]:
    return [(f"{category}/{i}", category, hashlib.sha256(f"{category}{i}".encode()).hexdigest()) for i in range(count)]


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (1000, (700, 150, 150)),
        (50, (35, 7, 8)),
        (49, (32, 7, 10)),
        (16, (5, 1, 10)),
        (10, (0, 0, 10)),
        (9, (3, 1, 5)),
        (1, (0, 0, 1)),
        (0, (0, 0, 0)),
    ],
)
def test_sizes(count: int, sizes: tuple[int, int, int]) -> None:
    assert split_sizes(count) == sizes


def test_sizes_add_up() -> None:
    for count in range(200):
        sizes = split_sizes(count)
        assert sum(sizes) == count
        assert min(sizes) >= 0


def test_categories_get_their_sizes() -> None:
    split_of = assign_splits(images("crack", 100) + images("dent", 20))
    counts = Counter((image_id.split("/")[0], split) for image_id, split in split_of.items())
    for category, count in (("crack", 100), ("dent", 20)):
        found = tuple(counts[category, split] for split in ("train", "validation", "test"))
        assert found == split_sizes(count)


def test_order_does_not_matter_and_seed_does() -> None:
    items = images("crack", 60)
    shuffled = random.Random(0).sample(items, len(items))
    assert assign_splits(items) == assign_splits(shuffled)
    assert assign_splits(items, seed=1) != assign_splits(items, seed=2)


def test_equal_bytes_share_a_split_across_categories() -> None:
    items = images("crack", 60)
    copies = [(f"copy of {image_id}", "dent", sha256) for image_id, _, sha256 in items[:30]]
    split_of = assign_splits(items + copies)
    assert all(split_of[image_id] == split_of[f"copy of {image_id}"] for image_id, _, _ in items[:30])


def test_images_with_a_twin_in_train_count_as_seen() -> None:
    split_of = ["train", "val", "val", "val", "train", "val"]
    assert seen_in_train(split_of, [[0, 1], [2, 3], [0, 4, 5]]) == {1, 5}
    assert seen_in_train(split_of, []) == set()


def drawn(
    labels: list[str], split_of: list[str], groups: list[list[int]], shots: int, seed: int = 42
) -> dict[int, int]:
    hashes = [hashlib.sha256(str(row).encode()).hexdigest() for row in range(len(labels))]
    return draw_shots(hashes, labels, split_of, groups, shots, seed)


def test_shots_are_nested_and_come_from_train_alone() -> None:
    labels = ["crack", "dent"] * 30
    split_of = ["train"] * 40 + ["val"] * 20
    eight = drawn(labels, split_of, [], 8)
    assert Counter(labels[row] for row in eight) == {"crack": 8, "dent": 8}
    assert {split_of[row] for row in eight} == {"train"}
    for shots in (1, 2, 4):
        assert drawn(labels, split_of, [], shots) == {row: rank for row, rank in eight.items() if rank < shots}
    assert drawn(labels, split_of, [], 8, seed=1) != eight


def test_shots_hold_no_duplicates_and_none_of_a_group_that_straddles() -> None:
    split_of = ["train"] * 6 + ["val"]
    found = drawn(["crack"] * 7, split_of, [[0, 1, 2], [3, 6]], 8)
    assert len(found) == 3
    assert {4, 5} < set(found)
    assert not {3, 6} & set(found)


@pytest.mark.parametrize(("count", "train"), [(1, 1), (2, 1), (3, 2), (10, 7), (150, 105)])
def test_stratified_split_takes_seventy_percent_of_each_class(count: int, train: int) -> None:
    hashes = [hashlib.sha256(bytes([n])).hexdigest() for n in range(count)]
    images = [(f"{name}{n}", name, sha) for name in "ab" for n, sha in enumerate(hashes)]
    split_of = stratified_split(images)
    assert Counter((image_id[0], split) for image_id, split in split_of.items()) == Counter(
        {(name, "train"): train for name in "ab"} | {(name, "val"): count - train for name in "ab" if count > train}
    )
    assert stratified_split(reversed(images)) == split_of
    # The hash decides, not the name: both classes have the same hashes.
    assert all(split_of[f"a{n}"] == split_of[f"b{n}"] for n in range(count))
    if count > 3:
        assert stratified_split(images, seed=1) != split_of
