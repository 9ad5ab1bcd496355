"""Figures of the annotated objects of a data set, in the look of `figures`, drawn from the statistics alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from defect_hub.dataset_scripts.box_statistics import DETECTOR_SIDE, SIZE_BOUNDS, SIZES
from defect_hub.dataset_scripts.figures import COLOURS, GREY, INK, new_figure, plain, png

ONE_COLUMN = 40
"""More categories than this stand in two columns, so that the figure fits on a screen."""
ROW_HEIGHT = 0.195
LEAST = 0.7
"""Left end of the axis, so that a single object has a bar."""
NOVEL_HATCH = "//////"
SIZE_COLOURS = {"own": COLOURS[0], "at_640": COLOURS[1]}


def draw_box_figures(objects: Mapping[str, Any]) -> dict[str, bytes]:
    """Draw the figures on annotated objects.

    Args:
        objects: From `box_statistics.BoxTally.statistics`.

    Returns:
        Encoded pictures by file name; a single category with objects has no long tail.
    """
    figures = {"box_sizes.png": png(box_sizes(objects))}
    if objects["long_tail"]["categories"] > 1:
        figures["long_tail.png"] = png(long_tail(objects["categories"]))
    return figures


def long_tail(categories: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Objects of each category on a logarithmic axis, most frequent first; colour: super-category, hatched: novel.

    Categories without objects, which such an axis cannot show, are left out.
    """
    ranked = [(name, found) for name, found in categories.items() if found["count"]]
    columns = 1 if len(ranked) <= ONE_COLUMN else 2
    length = -(-len(ranked) // columns)
    groups = sorted({found["super_category"] for _, found in ranked if found.get("super_category")})
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(groups)}
    figure = new_figure(1.1 + ROW_HEIGHT * length)
    grid = figure.subplots(1, columns, squeeze=False)[0]
    right = ranked[0][1]["count"]
    for column, axes in enumerate(grid):
        _tail_part(axes, ranked[column * length :][:length], colours)
        axes.set_ylim(length - 0.4, -0.6)
        # Room for the numbers behind the bars.
        axes.set_xlim(LEAST, right ** (1.3 if columns == 2 else 1.12) + 5)
    figure.supxlabel("objects (logarithmic axis)", fontsize=10, color=INK)
    keys = [Patch(color=colour, label=name) for name, colour in colours.items()]
    if any(found.get("novel") for _, found in ranked):
        keys.append(Patch(facecolor="white", edgecolor=INK, linewidth=0, hatch=NOVEL_HATCH, label="novel category"))
    if keys:
        figure.legend(handles=keys, loc="outside upper center", ncols=4, fontsize=9.5, frameon=False)
    return figure


def _tail_part(axes: Axes, ranked: Sequence[tuple[str, Mapping[str, Any]]], colours: Mapping[str, str]) -> None:
    for row, (_, found) in enumerate(ranked):
        count, colour = found["count"], colours.get(found.get("super_category", ""), COLOURS[0])
        hatch = NOVEL_HATCH if found.get("novel") else None
        axes.barh(row, count, 0.74, color=colour, hatch=hatch, edgecolor="white", linewidth=0)
        axes.annotate(
            f"{count:,}", (count, row), (3, 0), textcoords="offset points", va="center", fontsize=8, color=INK
        )
    axes.set_xscale("log")
    axes.set_yticks(range(len(ranked)), [name for name, _ in ranked])
    plain(axes, "x")
    axes.tick_params(axis="y", labelsize=8.5)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def box_sizes(objects: Mapping[str, Any]) -> Figure:
    """Distribution of the square root of the area, at the images' own resolution and at that of a detector."""
    found = objects["sides"]
    edges = np.array(found["edges"])
    names = {"own": "own resolution", "at_640": f"longer side of the image scaled to {DETECTOR_SIDE} px"}
    figure = new_figure(3.4)
    axes = figure.add_subplot()
    for key, name in names.items():
        shares = np.array(found[key]) / objects["number"]
        axes.stairs(shares, edges, color=SIZE_COLOURS[key], fill=True, alpha=0.18)
        axes.stairs(shares, edges, color=SIZE_COLOURS[key], linewidth=1.8, label=name)
    bounds = [bound**0.5 for bound in SIZE_BOUNDS]
    low, high = min(edges[0], bounds[0] / 2), 1.1 * max(edges[-1], 2 * bounds[1])
    for bound in bounds:
        axes.axvline(bound, color=INK, linewidth=1, linestyle="--")
    for size, start, end in zip(SIZES, (low, *bounds), (*bounds, high), strict=True):
        _size_label(axes, np.sqrt(start * end), size, objects)
    axes.set_xscale("log", base=2)
    axes.set_xlim(low, high)
    axes.margins(y=0.42)
    ticks = sorted({*bounds, *(2.0**power for power in range(14) if low < 2**power < high)})
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    # Steps that are whole percentages.
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("square root of the area of an object, pixels (logarithmic axis)", fontsize=10)
    axes.set_ylabel("share of the objects", fontsize=10, color=GREY)
    figure.legend(loc="outside upper right", ncols=2, fontsize=9.5, frameon=False)
    plain(axes, "y")
    return figure


def _size_label(axes: Axes, x: float, size: str, objects: Mapping[str, Any]) -> None:
    """The name of a COCO size, and below it the share of the objects at each resolution in its colour."""
    shares = {key: f"{objects['sizes'][key][size] / objects['number']:.0%}" for key in SIZE_COLOURS}
    lines = [(size, INK), *((shares[key], colour) for key, colour in SIZE_COLOURS.items())]
    for number, (text, colour) in enumerate(lines):
        label = axes.annotate(
            text,
            (x, 1),
            (0, -3 - 13 * number),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=10,
            color=colour,
        )
        # A white edge keeps it readable across the grid.
        label.set_path_effects([patheffects.withStroke(linewidth=3, foreground="white")])
