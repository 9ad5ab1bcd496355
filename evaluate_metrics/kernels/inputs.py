"""What every metric accepts: NumPy arrays, torch tensors or sequences of numbers, checked once."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

Values = ArrayLike | torch.Tensor
# Images of one size as (B, H, W) or (B, 1, H, W), one image as (H, W), or a sequence of (H, W) of different sizes.
Images = Values | Sequence[Values]


class UndefinedMetricError(ValueError):
    """The metric has no value on this data; the message says why."""


def as_array(values: Values) -> NDArray[Any]:
    """Return `values` as a NumPy array, without a copy where possible (bfloat16 becomes float32)."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)


def check_scores(scores: NDArray[Any]) -> NDArray[Any]:
    """Return `scores` if they can be ordered.

    Raises:
        ValueError: a score is NaN or not a real number.
    """
    if scores.dtype.kind not in "biuf":
        raise ValueError(f"scores must be real numbers, got {scores.dtype}")
    if scores.dtype.kind == "f" and np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} of {scores.size} scores are NaN")
    return scores


def check_targets(targets: NDArray[Any]) -> NDArray[np.bool_]:
    """Return `targets` as booleans.

    Raises:
        ValueError: a target is neither 0 nor 1, for example in a 0/255 mask.
    """
    if targets.dtype == np.bool_:
        return targets
    positive = targets == 1
    if not (positive | (targets == 0)).all():
        raise ValueError("targets must be 0 or 1 (pass `mask > 0` for a 0/255 mask)")
    return positive


def flat_pair(scores: Values, targets: Values) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return scores and targets as flat arrays of one length, values unchecked.

    Raises:
        ValueError: the numbers of scores and targets differ.
    """
    flat_scores, flat_targets = as_array(scores).reshape(-1), as_array(targets).reshape(-1)
    if flat_scores.size != flat_targets.size:
        raise ValueError(f"{flat_scores.size} scores but {flat_targets.size} targets")
    return flat_scores, flat_targets


def image_pairs(maps: Images, masks: Images) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
    """Yield the checked map and mask, (H, W), of each image.

    Raises:
        ValueError: NaN scores, masks with values other than 0 and 1, or maps and masks of different numbers or sizes.
    """
    score_maps, target_masks = _images(maps), _images(masks)
    if len(score_maps) != len(target_masks):
        raise ValueError(f"{len(score_maps)} maps but {len(target_masks)} masks")
    for index, (scores, mask) in enumerate(zip(score_maps, target_masks, strict=True)):
        if scores.shape != mask.shape or scores.ndim != 2:
            raise ValueError(
                f"image {index}: map {scores.shape} and mask {mask.shape}; both must be (H, W) of one size"
            )
        yield check_scores(scores), check_targets(mask)


def _images(values: Images) -> list[NDArray[Any]]:
    """Split images into arrays (H, W); what cannot be split so keeps its shape, for the error message."""
    if isinstance(values, list | tuple):
        arrays = [as_array(value) for value in values]
        if not arrays or any(array.ndim > 1 for array in arrays):
            return arrays
    array = as_array(cast(Values, values))
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    return list(array) if array.ndim == 3 else [array]
