"""What a run will take, measured on two of its steps."""

import resource
import sys
from typing import Any

import torch

STEPS = 2
"""The first warms up, the second is measured."""


def estimate(
    seconds: float, waiting: float, total_steps: int, model: Any, optimizer: Any, device: torch.device
) -> str:
    """The estimate in words.

    Args:
        seconds: of the measured step.
        waiting: seconds of it that were spent waiting for data.
        total_steps: of the run.
        model: unwrapped.
        optimizer: after a step.
        device: of this process.

    Returns:
        Some lines of text.
    """
    states = [tensor for state in optimizer.state.values() for tensor in state.values() if torch.is_tensor(tensor)]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    written = sum(tensor.numel() * tensor.element_size() for tensor in [*states, *trained, *model.buffers()])
    lines = [
        f"one step: {seconds:.3g} s, of which {waiting:.3g} s waiting for data",
        f"{total_steps:,} steps: {_duration(seconds * total_steps)} without evaluations and checkpoints",
        f"peak memory of this process: {_peak_memory(device)}",
        f"one checkpoint: {written / 1e6:,.1f} MB",
    ]
    return "\n".join(["dry run, nothing is written:", *(f"  {line}" for line in lines)])


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours or minutes else f"{seconds:.0f} s"


def _peak_memory(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB on {torch.cuda.get_device_name(device)}"
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9:.2f} GB on the CPU"
