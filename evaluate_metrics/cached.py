"""The base of `evaluate` modules that keep their samples, in the cache files of `evaluate`."""

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import datasets
import evaluate

from defect_hub.evaluate_metrics.exchange import Exchange
from defect_hub.evaluate_metrics.kernels.inputs import check_scores, check_targets, flat_pair

_SCORE_INPUTS = """
Args:
    predictions: {}.
    references: 1 (or True) for a defective image, 0 for a normal one.
"""
_TEXT_INPUTS = """
Args:
    predictions: one text per image.
    references: one text per image, or a list of one or more.
"""


def score_info(
    description: str,
    outputs: str,
    predictions: str = "one anomaly score per image (any range, higher is more anomalous)",
) -> evaluate.MetricInfo:
    """Describe a metric of one score and one label per image.

    Args:
        description: the metric in one sentence.
        outputs: names and ranges of what `compute` returns; options of `compute` before it.
        predictions: what the scores are.
    """
    return evaluate.MetricInfo(
        description=description,
        citation="",
        inputs_description=f"{_SCORE_INPUTS.format(predictions)}{outputs}\n",
        features=datasets.Features({"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}),
    )


def text_info(description: str, outputs: str) -> evaluate.MetricInfo:
    """Describe a metric of one text, and one or several reference texts, per image.

    Args:
        description: the metric in one sentence.
        outputs: names and ranges of what `compute` returns; options of `compute` before it.
    """
    text = datasets.Value("string")
    return evaluate.MetricInfo(
        description=description,
        citation="",
        inputs_description=f"{_TEXT_INPUTS}{outputs}\n",
        features=[
            datasets.Features({"predictions": text, "references": references})
            for references in (datasets.List(text), text)
        ],
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

    def add_batch(self, *, predictions: Any = None, references: Any = None, **more: Any) -> None:
        """Keep samples; a batch may be empty.

        Raises:
            ValueError: an input is missing, or of another kind than the metric takes.
        """
        given = {"predictions": predictions, "references": references, **more}
        if all(values is not None and not len(values) for values in given.values()):
            return
        missing = [name for name in self._feature_names() if given.get(name) is None]
        if missing:
            raise ValueError(f"give {' and '.join(missing)}: each sample needs {', '.join(self._feature_names())}")
        super().add_batch(predictions=predictions, references=references, **more)

    def compute(self, **inputs: Any) -> dict[str, Any] | None:
        """Return the metric of everything added (None on all processes but the first), and start afresh.

        Raises:
            ValueError: with several processes, one did not arrive in time or was killed; or what the metric says.
        """
        samples = {name: inputs.get(name) for name in self._feature_names()}
        if self.writer is None and all(values is None or not len(values) for values in samples.values()):
            # `evaluate` has no file to read then; other processes may have samples.
            return self._compute(**inputs | {name: [] for name in samples})
        try:
            return super().compute(**inputs)
        except BaseException:
            self._forget()
            raise

    def _forget(self) -> None:
        """Drop what `evaluate` keeps when it fails: the samples, and the lock that the next ones would wait for."""
        if self.writer is not None:
            self._finalize()
        self.data = self.cache_file_name = self.filelock = self.selected_feature_format = None
        for lock, path in zip(self.filelocks or (), self.file_paths or (), strict=True):
            # Others may have taken the file of an earlier `compute`.
            if lock.is_locked:
                Path(path).unlink(missing_ok=True)
                lock.release()

    def _gather_and_compute(self, **inputs: Any) -> dict[str, Any] | None:
        """Return the metric of the samples of all processes, on process 0; None on the others."""
        own = {name: inputs.pop(name) for name in self._feature_names()}
        gathered = self._exchange.gather(json.dumps(own).encode())
        if gathered is None:
            return None
        parts = [json.loads(part) for part in gathered]
        samples = {name: [sample for part in parts for sample in part[name]] for name in own}
        return self._compute_all(**samples, **inputs)


class ScoreMetric(CachedMetric):
    """A metric of one score and one label per image; a batch with a bad value is refused before it is kept."""

    def check(self, predictions: Any, references: Any) -> None:
        """Raise ValueError for scores or labels that the metric would refuse."""
        scores, targets = flat_pair(predictions, references)
        check_scores(scores)
        check_targets(targets)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Keep one sample; raises ValueError for a bad value."""
        # `evaluate.combine` gives a sample under the names of batches.
        self.check(kwargs.get("predictions", prediction), kwargs.get("references", reference))
        super().add(prediction=prediction, reference=reference, **kwargs)

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Keep samples; of a batch with a bad one, none (ValueError)."""
        self.check(predictions, references)
        super().add_batch(predictions=predictions, references=references, **kwargs)
