"""What every metric accepts: NumPy arrays, torch tensors or sequences of numbers, checked once."""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

Values = ArrayLike | torch.Tensor


class UndefinedMetricError(ValueError):
    """The metric has no value on this data; the message says why."""


def flat_array(values: Values) -> NDArray[Any]:
    """Return `values` as a flat NumPy array, without a copy where possible (bfloat16 becomes float32)."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values).reshape(-1)


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
    flat_scores, flat_targets = flat_array(scores), flat_array(targets)
    if flat_scores.size != flat_targets.size:
        raise ValueError(f"{flat_scores.size} scores but {flat_targets.size} targets")
    return flat_scores, flat_targets
