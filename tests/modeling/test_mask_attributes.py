"""Structured attributes on masks whose geometry is known."""

import numpy as np
import pytest
from scipy import ndimage

from defect_hub.modeling.mask_attributes import (
    CELLS,
    DIRECTIONS,
    DISTRIBUTIONS,
    SHAPES,
    components,
    count_word,
    mask_attributes,
    polarity_value,
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
    assert position_fractions(mask) == [["bottom-right", 0.769231], ["top-left", 0.230769]]


@pytest.mark.parametrize("cell", range(9))
def test_every_cell_has_its_name(cell: int) -> None:
    mask = np.zeros((31, 47), bool)
    mask[5 + 10 * (cell // 3), 7 + 16 * (cell % 3)] = True
    assert position_fractions(mask) == [[CELLS[cell], 1.0]]


def released_position(mask: np.ndarray) -> list[list]:
    """The release's rule pixel by pixel: borders at round(k * side / 3), shares to six digits."""
    counts = dict.fromkeys(CELLS, 0)
    for y, x in np.argwhere(mask):
        row = sum(y >= round(k * mask.shape[0] / 3) for k in (1, 2))
        column = sum(x >= round(k * mask.shape[1] / 3) for k in (1, 2))
        counts[CELLS[3 * row + column]] += 1
    ranked = sorted(counts.items(), key=lambda item: item[1], reverse=True)
    return [[cell, round(count / mask.sum(), 6)] for cell, count in ranked if count]


@pytest.mark.parametrize("shape", [(256, 256), (200, 256), (31, 47), (2, 1), (1, 1)])
def test_position_follows_the_released_rule(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    mask = (np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % 3 > 0) & (rng.random(shape) < 0.7)
    mask[-1, -1] = True
    assert position_fractions(mask) == released_position(mask)


def test_position_of_equal_shares_is_in_reading_order() -> None:
    assert [cell for cell, _ in position_fractions(np.ones((9, 9), bool))] == list(CELLS)
    assert position_fractions(np.zeros((9, 9), bool)) == []


MASKS = {
    "noise": np.random.default_rng(1).random((60, 75)) < 0.45,
    "sparse": np.random.default_rng(2).random((60, 75)) < 0.04,
    "dense": np.random.default_rng(3).random((60, 75)) < 0.9,
    "columns": np.indices((40, 41))[1] % 2 == 0,
    "one pixel": np.eye(50, dtype=bool) & (np.arange(50) == 49),
    "all": np.ones((20, 30), bool),
}


@pytest.mark.parametrize("name", MASKS)
def test_components_agree_with_scipy(name: str) -> None:
    mask = MASKS[name]
    found = components(mask)
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    boxes = [(x.start, y.start, x.stop - x.start, y.stop - y.start) for y, x in ndimage.find_objects(labels)]
    assert found.boxes.tolist() == [list(box) for box in boxes]
    assert found.areas.tolist() == np.bincount(labels.ravel())[1:].tolist()
    assert found.labels.max() == count
    np.testing.assert_allclose(found.centroids, ndimage.center_of_mass(mask, labels, range(1, count + 1)))
    for number in range(1, count + 1):
        points = np.argwhere(labels == number)
        # Each pixel is a unit square of variance 1/12.
        covariance = np.cov(points.T, ddof=0) + np.eye(2) / 12
        np.testing.assert_allclose(found.covariances[number - 1], covariance, atol=1e-9)
        background = np.pad(labels != number, 1, constant_values=True)
        assert found.holes[number - 1] == ndimage.label(background)[1] - 1


def test_known_components_give_the_same_attributes() -> None:
    mask = disc(40, 50, 9) | disc(90, 80, 5)
    gray = np.random.default_rng(0).integers(0, 255, mask.shape, dtype=np.uint8)
    assert mask_attributes(gray, mask, "Inclusion", components(mask)) == mask_attributes(gray, mask, "Inclusion")


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_polarity_is_the_difference_of_the_means(kind: type) -> None:
    rng = np.random.default_rng(0)
    gray, mask = rng.integers(0, 256, (300, 257)).astype(kind), rng.random((300, 257)) < 0.3
    gray[mask] = 255
    assert polarity_value(gray, mask) == pytest.approx(gray[mask].mean(dtype=float) - gray[~mask].mean(dtype=float))


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


def test_without_an_image_its_contrast_is_left_out() -> None:
    mask = disc(40, 50, 9)
    found = attributes_of(mask)
    assert {"Polarity", "Saliency"} < found.keys()
    expected = {key: value for key, value in found.items() if key not in ("Polarity", "Saliency")}
    assert mask_attributes(None, mask, "Inclusion") == expected


def test_bad_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="empty mask"):
        attributes_of(np.zeros((SIDE, SIDE), bool))
    with pytest.raises(ValueError, match=r"\(3, 3\).*\(4, 4\)"):
        mask_attributes(np.zeros((4, 4), np.uint8), np.ones((3, 3), bool), "Inclusion")
