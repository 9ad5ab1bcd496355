import io
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from defect_hub.dataset_scripts import duplicates
from defect_hub.dataset_scripts.duplicates import (
    MAX_DISTANCE,
    NEIGHBOURS,
    DuplicatePair,
    SearchResult,
    compare,
    duplicate_groups,
    find_candidates,
    find_duplicates,
    search_duplicates,
)
from defect_hub.dataset_scripts.fingerprints import HASH_BITS, ORIENTATIONS, fingerprint, resized, turn, turned_bits

Gray = NDArray[np.uint8]


def texture(seed: int, shape: tuple[int, int] = (128, 128), grain: float = 1.5, contrast: float = 25) -> Gray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), grain)
    return np.clip(120 + contrast * noise / noise.std(), 0, 255).astype(np.uint8)


def jpeg(gray: Gray, quality: int) -> Gray:
    buffer = io.BytesIO()
    Image.fromarray(gray).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def bicubic(gray: Gray, width: int, height: int) -> Gray:
    return np.asarray(Image.fromarray(gray).resize((width, height), Image.Resampling.BICUBIC))


def search(images: Sequence[Gray], files: Sequence[str] | None = None) -> SearchResult:
    names = files or [str(index) for index in range(len(images))]
    return search_duplicates([fingerprint(gray) for gray in images], names, images.__getitem__)


def pairs(images: Sequence[Gray], files: Sequence[str] | None = None) -> list[tuple[int, int, str]]:
    return [(pair.first, pair.second, pair.kind) for pair in search(images, files).pairs]


def test_equal_files_and_equal_pixels() -> None:
    a, b = texture(0), texture(1)
    found = pairs([b, a, a, a, a], ["b", "jpg", "png", "jpg", "png"])
    assert found == [(1, 2, "pixels"), (1, 3, "bytes"), (2, 4, "bytes")]


@pytest.mark.parametrize("orientation", range(len(ORIENTATIONS)))
def test_copy_in_every_orientation(orientation: int) -> None:
    original = texture(2, (130, 128))
    (pair,) = search([texture(3), original, np.ascontiguousarray(turn(original, orientation))]).pairs
    assert (pair.first, pair.second) == (1, 2)
    assert pair.kind == ("near" if orientation else "pixels")
    back = turn(turn(original, orientation), ORIENTATIONS.index(pair.orientation))
    assert np.array_equal(back, original)
    assert pair.difference == 0
    assert pair.similarity == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("contrast", [25, 6])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda gray: jpeg(gray, 95), id="jpeg95"),
        pytest.param(lambda gray: jpeg(gray, 50), id="jpeg50"),
        pytest.param(lambda gray: bicubic(gray, 200, 200), id="smaller"),
        pytest.param(lambda gray: bicubic(gray, 320, 300), id="larger"),
        pytest.param(lambda gray: jpeg(bicubic(gray, 200, 200), 50)[::-1].T, id="smaller, jpeg50, turned"),
        pytest.param(lambda gray: (gray // 2 + 90).astype(np.uint8), id="other lighting"),
        pytest.param(lambda gray: gray[:, 4:], id="cropped"),
    ],
)
def test_changed_copy_is_near(change, contrast: float) -> None:
    original = texture(4, (256, 256), grain=3, contrast=contrast)
    (pair,) = search([original, texture(5, (256, 256)), np.ascontiguousarray(change(original))]).pairs
    assert (pair.first, pair.second, pair.kind) == (0, 2, "near")
    assert 0.55 <= pair.similarity <= 1


def line(seed: int, column: int) -> Gray:
    gray = texture(seed, (200, 200), contrast=4)
    gray[:, column : column + 4] = 250
    return gray


@pytest.mark.parametrize(
    "images",
    [
        pytest.param([texture(seed, grain=(0.7, 2, 5)[seed % 3]) for seed in range(30)], id="textures"),
        pytest.param([texture(seed, contrast=3) for seed in range(30)], id="low contrast"),
        pytest.param([line(seed, 100) for seed in range(30)], id="one strong line in common"),
        pytest.param(
            [(texture(seed, contrast=4) + np.linspace(0, 100, 128)).astype(np.uint8) for seed in range(30)],
            id="one shading in common",
        ),
    ],
)
def test_different_pictures_are_no_duplicates(images: list[Gray]) -> None:
    assert pairs(images) == []


def test_the_pictures_decide_where_the_hashes_agree() -> None:
    coarse = texture(6, (200, 200), grain=8, contrast=40).astype(float)
    images = []
    for seed in (7, 8):
        grain = texture(seed, (200, 200), grain=1).astype(float)
        images.append(np.clip(coarse + grain - gaussian_filter(grain, 6), 0, 255).astype(np.uint8))
    result = search(images)
    assert (result.compared, result.pairs) == (1, [])
    assert np.corrcoef(images[0].ravel(), images[1].ravel())[0, 1] > 0.7


def test_one_strong_line_does_not_decide() -> None:
    a, b = line(0, 100), line(1, 100)
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9
    assert compare(a, b)[0] < 0.5
    assert compare(a, jpeg(a, 75))[0] > 0.8


def test_similarity_and_difference_of_a_shifted_copy() -> None:
    wide = texture(9, (128, 140), grain=2)
    similarity, difference = compare(wide[:, :128], wide[:, 6:134])
    assert similarity > 0.8
    assert difference == 0
    assert compare(wide[:, :128], texture(10, grain=2))[0] < 0.3


def structure(gray: Gray) -> NDArray[np.float64]:
    values, side = gray.astype(np.float64), max(gray.shape)
    detail = uniform_filter(values, 3) - uniform_filter(values, max(9, side // 16 | 1))
    return detail / np.sqrt(uniform_filter(detail**2, max(17, side // 8 | 1)) + 4)


@pytest.mark.parametrize("orientation", [0, 3, 5])
@pytest.mark.parametrize("shape", [(128, 96), (97, 131), (9, 250), (5, 7)])
def test_similarity_is_the_best_correlation_of_the_local_structure(shape: tuple[int, int], orientation: int) -> None:
    """Computed anew with SciPy's filter and without a Fourier transform; turned pictures are no rows in memory."""
    first = turn(texture(11, shape, grain=1), orientation)
    second = turn(np.roll(jpeg(texture(11, shape, grain=1), 60), (1, -2), (0, 1)), orientation)
    ours, theirs = structure(first), structure(second)
    ranges = [range(-(side // 16), side // 16 + 1) for side in first.shape]
    matches = [(ours * np.roll(theirs, (down, right), (0, 1))).sum() for down in ranges[0] for right in ranges[1]]
    expected = max(matches) / np.sqrt((ours**2).sum() * (theirs**2).sum())
    assert compare(first, second)[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("quality", "side"), [(12, 96), (8, 256)])
def test_a_glance_decides_where_it_is_clear(quality: int, side: int) -> None:
    original = texture(12, (300, 280), grain=3, contrast=6)
    (pair,) = search([original, jpeg(original, quality)]).pairs
    shown = [resized(resized(gray, 256, 256), side, side) for gray in (original, jpeg(original, quality))]
    assert (pair.similarity, pair.difference) == compare(*shown)
    assert (pair.similarity >= 0.85) == (side == 96)


def test_even_pictures_have_exact_duplicates_only() -> None:
    levels = [100, 101, 100, 200]
    result = search([np.full((64, 64), level, np.uint8) for level in levels])
    assert [(pair.first, pair.second, pair.kind) for pair in result.pairs] == [(0, 2, "pixels")]
    assert result.flat == 4


def test_few_pictures() -> None:
    assert pairs([]) == []
    assert pairs([texture(0)]) == []


def test_only_candidates_are_loaded() -> None:
    images = [texture(seed) for seed in range(40)]
    images.append(jpeg(images[3], 80))
    loaded = []

    def load(index: int) -> Gray:
        loaded.append(index)
        return images[index]

    prints = [fingerprint(gray) for gray in images]
    found = find_duplicates(prints, [str(index) for index in range(41)], load)
    assert [(pair.first, pair.second) for pair in found] == [(3, 40)]
    assert sorted(loaded) == [3, 40]


@pytest.mark.parametrize("piece", [1, 64])
def test_result_does_not_depend_on_workers_or_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    originals = [texture(seed) for seed in range(12)]
    images = [*originals, *(jpeg(gray, 60) for gray in originals), *(jpeg(gray, 40) for gray in originals[3:7])]
    files = [tmp_path / f"{index}.npy" for index in range(len(images))]
    for file, gray in zip(files, images, strict=True):
        np.save(file, gray)
    expected = search(images)
    assert len(expected.pairs) == 16
    monkeypatch.setattr(duplicates, "PIECE", piece)
    prints = [fingerprint(gray) for gray in images]
    names = [file.name for file in files]
    for workers in (1, 2):
        assert search_duplicates(prints, names, np.load, sources=files, workers=workers) == expected


def test_groups_do_not_depend_on_the_order_of_the_images() -> None:
    images = [texture(seed) for seed in range(5)]
    images += [jpeg(images[0], 60), np.ascontiguousarray(images[0].T), jpeg(images[2], 90)]
    order = [6, 3, 7, 0, 5, 1, 4, 2]
    backward = pairs([images[index] for index in order])
    groups = duplicate_groups(8, [DuplicatePair(order[a], order[b], kind) for a, b, kind in backward])
    assert groups == [[0, 5, 6], [2, 7]]


def test_groups_are_the_connected_components() -> None:
    rng = np.random.default_rng(0)
    ends = rng.integers(200, size=(120, 2))
    ends = ends[ends[:, 0] != ends[:, 1]]
    groups = duplicate_groups(200, [DuplicatePair(min(a, b), max(a, b), "near") for a, b in ends.tolist()])
    labels = connected_components(coo_array((np.ones(len(ends)), ends.T), shape=(200, 200)), directed=False)[1]
    expected = [np.flatnonzero(labels == label).tolist() for label in dict.fromkeys(labels.tolist())]
    assert groups == [group for group in expected if len(group) > 1]


def hashes_with_copies(wrong_bits: int) -> Gray:
    """150 random hashes and 50 turned copies of the first ones, with wrong bits."""
    rng = np.random.default_rng(wrong_bits)
    bits = rng.random((200, HASH_BITS)) < 0.5
    for row in range(50):
        source, inverted = turned_bits(row % len(ORIENTATIONS))
        wrong = rng.permutation(np.arange(1, HASH_BITS))[:wrong_bits]
        copy = bits[row].copy()
        copy[wrong] ^= True
        bits[150 + row] = copy[source] ^ inverted
    bits[:, 0] = False
    return np.packbits(bits, axis=1)


def distances(hashes: Gray) -> dict[tuple[int, int], int]:
    """Least distance of every pair over all orientations, by brute force."""
    bits = np.unpackbits(hashes, axis=1)
    turns = [turned_bits(orientation) for orientation in range(len(ORIENTATIONS))]
    turned = np.stack([bits[:, source] ^ inverted for source, inverted in turns])
    return {(i, j): int((turned[:, j] != bits[i]).sum(axis=1).min()) for i, j in combinations(range(len(bits)), 2)}


@pytest.mark.parametrize("wrong_bits", [0, 8, 14])
def test_hashes_that_differ_in_fewer_bits_than_there_are_bands_are_always_found(wrong_bits: int) -> None:
    hashes = hashes_with_copies(wrong_bits)
    candidates = find_candidates(hashes)
    pairs = list(zip(candidates.first.tolist(), candidates.second.tolist(), strict=True))
    expected = distances(hashes)
    assert [expected[pair] for pair in pairs] == sorted(expected[pair] for pair in pairs)
    assert set(pairs) == {pair for pair, distance in expected.items() if distance <= MAX_DISTANCE}
    assert len(pairs) == 50


def test_hashes_further_apart_are_no_candidates() -> None:
    assert len(find_candidates(hashes_with_copies(MAX_DISTANCE + 1)).first) == 0


def test_very_many_alike_stay_bounded_and_are_reported() -> None:
    rng = np.random.default_rng(0)
    bits = np.broadcast_to(rng.random(HASH_BITS) < 0.5, (3000, HASH_BITS)) ^ (rng.random((3000, HASH_BITS)) < 0.1)
    bits[2999] = bits[1000]
    bits[:, 0] = False
    candidates = find_candidates(np.packbits(bits, axis=1))
    assert candidates.crowded > 1000
    assert len(candidates.first) <= 3000 * NEIGHBOURS
    assert (candidates.first[0], candidates.second[0]) == (1000, 2999)
