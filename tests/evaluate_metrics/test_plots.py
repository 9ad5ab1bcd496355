"""The plots show what they are given, and their files are complete, deterministic and free of global state."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image

from defect_hub.evaluate_metrics.kernels import PixelScores, RegionOverlaps, ScoreHistogram
from defect_hub.evaluate_metrics.kernels.calibration import CalibrationBins
from defect_hub.evaluate_metrics.plots import (
    pr_plot,
    pro_plot,
    region_plot,
    reliability_plot,
    roc_plot,
    save_plot,
    score_plot,
)

SCORES = np.array([0.1, 0.2, 0.35, 0.6, 0.3, 0.7, 0.8, 0.9])
TARGETS = np.array([0, 0, 0, 0, 1, 1, 1, 1])


@pytest.fixture
def images():
    histogram = ScoreHistogram()
    histogram.update(SCORES, TARGETS)
    return histogram


@pytest.fixture
def pixels():
    rng = np.random.default_rng(0)
    masks = np.zeros((3, 16, 16), bool)
    masks[:, 2:5, 3:9] = masks[:, 10:14, 10:14] = True
    state = PixelScores()
    state.update(masks + rng.normal(size=masks.shape), masks)
    return state


def legend(figure) -> str:
    boxes = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    return "\n".join(text.get_text() for box in boxes if box for text in box.get_texts())


def labels(figure) -> str:
    return "\n".join(f"{axes.get_title('left')}\n{axes.get_xlabel()}\n{axes.get_ylabel()}" for axes in figure.axes)


def line(figure, name):
    """The points of the line whose label begins with a name."""
    return next(found.get_xydata() for found in figure.axes[0].lines if found.get_label().startswith(name))


def test_roc_shows_the_curve_chance_and_the_interval(images):
    curve = images.roc_curve()
    figure = roc_plot(curve, 0.875, (0.5, 1))
    np.testing.assert_array_equal(line(figure, "AUROC"), np.stack([curve.x, curve.y], axis=1))
    np.testing.assert_array_equal(line(figure, "chance"), [[0, 0], [1, 1]])
    assert "AUROC 0.875\n(95 % interval 0.500 to 1.000)" in legend(figure)
    assert "false positive rate (images)" in labels(figure)
    assert "interval" not in legend(roc_plot(curve, 0.875))


def test_area_under_the_drawn_steps_is_the_average_precision(images):
    figure = pr_plot(images.pr_curve(), images.average_precision(), 0.5)
    (drawn,) = (found for found in figure.axes[0].lines if found.get_label().startswith("average precision"))
    assert drawn.get_drawstyle() == "steps-pre"
    x, y = drawn.get_xydata().T
    assert np.sum(np.diff(x) * y[1:]) == pytest.approx(images.average_precision())
    assert line(figure, "chance 0.500")[0, 1] == 0.5


def test_shaded_area_divided_by_the_limit_is_the_aupro(pixels):
    figure = pro_plot(pixels.pro_curve(), pixels.aupro(0.3))
    (path,) = figure.axes[0].collections[0].get_paths()
    corners = path.vertices[:-1]
    x, y = corners.T
    shaded = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2  # the shoelace formula
    assert shaded / 0.3 == pytest.approx(pixels.aupro(0.3), abs=1e-6)
    assert x.max() == pytest.approx(0.3)
    assert f"aupro_0.3 {pixels.aupro():.3f}" in legend(figure)
    assert "chance 0.150" in legend(figure)


def test_reliability_shows_bins_counts_and_wilson_intervals():
    from scipy.stats import binomtest

    state = CalibrationBins(5)
    state.update(np.repeat([0.1, 0.5, 0.9], [10, 4, 20]), np.repeat([0, 1, 0, 1], [12, 2, 1, 19]))
    bins = state.reliability()
    figure = reliability_plot(bins, 0.125)
    main, below = figure.axes
    (container,) = main.containers
    np.testing.assert_allclose(container.lines[0].get_xydata(), np.stack([bins.probability, bins.positive_share], 1))
    segments = container.lines[2][0].get_segments()
    for segment, share, count in zip(segments, bins.positive_share, bins.count, strict=True):
        expected = binomtest(round(share * count), int(count)).proportion_ci(method="wilson")
        np.testing.assert_allclose(segment[:, 1], [expected.low, expected.high], atol=1e-6)
    assert [bar.get_height() for bar in below.patches] == [10, 4, 20]
    assert "expected calibration error 0.125" in legend(figure)


def test_regions_on_a_logarithmic_axis():
    overlaps = RegionOverlaps(np.array([0, 0, 1]), np.array([1, 100, 10_000]), np.array([0.0, 0.5, 1.0]))
    figure = region_plot(overlaps, 0.25)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), [[1, 0], [100, 0.5], [10_000, 1]])
    assert legend(figure) == "3 regions at threshold 0.250\nmean 0.500, 1 missed entirely"


def test_score_shares_add_up_to_one_for_each_class():
    figure = score_plot(SCORES, TARGETS, threshold=0.33)
    by_class = {patch.get_label(): patch.get_data().values.sum() for patch in figure.axes[0].patches}
    assert by_class["4 normal"] == pytest.approx(1)
    assert by_class["4 defective"] == pytest.approx(1)
    assert "threshold 0.330" in legend(figure)


def test_scores_of_one_class_or_one_value():
    assert "normal" not in legend(score_plot([0.5, 0.5], [1, 1]))


def test_bad_scores_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        score_plot([0.5, np.nan], [0, 1])


def test_files_are_equal_for_equal_input_and_complete(images, tmp_path):
    for name in ("a", "b_0.3"):
        save_plot(roc_plot(images.roc_curve(), 0.875, (0.5, 1)), tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg", "b_0.3.png", "b_0.3.svg"]
    for kind in ("png", "svg"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b_0.3.{kind}").read_bytes()
    svg = (tmp_path / "a.svg").read_text()
    assert "dc:date" not in svg
    assert "<text" not in svg  # outlines: no font is needed to show it
    picture = Image.open(tmp_path / "a.png")
    assert min(picture.size) > 600
    assert len(set(np.asarray(picture.convert("RGB")).reshape(-1, 3).sum(axis=1))) > 10


def test_a_failed_save_leaves_the_earlier_file_and_no_rest(images, tmp_path, monkeypatch):
    figure = roc_plot(images.roc_curve(), 0.875)
    save_plot(figure, tmp_path / "roc")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full_disk(file, **_):
        file.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(figure, "savefig", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_plot(figure, tmp_path / "roc")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_no_global_state(images, tmp_path):
    before = dict(matplotlib.rcParams)
    save_plot(roc_plot(images.roc_curve(), 0.875), tmp_path / "roc")
    assert dict(matplotlib.rcParams) == before
    code = "import sys, defect_hub.evaluate_metrics.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_a_plot_goes_where_its_text_path_says(tmp_path):
    save_plot(score_plot([0.1, 0.9], [0, 1]), f"{tmp_path}/new/scores")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["scores.png", "scores.svg"]
