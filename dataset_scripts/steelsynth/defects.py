"""Defects drawn on a rolled surface; each drawer is a plain function of random state and surface.

A drawer returns a `Mark`: the change of the gray values and the coverage (0 to 1) whose upper part is the mask.
The rolling direction is vertical.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from defect_hub.dataset_scripts.steelsynth.surface import Field, coarse_noise, enlarge, noise_texture

Rng = np.random.Generator


class Mark(NamedTuple):
    """What a defect does to the surface: `delta` in gray values and `coverage` in 0..1, both (size, size)."""

    delta: Field
    coverage: Field


def _log_uniform(rng: Rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _contrast(rng: Rng, surface: Field, low: float = 16, high: float = 85, clarity: float = 1.8) -> float:
    """Gray step of a defect: varied, never drowned by the texture; the smaller the defect, the more clarity."""
    rows = surface[::8]
    texture = float(np.abs(rows[:, 7:] - rows[:, :-7]).mean())
    return max(_log_uniform(rng, low, high), low / 2 + clarity * texture)


def _instances(rng: Rng) -> int:
    """One to five, one most often."""
    return int(rng.choice(5, p=(0.45, 0.22, 0.15, 0.1, 0.08))) + 1


def _window(size: int, centre: tuple[float, float], half: tuple[float, float]) -> tuple[slice, slice]:
    """The part of the image within `half` (y, x) of `centre` (y, x)."""
    spans = [slice(max(int(c - h), 0), min(int(c + h) + 2, size)) for c, h in zip(centre, half, strict=True)]
    return spans[0], spans[1]


def _offsets(window: tuple[slice, slice], centre: tuple[float, float]) -> tuple[Field, Field]:
    """Pixel offsets (h, 1) and (1, w) of a window from the centre."""
    dy = np.arange(window[0].start, window[0].stop, dtype=np.float32)[:, None] - np.float32(centre[0])
    dx = np.arange(window[1].start, window[1].stop, dtype=np.float32)[None, :] - np.float32(centre[1])
    return dy, dx


def _step(signed: Field, softness: float) -> Field:
    """0 to 1 ramp over `softness` around the zero level."""
    return np.clip(signed / np.float32(softness) + np.float32(0.5), 0, 1)


def _point(rng: Rng, size: int, margin: float = 0.06) -> tuple[float, float]:
    y, x = rng.uniform(margin * size, (1 - margin) * size, 2)
    return float(y), float(x)


def _blob(
    rng: Rng,
    coverage: Field,
    centre: tuple[float, float],
    radii: tuple[float, float],
    ragged: float,
    soft: float,
) -> None:
    """Draw an ellipse with a noisy outline; radii (y, x) and softness in pixels, `ragged` relative to the radius."""
    window = _window(len(coverage), centre, (1.5 * radii[0] + 3, 1.5 * radii[1] + 3))
    dy, dx = _offsets(window, centre)
    radius = np.sqrt((dy / radii[0]) ** 2 + (dx / radii[1]) ** 2)
    if ragged > 0:
        radius = radius + ragged * (
            coarse_noise(rng, radius.shape, (4, 4)) + 0.5 * coarse_noise(rng, radius.shape, (12, 12))
        )
    shape = _step(1 - radius, soft / min(radii))
    np.maximum(coverage[window], shape, out=coverage[window])


def _stroke(
    rng: Rng, coverage: Field, centre: tuple[float, float], angle: float, length: float, width: float, bend: float
) -> None:
    """Draw a scratch: `angle` from the rolling direction, Gaussian profile of sigma `width`, parabolic `bend` (px)."""
    half = length / 2
    reach = 4 * width + abs(bend) + 2
    extent = (
        abs(np.cos(angle)) * half + abs(np.sin(angle)) * reach,
        abs(np.sin(angle)) * half + abs(np.cos(angle)) * reach,
    )
    window = _window(len(coverage), centre, extent)
    dy, dx = _offsets(window, centre)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along = dy * cos + dx * sin
    across = dx * cos - dy * sin - np.float32(bend) * (along / np.float32(half)) ** 2
    pressure = 0.8 + 0.2 * np.tanh(coarse_noise(rng, (1, 64), (1, int(rng.integers(4, 24))))[0])
    place = np.clip((along / half + 1) * 32, 0, 63).astype(np.intp)
    taper = np.clip((half - np.abs(along)) / np.float32(0.15 * half + 2), 0, 1)
    shape = np.exp(-0.5 * (across / np.float32(width)) ** 2) * taper * pressure[place]
    np.maximum(coverage[window], shape, out=coverage[window])


def _scratches(rng: Rng, surface: Field, sign: int) -> Mark:
    size = len(surface)
    coverage = np.zeros_like(surface)
    angle = rng.normal(0, 0.12) if rng.random() < 0.6 else rng.uniform(-np.pi / 2, np.pi / 2)
    for _ in range(_instances(rng)):
        length = _log_uniform(rng, 0.1, 1.4) * size
        _stroke(
            rng,
            coverage,
            _point(rng, size),
            angle + rng.normal(0, 0.08),
            length,
            _log_uniform(rng, 0.7, 2.6),
            rng.normal(0, 0.04) * length,
        )
    return Mark(sign * _contrast(rng, surface, 34, 110, 3) * coverage, coverage)


def bright_scratch(rng: Rng, surface: Field) -> Mark:
    """Thin bright strokes, roughly parallel, mostly along the rolling direction."""
    return _scratches(rng, surface, 1)


def dark_scratches(rng: Rng, surface: Field) -> Mark:
    """Thin dark strokes, roughly parallel, mostly along the rolling direction."""
    return _scratches(rng, surface, -1)


def inclusion(rng: Rng, surface: Field) -> Mark:
    """Lens-shaped streaks along the rolling direction, mostly dark."""
    size = len(surface)
    coverage = np.zeros_like(surface)
    column = rng.uniform(0.1, 0.9)
    for _ in range(_instances(rng)):
        half_width = _log_uniform(rng, 1.6, 9) * size / 256
        centre = (rng.uniform(0.05, 0.95) * size, np.clip(column + rng.normal(0, 0.12), 0.04, 0.96) * size)
        _blob(rng, coverage, centre, (half_width * rng.uniform(3, 8), half_width), 0.18, 1.5)
    grit = 0.85 + 0.15 * np.tanh(coarse_noise(rng, surface.shape, (size // 3, size // 3)))
    sign = 1 if rng.random() < 0.12 else -1
    return Mark(sign * _contrast(rng, surface, 24, clarity=3) * coverage * grit, coverage)


def _speckles(rng: Rng, size: int, blur: tuple[float, float], share: float, soft: float) -> Field:
    """Grains of a thresholded noise inside one or two soft regions; `share` of the region is covered."""
    region = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(1, 3))):
        radii = (_log_uniform(rng, 0.15, 0.7) * size, _log_uniform(rng, 0.12, 0.6) * size)
        _blob(rng, region, _point(rng, size, 0.15), radii, 0.3, 0.5 * min(radii))
    grains = noise_texture(rng, size, ((1.0, *blur),))
    # the upper `share` of a standard normal lies above about sqrt(-2 ln(2.5 share))
    level = np.float32(np.sqrt(-2 * np.log(2.5 * share)))
    return _step(grains - level - 2 * (1 - region), soft)


def pitted_surface(rng: Rng, surface: Field) -> Mark:
    """Many small dark pits in one or two regions."""
    size = len(surface)
    blur = _log_uniform(rng, 1.3, 2.8)
    pits = _speckles(rng, size, (blur * rng.uniform(1, 1.5), blur), _log_uniform(rng, 0.03, 0.16), 0.35)
    return Mark(-_contrast(rng, surface, 30, 80, 2.8) * pits, pits)


def rolled_in_scale(rng: Rng, surface: Field) -> Mark:
    """Irregular dark flakes lying across the rolling direction, with a bright lower flank."""
    size = len(surface)
    blur = _log_uniform(rng, 1.8, 4.5)
    flakes = _speckles(rng, size, (blur, blur * rng.uniform(1.2, 2.2)), _log_uniform(rng, 0.06, 0.2), 0.5)
    flank = np.roll(flakes, int(rng.integers(2, 4)), axis=0)
    flank[:4] = 0
    contrast = _contrast(rng, surface, 30, 80, 2.5)
    return Mark(contrast * (0.3 * flank * (1 - flakes) - flakes), np.maximum(flakes, 0.5 * flank))


def patches(rng: Rng, surface: Field) -> Mark:
    """Large ragged areas, dark or bright, drawn out along the rolling direction."""
    size = len(surface)
    coverage = np.zeros_like(surface)
    for _ in range(min(_instances(rng), 4)):
        half_width = _log_uniform(rng, 0.05, 0.2) * size
        radii = (half_width * rng.uniform(0.9, 2.6), half_width)
        _blob(rng, coverage, _point(rng, size), radii, 0.32, rng.uniform(4, 14) * size / 256)
    coverage *= 0.85 + 0.15 * np.tanh(noise_texture(rng, size, ((1.0, 2.0, 1.2),)))
    sign = 1 if rng.random() < 0.25 else -1
    return Mark(sign * _contrast(rng, surface, 18, 90) * coverage, coverage)


def _cell_borders(rng: Rng, shape: tuple[int, int], cells: tuple[float, float]) -> Field:
    """Distance to the nearest border between jittered cells of `cells` (y, x) pixels, in units of a cell."""
    half = (shape[0] // 2 + 1, shape[1] // 2 + 1)  # half resolution: the distances are smooth
    y = np.linspace(0, shape[0] / cells[0], half[0], dtype=np.float32)[:, None]
    x = np.linspace(0, shape[1] / cells[1], half[1], dtype=np.float32)[None, :]
    knots = (max(int(1.5 * shape[0] / cells[0]), 2), max(int(1.5 * shape[1] / cells[1]), 2))
    y = y + 0.16 * coarse_noise(rng, half, knots)
    x = x + 0.16 * coarse_noise(rng, half, knots)
    row, col = np.floor(y).astype(np.int32), np.floor(x).astype(np.int32)
    period = 32
    seeds = rng.uniform(0.05, 0.95, (2, period, period)).astype(np.float32)
    first = np.full(half, 9, np.float32)
    second = first.copy()
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            r, c = row + i, col + j
            place = (r & (period - 1), c & (period - 1))
            distance = np.hypot(r + seeds[0][place] - y, c + seeds[1][place] - x)
            second = np.minimum(second, np.maximum(first, distance))
            first = np.minimum(first, distance)
    return enlarge((second - first) / 2, shape)


def crazing(rng: Rng, surface: Field) -> Mark:
    """A net of fine dark cracks: borders of jittered cells, seen where the crack opens."""
    size = len(surface)
    cell = rng.uniform(11, 30) * size / 256
    extent = _log_uniform(rng, 0.1, 0.55) * size
    radii = (extent * rng.uniform(0.75, 1.3), extent * rng.uniform(0.75, 1.3))
    centre = _point(rng, size, 0.15)
    region = np.zeros_like(surface)
    _blob(rng, region, centre, radii, 0.25, 0.35 * min(radii))
    window = _window(size, centre, (1.5 * radii[0], 1.5 * radii[1]))
    shape = region[window].shape
    borders = _cell_borders(rng, shape, (cell, cell * rng.uniform(1, 1.8)))
    opening = np.clip(1.1 + 0.35 * coarse_noise(rng, shape, (24, 24)), 0, 1)
    coverage = np.zeros_like(surface)
    coverage[window] = np.clip(1.4 - borders * (cell / rng.uniform(0.7, 1.3)), 0, 1) * opening * region[window]
    return Mark(-_contrast(rng, surface, 26, 70, 2.5) * coverage, coverage)


def punching(rng: Rng, surface: Field) -> Mark:
    """Round holes with a sharp outline, dark or lit from behind, and a burr on one side."""
    size = len(surface)
    coverage = np.zeros_like(surface)
    burr = np.zeros_like(surface)
    shift = rng.uniform(-2, 2, 2)
    for _ in range(min(_instances(rng), 3)):
        radius = _log_uniform(rng, 4, 34) * size / 256
        centre = _point(rng, size, 0.1)
        radii = (radius * rng.uniform(0.92, 1.08), radius)
        _blob(rng, coverage, centre, radii, 0.015, 1.2)
        _blob(rng, burr, (centre[0] + shift[0], centre[1] + shift[1]), (radii[0] + 1.5, radius + 1.5), 0.02, 2)
    floor = rng.uniform(235, 252) if rng.random() < 0.2 else rng.uniform(8, 30)
    hole = floor + noise_texture(rng, size, ((2.0, 0.6, 0.6),))
    rim = 0.35 * _contrast(rng, surface) * burr * (1 - coverage)
    return Mark(coverage * (hole - surface) + rim, np.maximum(coverage, 0.5 * burr))


def oil_spot(rng: Rng, surface: Field) -> Mark:
    """Smooth dark spots with soft edges that also fill the grain."""
    size = len(surface)
    coverage = np.zeros_like(surface)
    for _ in range(_instances(rng)):
        radius = _log_uniform(rng, 4, 42) * size / 256
        radii = (radius * rng.uniform(0.8, 1.7), radius)
        _blob(rng, coverage, _point(rng, size), radii, 0.1, 0.45 * radius + 1)
    smooth = 0.4 * (float(surface.mean()) - surface)
    return Mark(coverage * (smooth.clip(-12, 12) - _contrast(rng, surface, 18, 70)), coverage)


def water_spot(rng: Rng, surface: Field) -> Mark:
    """Dried drops: a pale or dark film inside a stronger rim."""
    size = len(surface)
    film = np.zeros_like(surface)
    rim = np.zeros_like(surface)
    for _ in range(_instances(rng)):
        radius = _log_uniform(rng, 6, 45) * size / 256
        drop = np.zeros_like(surface)
        _blob(rng, drop, _point(rng, size), (radius * rng.uniform(0.75, 1.5), radius), 0.14, 3 + 0.12 * radius)
        np.maximum(rim, 4 * drop * (1 - drop), out=rim)
        np.maximum(film, drop, out=film)
    sign = 1 if rng.random() < 0.6 else -1
    return Mark(sign * _contrast(rng, surface, 18, 60) * (0.5 * film + 0.5 * rim), film)


def crease(rng: Rng, surface: Field) -> Mark:
    """A fold across the strip: a dark valley with a bright flank."""
    size = len(surface)
    coverage = np.zeros_like(surface)
    lit = np.zeros_like(surface)
    width = _log_uniform(rng, 1.8, 5) * size / 256
    for _ in range(min(_instances(rng), 2)):
        centre = _point(rng, size, 0.12)
        angle = np.pi / 2 + rng.normal(0, 0.2)
        length, bend = _log_uniform(rng, 0.5, 2.4) * size, rng.normal(0, 0.025) * size
        state = rng.bit_generator.state
        _stroke(rng, coverage, centre, angle, length, 1.6 * width, bend)
        rng.bit_generator.state = state  # the flank follows the same stroke
        _stroke(rng, lit, (centre[0] + 1.3 * width, centre[1]), angle, length, 0.7 * width, bend)
    contrast = _contrast(rng, surface, 24, 80)
    return Mark(contrast * (1.3 * lit - coverage), np.maximum(coverage, lit))


DRAWERS: dict[str, Callable[[Rng, Field], Mark]] = {
    "Bright scratch": bright_scratch,
    "Crazing": crazing,
    "Crease": crease,
    "Dark scratches": dark_scratches,
    "Inclusion": inclusion,
    "Oil spot": oil_spot,
    "Patches": patches,
    "Pitted surface": pitted_surface,
    "Punching": punching,
    "Rolled in scale": rolled_in_scale,
    "Water spot": water_spot,
}

SIGNS = {"Bright scratch": 1, "Dark scratches": -1, "Oil spot": -1, "Pitted surface": -1, "Rolled in scale": -1}
"""Classes whose name or description says bright (1) or dark (-1)."""
