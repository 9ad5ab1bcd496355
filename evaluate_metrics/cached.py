"""The base of `evaluate` modules that keep their samples, in the cache files of `evaluate`."""

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import datasets
import evaluate

from defect_hub.evaluate_metrics.exchange import Exchange

_INPUTS = """
Args:
    predictions: one anomaly score per image (any range, higher is more anomalous).
    references: 1 (or True) for a defective image, 0 for a normal one.
"""


def score_info(description: str, outputs: str) -> evaluate.MetricInfo:
    """Describe a metric of one score and one label per image.

    Args:
        description: the metric in one sentence.
        outputs: names and ranges of what `compute` returns.
    """
    return evaluate.MetricInfo(
        description=description,
        citation="",
        inputs_description=f"{_INPUTS}{outputs}\n",
        features=datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}),
    )


class CachedMetric(evaluate.Metric, ABC):
    """A metric of samples (numbers and texts) that wait in a cache file.

    With `num_process > 1` each process has a cache file of its own, and hands its samples to process 0 in `compute`
    (`exchange`). Process 0 fails if one is missing or killed, and alone returns a result.
    """

    def __init__(
        self,
        *args: Any,
        num_process: int = 1,
        process_id: int = 0,
        experiment_id: str | None = None,
        timeout: float = 100,
        **settings: Any,
    ) -> None:
        if not 0 <= process_id < num_process:
            raise ValueError(f"process_id must be from 0 to num_process - 1 = {num_process - 1}, got {process_id}")
        if num_process == 1:
            super().__init__(*args, experiment_id=experiment_id, **settings)
            return
        # `evaluate` knows of this process only.
        super().__init__(*args, experiment_id=f"{experiment_id or 'default'}-{process_id}", **settings)
        self._exchange = Exchange(Path(self.data_dir), experiment_id or "default", num_process, process_id, timeout)
        self._compute_all, self._compute = self._compute, self._gather_and_compute  # type: ignore[method-assign]

    @abstractmethod
    def _info(self) -> evaluate.MetricInfo:
        """Describe the metric and its inputs."""

    @abstractmethod
    def _compute(self, *_: Any, **inputs: Any) -> dict[str, Any] | None:
        """Return the metric of all samples; the inputs are the features and the options given to `compute`."""

    def compute(self, **inputs: Any) -> dict[str, Any] | None:
        """Return the metric of everything added (None on all processes but the first), and start afresh.

        Raises:
            ValueError: with several processes, one did not arrive in time or was killed; or what the metric says.
        """
        try:
            return super().compute(**inputs)
        except BaseException:
            # `evaluate` keeps file and lock when a metric fails: its next samples would wait for the lock.
            self.data = None
            for lock, path in zip(self.filelocks or (), self.file_paths or (), strict=True):
                Path(path).unlink(missing_ok=True)
                lock.release()
            raise

    def _gather_and_compute(self, **inputs: Any) -> dict[str, Any] | None:
        """Return the metric of the samples of all processes, on process 0; None on the others."""
        own = {name: inputs.pop(name) for name in self._feature_names()}
        gathered = self._exchange.gather(json.dumps(own).encode())
        if gathered is None:
            return None
        parts = [json.loads(part) for part in gathered]
        samples = {name: [sample for part in parts for sample in part[name]] for name in own}
        return self._compute_all(**samples, **inputs)
