"""Float32 scores as integers of the same order, so that neighbouring floats are neighbouring integers.

The bits of a positive float32, seen as an integer, keep the order of the numbers; a negative score gets the negative
of its magnitude's. Probabilities crowd below 1, where floats are coarse in relation to 1 - p: magnitudes in [0.5, 1)
are therefore keyed by 1 - magnitude, which float32 holds exactly.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.int64]

# The bits of 0.5, and by how much 1 and above move up: 1 - magnitude spans the 23 octaves from 2^-24 to 0.5.
_HALF = 0x3F000000
_ROOM = 23 << 23


def as_float32(scores: NDArray[Any]) -> NDArray[np.float32]:
    """Return a copy, rounded to float32; what is beyond its range becomes infinite."""
    with np.errstate(over="ignore"):
        return scores.astype(np.float32)


def keys_of_sorted(scores: NDArray[np.float32]) -> Keys:
    """Keys of ascending scores without NaN; ascending, and equal only where the scores are."""
    minus_one, minus_half = np.searchsorted(scores, np.array([-1, -0.5], np.float32), side="right")
    zero, half, one = np.searchsorted(scores, np.array([0, 0.5, 1], np.float32))
    magnitudes = np.abs(scores)
    keys = magnitudes.view(np.int32).astype(np.int64)
    for upper in (slice(minus_one, minus_half), slice(half, one)):
        keys[upper] = 2 * _HALF - (1 - magnitudes[upper]).view(np.int32).astype(np.int64)
    for above in (slice(None, minus_one), slice(one, None)):
        keys[above] += _ROOM
    keys[:zero] *= -1
    return keys


def scores_of(keys: Keys) -> NDArray[np.float32]:
    """Scores of keys in any order, the inverse of `keys_of_sorted`."""
    magnitude_keys = np.abs(keys)
    upper = (magnitude_keys > _HALF) & (magnitude_keys <= _HALF + _ROOM)
    bits = magnitude_keys - np.where(magnitude_keys > _HALF, _ROOM, 0)
    bits[upper] = 2 * _HALF - magnitude_keys[upper]
    magnitudes = bits.astype(np.int32).view(np.float32)
    magnitudes[upper] = 1 - magnitudes[upper]
    magnitudes[keys < 0] *= -1
    return magnitudes
