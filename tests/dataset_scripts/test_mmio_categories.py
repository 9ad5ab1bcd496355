from collections import Counter
from pathlib import Path

import pytest

from defect_hub.dataset_scripts.mmio.categories import Category, choose_novel, label_space, read_novel
from defect_hub.dataset_scripts.readers.errors import DataError

CATEGORIES = [
    Category(f"{scene}{number}", "metallurgy", f"scene {scene}", f"{scene} {number}")
    for scene, count in (("a", 20), ("b", 20), ("c", 12), ("d", 8), ("e", 40))
    for number in range(count)
]
BOXES = {category.name: 2 ** (place % 10) * 10 for place, category in enumerate(CATEGORIES)}


def test_thirty_five_of_a_hundred_are_novel_and_balanced() -> None:
    novel = choose_novel(CATEGORIES, BOXES)
    assert len(novel) == len(set(novel)) == 35
    assert novel == [category.name for category in CATEGORIES if category.name in set(novel)]
    scenes = Counter(name[0] for name in novel)
    for scene, count in (("a", 20), ("b", 20), ("c", 12), ("d", 8), ("e", 40)):
        assert abs(scenes[scene] - 0.35 * count) <= 1
    frequent = sorted(CATEGORIES, key=lambda category: -BOXES[category.name])[:50]
    assert abs(sum(category.name in set(novel) for category in frequent) - 17.5) <= 3


def test_the_choice_depends_on_names_and_boxes_alone() -> None:
    assert choose_novel(CATEGORIES, BOXES) == choose_novel(CATEGORIES, dict(reversed(BOXES.items())))
    assert choose_novel(CATEGORIES, {}) == choose_novel(CATEGORIES, {})
    assert choose_novel(CATEGORIES, BOXES) != choose_novel(CATEGORIES, {})
    assert len(choose_novel(CATEGORIES[:3], BOXES)) == 1


def test_labels_are_categories_and_then_images_without_a_known_defect() -> None:
    assert label_space(CATEGORIES)[:100] == [category.name for category in CATEGORIES]
    assert label_space(CATEGORIES)[100:] == ["normal", "unknown"]


def test_a_file_replaces_the_novel_categories(tmp_path: Path) -> None:
    path = tmp_path / "novel.txt"
    path.write_text("# ours\nb3  # rare\n\na0\n")
    assert read_novel(path, CATEGORIES) == ["b3", "a0"]


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        ("a0\nz9\n", "line 2", "'z9' is no category"),
        ("a0\na0\n", "line 2", "names 'a0' again"),
        ("# nothing\n", "novel categories", "names no category"),
        ("\n".join(category.name for category in CATEGORIES), "novel categories", "names all categories"),
    ],
)
def test_bad_files_are_told(tmp_path: Path, text: str, field: str, problem: str) -> None:
    path = tmp_path / "novel.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=problem) as caught:
        read_novel(path, CATEGORIES)
    assert (caught.value.where, caught.value.field) == (path, field)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_novel(tmp_path / "none.txt", CATEGORIES)
