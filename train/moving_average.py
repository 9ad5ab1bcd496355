"""Exponential moving average (EMA) of the trained weights, for evaluation and the final model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class MovingAverage:
    """Averages of the trained parameters alone: a frozen base of 7 billion is not kept twice.

    torch's `AveragedModel` copies the whole module. The decay rises from 0.1 to its full value over the first steps,
    so that the average does not hang on to the initial weights.

    Args:
        model: unwrapped, on its device, with `requires_grad` as it is trained.
        decay: share of the old average that a step keeps, 0-1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.averages = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an optimiser step."""
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 9))
        torch._foreach_lerp_(list(self.averages.values()), list(self.parameters.values()), 1 - decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The model has the averages as its weights inside this context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """The averages become the model's weights for good."""
        for name, parameter in self.parameters.items():
            parameter.copy_(self.averages[name])

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            weights = parameter.detach().clone()
            parameter.copy_(self.averages[name])
            self.averages[name].copy_(weights)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"steps": self.steps, "averages": self.averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.steps = state["steps"]
        for name, average in state["averages"].items():
            self.averages[name].copy_(average)
