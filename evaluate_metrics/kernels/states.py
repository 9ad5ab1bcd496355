"""What every metric that streams has in common: states that add up and travel between processes."""

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from defect_hub.evaluate_metrics.kernels.inputs import UndefinedMetricError

Arrays = Mapping[str, NDArray[Any]]
# Sums of fractions are kept as integers of this unit: unlike floats, they add up to the same in any order.
FIXED_POINT = 1 << 40
_KIND = "__state__"
_DIGEST_BYTES = 32


class MetricState(ABC):
    """The state of a streaming metric.

    `merge` in any order, over any split of the data, gives exactly the state of one pass. So states may be summed over
    processes, saved, and continued.
    """

    @abstractmethod
    def update(self, *args: Any, **kwargs: Any) -> None:
        """Take data, whose form differs from metric to metric; of a batch with a bad value, nothing."""

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Add what another state has seen."""

    @abstractmethod
    def compute(self) -> dict[str, Any]:
        """Return the metrics by name; those without a value are left out, with the reason under "undefined"."""

    @abstractmethod
    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return everything the state knows, settings included, as arrays."""

    @classmethod
    @abstractmethod
    def from_state_dict(cls, arrays: Arrays) -> Self:
        """Rebuild a state from its own `state_dict`; `from_bytes` checks what comes from elsewhere."""

    def to_bytes(self) -> bytes:
        """Serialise: a digest, then a compressed NumPy archive."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **{_KIND: np.array(type(self).__name__)}, **self.state_dict())
        return hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Rebuild a state from `to_bytes`.

        Raises:
            ValueError: the bytes are cut off or damaged, or the state of another metric.
        """
        digest, archive = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if hashlib.sha256(archive).digest() != digest:
            raise ValueError(f"the state of a {cls.__name__} is incomplete or damaged; compute it again")
        with np.load(io.BytesIO(archive), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        kind = str(arrays.pop(_KIND))
        if kind != cls.__name__:
            raise ValueError(f"expected the state of a {cls.__name__}, got that of a {kind}")
        return cls.from_state_dict(arrays)


def defined(metrics: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Compute metrics by name; those without a value on this data are left out, the reasons are in "undefined"."""
    values: dict[str, Any] = {}
    reasons = {}
    for name, metric in metrics.items():
        try:
            values[name] = metric()
        except UndefinedMetricError as error:
            reasons[name] = str(error)
    return values | ({"undefined": reasons} if reasons else {})


def share(part: int | np.int64, total: int | np.int64, reason: str) -> float:
    """Quotient of counts.

    Raises:
        UndefinedMetricError: the total is 0; it says the reason.
    """
    if not total:
        raise UndefinedMetricError(reason)
    return float(part / total)
