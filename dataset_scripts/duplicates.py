"""Images that show the same: equal files, equal pixels, or nearly equal ones in any of eight orientations.

Candidates agree in one of 60 bands of their hashes; sorted bands find them without comparing every pair. The pictures
of a candidate pair are then compared in the orientation that the hashes name. Measurements behind the constants are in
`docs/benchmarks/duplicate_search.md`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import uniform_filter
from tqdm import tqdm

from defect_hub.dataset_scripts.fingerprints import (
    FREQUENCIES,
    HASH_BITS,
    ORIENTATIONS,
    Fingerprint,
    turn,
    turned_bits,
)

MAX_DISTANCE = 80
"""Bits of 255 in which the hashes of near-duplicates may differ."""
MIN_SIMILARITY = 0.55
BAND_BITS = 16
DEALS = {97: (1, 8, 13, 30, 47), 241: (1, 16)}
"""The lowest 96 frequencies make six bands, the lowest 240 fifteen, once for each step through them."""
WINDOW = 64
"""Hashes of one band that a hash is compared with; where more agree, those whose next band is closest."""
NEIGHBOURS = 8
"""Candidates kept for an image, the closest."""
CHUNK = 16_384
MERGED_ROWS = 1_000_000
COMPARED_SIDE = 256
"""Longest side in pixels at which pictures are compared."""
GLANCE_SIDE = 96
MIN_GLANCE = 0.45
"""Similarity at this longest side below which pictures are not compared closely: copies have 0.59 and more there."""
NOISE = 2.0
"""Gray values; structure weaker than this may come from a codec and counts less."""
CACHED_IMAGES = 1024


@dataclass(frozen=True)
class DuplicatePair:
    """Two images that show the same.

    Attributes:
        first: Index of the image that comes first.
        second: Index of the other.
        kind: "bytes" (equal files), "pixels" (equal gray values) or "near".
        orientation: How to turn the second so that it matches the first; one of `ORIENTATIONS`.
        similarity: Correlation of their local structure, 1 where it is the same.
        difference: Mean absolute difference in gray values at their common size.
    """

    first: int
    second: int
    kind: str
    orientation: str = ORIENTATIONS[0]
    similarity: float = 1.0
    difference: float = 0.0


@dataclass(frozen=True)
class Candidates:
    """Pairs of hashes that are close, the closest first.

    Attributes:
        first: Indices of the earlier hashes.
        second: Indices of the later ones.
        orientation: How to turn the second; indices of `ORIENTATIONS`.
        crowded: Number of hashes with a band that more than `WINDOW` others share; for these the search is not
            exhaustive.
    """

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    orientation: NDArray[np.intp]
    crowded: int


@dataclass(frozen=True)
class SearchResult:
    """Outcome of a search.

    Attributes:
        pairs: Duplicates; they connect each group, but a group of n may have fewer than n * (n - 1) / 2 of them.
        flat: Number of pictures too even for a perceptual hash: of these only exact duplicates are found.
        crowded: See `Candidates`.
        compared: Number of candidates whose pictures were compared.
    """

    pairs: list[DuplicatePair]
    flat: int
    crowded: int
    compared: int


def find_duplicates(
    fingerprints: Sequence[Fingerprint], sha256: Sequence[str], load_gray: Callable[[int], NDArray[np.uint8]]
) -> list[DuplicatePair]:
    """Pairs of images that show the same; see `search_duplicates`."""
    return search_duplicates(fingerprints, sha256, load_gray).pairs


def search_duplicates(
    fingerprints: Sequence[Fingerprint], sha256: Sequence[str], load_gray: Callable[[int], NDArray[np.uint8]]
) -> SearchResult:
    """Search for images that show the same.

    Args:
        fingerprints: Of each image.
        sha256: Digest of each image's file.
        load_gray: Gray values (H, W) of the image of an index; called for candidates only.
    """
    exact = _exact_pairs(fingerprints, sha256)
    # Equal pixels have equal hashes: of each set of copies only the first is searched.
    left_out = {pair.second for pair in exact}.union(i for i, print_ in enumerate(fingerprints) if print_.flat)
    rows = [row for row in range(len(fingerprints)) if row not in left_out]
    bits = [fingerprints[row].bits for row in rows]
    candidates = find_candidates(np.array(bits, np.uint8).reshape(-1, HASH_BITS // 8))
    near, compared = _near_pairs(candidates, rows, load_gray)
    pairs = sorted(exact + near, key=lambda pair: (pair.first, pair.second))
    return SearchResult(pairs, sum(print_.flat for print_ in fingerprints), candidates.crowded, compared)


def duplicate_groups(count: int, pairs: Iterable[DuplicatePair]) -> list[list[int]]:
    """Indices of images that are connected by pairs.

    Args:
        count: Number of images.
        pairs: From `find_duplicates`.

    Returns:
        Groups of at least two, each sorted, in the order of their first members.
    """
    forest = _Forest(count)
    for pair in pairs:
        forest.join(pair.first, pair.second)
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(count):
        groups[forest.root(index)].append(index)
    return [group for group in groups.values() if len(group) > 1]


class _Forest:
    """Union-find in which the root of a tree is its smallest index."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, index: int) -> int:
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index

    def join(self, a: int, b: int) -> bool:
        """Connect two indices; False where they were connected already."""
        low, high = sorted((self.root(a), self.root(b)))
        self._parent[high] = low
        return low != high


def _exact_pairs(fingerprints: Sequence[Fingerprint], sha256: Sequence[str]) -> list[DuplicatePair]:
    """Each copy with the first image of equal bytes or, if there is none, of equal pixels."""
    by_bytes: dict[str, int] = {}
    by_pixels: dict[bytes, int] = {}
    pairs = []
    for index, (print_, digest) in enumerate(zip(fingerprints, sha256, strict=True)):
        same_pixels = by_pixels.setdefault(print_.pixel_sha256, index)
        same_bytes = by_bytes.setdefault(digest, index)
        if same_bytes != index:
            pairs.append(DuplicatePair(same_bytes, index, "bytes"))
        elif same_pixels != index:
            pairs.append(DuplicatePair(same_pixels, index, "pixels"))
    return pairs


def find_candidates(hashes: NDArray[np.uint8]) -> Candidates:
    """Pairs of hashes that agree in a band and differ in at most `MAX_DISTANCE` bits, each in its best orientation.

    Time grows as N log N: every band of a hash is compared with at most `WINDOW` others, and a hash keeps its
    `NEIGHBOURS` closest pairs.

    Args:
        hashes: (N, 32) uint8, the `bits` of fingerprints.
    """
    bits = np.ascontiguousarray(np.unpackbits(hashes, axis=1).T)
    turns = [turned_bits(orientation) for orientation in range(len(ORIENTATIONS))]
    words = [_words(bits[source] ^ inverted[:, None]) for source, inverted in turns]
    crowded = np.zeros(len(hashes), np.bool_)
    found = np.empty((0, 4), np.int32)
    fresh = []
    for band in tqdm(_bands(), desc="candidates", unit="band", leave=False):
        keys = [_keys(bits[source[band]] ^ inverted[band, None]) for source, inverted in turns]
        order = np.argsort(keys[0], kind="stable")
        for orientation, queries in enumerate(keys):
            for second, first, crowd in _matches(keys[0][order], queries):
                crowded[crowd] = True
                close = _close(words[0], words[orientation], order[first], second)
                fresh.append(np.insert(close, 2, orientation, axis=1))
            if sum(map(len, fresh)) > MERGED_ROWS:
                found, fresh = _closest(np.concatenate([found, *fresh])), []
    found = _closest(np.concatenate([found, *fresh]))
    first, second, orientation, _ = found[np.lexsort((found[:, 0], found[:, 1], found[:, 3]))].T
    return Candidates(first, second, orientation, int(crowded.sum()))


def _bands() -> Iterator[NDArray[np.intp]]:
    """Bits that make up each band, followed by those of the next band, (32,) each.

    The lowest frequencies, which survive compression and small shifts best, are dealt out several times, each time in
    another order: multiplied by a number modulo a prime, which visits each of them once.
    """
    rows, columns = np.divmod(np.arange(HASH_BITS), FREQUENCIES)
    lowest = np.argsort(np.hypot(rows, columns), kind="stable")[1:]  # The first bit is always 0.
    orders = [lowest[np.arange(1, prime) * step % prime - 1] for prime, steps in DEALS.items() for step in steps]
    bands = np.concatenate(orders).reshape(-1, BAND_BITS)
    yield from np.concatenate([bands, np.roll(bands, -1, axis=0)], axis=1)


def _words(bits: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Bits (256, N) as words (N, 4)."""
    return np.ascontiguousarray(np.packbits(bits, axis=0).T).view(np.uint64)


def _keys(bits: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Bits (32, N) as numbers (N,), the first bit highest."""
    keys = np.zeros(bits.shape[1], np.uint32)
    for row in bits:
        keys = (keys << 1) | row
    return keys


def _matches(
    table: NDArray[np.uint32], queries: NDArray[np.uint32]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]]:
    """Places of a sorted table that agree with a query in the upper half of the bits, a chunk of queries at a time.

    Yields:
        Query and place of each match, and the queries that had more than `WINDOW`.
    """
    lower = np.uint32(2**BAND_BITS - 1)
    for begin in range(0, len(queries), CHUNK):
        chunk = queries[begin : begin + CHUNK]
        low = np.searchsorted(table, chunk & ~lower)
        high = np.searchsorted(table, chunk | lower, "right")
        start = np.clip(np.searchsorted(table, chunk) - WINDOW // 2, low, np.maximum(low, high - WINDOW))
        counts = np.minimum(high - start, WINDOW)
        places = np.arange(counts.sum()) + np.repeat(start - np.cumsum(counts) + counts, counts)
        numbers = np.arange(begin, begin + len(chunk))
        yield np.repeat(numbers, counts), places, numbers[high - low > WINDOW]


def _close(
    words: NDArray[np.uint64], turned: NDArray[np.uint64], first: NDArray[np.intp], second: NDArray[np.intp]
) -> NDArray[np.int32]:
    """(first, second, distance) of the pairs in ascending order whose hashes are close, (M, 3)."""
    ascending = first < second
    first, second = first[ascending], second[ascending]
    distance = np.bitwise_count(words[first] ^ turned[second]).sum(axis=1)
    rows = np.stack([first, second, distance], axis=1).astype(np.int32)
    return rows[distance <= MAX_DISTANCE]


def _closest(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """Of rows (first, second, orientation, distance) the closest of each pair, and of these `NEIGHBOURS` a second."""
    rows = rows[np.lexsort((rows[:, 2], rows[:, 3], rows[:, 0], rows[:, 1]))]
    rows = rows[np.any(np.diff(rows[:, :2], axis=0, prepend=-1) != 0, axis=1)]
    rows = rows[np.lexsort((rows[:, 0], rows[:, 3], rows[:, 1]))]
    rank = np.arange(len(rows)) - np.searchsorted(rows[:, 1], rows[:, 1])
    return rows[rank < NEIGHBOURS]


def _near_pairs(
    candidates: Candidates, rows: Sequence[int], load_gray: Callable[[int], NDArray[np.uint8]]
) -> tuple[list[DuplicatePair], int]:
    """Candidates whose pictures match, and the number of pictures compared; `rows` are the images of the hashes.

    A candidate of two images that closer ones connect already is passed over: it would not change the groups.
    """

    @lru_cache(CACHED_IMAGES)
    def load(row: int) -> NDArray[np.uint8]:
        return _bounded(load_gray(row), COMPARED_SIDE)

    forest = _Forest(len(rows))
    pairs, compared = [], 0
    triples = np.stack([candidates.first, candidates.second, candidates.orientation], axis=1).tolist()
    for first, second, orientation in tqdm(triples, desc="compare", unit="pair", leave=False):
        if forest.root(first) == forest.root(second):
            continue
        compared += 1
        pictures = load(rows[first]), turn(load(rows[second]), orientation)
        if compare(*(_bounded(picture, GLANCE_SIDE) for picture in pictures))[0] < MIN_GLANCE:
            continue
        similarity, difference = compare(*pictures)
        if similarity >= MIN_SIMILARITY:
            forest.join(first, second)
            name = ORIENTATIONS[orientation]
            pairs.append(DuplicatePair(rows[first], rows[second], "near", name, similarity, difference))
    return pairs, compared


def compare(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> tuple[float, float]:
    """How alike two pictures are, at the smaller of their sizes and in the best shift of up to 1/16 of the side.

    Local structure is what is left of a picture when its coarse shading is taken away and its contrast made even:
    neither lighting nor one strong edge decides, and structure as weak as a codec's noise counts little.

    Args:
        first: Gray values (H, W).
        second: Gray values of a picture in the same orientation, perhaps of another size.

    Returns:
        Correlation of the local structure, and mean absolute difference of the gray values.
    """
    height, width = np.minimum(first.shape, second.shape)
    first, second = _resized(first, height, width), _resized(second, height, width)
    ours, theirs = _local_structure(first), _local_structure(second)
    product = scipy.fft.rfft2(ours) * np.conj(scipy.fft.rfft2(theirs))
    shifts = [np.arange(-(side // 16), side // 16 + 1) for side in (height, width)]
    matches = scipy.fft.irfft2(product, s=(height, width))[np.ix_(*shifts)]
    best = np.unravel_index(matches.argmax(), matches.shape)
    down, right = (int(steps[place]) for steps, place in zip(shifts, best, strict=True))
    norm = float(np.sqrt(np.square(ours).sum() * np.square(theirs).sum()))
    shown = first[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
    other = second[max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)]
    difference = np.abs(shown.astype(np.int16) - other).mean()
    return min(float(matches.max()) / norm, 1.0) if norm else 0.0, float(difference)


def _bounded(gray: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return _resized(gray, min(gray.shape[0], side), min(gray.shape[1], side))


def _resized(gray: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    if gray.shape == (height, width):
        return gray
    return np.asarray(Image.fromarray(gray).resize((width, height), Image.Resampling.BOX))


def _local_structure(gray: NDArray[np.uint8]) -> NDArray[np.float32]:
    values = gray.astype(np.float32)
    side = max(gray.shape)
    detail = uniform_filter(values, 3) - uniform_filter(values, max(9, side // 16 | 1))
    energy = uniform_filter(detail * detail, max(17, side // 8 | 1))
    return detail / np.sqrt(energy + NOISE**2)
