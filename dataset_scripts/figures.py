"""Figures of a data set card: encoded pictures of about 900 px in the card, drawn from the statistics alone."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.stats import norm

Pictures: TypeAlias = Mapping[int, Sequence[NDArray[np.uint8]]]
"""Thumbnails of some images of each class, by label."""

WIDTH = 9.0
"""Inches; at DPI twice the 900 px that a card shows, so that text stays sharp."""
DPI = 200
INK, GREY, GRID = "#212529", "#6c757d", "#dee2e6"
MEAN_COLOUR = "#c92a2a"
SPLIT_COLOURS = ("#1c5d99", "#639fab", "#bbcde5", "#d9a441", "#8f2d56")
COLOURS = ("#1f77b4", "#e8590c", "#2b8a3e", "#c2255c", "#7048e8", "#0fa3b1", "#d4a000", "#7f4f24", "#495057")
MARKERS = ("o", "^", "s", "D", "P", "X", "v", "<", ">", "*")
"""Nine colours in ten shapes tell 90 classes apart, with a dark edge 90 more."""
BESIDE, LEGEND_COLUMNS = 32, 3
"""Classes that a legend has room for beside the points; columns of one below them."""
OUTLINE, OTHER_OUTLINE = (255, 0, 200), (0, 140, 255)
"""Of the class that a picture stands for, and of further categories."""
THUMB, MARGIN = 112, 3
MAX_BYTES = 300_000
QUALITIES = (80, 70, 60, 50, 40, 30)
MAX_FIT = 1.5
"""How far to the right the fitted class sizes are shown, in sizes of the largest class."""
SHORT_SHEET = 40
"""Classes up to which each has a row of the contact sheet for itself."""
LABEL_WIDTH = 900 - 6 * (THUMB + 2 * MARGIN)


def draw_figures(
    statistics: Mapping[str, Any], pictures: Mapping[int, Sequence[NDArray[np.uint8]]]
) -> dict[str, bytes]:
    """Draw all figures that the statistics have numbers for.

    Args:
        statistics: From `statistics.dataset_statistics`.
        pictures: Thumbnails of each class by label, from `outlined`.

    Returns:
        Encoded pictures by file name; equal input gives equal bytes.
    """
    classes = statistics["classes"]
    figures = {"samples.jpg": _jpeg(contact_sheet(classes, pictures))} if pictures else {}
    figures["classes.png"] = png(class_distribution(classes))
    if "texts" in statistics:
        figures["texts.png"] = png(text_histograms(statistics["texts"]))
    if "tsne" in statistics:
        figures["tsne.png"] = png(scatter(statistics["tsne"], classes["names"]))
    return figures


def _rendered(figure: Figure) -> Image.Image:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def png(figure: Figure) -> bytes:
    """PNG of at most 256 colours: a third of the bytes, no visible difference in a diagram."""
    buffer = io.BytesIO()
    image = _rendered(figure).quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _jpeg(figure: Figure) -> bytes:
    """JPEG, for photographs, of the best quality within `MAX_BYTES`; their grain costs a PNG five times the bytes."""
    image = _rendered(figure)
    for quality in QUALITIES:
        buffer = io.BytesIO()
        # Full colour resolution keeps the thin outlines sharp.
        image.save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True)
        if buffer.tell() <= MAX_BYTES:
            break
    return buffer.getvalue()


def new_figure(height: float) -> Figure:
    """An empty figure of the width of all, `height` in inches."""
    return Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white", layout="constrained")


def plain(axes: Axes, grid: str) -> None:
    """Take away what carries no data; `grid`: "x" or "y"."""
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=9.5, colors=INK)


def class_distribution(classes: Mapping[str, Any]) -> Figure:
    """Sorted bars of the class sizes, split by split, with their mean and the fitted log-normal sizes (Fig. 3)."""
    order = sorted(classes["counts"], key=lambda name: -sum(classes["counts"][name].values()))
    totals = np.array([sum(classes["counts"][name].values()) for name in order])
    figure = new_figure(1.1 + 0.245 * len(order))
    axes = figure.add_subplot()
    rows, left = np.arange(len(order)), np.zeros(len(order))
    keys: list[Any] = []
    for index, split in enumerate(next(iter(classes["counts"].values()))):
        sizes = np.array([classes["counts"][name][split] for name in order])
        colour = SPLIT_COLOURS[index % len(SPLIT_COLOURS)]
        keys.append(axes.barh(rows, sizes, 0.76, left, color=colour, label=split))
        left += sizes
    keys.append(axes.axvline(classes["mean"], color=MEAN_COLOUR, linestyle="--", label=f"mean {classes['mean']:.1f}"))
    right = totals[0]
    if classes["log_sigma"] > 0:
        # The size that the fit expects at each rank, largest first.
        quantiles = norm.ppf(1 - (rows + 0.5) / len(rows))
        expected = np.exp(classes["log_mean"] + classes["log_sigma"] * quantiles)
        # A fit of few classes may expect a largest one far above all that are there: the bars count.
        right = np.clip(expected[0], right, MAX_FIT * right)
        style: dict[str, Any] = {"color": INK, "markerfacecolor": "white", "markersize": 5.5, "linewidth": 0.8}
        keys += axes.plot(expected, rows, "o:", label="log-normal fit, by rank", **style)
    digits = len(f"{totals[0]:,}")
    numbers = [f"{total:,}".rjust(digits, "\N{FIGURE SPACE}") for total in totals]
    axes.set_yticks(rows, [f"{name}   {number}" for name, number in zip(order, numbers, strict=True)])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlim(0, 1.05 * right)
    axes.set_xlabel("images", fontsize=10)
    # Above the bars: equal classes leave no free corner.
    figure.legend(handles=keys, loc="outside upper right", ncols=len(keys), fontsize=9.5, frameon=False)
    plain(axes, "x")
    return figure


def text_histograms(texts: Mapping[str, Any]) -> Figure:
    """Text lengths (Fig. 5a) and numbers of different non-stop words (Fig. 5b), a row a level."""
    figure = new_figure(0.85 + 1.15 * len(texts))
    grid = figure.subplots(len(texts), 2, sharex="col", squeeze=False)
    for (level, found), row in zip(texts.items(), grid, strict=True):
        _histogram(row[0], found["words"], COLOURS[0])
        _histogram(row[1], found["terms"], COLOURS[5])
        row[0].set_ylabel(level, rotation=0, ha="right", va="center", fontsize=11, fontweight="bold")
    for axes, title in zip(grid[0], ("(a) words a text", "(b) different non-stop words a text"), strict=True):
        axes.set_title(title, fontsize=11, loc="left")
    for column, part in enumerate(("words", "terms")):
        # Room for the label of a mean near the end.
        grid[0, column].set_xlim(0, 1 + 1.15 * max(found[part]["max"] for found in texts.values()))
    figure.align_ylabels(grid[:, 0])
    figure.supylabel("share of the texts", fontsize=10, color=GREY)
    return figure


def _histogram(axes: Axes, found: Mapping[str, Any], colour: str) -> None:
    """Shares of the texts over whole numbers, in bins of equal width, with the mean."""
    values, counts = np.array(found["histogram"]).T
    width = max(1, -(-(int(values[-1]) - int(values[0]) + 1) // 60))
    edges = np.arange(values[0], values[-1] + width + 1, width) - 0.5
    axes.hist(values, edges.tolist(), weights=counts / counts.sum(), color=colour, alpha=0.85, rwidth=0.92)
    axes.axvline(found["mean"], color=MEAN_COLOUR, linewidth=1.3, linestyle="--")
    axes.margins(y=0.35)
    label = axes.annotate(
        f"mean {found['mean']:.1f}",
        (found["mean"], 0.98),
        (4, 0),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        va="top",
        fontsize=9.5,
        color=INK,
    )
    # A white edge keeps it readable across the grid.
    label.set_path_effects([patheffects.withStroke(linewidth=3, foreground="white")])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    plain(axes, "y")


def scatter(embedding: Mapping[str, Any], names: Sequence[str]) -> Figure:
    """t-SNE points (Fig. 4); a class is told by colour, marker and edge together."""
    labels, x, y = (np.asarray(embedding[key]) for key in ("label", "x", "y"))
    present = np.unique(labels)
    beside = len(present) <= BESIDE
    figure = new_figure(6.4 if beside else 6.4 + 0.2 * -(-len(present) // LEGEND_COLUMNS))
    axes = figure.add_subplot()
    for index, label in enumerate(present):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index // len(COLOURS) % len(MARKERS)]
        edge, width = ("white", 0.3) if index < len(COLOURS) * len(MARKERS) else (INK, 0.9)
        inside = labels == label
        axes.scatter(
            x[inside], y[inside], 20, linewidths=width, edgecolors=edge, label=names[label], c=colour, marker=marker
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(GRID)
    axes.set_xlabel("t-SNE 1", fontsize=10, color=GREY)
    axes.set_ylabel("t-SNE 2", fontsize=10, color=GREY)
    figure.legend(
        loc="outside right center" if beside else "outside lower center",
        ncols=1 if beside else LEGEND_COLUMNS,
        fontsize=8.5,
        frameon=False,
        markerscale=1.6,
    )
    return figure


def outlined(
    image: Image.Image,
    mask: Image.Image | None = None,
    boxes: Sequence[Sequence[float]] = (),
    others: Sequence[Sequence[float]] = (),
) -> NDArray[np.uint8]:
    """A thumbnail of an image with its defects outlined.

    Args:
        image: Any size and mode; its aspect ratio is kept.
        mask: Of the size of the image, 255 = defect.
        boxes: [x, y, width, height] in pixels of the image.
        others: Boxes of other categories, in a colour of their own below those of this one.

    Returns:
        (THUMB + 2 * MARGIN, same, 3) RGB on white. The line lies outside the defect, on the margin where the defect
        reaches the edge of the image.
    """
    scale = THUMB / max(image.size)
    width, height = (max(round(side * scale), 1) for side in image.size)
    left, top = ((THUMB + 2 * MARGIN - side) // 2 for side in (width, height))
    canvas = np.full((THUMB + 2 * MARGIN,) * 2 + (3,), 255, np.uint8)
    small = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    canvas[top : top + height, left : left + width] = small
    regions = [(region, OTHER_OUTLINE) for region in _regions(None, others, scale, (width, height))]
    regions += [(region, OUTLINE) for region in _regions(mask, boxes, scale, (width, height))]
    for region, colour in regions:
        padded = np.zeros(canvas.shape[:2], bool)
        padded[top : top + height, left : left + width] = region
        # Lines inside a net of cracks would hide it.
        filled = ndimage.binary_fill_holes(padded)
        canvas[ndimage.binary_dilation(filled, np.ones((3, 3))) & ~filled] = colour
    return canvas


def _regions(
    mask: Image.Image | None, boxes: Sequence[Sequence[float]], scale: float, size: tuple[int, int]
) -> list[NDArray[np.bool_]]:
    """Defect pixels (height, width) of the thumbnail: the mask as one region, each box as one."""
    regions = []
    if mask is not None:
        # Any share counts, or defects thinner than a pixel of the thumbnail would be lost.
        regions.append(np.asarray(mask.convert("L").resize(size, Image.Resampling.BOX)) > 0)
    for x, y, width, height in boxes:
        left, top = int(x * scale), int(y * scale)
        right, bottom = (max(round(end * scale), start + 1) for end, start in ((x + width, left), (y + height, top)))
        region = np.zeros(size[::-1], bool)
        region[top:bottom, left:right] = True
        regions.append(region)
    return regions


def contact_sheet(classes: Mapping[str, Any], pictures: Pictures) -> Figure:
    """A row for each class: its name, its size and its pictures, at 100 dpi so that pixels stay what they are.

    Where there are many classes a row holds two, with two pictures each.
    """
    side = THUMB + 2 * MARGIN
    columns = 1 if len(pictures) <= SHORT_SHEET else 2
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(WIDTH, side * rows / 100), dpi=100, facecolor="white")
    for place, (label, shown) in enumerate(sorted(pictures.items())):
        column, row = divmod(place, rows)
        left, bottom = column / columns, side * (rows - row - 1)
        name = classes["names"][label]
        count = sum(classes["counts"][name].values())
        chosen = list(shown) if columns == 1 else list(shown)[:2]
        figure.figimage(np.concatenate(chosen, 1), int(900 * left) + LABEL_WIDTH, bottom)
        centre = 1 - (row + 0.5) / rows
        figure.text(left + 0.01, centre, textwrap.fill(name, 20), va="bottom", fontsize=10, color=INK)
        figure.text(left + 0.01, centre, f"{count:,} images", va="top", fontsize=9, color=GREY)
    return figure
