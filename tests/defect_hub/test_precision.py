import time

import pytest
import torch

from defect_hub.precision import fastest_dtype


def seconds(dtype: torch.dtype) -> float:
    """Least time of a layer as in ViT-B, by another measure than the function's own."""
    layer = torch.nn.Linear(896, 3584, dtype=dtype)
    tokens = torch.ones(226, 896, dtype=dtype)
    times = []
    with torch.no_grad():
        for _ in range(7):
            start = time.perf_counter()
            layer(tokens)
            times.append(time.perf_counter() - start)
    return min(times)


def test_the_faster_format_is_chosen():
    """Only where the two are clearly apart, so that a busy machine cannot fail it."""
    ratio = seconds(torch.bfloat16) / seconds(torch.float32)
    chosen = fastest_dtype("cpu")
    assert chosen in (torch.float32, torch.bfloat16)
    if ratio > 1.7:
        assert chosen == torch.float32
    elif ratio < 0.6:
        assert chosen == torch.bfloat16


def test_it_is_measured_once():
    fastest_dtype("cpu")
    before = fastest_dtype.cache_info()
    fastest_dtype("cpu")
    after = fastest_dtype.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)


@pytest.mark.parametrize(("share", "expected"), [(0.7, torch.bfloat16), (0.9, torch.float32), (1.5, torch.float32)])
def test_bfloat16_must_gain_clearly(monkeypatch, share, expected):
    """A clock by which a product takes 1 s in float32."""
    now = [0.0]
    multiply = torch.Tensor.__matmul__

    def slow(left, right):
        now[0] += share if left.dtype == torch.bfloat16 else 1
        return multiply(left, right)

    monkeypatch.setattr(torch.Tensor, "__matmul__", slow)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    assert fastest_dtype("cpu:0") == expected  # a name that no other test measures
    fastest_dtype.cache_clear()
