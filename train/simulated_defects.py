"""Simulated defects on normal images: foreign texture in a Perlin-noise region, blended in the gradient domain."""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.linalg import splu

from defect_hub.modeling.mask_attributes import mask_attributes
from defect_hub.modeling.template_sentences import cell_words, defect_words, with_article

NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1))
TRIES = 20
MIN_CHANGE = 10.0  # mean gray levels of 255 in the mask; less is no visible defect
WINDOW = (0.08, 0.45)  # sides of the window that holds a defect, of the image's
MIN_AREA = 0.001  # of the image's


@dataclass(frozen=True)
class SimulatedDefect:
    """A normal image with a drawn defect.

    Attributes:
        image: (H, W, 3) uint8; outside the mask equal to the normal image.
        mask: (H, W) bool, one connected region.
        answer: to "Is there any defect in this image?".
    """

    image: np.ndarray
    mask: np.ndarray
    answer: str


def perlin_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """Gradient noise (Perlin 1985, with the fade of 2002).

    Args:
        rng: draws a unit vector for each corner of the lattice.
        height: px.
        width: px.
        cells: lattice cells along each side.

    Returns:
        (height, width), in [-1, 1], 0 at the corners of the lattice.
    """
    angles = rng.uniform(0, 2 * np.pi, (cells + 1, cells + 1))
    y, x = (np.arange(size) * cells / size for size in (height, width))
    rows, columns = y.astype(int)[:, None], x.astype(int)[None]
    dy, dx = y[:, None] - rows, x[None] - columns
    fade_y, fade_x = (t**3 * (t * (6 * t - 15) + 10) for t in (dy, dx))

    def corner(down: int, right: int) -> np.ndarray:
        angle = angles[rows + down, columns + right]
        return np.cos(angle) * (dx - right) + np.sin(angle) * (dy - down)

    top = (1 - fade_x) * corner(0, 0) + fade_x * corner(0, 1)
    bottom = (1 - fade_x) * corner(1, 0) + fade_x * corner(1, 1)
    return np.sqrt(2) * ((1 - fade_y) * top + fade_y * bottom)


def poisson_blend(target: np.ndarray, source: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Fill a region of the target with the gradients of the source (Perez et al. 2003, Eq. 7 and 11).

    The solution is the source plus a membrane: the harmonic function that meets target minus source around the region.

    Args:
        target: (H, W, C).
        source: (H, W, C), read within the region and one pixel around it.
        region: (H, W) bool; neither empty nor the whole image.

    Returns:
        (H, W, C) float64, equal to the target outside the region.
    """
    height, width = region.shape
    rows, columns = np.nonzero(region)
    number = np.full(region.shape, -1)
    number[rows, columns] = np.arange(len(rows))
    step = target.astype(float) - source
    degree, boundary = np.zeros(len(rows)), np.zeros((len(rows), target.shape[2]))
    pairs = []
    for down, right in NEIGHBOURS:
        y, x = rows + down, columns + right
        inside = np.flatnonzero((y >= 0) & (y < height) & (x >= 0) & (x < width))
        degree[inside] += 1
        other = number[y[inside], x[inside]]
        rim = inside[other < 0]
        boundary[rim] += step[y[rim], x[rim]]
        pairs.append(np.stack([inside[other >= 0], other[other >= 0]]))
    first, second = np.concatenate(pairs, axis=1)
    diagonal = np.arange(len(rows))
    values = np.concatenate([degree, -np.ones(len(first))])
    places = (np.concatenate([diagonal, first]), np.concatenate([diagonal, second]))
    membrane = splu(coo_array((values, places), shape=(len(rows), len(rows))).tocsc()).solve(boundary)
    blended = target.astype(float)
    blended[region] = source[region] + membrane
    return blended


def perlin_region(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width) bool: the largest connected part of a thresholded noise, rounded off towards the edges."""
    y, x = (np.linspace(-1, 1, size) for size in (height, width))
    noise = perlin_noise(rng, height, width, cells=3) + 0.5 * perlin_noise(rng, height, width, cells=6)
    labels, count = ndimage.label(noise > np.hypot(y[:, None], x[None]) - 0.6)
    if count == 0:
        return np.zeros((height, width), dtype=bool)
    return labels == 1 + np.bincount(labels.ravel())[1:].argmax()


def _foreign_patch(rng: np.random.Generator, donor: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width, 3): a piece of another image, turned over, with more or inverted contrast."""
    top, left = (
        int(rng.integers(have - want + 1)) for have, want in zip(donor.shape[:2], (height, width), strict=True)
    )
    piece = donor[top : top + height, left : left + width].astype(float)
    for axis in (0, 1):
        piece = np.flip(piece, axis) if rng.random() < 0.5 else piece
    return piece * rng.uniform(1, 4) * rng.choice([-1, 1])


def _rough_patch(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width, 3): gray noise of three octaves."""
    octaves = sum(perlin_noise(rng, height, width, 2 * 2**octave) / 2**octave for octave in range(3))
    return np.repeat((rng.uniform(60, 160) * octaves)[:, :, None], 3, axis=2)


def simulate_defect(
    image: np.ndarray, donor: np.ndarray, object_name: str, rng: np.random.Generator
) -> SimulatedDefect | None:
    """Draw one defect: a patch of another image, or a rough one of noise.

    Args:
        image: (H, W, 3) uint8, normal, at least 8 px on each side.
        donor: (H, W, 3) uint8, another training image.
        object_name: what the image shows.
        rng: decides everything.

    Returns:
        The defect; None if no try changed the image visibly, as between two images that are flat.
    """
    height, width = image.shape[:2]
    for _ in range(TRIES):
        tall, wide = (max(8, round(size * np.exp(rng.uniform(*np.log(WINDOW))))) for size in (height, width))
        top, left = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
        window = np.s_[top : top + tall, left : left + wide]
        noun = str(rng.choice(["foreign patch", "rough patch"]))
        source = np.zeros(image.shape)
        foreign = noun == "foreign patch"
        source[window] = _foreign_patch(rng, donor, tall, wide) if foreign else _rough_patch(rng, tall, wide)
        mask = np.zeros((height, width), dtype=bool)
        # The window's rim stays out: there, the source has no neighbours.
        mask[window][1:-1, 1:-1] = perlin_region(rng, tall - 2, wide - 2)
        if mask.mean() < MIN_AREA:
            continue
        blended = poisson_blend(image, source, mask).round().clip(0, 255).astype(np.uint8)
        if np.abs(blended[mask].astype(float) - image[mask]).mean() >= MIN_CHANGE:
            return SimulatedDefect(blended, mask, _answer(blended, mask, noun, object_name))
    return None


def _answer(image: np.ndarray, mask: np.ndarray, noun: str, object_name: str) -> str:
    """As the data sets say it: scale and polarity, and the cell of the 3x3 grid that holds most of the mask."""
    gray = np.asarray(Image.fromarray(image).convert("L"))
    attributes = mask_attributes(gray, mask, noun)
    (cell, _), *_ = attributes["Position"]
    return (
        f"Yes, there is {with_article(defect_words(attributes, noun))} in the {cell_words(cell)} of the {object_name}."
    )
