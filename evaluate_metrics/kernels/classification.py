"""Accuracy, mean class accuracy and the confusion matrix of a classifier."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.kernels.inputs import UndefinedMetricError, Values, as_array, check_scores
from defect_hub.evaluate_metrics.kernels.states import Arrays, MetricState, defined

Counts = NDArray[np.int64]
# Without a list of classes; the matrix then takes 128 MiB.
MAX_CLASSES = 4096


class ConfusionMatrix(MetricState):
    """Counts of (true class, predicted class); states add up across batches and processes.

    Attributes:
        names: names of the C classes; a class's id is its place in this list.
    """

    def __init__(self, classes: int | Sequence[str]) -> None:
        """Args: classes: their names in the order of their ids, or how many there are (names are then "0", "1", ...).

        Raises:
            ValueError: no class at all, a name that occurs twice, or one string in place of the names.
        """
        if isinstance(classes, str):
            raise ValueError(f"classes must be a list of names or their number, got {classes!r}; write [{classes!r}]")
        if isinstance(classes, int | np.integer):
            self.names = [str(number) for number in range(classes)]
        else:
            self.names = list(classes)
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"classes must be at least one name, none twice, or their number, got {classes!r}")
        self._counts: Counts = np.zeros((len(self.names),) * 2, np.int64)

    def update(self, predictions: Values, targets: Values) -> None:
        """Count a batch; nothing is counted if a value is bad.

        Args:
            predictions: (B,) class ids from 0 to C - 1; or (B, C) scores, of which the highest counts (the first of
                equal ones).
            targets: (B,) class ids.

        Raises:
            ValueError: an id is no integer or out of range, a score is NaN, or the lengths or shapes do not fit.
        """
        predicted = _check_ids("predictions", _highest(as_array(predictions), len(self.names)), len(self.names))
        true = _check_ids("targets", as_array(targets), len(self.names))
        if predicted.size != true.size:
            raise ValueError(f"{predicted.size} predictions but {true.size} targets; give one of each per sample")
        n = len(self.names)
        self._counts += np.bincount(true * n + predicted, minlength=n * n).reshape(n, n)

    def merge(self, other: Self) -> None:
        """Add the counts of another matrix; raises ValueError when its classes are others."""
        if other.names != self.names:
            raise ValueError(f"classes differ: {self.names} here, {other.names} there; merge states of one class list")
        self._counts += other._counts

    def accuracy(self) -> float:
        """Share of right predictions, in [0, 1]; raises UndefinedMetricError without samples."""
        return float(np.trace(self._counts) / self._n_samples())

    def mean_class_accuracy(self) -> float:
        """Mean of the recalls of the classes that occur in the targets, in [0, 1] ("mAcc", balanced accuracy).

        Raises:
            UndefinedMetricError: no samples were given.
        """
        return float(np.mean(list(self.per_class_recall().values())))

    def per_class_recall(self) -> dict[str, float]:
        """Share of right predictions among the samples of each class; classes without samples are left out.

        Raises:
            UndefinedMetricError: no samples were given.
        """
        self._n_samples()
        samples, right = self._counts.sum(axis=1), np.diagonal(self._counts)
        return {name: float(right[i] / samples[i]) for i, name in enumerate(self.names) if samples[i]}

    def compute(self) -> dict[str, Any]:
        """Return "accuracy", "mean_class_accuracy", "per_class_recall" (by name), see `MetricState.compute`.

        "confusion" is the matrix as lists: row is the true class, column the predicted one, in the order of "classes".
        """
        metrics = ("accuracy", "mean_class_accuracy", "per_class_recall")
        return defined({name: getattr(self, name) for name in metrics}) | {
            "confusion": self._counts.tolist(),
            "classes": list(self.names),
        }

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return counts (C, C) int64, rows are the truth, and names (C,)."""
        return {"counts": self._counts.copy(), "names": np.array(self.names)}

    @classmethod
    def from_state_dict(cls, arrays: Arrays) -> Self:
        """Rebuild a matrix; the inverse of `state_dict`."""
        state = cls(arrays["names"].tolist())
        state._counts += arrays["counts"]
        return state

    def _n_samples(self) -> int:
        if not self._counts.any():
            raise UndefinedMetricError("no samples were given")
        return int(self._counts.sum())


def class_accuracy(predictions: Values, targets: Values, classes: int | Sequence[str] | None = None) -> dict[str, Any]:
    """Accuracy, mean class accuracy, recalls and confusion matrix of data in memory, see `ConfusionMatrix`.

    Args:
        predictions: (B,) class ids, or (B, C) scores of which the highest counts.
        targets: (B,) class ids.
        classes: names or number of the classes; None means as many as the highest id (or the scores) tell, at most
            4096.

    Returns:
        "accuracy", "mean_class_accuracy", "per_class_recall", "confusion" and "classes".

    Raises:
        UndefinedMetricError: no samples were given.
        ValueError: see `ConfusionMatrix.update`; or too many classes to be meant.
    """
    predicted, true = as_array(predictions), as_array(targets)
    if not true.size:
        raise UndefinedMetricError("no samples were given")
    if classes is None:
        highest = predicted.shape[1] - 1 if predicted.ndim == 2 else _integers("predictions", predicted).max(initial=0)
        classes = int(max(highest, _integers("targets", true).max(), 0)) + 1
        if classes > MAX_CLASSES:
            raise ValueError(
                f"the highest class id is {classes - 1}; count classes from 0, or give classes if there are so many"
            )
    matrix = ConfusionMatrix(classes)
    matrix.update(predicted, true)
    return matrix.compute()


def _highest(predictions: NDArray[Any], n_classes: int) -> NDArray[Any]:
    """Return predictions (B,) as they are, and scores (B, C) as the id of the highest."""
    if predictions.ndim < 2:
        return predictions
    if predictions.ndim > 2 or predictions.shape[1] != n_classes:
        raise ValueError(
            f"predictions must be (B,) class ids or (B, {n_classes}) scores, got shape {predictions.shape}"
        )
    return check_scores(predictions).argmax(axis=1)


def _check_ids(field: str, ids: NDArray[Any], n_classes: int) -> Counts:
    """Return class ids (B,) as int64; raises ValueError for what is none."""
    ids = _integers(field, ids)
    outside = (ids < 0) | (ids >= n_classes)
    if outside.any():
        raise ValueError(
            f"{field} must be class ids from 0 to {n_classes - 1}, found {ids[outside][0]} "
            f"({np.count_nonzero(outside)} of {ids.size} are outside); leave out samples of unknown class"
        )
    return ids


def _integers(field: str, ids: NDArray[Any]) -> Counts:
    if ids.ndim != 1:
        raise ValueError(f"{field} must be (B,) class ids, got shape {ids.shape}")
    if ids.size and ids.dtype.kind not in "biu":
        raise ValueError(f"{field} must be class ids (integers), got {ids.dtype}; map names to ids first")
    return ids.astype(np.int64)
