"""Calibration errors against scikit-learn and against sums written out."""

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from defect_hub.evaluate_metrics.kernels import CalibrationBins, UndefinedMetricError, calibration_error

RNG = np.random.default_rng(0)
UNIFORM = RNG.random(4000)
DISTRIBUTIONS = {
    "uniform": UNIFORM,
    "float32": UNIFORM.astype(np.float32),
    "skewed": UNIFORM**12,
    "saturated": 1 / (1 + np.exp(-40 * (UNIFORM - 0.5))),
    "on_the_edges": np.where(np.arange(4000) % 2, np.round(UNIFORM * 5) / 5, UNIFORM),
    "binary": (UNIFORM > 0.5).astype(int),
    "constant": np.full(4000, 0.3),
}


def state_of(probabilities, targets, bins: int = 15) -> CalibrationBins:
    state = CalibrationBins(bins)
    state.update(probabilities, targets)
    return state


@pytest.mark.parametrize("n_bins", [1, 10, 15])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_metrics_equal_scikit_learn(name, n_bins):
    probabilities = DISTRIBUTIONS[name]
    targets = RNG.random(4000) < probabilities**1.5
    result = calibration_error(probabilities, targets, n_bins)
    assert result["brier"] == pytest.approx(brier_score_loss(targets, probabilities), abs=1e-7)

    share, probability = calibration_curve(targets, probabilities.astype(float), n_bins=n_bins)
    bins = state_of(probabilities, targets, n_bins).reliability()
    np.testing.assert_allclose(bins.positive_share, share, atol=1e-12)
    np.testing.assert_allclose(bins.probability, probability, atol=1e-7)
    assert ((bins.lower <= bins.probability + 1e-7) & (bins.probability <= bins.upper + 1e-7)).all()
    assert bins.count.sum() == 4000
    gaps = np.abs(share - probability)
    assert result["ece"] == pytest.approx((gaps * bins.count).sum() / 4000, abs=1e-7)
    assert result["max_calibration_error"] == pytest.approx(gaps.max(), abs=1e-7)


def test_ece_equals_its_definition_written_as_a_loop():
    p, targets = UNIFORM, RNG.random(4000) < 0.4
    total = 0.0
    for b in range(15):
        inside = (p > b / 15) & (p <= (b + 1) / 15)
        total += abs(p[inside].sum() - targets[inside].sum()) / 4000
    assert calibration_error(p, targets)["ece"] == pytest.approx(total, abs=1e-7)


def test_ece_is_binary_not_top_label():
    # As confidences all are 0.8, and 8 of 10 verdicts are right: the top-label form sees no error.
    result = calibration_error([0.2] * 5 + [0.8] * 5, [1, 1, 0, 0, 0] + [1] * 5)
    assert result["ece"] == pytest.approx(0.2, abs=1e-7)
    assert calibration_error([0.3] * 10, [1] * 3 + [0] * 7)["ece"] == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(("n", "ece"), [(100, 0.12), (1000, 0.04), (10_000, 0.01)])
def test_ece_of_calibrated_probabilities_falls_with_the_number_of_images(n, ece):
    rng = np.random.default_rng(0)
    drawn = rng.random((200, n))
    found = [calibration_error(p, rng.random(n) < p)["ece"] for p in drawn]
    assert np.mean(found) == pytest.approx(ece, abs=0.005)


def test_zero_and_one_have_a_bin():
    bins = state_of([0.0, 1.0], [0, 1]).reliability()
    assert (bins.lower[0], bins.upper[-1]) == (0, 1)
    assert bins.count.tolist() == [1, 1]


def test_merged_and_restored_parts_equal_one_pass_exactly():
    targets = RNG.random(4000) < UNIFORM
    whole, merged = state_of(UNIFORM, targets), CalibrationBins()
    for part in np.array_split(RNG.permutation(4000), 7):
        merged.merge(CalibrationBins.from_bytes(state_of(UNIFORM[part], targets[part]).to_bytes()))
    for name, array in whole.state_dict().items():
        np.testing.assert_array_equal(merged.state_dict()[name], array)
    assert merged.compute() == whole.compute()


def test_torch_maps_equal_flat_numpy():
    targets = UNIFORM > 0.6
    maps = torch.from_numpy(UNIFORM).reshape(10, 20, 20).requires_grad_()
    as_torch = state_of(maps, torch.from_numpy(targets).reshape(10, 20, 20))
    assert as_torch.compute() == state_of(UNIFORM, targets).compute()


def test_without_samples_there_is_a_reason_and_one_class_is_defined():
    names = ("ece", "max_calibration_error", "brier")
    assert state_of([], []).compute() == {"undefined": dict.fromkeys(names, "no samples were given")}
    with pytest.raises(UndefinedMetricError, match="no samples"):
        calibration_error([], [])
    assert calibration_error([0.5], [0]) == {"ece": 0.5, "max_calibration_error": 0.5, "brier": 0.25}


@pytest.mark.parametrize(
    ("probabilities", "targets", "reason"),
    [
        ([0.5, 3.2], [0, 1], r"must lie in \[0, 1\], found 0.5 to 3.2; apply a sigmoid"),
        ([-0.1, 0.5], [0, 1], "found -0.1 to 0.5"),
        ([0.5, float("nan")], [0, 1], "NaN"),
        ([0.5, 0.5], [0, 255], "targets must be 0 or 1"),
        ([0.5], [0, 1], "1 scores but 2 targets"),
    ],
)
def test_bad_input_is_refused_and_leaves_the_state(probabilities, targets, reason):
    state = state_of([0.2, 0.9], [0, 1])
    before = state.compute()
    with pytest.raises(ValueError, match=reason):
        state.update(probabilities, targets)
    assert state.compute() == before


def test_bad_bins_are_refused():
    with pytest.raises(ValueError, match="bins must be at least 1"):
        CalibrationBins(0)
    with pytest.raises(ValueError, match="15 bins here but 10 there"):
        CalibrationBins(15).merge(CalibrationBins(10))
