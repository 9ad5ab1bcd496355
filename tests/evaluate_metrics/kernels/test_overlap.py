"""Overlap at a threshold against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from defect_hub.evaluate_metrics.kernels import OverlapCounts, region_overlaps
from tests.evaluate_metrics.kernels.cases import SCORES, SHAPES, scored_maps

POOLED = {"iou": jaccard_score, "dice": f1_score, "precision": precision_score, "recall": recall_score}
MEANS = {"mean_iou": jaccard_score, "mean_dice": f1_score}


def counted(maps, masks, threshold=1.0) -> OverlapCounts:
    counts = OverlapCounts(threshold)
    counts.update(maps, masks)
    return counts


def reference(maps, masks, threshold) -> dict[str, float]:
    """Return the pooled values, and the means over the images with a defect."""
    predicted = maps >= threshold
    values = {name: float(metric(masks.ravel(), predicted.ravel())) for name, metric in POOLED.items()}
    defective = [image for image in range(len(masks)) if masks[image].any()]
    for name, metric in MEANS.items():
        values[name] = float(np.mean([metric(masks[i].ravel(), predicted[i].ravel()) for i in defective]))
    return values


@pytest.mark.parametrize("name", SCORES)
def test_values_equal_scikit_learn(name):
    maps, masks = scored_maps(name)
    threshold = float(np.quantile(maps[np.isfinite(maps)].astype(np.float32), 0.9))
    assert counted(maps, masks, threshold).compute() == pytest.approx(reference(maps, masks, threshold), abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_values_for_every_shape_of_defects(shape):
    maps, masks = scored_maps(shape=shape)
    assert counted(maps, masks).compute() == pytest.approx(reference(maps, masks, 1.0), abs=1e-9)


def test_a_score_at_the_threshold_is_defective():
    result = counted(np.float32([[0.2, 0.5], [0.7, 0.1]]), [[0, 1], [1, 0]], threshold=0.5).compute()
    assert result == {"iou": 1, "dice": 1, "precision": 1, "recall": 1, "mean_iou": 1, "mean_dice": 1}


def test_float32_maps_are_compared_as_float32():
    # 0.1 as float32 is above 0.1 as float64, 0.7 below: a threshold read from the maps must hold on them.
    maps = np.float32([[0.7, 0.1]])
    assert counted(maps, [[1, 0]], threshold=float(np.float32(0.7))).compute()["iou"] == 1


def test_all_normal_maps_have_no_overlap_with_a_defect():
    maps, masks = scored_maps()
    result = counted(maps, np.zeros_like(masks)).compute()
    assert {"recall", "mean_iou", "mean_dice"} <= result["undefined"].keys()
    assert not {"recall", "mean_iou", "mean_dice"} & result.keys()


def test_nothing_predicted_and_nothing_there_has_no_value():
    maps, masks = scored_maps()
    result = counted(maps, np.zeros_like(masks), threshold=1e9).compute()
    assert result.keys() == {"undefined"}
    assert result["undefined"].keys() == POOLED.keys() | MEANS.keys()


def test_nothing_predicted_on_defects_has_overlap_0_and_no_precision():
    maps, masks = scored_maps(shape="noise")
    result = counted(maps, masks, threshold=1e9).compute()
    assert {name: result.get(name) for name in ["iou", "dice", "recall", "mean_iou", "mean_dice"]} == dict.fromkeys(
        ["iou", "dice", "recall", "mean_iou", "mean_dice"], 0
    )
    assert result["undefined"].keys() == {"precision"}


def test_all_defective_maps():
    maps, masks = scored_maps()
    full = np.ones_like(masks)
    assert counted(maps, full).compute() == pytest.approx(reference(maps, full, 1.0), abs=1e-9)


def test_no_data_has_no_value():
    assert OverlapCounts(0.5).compute().keys() == {"undefined"}


@pytest.mark.parametrize("seed", range(5))
def test_merged_parts_equal_one_pass_exactly(seed):
    maps, masks = scored_maps(n=12)
    rng = np.random.default_rng(seed)
    whole, merged = counted(maps, masks), OverlapCounts(1.0)
    for part in np.array_split(rng.permutation(12), 5):
        merged.merge(OverlapCounts.from_bytes(counted(maps[part], masks[part]).to_bytes()))
    assert merged.compute() == whole.compute()
    assert merged.to_bytes() == whole.to_bytes()


def test_states_of_different_thresholds_do_not_merge():
    maps, masks = scored_maps()
    with pytest.raises(ValueError, match="threshold"):
        counted(maps, masks, 0.5).merge(counted(maps, masks, 0.6))


def test_torch_maps_of_different_sizes():
    counts, expected = OverlapCounts(1.0), OverlapCounts(1.0)
    for side in (8, 16, 31):
        maps, masks = scored_maps(side=side, shape="noise")
        counts.update(torch.from_numpy(maps).requires_grad_(), torch.from_numpy(masks).long())
        for scores, mask in zip(maps, masks, strict=True):
            expected.update(scores, mask)
    assert counts.compute() == expected.compute()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda maps, masks: (np.where(masks, np.nan, maps), masks), "NaN"),
        (lambda maps, masks: (maps, masks * 255), "0 or 1"),
        (lambda maps, masks: (maps, masks[:, :-1]), "shape|size"),
    ],
)
def test_bad_values_are_refused_and_leave_the_state(spoil, reason):
    counts = counted(*scored_maps())
    before = counts.to_bytes()
    with pytest.raises(ValueError, match=reason):
        counts.update(*spoil(*scored_maps()))
    assert counts.to_bytes() == before


@pytest.mark.parametrize("threshold", [float("nan"), "high"])
def test_a_threshold_that_is_no_number_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold"):
        OverlapCounts(threshold)


@pytest.mark.parametrize("threshold", [np.float32(0.5), np.float16(0.5), torch.tensor(0.5), 1])
def test_a_threshold_may_be_any_number(threshold):
    counts = OverlapCounts(threshold)
    counts.update(np.array([[0.4, 1.0]]), np.array([[0, 1]]))
    assert counts.compute()["iou"] == 1


def test_the_threshold_is_not_rounded_to_the_type_of_the_scores():
    score = np.float16(0.1)  # 0.09998
    for kind in (np.float16, np.float32):
        counts = OverlapCounts(0.1)
        counts.update(np.array([[score]], kind), np.array([[1]]))
        assert counts.compute()["recall"] == 0
        assert region_overlaps(np.array([[score]], kind), np.array([[1]]), 0.1).overlap == [0]
