"""Images that show the same: equal files, equal pixels, or nearly equal ones in any of eight orientations.

Candidates agree in one of 60 bands of their hashes; sorted bands find them without comparing every pair. The pictures
of a candidate pair are then compared in the orientation that the hashes name. Measurements behind the constants are in
`docs/benchmarks/duplicate_search.md`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from defect_hub.dataset_scripts.fingerprints import (
    COMPARED_SIDE,
    FREQUENCIES,
    HASH_BITS,
    ORIENTATIONS,
    Fingerprint,
    miniature,
    resized,
    turn,
    turned_bits,
)
from defect_hub.dataset_scripts.workers import map_in_order

Gray = NDArray[np.uint8]

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
LOOKS = ((96, 0.45, 0.85), (COMPARED_SIDE, MIN_SIMILARITY, MIN_SIMILARITY))
"""Longest side in pixels, and the similarities below and from which the next look is saved: at a glance copies have
0.59 and more, and no pair with 0.85 had less than `MIN_SIMILARITY` in the closer look."""
NOISE = 2.0
"""Gray values; structure weaker than this may come from a codec and counts less."""
KEPT_MEMORY = 2**24
"""Bytes; glibc keeps up to twice the size of the largest block that was freed. Otherwise it returns the memory of a
picture to the system each time, and to get it back takes as long as to compare the pictures."""
PIECE = 64
"""Candidates that a worker compares at once, or more where they are connected."""
CACHED_IMAGES = 1024
CACHED_VIEWS = 256
"""Views are needed for several candidates; one takes up to 330 KB."""


@dataclass(frozen=True)
class DuplicatePair:
    """Two images that show the same.

    Attributes:
        first: Index of the image that comes first.
        second: Index of the other.
        kind: "bytes" (equal files), "pixels" (equal gray values) or "near".
        orientation: How to turn the second so that it matches the first; one of `ORIENTATIONS`.
        similarity: Correlation of their local structure, 1 where it is the same: at a glance, at up to 96 px a side,
            where this decides, else at up to 256 px.
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
    fingerprints: Sequence[Fingerprint],
    sha256: Sequence[str],
    load_gray: Callable[[Any], Gray],
    *,
    sources: Sequence[Any] | None = None,
    workers: int = 1,
) -> list[DuplicatePair]:
    """Pairs of images that show the same; see `search_duplicates`."""
    return search_duplicates(fingerprints, sha256, load_gray, sources=sources, workers=workers).pairs


def search_duplicates(
    fingerprints: Sequence[Fingerprint],
    sha256: Sequence[str],
    load_gray: Callable[[Any], Gray],
    *,
    sources: Sequence[Any] | None = None,
    workers: int = 1,
) -> SearchResult:
    """Search for images that show the same.

    Args:
        fingerprints: Of each image.
        sha256: Digest of each image's file.
        load_gray: Gray values (H, W) of the image of a source, or their `miniature`; called for candidates only.
        sources: Where each image is loaded from; None: its index.
        workers: Processes that compare pictures; the result does not depend on it. With more than one, sources and
            `load_gray` have to pickle.
    """
    exact = _exact_pairs(fingerprints, sha256)
    # Equal pixels have equal hashes: of each set of copies only the first is searched.
    left_out = {pair.second for pair in exact}.union(i for i, print_ in enumerate(fingerprints) if print_.flat)
    rows = [row for row in range(len(fingerprints)) if row not in left_out]
    bits = [fingerprints[row].bits for row in rows]
    candidates = find_candidates(np.array(bits, np.uint8).reshape(-1, HASH_BITS // 8))
    origins = range(len(fingerprints)) if sources is None else sources
    near, compared = _near_pairs(candidates, rows, origins, load_gray, workers)
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
    candidates: Candidates, rows: Sequence[int], sources: Sequence[Any], load_gray: Callable[[Any], Gray], workers: int
) -> tuple[list[DuplicatePair], int]:
    """Candidates whose pictures match, and the number of pictures compared; `rows` are the images of the hashes."""
    pieces = [_Piece.of(triples, rows, sources) for triples in _connected(candidates, len(rows))]
    pairs, compared = [], 0
    with tqdm(total=len(candidates.first), desc="compare", unit="pair", leave=False) as progress:
        results = map_in_order(partial(_compare, load_gray=load_gray), pieces, min(workers, len(pieces)))
        for piece, (found, count) in zip(pieces, results, strict=True):
            pairs += found
            compared += count
            progress.update(len(piece.triples))
    return pairs, compared


def _connected(candidates: Candidates, count: int) -> list[NDArray[np.intp]]:
    """Candidates as rows (first, second, orientation), all that are connected in one piece; the largest piece first.

    Within a connected component the closest come first.
    """
    triples = np.stack([candidates.first, candidates.second, candidates.orientation], axis=1)
    graph = coo_array((np.ones(len(triples), np.bool_), triples[:, :2].T), shape=(count, count))
    component = connected_components(graph, directed=False)[1][candidates.first]
    order = np.argsort(component, kind="stable")
    starts = np.flatnonzero(np.diff(component[order])) + 1
    cuts = starts[np.diff(starts // PIECE, prepend=0) > 0]
    return sorted(np.split(triples[order], cuts), key=len, reverse=True)


@dataclass(frozen=True)
class _Piece:
    """Candidates that one worker compares.

    Attributes:
        triples: First, second and orientation, (M, 3); the images by their numbers in this piece.
        images: Their indices.
        sources: Where to load them from.
    """

    triples: NDArray[np.intp]
    images: list[int]
    sources: list[Any]

    @classmethod
    def of(cls, triples: NDArray[np.intp], rows: Sequence[int], sources: Sequence[Any]) -> _Piece:
        """Candidates of hashes; `rows` are the images of the hashes."""
        hashes, ends = np.unique(triples[:, :2], return_inverse=True)
        images = [rows[number] for number in hashes.tolist()]
        numbered = np.concatenate([ends.reshape(-1, 2), triples[:, 2:]], axis=1)
        return cls(numbered, images, [sources[image] for image in images])


def _compare(piece: _Piece, load_gray: Callable[[Any], Gray]) -> tuple[list[DuplicatePair], int]:
    """Candidates of a piece whose pictures match, and the number of pictures compared.

    A candidate of two images that closer ones connect already is passed over: it would not change the groups.
    """
    np.empty(KEPT_MEMORY, np.uint8)  # Freed at once, and see there.

    @lru_cache(CACHED_IMAGES)
    def load(image: int) -> Gray:
        return miniature(load_gray(piece.sources[image]))

    @lru_cache(CACHED_VIEWS)
    def view(image: int, orientation: int, height: int, width: int) -> _View:
        return _view(resized(turn(load(image), orientation), height, width))

    forest = _Forest(len(piece.images))
    pairs, compared = [], 0
    for first, second, orientation in piece.triples.tolist():
        if forest.root(first) == forest.root(second):
            continue
        compared += 1
        height, width = _common_shape(load(first), turn(load(second), orientation))
        for side, least, enough in LOOKS:
            shape = min(height, side), min(width, side)
            similarity, difference = _match(view(first, 0, *shape), view(second, orientation, *shape))
            if not least <= similarity < enough:
                break
        if similarity >= enough:
            forest.join(first, second)
            ends = piece.images[first], piece.images[second]
            pairs.append(DuplicatePair(*ends, "near", ORIENTATIONS[orientation], similarity, difference))
    return pairs, compared


@dataclass(frozen=True)
class _View:
    """A picture at the size of a comparison.

    Attributes:
        gray: Gray values (H, W).
        spectrum: Fourier transform of its local structure, (H, W // 2 + 1).
        norm: Of the local structure.
    """

    gray: Gray
    spectrum: NDArray[np.complex64]
    norm: float


def compare(first: Gray, second: Gray) -> tuple[float, float]:
    """How alike two pictures are, at the smaller of their sizes and in the best shift of up to 1/16 of the side.

    Local structure is what is left of a picture when its coarse shading is taken away and its contrast made even:
    neither lighting nor one strong edge decides, and structure as weak as a codec's noise counts little.

    Args:
        first: Gray values (H, W).
        second: Gray values of a picture in the same orientation, perhaps of another size.

    Returns:
        Correlation of the local structure, and mean absolute difference of the gray values.
    """
    shape = _common_shape(first, second)
    return _match(_view(resized(first, *shape)), _view(resized(second, *shape)))


def _common_shape(first: Gray, second: Gray) -> tuple[int, int]:
    return min(first.shape[0], second.shape[0]), min(first.shape[1], second.shape[1])


def _view(gray: Gray) -> _View:
    structure = _local_structure(gray)
    return _View(gray, scipy.fft.rfft2(structure), float(np.linalg.norm(structure)))


def _match(ours: _View, theirs: _View) -> tuple[float, float]:
    """See `compare`."""
    height, width = ours.gray.shape
    shifts = [np.arange(-(side // 16), side // 16 + 1) for side in (height, width)]
    # The inverse transform in two steps, the second for the few shifts that count only.
    columns = scipy.fft.ifft(ours.spectrum * theirs.spectrum.conj(), axis=0)
    matches = scipy.fft.irfft(columns[shifts[0]], n=width, axis=1)[:, shifts[1]]
    best = np.unravel_index(matches.argmax(), matches.shape)
    down, right = (int(steps[place]) for steps, place in zip(shifts, best, strict=True))
    shown = ours.gray[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
    other = theirs.gray[max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)]
    difference = np.abs(shown.astype(np.int16) - other).mean()
    norm = ours.norm * theirs.norm
    return min(float(matches.max()) / norm, 1.0) if norm else 0.0, float(difference)


def _local_structure(gray: Gray) -> NDArray[np.float32]:
    values = gray.astype(np.float32)
    side = max(gray.shape)
    detail = _local_means(values, 3)
    detail -= _local_means(values, max(9, side // 16 | 1))
    energy = _local_means(detail * detail, max(17, side // 8 | 1))
    energy += NOISE**2
    detail /= np.sqrt(energy, out=energy)
    return detail


def _local_means(values: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Means over size x size pixels, an odd number, mirrored at the border: SciPy's `uniform_filter`, but faster."""
    padded = np.pad(values, size // 2, mode="symmetric")
    # All rows as one: the next pixel to the right is 1 further, the next one down a width further. Sums that run over
    # the end of a row are cut off.
    row = padded.ravel()
    sums = _moving_sums(_moving_sums(row, size, 1), size, padded.shape[1])
    row[: len(sums)] = sums
    return row.reshape(padded.shape)[: values.shape[0], : values.shape[1]] * np.float32(1 / size**2)


def _moving_sums(values: NDArray[np.float32], count: int, step: int) -> NDArray[np.float32]:
    """Sums of `count` values that are `step` apart, (N,) to (N - (count - 1) * step,), by adding half to half."""
    if count == 1:
        return values
    half = _moving_sums(values, count // 2, step)
    width = count // 2 * step
    sums = half[:-width] + half[width:]
    if count % 2:
        sums = sums[:-step]
        sums += values[(count - 1) * step :]
    return sums
