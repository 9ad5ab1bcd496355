"""What identifies a picture: a hash of its pixels, and a perceptual hash that knows its flips and rotations.

The perceptual hash holds the signs of the lowest 16 x 16 frequencies of the picture. A flip changes the sign of the
odd frequencies and a transpose exchanges the axes, so the hashes of all eight orientations follow from one transform.
Length and layout were chosen by measurement, see `docs/benchmarks/duplicate_search.md`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FREQUENCIES = 16
HASH_BITS = FREQUENCIES**2
FLAT = 0.01
"""Mean amplitude of the frequencies, in gray values, below which a picture has nothing that a hash could describe."""
COMPARED_SIDE = 256
"""Longest side in pixels at which pictures are compared."""
ORIENTATIONS = (
    "upright",
    "flip_top_bottom",
    "flip_left_right",
    "rotate_180",
    "transpose",
    "rotate_90",
    "rotate_270",
    "transverse",
)
"""Names as in Pillow; rotations are counter-clockwise. The number of a name holds a bit for each step of `turn`."""


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What is kept of a picture.

    Attributes:
        pixel_sha256: Digest of size and gray values.
        bits: Perceptual hash, (32,) uint8: 256 bits, row by row of the 16 x 16 frequencies; the first is always 0.
        flat: Whether the picture is too even for a perceptual hash.
    """

    pixel_sha256: bytes
    bits: NDArray[np.uint8]
    flat: bool


def fingerprint(gray: NDArray[np.uint8]) -> Fingerprint:
    """Fingerprint of a picture.

    Args:
        gray: Gray values (H, W).
    """
    height, width = gray.shape
    digest = hashlib.sha256(f"{height}x{width} ".encode())
    digest.update(np.ascontiguousarray(gray).data)
    amplitudes = _cosines(height) @ gray.astype(np.float32) @ _cosines(width).T
    amplitudes[0, 0] = 0
    flat = bool(np.abs(amplitudes).mean() < FLAT)
    return Fingerprint(digest.digest(), np.packbits(amplitudes > 0), flat)


def miniature(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture (H, W) as it is compared, each side at most `COMPARED_SIDE` px; that of a miniature is the same."""
    return resized(gray, min(gray.shape[0], COMPARED_SIDE), min(gray.shape[1], COMPARED_SIDE))


def resized(gray: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """A picture in another size, each pixel the mean of what it covers."""
    if gray.shape == (height, width):
        return gray
    return np.asarray(Image.fromarray(gray).resize((width, height), Image.Resampling.BOX))


def turn(gray: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """A picture (H, W) in another orientation, an index of `ORIENTATIONS`."""
    if orientation & 4:
        gray = gray.T
    if orientation & 1:
        gray = gray[::-1]
    return gray[:, ::-1] if orientation & 2 else gray


def turned_bits(orientation: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """What turning a picture does to its hash.

    Returns:
        For each bit of the turned picture's hash, the bit of the upright one's that it comes from, and whether it is
        inverted; (256,) each.
    """
    source = np.arange(HASH_BITS).reshape(FREQUENCIES, FREQUENCIES)
    if orientation & 4:
        source = source.T
    odd = np.arange(FREQUENCIES) % 2 == 1
    inverted = (odd[:, None] & bool(orientation & 1)) ^ (odd & bool(orientation & 2))
    return source.ravel(), inverted.ravel()


@lru_cache(maxsize=512)
def _cosines(length: int) -> NDArray[np.float32]:
    """The lowest frequencies of the cosine transform (16, length), so scaled that size does not matter."""
    phases = np.pi * (np.arange(length) + 0.5) / length
    return (np.cos(np.outer(np.arange(FREQUENCIES), phases)) / length).astype(np.float32)
