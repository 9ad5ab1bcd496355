import hashlib
import random
from collections import Counter

import pytest

from defect_hub.dataset_scripts.splits import (
    assign_splits,
    draw_shots,
    hold_out,
    seen_in_train,
    split_sizes,
    stratified_split,
)


def images(**counts: int) -> tuple[list[str], list[str]]:
    """Categories and hashes of so many images of each category."""
    pairs = [(category, f"{category}{number}") for category, count in counts.items() for number in range(count)]
    return [category for category, _ in pairs], [hashlib.sha256(name.encode()).hexdigest() for _, name in pairs]


def sizes_of(categories: list[str], splits: list[str], category: str) -> tuple[int, ...]:
    found = Counter(split for own, split in zip(categories, splits, strict=True) if own == category)
    return tuple(found[split] for split in ("train", "validation", "test"))


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
    categories, hashes = images(crack=100, dent=20)
    splits = assign_splits(categories, hashes)
    for category, count in (("crack", 100), ("dent", 20)):
        assert sizes_of(categories, splits, category) == split_sizes(count)


def test_order_does_not_matter_and_seed_does() -> None:
    categories, hashes = images(crack=60, dent=30)
    groups = [[number, number + 1] for number in range(0, 40, 4)]
    order = random.Random(0).sample(range(90), 90)
    place = {old: new for new, old in enumerate(order)}
    shuffled = assign_splits(
        [categories[old] for old in order],
        [hashes[old] for old in order],
        [[place[number] for number in group] for group in groups],
    )
    assert [shuffled[place[number]] for number in range(90)] == assign_splits(categories, hashes, groups)
    assert assign_splits(categories, hashes, seed=1) != assign_splits(categories, hashes, seed=2)


def test_equal_bytes_share_a_split_across_categories() -> None:
    categories, hashes = images(crack=60)
    splits = assign_splits(categories + ["dent"] * 30, hashes + hashes[:30])
    assert splits[60:] == splits[:30]


def test_groups_stay_together_and_sizes_hold_as_far_as_they_allow() -> None:
    categories, hashes = images(crack=600)
    groups = [list(range(start, start + 6)) for start in range(0, 600, 6)]
    splits = assign_splits(categories, hashes, groups)
    assert all(len({splits[number] for number in group}) == 1 for group in groups)
    assert sizes_of(categories, splits, "crack") == (420, 90, 90)


def test_overlapping_groups_are_one() -> None:
    categories, hashes = images(crack=60)
    splits = assign_splits(categories, hashes, [[0, 1, 2], [2, 3], [3, 4, 5]])
    assert len(set(splits[:6])) == 1


def test_a_small_category_of_large_groups_keeps_ten_test_images_and_some_to_train() -> None:
    categories, hashes = images(crack=48)
    splits = assign_splits(categories, hashes, [list(range(start, start + 12)) for start in range(0, 48, 12)])
    assert sizes_of(categories, splits, "crack") == (36, 0, 12)


def test_a_category_in_one_group_is_for_training() -> None:
    categories, hashes = images(crack=48)
    assert set(assign_splits(categories, hashes, [list(range(48))])) == {"train"}


def test_a_group_too_large_for_test_does_not_swallow_it() -> None:
    categories, hashes = images(crack=200)
    splits = assign_splits(categories, hashes, [list(range(100))])
    assert set(splits[:100]) == {"train"}
    assert sizes_of(categories, splits, "crack") == (140, 30, 30)


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


def test_hold_out_takes_a_fifth_of_each_category_and_keeps_groups_whole() -> None:
    categories = ["a"] * 100 + ["b"] * 30 + ["c"] * 4 + ["d"]
    hashes = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(135)]
    groups = [[0, 1, 2], [5, 101], [2, 9]]
    splits = hold_out(categories, hashes, groups)
    counts = Counter(zip(categories, splits, strict=True))
    assert {name: counts[name, "test"] for name in "abcd"} == {"a": 20, "b": 6, "c": 1, "d": 0}
    assert set(splits) == {"train", "test"}
    assert all(len({splits[image] for image in group}) == 1 for group in groups)
    order = random.Random(0).sample(range(135), 135)
    place = {image: number for number, image in enumerate(order)}
    moved = [[place[image] for image in group] for group in groups]
    again = hold_out([categories[image] for image in order], [hashes[image] for image in order], moved)
    assert [again[place[image]] for image in range(135)] == splits
    assert hold_out(categories, hashes, groups, seed=43) != splits
    assert hold_out(categories, hashes, groups, share=0.5).count("test") > 60
