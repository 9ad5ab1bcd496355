"""Plots of the kernels' results: figures without global state, saved as PNG and SVG of equal bytes for equal input."""

import os
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.kernels.calibration import ReliabilityBins
from defect_hub.evaluate_metrics.kernels.curves import Curve
from defect_hub.evaluate_metrics.kernels.inputs import Values, check_scores, check_targets, flat_pair
from defect_hub.evaluate_metrics.kernels.regions import RegionOverlaps, aupro_name

Bounds = tuple[float, float]
"""Lower and upper end of a 95 % interval."""

# Blue and vermillion of Okabe and Ito's palette stay apart for colour-blind readers, and in grey.
NORMAL, DEFECTIVE = "#0072B2", "#D55E00"
INK, GREY, GRID = "#212529", "#6c757d", "#dee2e6"
SIZE = (5.2, 4.6)
DPI = 160
Z_95 = 1.959964


def roc_plot(curve: Curve, auroc: float, interval: Bounds | None = None, level: str = "image") -> Figure:
    """True positive rate over false positive rate.

    Args:
        curve: from `ScoreHistogram.roc_curve`.
        auroc: for the legend, 0-1.
        interval: of the AUROC.
        level: "image" or "pixel", what is counted.
    """
    figure, axes = _unit_square(f"ROC, {level}s", f"false positive rate ({level}s)", f"true positive rate ({level}s)")
    axes.plot(curve.x, curve.y, color=DEFECTIVE, linewidth=1.8, label=_labelled("AUROC", auroc, interval))
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="chance 0.500")
    return _with_legend(figure)


def pr_plot(
    curve: Curve, average_precision: float, positives: float, interval: Bounds | None = None, level: str = "image"
) -> Figure:
    """Precision over recall, as steps: average precision is the area under them.

    Args:
        curve: from `ScoreHistogram.pr_curve`.
        average_precision: for the legend, 0-1.
        positives: share of positives, 0-1; what chance reaches.
        interval: of the average precision.
        level: "image" or "pixel", what is counted.
    """
    figure, axes = _unit_square(f"Precision and recall, {level}s", f"recall ({level}s)", f"precision ({level}s)")
    label = _labelled("average precision", average_precision, interval)
    # A step ends at its recall: the precision belongs to the recall gained.
    axes.plot(curve.x, curve.y, drawstyle="steps-pre", color=DEFECTIVE, linewidth=1.8, label=label)
    axes.axhline(positives, color=GREY, linestyle="--", linewidth=1, label=f"chance {positives:.3f}")
    return _with_legend(figure)


def pro_plot(curve: Curve, aupro: float, limit: float = 0.3, interval: Bounds | None = None) -> Figure:
    """Mean per-region overlap over the false positive rate; the area that counts is shaded.

    Args:
        curve: from `PixelScores.pro_curve`.
        aupro: for the legend, 0-1.
        limit: false positive rate up to which the area is taken.
        interval: of the AUPRO.
    """
    figure, axes = _unit_square("Per-region overlap", "false positive rate (pixels)", "mean overlap of the regions")
    axes.plot(curve.x, curve.y, color=DEFECTIVE, linewidth=1.8, label=_labelled(aupro_name(limit), aupro, interval))
    inside = curve.x <= limit
    edge = np.append(curve.y[inside], np.interp(limit, curve.x, curve.y))
    axes.fill_between(np.append(curve.x[inside], limit), edge, color=DEFECTIVE, alpha=0.15, linewidth=0)
    axes.axvline(limit, color=INK, linewidth=1, linestyle=":", label=f"limit {limit:g}")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label=f"chance {limit / 2:.3f}")
    return _with_legend(figure)


def reliability_plot(bins: ReliabilityBins, ece: float) -> Figure:
    """Share of defects over the probability given, with Wilson's 95 % intervals; the counts stand below.

    Args:
        bins: from `CalibrationBins.reliability`.
        ece: expected calibration error for the legend, 0-1.
    """
    figure = _figure()
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    _style(axes, "Reliability", "", "share of defects")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="calibrated")
    low, high = _wilson(bins.positive_share, bins.count)
    reach = [bins.positive_share - low, high - bins.positive_share]
    label = f"bins, expected calibration error {ece:.3f}"
    axes.errorbar(
        bins.probability,
        bins.positive_share,
        reach,
        fmt="o-",
        ms=4,
        lw=1.2,
        elinewidth=1,
        color=DEFECTIVE,
        label=label,
    )
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.02)
    _style(below, "", "image score, taken as the probability of a defect", "images")
    below.bar(bins.lower, bins.count, bins.upper - bins.lower, align="edge", color=NORMAL, edgecolor="white")
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return _with_legend(figure)


def region_plot(overlaps: RegionOverlaps, threshold: float) -> Figure:
    """Share of each region that is found at a threshold, over the region's size.

    Args:
        overlaps: from `region_overlaps`.
        threshold: that they were taken at.
    """
    found, area = np.asarray(overlaps.overlap), np.asarray(overlaps.area)
    figure, axes = _new("Regions found, by size", "area of the region (px, logarithmic)", "share of the region found")
    missed = np.count_nonzero(found == 0)
    label = f"{found.size:,} regions at threshold {threshold:.3f}\nmean {found.mean():.3f}, {missed:,} missed entirely"
    axes.scatter(area, found, 22, color=DEFECTIVE, alpha=0.45, linewidths=0, label=label, clip_on=False)
    axes.set_xscale("log")
    axes.set_ylim(-0.02, 1.02)
    return _with_legend(figure)


def score_plot(scores: Values, targets: Values, threshold: float | None = None) -> Figure:
    """Distribution of the image scores of each class.

    Args:
        scores: (N,), of any range.
        targets: (N,), 0 or 1.
        threshold: from which an image counts as defective.

    Raises:
        ValueError: NaN scores, targets other than 0 and 1, or different lengths.
    """
    flat_scores, flat_targets = flat_pair(scores, targets)
    flat_scores, positive = check_scores(flat_scores), check_targets(flat_targets)
    # Rice's rule: few images make few bins.
    edges = np.histogram_bin_edges(flat_scores, int(np.clip(2 * np.cbrt(flat_scores.size), 10, 40)))
    figure, axes = _new("Scores by class", "image score", "share of the class")
    for name, colour, chosen in (("normal", NORMAL, ~positive), ("defective", DEFECTIVE, positive)):
        if not chosen.any():
            continue
        share = np.histogram(flat_scores[chosen], edges)[0] / chosen.sum()
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.3)
        axes.stairs(share, edges, color=colour, linewidth=1.5, label=f"{chosen.sum():,} {name}")
    if threshold is not None:
        axes.axvline(threshold, color=INK, linewidth=1, linestyle=":", label=f"threshold {threshold:.3f}")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylim(bottom=0)
    return _with_legend(figure)


def save_plot(figure: Figure, path: str | Path) -> None:
    """Write `path` with .png and .svg appended, its folder if need be; each file is complete or not there at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        target = path.with_name(f"{path.name}.{kind}")
        partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            # Text as outlines looks alike everywhere; the salt keeps the ids of equal plots equal.
            with matplotlib.rc_context({"svg.hashsalt": "defect-hub", "svg.fonttype": "path"}):
                figure.savefig(partial, format=kind, metadata=metadata)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


def _wilson(share: NDArray[np.float64], count: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of the 95 % score interval of a proportion (Wilson 1927), inside 0 to 1."""
    centre = (share + Z_95**2 / (2 * count)) / (1 + Z_95**2 / count)
    reach = Z_95 / (1 + Z_95**2 / count) * np.sqrt(share * (1 - share) / count + Z_95**2 / (4 * count**2))
    # Rounding must not put an end on the wrong side of the share.
    return np.minimum(centre - reach, share), np.maximum(centre + reach, share)


def _figure() -> Figure:
    figure = Figure(figsize=SIZE, dpi=DPI, facecolor="white")
    # All plots alike, with room for a legend below; fitting the margins to the labels would double the time.
    figure.subplots_adjust(left=0.13, right=0.97, top=0.93, bottom=0.25)
    return figure


def _new(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = _figure()
    axes = figure.add_subplot()
    _style(axes, title, x_label, y_label)
    return figure, axes


def _style(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    axes.set_title(title, fontsize=12, loc="left", color=INK)
    axes.set_xlabel(x_label, fontsize=10, color=INK)
    axes.set_ylabel(y_label, fontsize=10, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors=INK)


def _unit_square(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure, axes = _new(title, x_label, y_label)
    # A little room, so that a curve along the edge is seen.
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.02)
    return figure, axes


def _labelled(name: str, value: float, interval: Bounds | None) -> str:
    return f"{name} {value:.3f}" + (f"\n(95 % interval {interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def _with_legend(figure: Figure) -> Figure:
    # Curves go anywhere inside the axes.
    legend = figure.legend(loc="lower center", ncols=2, fontsize=9, frameon=False)
    for text in legend.get_texts():
        text.set_color(INK)
    return figure
