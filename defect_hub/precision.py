"""The number format in which a device runs models fastest."""

from __future__ import annotations

import time
from functools import cache

import torch

_SIDE = 768  # a matrix as large as those of ViT-B; smaller ones hide what the processor can do
_REPEATS = 5
_CLEAR_GAIN = 0.8
"""Share of float32's time; above it the gain is within the noise of a busy machine, and float32 is more exact."""


@cache
def fastest_dtype(device: str = "cpu") -> torch.dtype:
    """bfloat16 where this device multiplies matrices clearly faster in it, else float32; measured once, in some 50 ms.

    Processors with bfloat16 units (AMX, AVX512-BF16, Arm) and GPUs from Ampere on gain several times; others compute
    bfloat16 in float32 and lose as much. float16 is never chosen: the maps of some models overflow in it.

    Args:
        device: as torch names it, e.g. "cpu", "cuda".
    """
    if torch.device(device).type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float32
    seconds = {dtype: _seconds(dtype, device) for dtype in (torch.float32, torch.bfloat16)}
    return torch.bfloat16 if seconds[torch.bfloat16] <= _CLEAR_GAIN * seconds[torch.float32] else torch.float32


def _seconds(dtype: torch.dtype, device: str) -> float:
    """Least time of a product of two matrices; the least is what the device can do while it does nothing else."""
    left, right = torch.ones(2, _SIDE, _SIDE, dtype=dtype, device=device)
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        (left @ right)[0, 0].item()  # .item() waits for a GPU
        times.append(time.perf_counter() - start)
    return min(times)
