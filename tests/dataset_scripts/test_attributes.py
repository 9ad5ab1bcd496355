"""Structured attributes on masks whose geometry is known."""

import numpy as np
import pytest

from defect_hub.dataset_scripts.attributes import (
    CELLS,
    DIRECTIONS,
    DISTRIBUTIONS,
    SHAPES,
    count_word,
    mask_attributes,
    position_fractions,
    scale_word,
)

SIDE = 120
Y, X = np.mgrid[:SIDE, :SIDE]


def disc(y: float, x: float, radius: float) -> np.ndarray:
    return (Y - y) ** 2 + (X - x) ** 2 <= radius**2


def attributes_of(mask: np.ndarray, defect: int = 60, background: int = 100) -> dict:
    return mask_attributes(np.where(mask, defect, background).astype(np.uint8), mask, "Inclusion")


@pytest.mark.parametrize(
    ("ratio", "word"),
    [
        (0.0001, "tiny"),
        (0.00999, "tiny"),
        (0.01, "small"),
        (0.03, "medium"),
        (0.0999, "medium"),
        (0.10, "large"),
        (0.25, "large"),
        (0.2501, "extensive"),
    ],
)
def test_scale_bounds(ratio: float, word: str) -> None:
    assert scale_word(ratio) == word


def test_count_words() -> None:
    assert [count_word(n) for n in (1, 2, 5, 6, 40)] == ["one", "two", "five", "multiple", "multiple"]


@pytest.mark.parametrize(
    ("defect", "polarity", "saliency"),
    [
        (95, "neutral", "low"),
        (94, "dark", "low"),
        (105, "neutral", "low"),
        (106, "bright", "low"),
        (90, "dark", "medium"),
        (140, "bright", "medium"),
        (59, "dark", "high"),
    ],
)
def test_polarity_and_saliency_limits(defect: int, polarity: str, saliency: str) -> None:
    found = attributes_of(disc(60, 60, 10), defect)
    assert (found["Polarity"], found["Saliency"]) == (polarity, saliency)


def test_diagonal_neighbours_are_one_component() -> None:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[10, 10] = mask[11, 11] = True
    assert attributes_of(mask)["Number of Defects"] == "one"
    mask[11, 11], mask[12, 12] = False, True
    assert attributes_of(mask)["Number of Defects"] == "two"


def test_position_is_ranked_and_drops_empty_cells() -> None:
    mask = np.zeros((90, 60), bool)
    mask[:10, :3] = True
    mask[80:, 50:] = True
    assert position_fractions(mask) == [["bottom-right", 100 / 130], ["top-left", 30 / 130]]


@pytest.mark.parametrize("cell", range(9))
def test_every_cell_has_its_name(cell: int) -> None:
    mask = np.zeros((31, 47), bool)
    mask[5 + 10 * (cell // 3), 7 + 16 * (cell % 3)] = True
    assert position_fractions(mask) == [[CELLS[cell], 1.0]]


def test_position_of_a_single_pixel_image() -> None:
    assert position_fractions(np.ones((1, 1), bool)) == [["top-left", 1.0]]


SHAPED = {
    "circular": disc(50, 70, 14),
    "linear": abs(Y - X) <= 1,
    "curved": disc(60, 60, 45) & ~disc(60, 60, 42) & (X < 50),
    "elongated": ((Y - 60) / 30) ** 2 + ((X - 60) / 10) ** 2 <= 1,
    "network-like": ((Y % 20 < 2) | (X % 20 < 2)) & (Y > 10) & (Y < 100) & (X > 10) & (X < 100),
    "patch-like": (abs(Y - 60) < 22) & (abs(X - 60) < 26),
    "irregular": disc(60, 60, 12)
    | ((abs(Y - 60) < 3) & (X > 60) & (X < 90))
    | ((abs(X - 60) < 3) & (Y < 60) & (Y > 30)),
    "spot-like": np.logical_or.reduce([disc(15 + 18 * i, 20 + 37 * i % 80, 2.5) for i in range(6)]),
    "fragmented": np.logical_or.reduce(
        [(abs(Y - 15 - 16 * i) < 2) & (abs(X - 20 - 37 * i % 80) < 9) for i in range(6)]
    ),
}


@pytest.mark.parametrize("shape", SHAPED)
def test_shape_follows_the_geometry(shape: str) -> None:
    assert attributes_of(SHAPED[shape])["Shape"] == shape
    assert set(SHAPED) == set(SHAPES)


def test_direction_follows_the_main_axis() -> None:
    bars = {"horizontal": (0.1, 1), "vertical": (1, 0.1), "diagonal": (1, 1)}
    found = {}
    for name, (dy, dx) in bars.items():
        across = (Y - 60) * dx - (X - 60) * dy
        along = (Y - 60) * dy + (X - 60) * dx
        found[name] = attributes_of((abs(across) < 4) & (abs(along) < 40))["Direction"]
    found["none"] = attributes_of(disc(60, 60, 20))["Direction"]
    assert found == {name: name for name in DIRECTIONS}


def test_parallel_bars_keep_their_direction() -> None:
    side_by_side = (abs(Y - 60) < 20) & ((abs(X - 20) < 3) | (abs(X - 60) < 3) | (abs(X - 100) < 3))
    assert attributes_of(side_by_side)["Direction"] == "vertical"


def test_distribution() -> None:
    found = {
        "isolated": attributes_of(disc(30, 30, 9)),
        "clustered": attributes_of(disc(30, 30, 4) | disc(30, 42, 4)),
        "scattered": attributes_of(disc(10, 10, 4) | disc(100, 100, 4)),
    }
    assert {word: row["Spatial Distribution"] for word, row in found.items()} == {word: word for word in DISTRIBUTIONS}


def test_a_mask_of_everything_is_neutral() -> None:
    found = attributes_of(np.ones((SIDE, SIDE), bool))
    assert (found["Polarity"], found["Saliency"], found["Scale"]) == ("neutral", "low", "extensive")


def test_bad_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="empty mask"):
        attributes_of(np.zeros((SIDE, SIDE), bool))
    with pytest.raises(ValueError, match=r"\(3, 3\).*\(4, 4\)"):
        mask_attributes(np.zeros((4, 4), np.uint8), np.ones((3, 3), bool), "Inclusion")
