import time
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pytest

from defect_hub.dataset_scripts.grounding import Caption, grounding_caption

SIZE = (300, 150)
Object = tuple[Sequence[float], str]


def at(column: int, row: int, category: str, width: float = 10) -> Object:
    """A box in a cell of the 3x3 grid of a 300x150 image."""
    return [100 * column + 20, 50 * row + 20, width, 10], category


def caption(*objects: Object, **nouns: str) -> Caption:
    found = grounding_caption(objects, SIZE, nouns)
    assert found is not None
    return found


def phrases(found: Caption) -> list[tuple[str, list[int]]]:
    return [(found.text[phrase.start : phrase.end], list(phrase.objects)) for phrase in found.phrases]


def test_objects_are_counted_by_category_and_place() -> None:
    found = caption(at(1, 1, "spur"), at(0, 2, "mouse bite"), at(0, 2, "mouse bite"))
    assert found.text == "Two mouse bites in the bottom left and a spur in the center."
    assert phrases(found) == [("Two mouse bites in the bottom left", [1, 2]), ("a spur in the center", [0])]


def test_large_categories_come_first_and_places_in_reading_order() -> None:
    found = caption(
        at(2, 2, "spur"), at(0, 1, "open circuit", 40), at(1, 0, "spur"), at(2, 0, "short", 15), at(1, 0, "spur")
    )
    assert found.text == (
        "An open circuit in the middle left, two spurs in the top center, a spur in the bottom right "
        "and a short in the top right."
    )
    assert [members for _, members in phrases(found)] == [[1], [2, 4], [0], [3]]


def test_a_box_over_more_than_half_of_both_sides_is_in_no_cell() -> None:
    wide, broad, half = ([0, 0, 151, 75], "crack"), ([140, 0, 151, 76], "crack"), ([140, 0, 150, 76], "crack")
    assert caption(wide).text == "A crack in the top left."
    assert caption(half).text == "A crack in the top right."
    assert caption(wide, broad).text == "A crack over the whole image and a crack in the top left."
    assert caption(broad, broad).text == "Two cracks over the whole image."


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [(89, 39, "top left"), (95, 39, "top center"), (194, 45, "center"), (195, 95, "bottom right")],
)
def test_the_centre_of_a_box_decides(x: float, y: float, words: str) -> None:
    # Centres at x + 5, y + 5; a centre on a border belongs to the cell behind it.
    assert caption(([x, y, 10, 10], "dent")).text == f"A dent in the {words}."


def test_a_category_in_many_places_is_one_phrase() -> None:
    three = [at(0, 0, "spur"), at(1, 0, "spur"), at(2, 0, "spur")]
    assert len(caption(*three).phrases) == 3
    found = caption(*three, at(0, 1, "spur"), at(0, 0, "spur"), at(1, 1, "dent", 1))
    assert found.text == "Five spurs in several places and a dent in the center."
    assert phrases(found)[0] == ("Five spurs in several places", [0, 1, 2, 3, 4])


@pytest.mark.parametrize(("count", "word"), [(2, "Two"), (11, "Eleven"), (12, "Twelve"), (13, "13"), (300, "300")])
def test_numbers_are_words_to_twelve(count: int, word: str) -> None:
    assert caption(*[at(1, 1, "knot")] * count).text == f"{word} knots in the center."


def test_nouns_stand_for_categories() -> None:
    scale = at(0, 0, "Rolled in scale")
    assert caption(scale, scale).text == "Two rolled in scale marks in the top left."
    assert caption(at(0, 0, "uneven"), uneven="uneven area").text == "An uneven area in the top left."


def test_nothing_to_name() -> None:
    assert grounding_caption([], SIZE, {}) is None


def random_objects(rng: np.random.Generator) -> list[Object]:
    low = rng.uniform(0, 0.95, (int(rng.integers(1, 15)), 2))
    sides = rng.uniform(0.01, 1 - low) * rng.choice([0.2, 1])
    names = rng.choice(["spur", "dent", "scratch", "oil spot"][: rng.integers(1, 5)], len(low))
    boxes = np.hstack([low, sides]) * np.tile(SIZE, 2)
    return [(box.tolist(), str(name)) for box, name in zip(boxes, names, strict=True)]


@pytest.mark.parametrize("seed", range(40))
def test_random_objects_are_grouped_as_the_reference_groups_them(seed: int) -> None:
    objects = random_objects(np.random.default_rng(seed))
    found = caption(*objects)
    rows, columns = ["top", "middle", "bottom"], ["left", "center", "right"]
    places: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for index, ((x, y, width, height), category) in enumerate(objects):
        column, row = np.digitize(x + width / 2, [100, 200]), np.digitize(y + height / 2, [50, 100])
        cell = f"in the {rows[row]} {columns[column]}".replace("middle center", "center")
        over = width * 2 > SIZE[0] and height * 2 > SIZE[1]
        places[category]["over the whole image" if over else cell].add(index)
    expected = set()
    for category, groups in places.items():
        if len(groups) > 3:
            groups = {"in several places": set.union(*groups.values())}
        expected |= {(category, place, frozenset(members)) for place, members in groups.items()}
    named = set()
    for words, members in phrases(found):
        category = objects[members[0]][1]
        assert {objects[member][1] for member in members} == {category}
        assert category in words or "scratches" in words
        place = next(place for place in ("in the", "in several", "over the") if f" {place}" in words)
        named.add((category, words[words.index(place) :], frozenset(members)))
    assert named == expected
    # The phrases follow each other, with nothing but the joints of the list between them.
    ends = [0, *(phrase.end for phrase in found.phrases)]
    starts = [*(phrase.start for phrase in found.phrases), len(found.text)]
    joints = [found.text[end:start] for end, start in zip(ends, starts, strict=True)]
    number = len(found.phrases)
    assert joints == ["", *[", "] * (number - 2), *[" and "] * (number > 1), "."]


def test_hundreds_of_parts_are_named_briefly_and_fast() -> None:
    rng = np.random.default_rng(0)
    objects = [([*map(float, corner), 3.0, 3.0], "crack") for corner in rng.uniform(0, (297, 147), (300, 2))]
    start = time.process_time()
    found = caption(*objects)
    assert time.process_time() - start < 300 * 100e-6  # Takes 1 to 2 ms on an idle machine.
    assert found.text == "300 cracks in several places."
