"""The base of `evaluate` modules that count what they are given, and forget it."""

import inspect
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Generic, TypeVar

import evaluate

from defect_hub.evaluate_metrics.exchange import Exchange
from defect_hub.evaluate_metrics.kernels.states import MetricState

State = TypeVar("State", bound=MetricState)
_SETTINGS = inspect.signature(evaluate.EvaluationModule).parameters.keys()


class StreamingMetric(evaluate.Metric, ABC, Generic[State]):
    """A metric in constant memory: `add_batch` counts, nothing is written until `compute`.

    With `num_process > 1` each process hands its state to process 0 in `compute` (`exchange`). Process 0 waits
    `timeout` seconds for the others, fails if one is missing or killed, and alone returns a result: exactly that of a
    single process.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        # `evaluate` would ignore a setting with a typing error.
        unknown = settings.keys() - _SETTINGS
        if unknown:
            raise ValueError(f"unknown settings {sorted(unknown)} of {type(self).__name__}; see its card for options")
        super().__init__(*args, **settings)
        self._exchange: Exchange | None = None
        self._state: State | None = None
        self._n_samples = 0

    def __len__(self) -> int:
        return self._n_samples

    @abstractmethod
    def new_state(self) -> State:
        """Return the state of no samples."""

    def update(self, state: State, predictions: Any, references: Any) -> None:
        """Add a batch, the first axis is the sample; nothing is added if a value is bad."""
        state.update(predictions, references)

    @abstractmethod
    def result(self, state: State, *_: Any, **options: Any) -> dict[str, Any]:
        """Return the metrics by name; the options are those given to `compute`."""

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Count one sample."""
        # `evaluate.combine` gives a sample under the names of batches.
        sample = {"predictions": prediction, "references": reference, **kwargs}
        self.add_batch(**{name: None if value is None else [value] for name, value in sample.items()})

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Count samples; of a batch with a bad one, none.

        Raises:
            ValueError: an input is missing or unknown, the numbers of predictions and references differ, or what the
                metric says of bad values.
        """
        if kwargs:
            raise ValueError(f"unknown inputs {sorted(kwargs)}; give predictions and references only")
        missing = [name for name, value in (("predictions", predictions), ("references", references)) if value is None]
        if missing:
            raise ValueError(f"give {' and '.join(missing)}: each sample needs a prediction and a reference")
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions but {len(references)} references")
        if not len(predictions):
            return
        state = self.new_state() if self._state is None else self._state
        self.update(state, predictions, references)
        # Only now: a state without samples would hold on to the options of its time.
        self._state = state
        self._n_samples += len(predictions)

    def compute(self, *, predictions: Any = None, references: Any = None, **options: Any) -> dict[str, Any] | None:
        """Return the metrics of everything added (None on all processes but the first), and start afresh.

        Raises:
            ValueError: with several processes, one did not arrive in time or was killed; or see `add_batch`.
        """
        try:
            if predictions is not None or references is not None:
                self.add_batch(predictions=predictions, references=references)
            state = self.new_state() if self._state is None else self._state
        finally:
            self._state, self._n_samples = None, 0
        total = self._summed(state) if self.num_process > 1 else state
        return None if total is None else self.result(total, **options)

    def _summed(self, state: State) -> State | None:
        """The state of all processes together; None on all but the first."""
        if self._exchange is None:
            self._exchange = Exchange(
                Path(self.data_dir), self.experiment_id, self.num_process, self.process_id, self.timeout
            )
        gathered = self._exchange.gather(state.to_bytes())
        if gathered is None:
            return None
        total, *others = (type(state).from_bytes(data) for data in gathered)
        for other in others:
            total.merge(other)
        return total
