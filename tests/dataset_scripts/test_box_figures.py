import io
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from PIL import Image

from defect_hub.dataset_scripts.box_figures import ONE_COLUMN, box_sizes, draw_box_figures, long_tail
from defect_hub.dataset_scripts.figures import MAX_BYTES

SUPER_CATEGORIES = ["metallurgy", "precision electronics", "textiles", "wood processing"]


def categories(number: int, **about: Any) -> dict[str, dict[str, Any]]:
    return {f"a defect with number {index}": {"count": 5000 // (index + 1), **about} for index in range(number)}


def grouped(number: int) -> dict[str, dict[str, Any]]:
    found = categories(number)
    for index, about in enumerate(found.values()):
        about |= {"super_category": SUPER_CATEGORIES[index % 4], "novel": index % 3 == 1}
    return found


def objects(number: int = 4) -> dict[str, Any]:
    return {
        "number": 10,
        "categories": grouped(number),
        "long_tail": {"categories": number},
        "sizes": {"own": {"small": 5, "medium": 4, "large": 1}, "at_640": {"small": 2, "medium": 3, "large": 5}},
        "sides": {"edges": [16 * 2 ** (k / 4) for k in range(5)], "own": [1, 2, 3, 4], "at_640": [4, 4, 1, 1]},
    }


def labels(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def test_bars_are_counts_on_a_logarithmic_axis() -> None:
    found = grouped(6)
    (axes,) = long_tail(found).axes
    assert (labels(axes), axes.get_xscale()) == (list(found), "log")
    assert [bar.get_width() for bar in axes.patches] == [about["count"] for about in found.values()]
    assert [text.get_text() for text in axes.texts] == [f"{about['count']:,}" for about in found.values()]
    assert axes.yaxis.get_inverted()


def test_colours_tell_super_categories_and_hatches_novel_categories() -> None:
    figure = long_tail(grouped(12))
    bars = figure.axes[0].patches
    colours = [to_hex(bar.get_facecolor()) for bar in bars]
    assert len(set(colours[:4])) == 4
    assert colours[:4] * 3 == colours
    assert [bool(bar.get_hatch()) for bar in bars] == [index % 3 == 1 for index in range(12)]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*SUPER_CATEGORIES, "novel category"]
    keys = [to_hex(key.get_facecolor()) for key in legend.get_patches()]
    assert keys[:4] == colours[:4]


def test_without_a_list_of_categories_there_is_no_legend() -> None:
    figure = long_tail(categories(3))
    assert figure.legends == []
    assert len({to_hex(bar.get_facecolor()) for bar in figure.axes[0].patches}) == 1


def test_categories_without_objects_are_left_out() -> None:
    found = grouped(12)
    for about in list(found.values())[3:]:
        about["count"] = 0
    figure = long_tail(found)
    assert labels(figure.axes[0]) == list(found)[:3]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*SUPER_CATEGORIES[:3], "novel category"]


@pytest.mark.parametrize(("number", "columns"), [(ONE_COLUMN, 1), (ONE_COLUMN + 1, 2), (100, 2)])
def test_labels_of_many_categories_neither_overlap_nor_leave_the_figure(number: int, columns: int) -> None:
    found = grouped(number)
    figure = long_tail(found)
    figure.draw_without_rendering()
    assert len(figure.axes) == columns
    assert [name for axes in figure.axes for name in labels(axes)] == list(found)
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    for axes in figure.axes:
        places = [label.get_window_extent() for label in axes.get_yticklabels()]
        assert all(upper.y0 > lower.y1 for upper, lower in pairwise(places))
        for place in [*places, *(text.get_window_extent() for text in axes.texts)]:
            assert 0 <= place.x0 < place.x1 <= figure.bbox.x1
    # The numbers of the first column end before the labels of the second.
    if columns == 2:
        ends = max(text.get_window_extent().x1 for text in figure.axes[0].texts)
        assert ends < min(label.get_window_extent().x0 for label in figure.axes[1].get_yticklabels())


def test_both_size_distributions_are_shares_with_the_bounds_of_coco() -> None:
    figure = box_sizes(objects())
    (axes,) = figure.axes
    steps = [patch.get_data() for patch in axes.patches]
    assert [step.values.tolist() for step in steps[::2]] == [[0.1, 0.2, 0.3, 0.4], [0.4, 0.4, 0.1, 0.1]]
    np.testing.assert_allclose(steps[0].edges, [16, 19.027, 22.627, 26.909, 32], rtol=1e-4)
    assert [line.get_xdata()[0] for line in axes.get_lines()] == [32, 96]
    low, high = axes.get_xlim()
    assert low <= 16 and high > 96
    shown = [text.get_text() for text in axes.texts]
    assert shown == ["small", "50%", "20%", "medium", "40%", "30%", "large", "10%", "50%"]


def test_figures_are_small_files_that_repeat_exactly() -> None:
    figures = draw_box_figures(objects(100))
    assert list(figures) == ["box_sizes.png", "long_tail.png"]
    assert all(len(data) <= MAX_BYTES for data in figures.values())
    assert {Image.open(io.BytesIO(data)).width for data in figures.values()} == {1800}
    assert draw_box_figures(objects(100)) == figures
    assert list(draw_box_figures(objects(1))) == ["box_sizes.png"]
