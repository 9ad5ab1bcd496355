"""The base of `evaluate` modules that keep a histogram instead of the maps they are given."""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import datasets
import evaluate
import numpy as np

from defect_hub.evaluate_metrics.kernels import ScoreHistogram


class StreamingMetric(evaluate.Metric, ABC):
    """A metric of maps and masks in constant memory: `add_batch` counts, nothing is written until `compute`.

    With `num_process > 1` each process hands over its counts in `compute`, by the cache files of `evaluate`; process 0
    waits `timeout` seconds for the others, fails if one is missing, and alone returns a result.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reset()

    def __len__(self) -> int:
        return self._n_images

    @abstractmethod
    def result(self, histogram: ScoreHistogram) -> dict[str, float]:
        """Return the metric of all counted pixels."""

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Count one map and its mask."""
        self.add_batch(predictions=[prediction], references=[reference], **kwargs)

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Count maps and their masks; the first axis is the image, sizes may differ between images.

        Raises:
            ValueError: a map and its mask differ in size, a score is NaN, or a mask value is neither 0 nor 1.
        """
        if kwargs:
            raise ValueError(f"unknown inputs {sorted(kwargs)}; give predictions and references")
        for score_map, mask in zip(predictions, references, strict=True):
            self._histogram.update(score_map, mask)
            self._n_images += 1

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, float] | None:
        """Return the metric of everything added (None on all processes but the first), and start afresh."""
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references, **kwargs)
        histogram = self._histogram
        self._reset()
        if self.num_process > 1:
            states = self._exchange().compute(states=[_to_bytes(histogram)])
            if states is None:
                return None
            histogram = _merged(states["states"])
        return self.result(histogram)

    def _reset(self) -> None:
        self._histogram = ScoreHistogram()
        self._n_images = 0

    def _exchange(self) -> "_States":
        # The metric's name keeps modules of one experiment apart.
        return _States(
            config_name=self.name,
            cache_dir=self._data_dir_root,
            num_process=self.num_process,
            process_id=self.process_id,
            experiment_id=self.experiment_id,
            timeout=self.timeout,
        )


class _States(evaluate.Metric):
    """Carries one state per process to process 0."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"states": datasets.Value("binary")})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, states: list[bytes]) -> dict[str, list[bytes]]:
        return {"states": states}


def _to_bytes(histogram: ScoreHistogram) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **histogram.state_dict())
    return buffer.getvalue()


def _merged(states: Iterable[bytes]) -> ScoreHistogram:
    total = ScoreHistogram()
    for state in states:
        part = ScoreHistogram()
        part.load_state_dict(dict(np.load(io.BytesIO(state), allow_pickle=False)))
        total.merge(part)
    return total
