import io
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import lognorm

from defect_hub.dataset_scripts.figures import (
    MARGIN,
    MAX_BYTES,
    OTHER_OUTLINE,
    OUTLINE,
    THUMB,
    class_distribution,
    contact_sheet,
    draw_figures,
    outlined,
    scatter,
    text_histograms,
)

SIDE = THUMB + 2 * MARGIN
NAMES = ["Scratch", "Dent", "Never seen", "Pit"]
COUNTS = {"Scratch": (6, 4), "Dent": (20, 10), "Pit": (3, 1)}


def classes() -> dict[str, Any]:
    sizes = np.array([sum(counts) for counts in COUNTS.values()])
    return {
        "names": NAMES,
        "counts": {name: {"train": train, "val": val} for name, (train, val) in COUNTS.items()},
        "mean": sizes.mean(),
        "log_mean": np.log(sizes).mean(),
        "log_sigma": np.log(sizes).std(),
    }


def lengths(*histogram: tuple[int, int]) -> dict[str, Any]:
    values, counts = np.array(histogram).T
    return {"mean": np.average(values, weights=counts), "max": int(values[-1]), "histogram": [*map(list, histogram)]}


def texts() -> dict[str, Any]:
    long = lengths((20, 1), (90, 2), (150, 1))
    return {"t0": {"words": lengths((5, 3), (6, 1)), "terms": lengths((3, 4))}, "t2": {"words": long, "terms": long}}


def embedding(number: int) -> dict[str, Any]:
    points = np.random.default_rng(0).random((2, 4 * number))
    return {"label": [*range(number)] * 4, "x": points[0].tolist(), "y": points[1].tolist()}


def gray(width: int = 64, height: int = 64, value: int = 100) -> Image.Image:
    return Image.new("L", (width, height), value)


def drawn(thumbnail: np.ndarray) -> np.ndarray:
    return (thumbnail == OUTLINE).all(-1)


def rendered(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def test_bars_are_sorted_and_stacked() -> None:
    axes = class_distribution(classes()).axes[0]
    train, val = ([bar.get_width() for bar in container] for container in axes.containers)
    assert (train, val) == ([20, 6, 3], [10, 4, 1])
    assert [bar.get_x() for bar in axes.containers[1]] == train
    labels = [label.get_text().split() for label in axes.get_yticklabels()]
    assert labels == [["Dent", "30"], ["Scratch", "10"], ["Pit", "4"]]
    assert axes.yaxis.get_inverted()  # The largest class is on top.


def test_mean_line_and_fitted_sizes() -> None:
    axes = class_distribution(classes()).axes[0]
    mean, fit = axes.get_lines()
    assert set(mean.get_xdata()) == {44 / 3}
    expected = lognorm(s=classes()["log_sigma"], scale=np.exp(classes()["log_mean"])).ppf([5 / 6, 1 / 2, 1 / 6])
    np.testing.assert_allclose(fit.get_xdata(), expected)


def test_one_class_size_has_no_fit() -> None:
    assert len(class_distribution({**classes(), "log_sigma": 0.0}).axes[0].get_lines()) == 1


def test_each_level_has_a_row_of_shares_in_full_view() -> None:
    figure = text_histograms(texts())
    assert len(figure.axes) == 4
    for axes in figure.axes:
        assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(1)
        low, high = axes.get_xlim()
        assert all(low <= bar.get_x() and bar.get_x() + bar.get_width() <= high + 1 for bar in axes.patches)
    assert [axes.get_ylabel() for axes in figure.axes] == ["t0", "", "t2", ""]
    assert [line.get_xdata()[0] for line in figure.axes[2].get_lines()] == [87.5]


def test_25_classes_are_told_apart() -> None:
    names = [f"class {index}" for index in range(25)]
    axes = scatter(embedding(25), names).axes[0]
    looks = {
        (to_hex(points.get_facecolor()[0]), points.get_paths()[0].vertices.tobytes()) for points in axes.collections
    }
    assert len(looks) == 25
    assert [points.get_label() for points in axes.collections] == names
    assert sum(len(points.get_offsets()) for points in axes.collections) == 100


def test_outline_surrounds_the_mask_and_leaves_it_visible() -> None:
    mask = np.zeros((THUMB, THUMB), np.uint8)
    mask[20:30, 40:70] = 255
    thumbnail = outlined(gray(THUMB, THUMB), Image.fromarray(mask))
    inner = drawn(thumbnail)[MARGIN:-MARGIN, MARGIN:-MARGIN]
    expected = np.zeros_like(inner)
    expected[19:31, 39:71] = True
    expected[20:30, 40:70] = False
    np.testing.assert_array_equal(inner, expected)
    assert (thumbnail[MARGIN + 25, MARGIN + 50] == 100).all()


def test_a_full_mask_is_outlined_on_the_margin() -> None:
    line = drawn(outlined(gray(), gray(value=255)))
    assert line.sum() == 4 * THUMB + 4
    assert not line[MARGIN:-MARGIN, MARGIN:-MARGIN].any()


def test_defects_thinner_than_a_pixel_are_outlined() -> None:
    mask = np.zeros((1000, 2000), np.uint8)
    mask[500, 300:1700] = 255
    assert drawn(outlined(gray(2000, 1000), Image.fromarray(mask))).any()


def test_every_box_is_outlined() -> None:
    line = drawn(outlined(gray(2 * THUMB, 2 * THUMB), boxes=[[20, 20, 40, 40], [100, 100, 1, 1]]))
    assert line.sum() == (4 * 20 + 4) + 8


def test_boxes_of_this_category_lie_above_those_of_others() -> None:
    boxes, others = [[20, 20, 40, 40]], [[20, 20, 40, 60]]
    thumbnail = outlined(gray(THUMB, THUMB), boxes=boxes, others=others)
    own = drawn(thumbnail)
    assert own.sum() == 4 * 40 + 4
    # Of the other box remains what is below this one: two sides of 19 px and the lower line with both corners.
    assert (thumbnail == OTHER_OUTLINE).all(-1).sum() == 2 * 19 + 42


@pytest.mark.parametrize("mask", [None, gray(value=0)])
def test_nothing_is_drawn_without_a_defect(mask: Image.Image | None) -> None:
    assert not drawn(outlined(gray(), mask)).any()


def test_thumbnails_keep_the_aspect_ratio() -> None:
    thumbnail = outlined(gray(200, 100, 0))
    rows, columns = np.nonzero((thumbnail == 0).all(-1))
    assert thumbnail.shape == (SIDE, SIDE, 3)
    assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == (THUMB, THUMB // 2)


def test_sheet_shows_each_class_beside_its_name() -> None:
    pictures = {3: [outlined(gray(value=30))], 0: [outlined(gray(value=90)), outlined(gray(value=200))]}
    figure = contact_sheet(classes(), pictures)
    assert isinstance(figure, Figure)
    words = [text.get_text() for text in figure.texts]
    assert words == ["Scratch", "10 images", "Pit", "4 images"]
    sheet = np.asarray(rendered(draw_figures({"classes": classes()}, pictures)["samples.jpg"]), int)
    assert sheet.shape == (2 * SIDE, 900, 3)
    left = 900 - 6 * SIDE
    for top, column, value in ((0, 0, 90), (0, 1, 200), (1, 0, 30), (1, 1, 255)):
        centre = sheet[top * SIDE + SIDE // 2, left + column * SIDE + SIDE // 2]
        assert abs(centre - value).max() <= 2


def test_sheet_of_many_classes_has_two_in_a_row() -> None:
    names = [f"class {number}" for number in range(45)]
    pictures = {number: [outlined(gray(value=5 * number))] * 6 for number in range(45)}
    many = {**classes(), "names": names, "counts": {name: {"train": 6} for name in names}}
    sheet = np.asarray(rendered(draw_figures({"classes": many}, pictures)["samples.jpg"]), int)
    assert sheet.shape == (23 * SIDE, 900, 3)
    for number in (0, 22, 23, 44):
        column, row = divmod(number, 23)
        left = 450 * column + 900 - 6 * SIDE
        shown = sheet[row * SIDE + SIDE // 2, left + SIDE // 2 :: SIDE][:2]
        assert abs(shown - 5 * number).max() <= 3
    assert (sheet[22 * SIDE : 23 * SIDE, 642:] > 250).all()


def test_figures_are_small_readable_files_and_repeat_exactly() -> None:
    grain = np.random.default_rng(0).normal(120, 12, (THUMB, THUMB)).astype(np.uint8)
    names = [f"class {index}" for index in range(25)]
    counts = {name: {"train": 2} for name in names}
    statistics = {"classes": {**classes(), "names": names, "counts": counts}, "texts": texts(), "tsne": embedding(25)}
    pictures = {label: [outlined(Image.fromarray(np.roll(grain, label)))] * 6 for label in range(25)}
    figures = draw_figures(statistics, pictures)
    assert list(figures) == ["samples.jpg", "classes.png", "texts.png", "tsne.png"]
    assert all(len(data) <= MAX_BYTES for data in figures.values())
    assert {name: rendered(data).width for name, data in figures.items()} == dict.fromkeys(figures, 1800) | {
        "samples.jpg": 900
    }
    assert draw_figures(statistics, pictures) == figures


def test_what_has_no_numbers_has_no_figure() -> None:
    assert list(draw_figures({"classes": classes()}, {0: [outlined(gray())]})) == ["samples.jpg", "classes.png"]
