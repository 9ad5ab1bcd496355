"""Sound rolled-steel surfaces: brushed grain, mill-scale mottling, streaks, illumination and sensor noise.

The rolling direction is vertical; gray values are floats, 0 to 255 before clipping.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft

Field = NDArray[np.floating]


@lru_cache(maxsize=8)
def _squared_frequencies(size: int) -> tuple[Field, Field]:
    """Squared frequencies in cycles per pixel: (size, 1) for rows and (1, size // 2 + 1) for columns."""
    rows = np.fft.fftfreq(size).astype(np.float32)[:, None] ** 2
    cols = np.fft.rfftfreq(size).astype(np.float32)[None, :] ** 2
    return rows, cols


def noise_texture(rng: np.random.Generator, size: int, parts: Sequence[tuple[float, float, float]]) -> Field:
    """Sum of Gaussian-blurred white noises from one inverse FFT.

    Args:
        rng: Random state.
        size: Side of the square field in pixels.
        parts: (standard deviation, vertical blur, horizontal blur) of each noise, blurs in pixels.

    Returns:
        Field (size, size) of mean 0 and variance = sum of the parts' variances.
    """
    std, blur_y, blur_x = np.asarray(parts, np.float32).T
    rows, cols = _squared_frequencies(size)
    # |filter|^2 of a Gaussian blur is separable: (size, parts) times (parts, size // 2 + 1)
    # the floor keeps the products out of the slow denormal range
    along_y = np.exp(np.maximum(-4 * np.pi**2 * rows * blur_y**2, -40))
    along_x = np.exp(np.maximum(-4 * np.pi**2 * blur_x[:, None] ** 2 * cols, -40))
    gain = 3 * std**2 * size**4 / (along_y.sum(0) * along_x.sum(1))
    power = (gain * along_y) @ along_x
    # uniform coefficients (variance 1 / 12) cost a third of normal ones; their many sums are Gaussian all the same
    spectrum = (rng.random((size, size // 2 + 1, 2), dtype=np.float32) - np.float32(0.5)).view(np.complex64)[..., 0]
    spectrum *= np.sqrt(power)
    spectrum[0, 0] = 0
    return fft.irfft2(spectrum, (size, size), overwrite_x=True)


def enlarge(field: Field, shape: tuple[int, int]) -> Field:
    """Bicubic enlargement of a field to `shape`."""
    return np.asarray(Image.fromarray(field).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def coarse_noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> Field:
    """Cheap smooth noise: a (cells_y, cells_x) grid of standard normals, bicubically enlarged to `shape`."""
    return enlarge(rng.standard_normal(cells, dtype=np.float32), shape)


def _illumination(rng: np.random.Generator, size: int, mean: float) -> tuple[Field, Field]:
    """Mean brightness, a tilted gradient, a soft band: a (size, 1) and a (1, size) field to be added."""
    place = np.linspace(-1, 1, size, dtype=np.float32)
    angle, slope = rng.uniform(0, 2 * np.pi), rng.beta(1, 2) * 0.45 * mean
    band, centre, width = rng.uniform(-0.2, 0.2) * mean, rng.uniform(-1, 1), rng.uniform(0.2, 0.7)
    down = mean + slope * math.sin(angle) * place
    across = slope * math.cos(angle) * place + band * np.exp(-(((place - centre) / width) ** 2))
    return down[:, None], across[None, :]


def _streaks(rng: np.random.Generator, size: int) -> Field:
    """Brightness streaks along the whole strip, (1, size)."""
    return coarse_noise(rng, (1, size), (1, int(rng.integers(8, size // 3)))) * rng.uniform(0, 4)


def _chatter(rng: np.random.Generator, size: int) -> Field:
    """Faint roll marks across the strip, (size, 1); absent in three of four strips."""
    amplitude = rng.uniform(0.8, 2.5) if rng.random() < 0.25 else 0.0
    period, phase = rng.uniform(size / 12, size / 3), rng.uniform(0, 2 * np.pi)
    turns = np.arange(size, dtype=np.float32)[:, None] / period
    return amplitude * np.sin(2 * np.pi * turns + phase)


def rolled_surface(rng: np.random.Generator, size: int) -> Field:
    """A sound surface.

    Args:
        rng: Random state.
        size: Side in pixels, at least 32.

    Returns:
        Gray values (size, size), not clipped.
    """
    coarse = rng.beta(1, 3)  # most strips are smooth, some as rough as hot-rolled plate
    parts = (
        (1 + 8 * coarse * rng.random(), rng.uniform(4, 40), rng.uniform(0.3, 0.9)),  # brushed grain
        (0.8 + 16 * coarse, rng.uniform(0.6, 3), rng.uniform(0.6, 1.4)),  # roughness
        (0.5 + 8 * coarse * rng.random(), rng.uniform(5, 25), rng.uniform(3, 10)),  # mill-scale mottling
        (rng.uniform(0.3, 2.5), rng.uniform(15, 60), rng.uniform(0.8, 2)),  # faint smears along the strip
        (rng.uniform(0, 6), rng.uniform(20, 60), rng.uniform(12, 40)),  # clouds
        (rng.uniform(0.8, 3.5), 0.0, 0.3),  # sensor noise
    )
    down, across = _illumination(rng, size, rng.uniform(70, 185))
    return noise_texture(rng, size, parts) + (down + _chatter(rng, size)) + (across + _streaks(rng, size))
