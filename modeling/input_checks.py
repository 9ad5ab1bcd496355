"""Errors that name the input, where it would fail deep inside the network or pass in silence."""

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, GenerationMixin

MAX_NEW_TOKENS = 128
"""Room for the longest descriptions of the data sets; transformers would stop after 20."""


def check_shape(name: str, tensor: torch.Tensor, *sizes: int | None) -> None:
    """Refuse a tensor of another shape.

    Args:
        name: of the argument.
        tensor: that was given.
        sizes: of its axes; None: any.

    Raises:
        ValueError: with both shapes.
    """
    fits = tensor.dim() == len(sizes) and all(
        size is None or size == found for size, found in zip(sizes, tensor.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in sizes)
        raise ValueError(f"{name} is of shape ({', '.join(map(str, tensor.shape))}); give ({wanted})")


def why_not_finite(model: nn.Module, **inputs: torch.Tensor | None) -> str:
    """Where values that are not finite come from: an input, a weight, or the number format.

    Args:
        model: that gave them.
        inputs: what it was given, by what to call it.
    """
    for name, tensor in inputs.items():
        if tensor is not None and not torch.isfinite(tensor).all():
            return f"the values of the {name} are not finite; take them from the processor"
    for name, weight in (*model.named_parameters(), *model.named_buffers()):
        if not torch.isfinite(weight).all():
            return f"{name}: this weight holds NaN or infinity; load an undamaged checkpoint"
    return "the maps are not finite in the model's number format; load it in bfloat16 or float32"


def check_generate_options(names: Iterable[str]) -> None:
    """Refuse what `generate` does not take, where it is not called to say so itself.

    Raises:
        ValueError: with the unknown names.
    """
    known = inspect.signature(GenerationMixin.generate).parameters.keys() | vars(GenerationConfig()).keys()
    if unknown := sorted(set(names) - known):
        raise ValueError(f"{', '.join(unknown)}: no argument of `diagnose` or `generate`; correct the name")


def default_length(options: dict[str, Any], configured: GenerationConfig) -> dict[str, Any]:
    """Options of `generate` with a limit of new tokens, where neither they nor the checkpoint's own set one."""
    limits = ("max_new_tokens", "max_length")
    limited = any(getattr(configured, name, None) for name in limits)
    if limited or options.keys() & {*limits, "generation_config", "stopping_criteria"}:
        return options
    return options | {"max_new_tokens": MAX_NEW_TOKENS}
