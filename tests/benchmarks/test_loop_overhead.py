"""What the training loop costs: a bound on every run of the tests, and that the measurement sees a slow loop."""

import time

import pytest
import torch

from defect_hub.benchmarks.loop_overhead import CALLS, SmallNetwork, as_markdown, measure, small_batches
from defect_hub.train.progress import Progress

STEPS = 8


@pytest.fixture
def measured(tmp_path):
    """Of a network whose step takes some tens of milliseconds on one thread."""

    def run():
        torch.manual_seed(0)
        return measure(SmallNetwork(width=1024), small_batches(2, 256), STEPS, 256, tmp_path / "run")

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the processor time of several would make the calls seem longer than they are
    yield run
    torch.set_num_threads(threads)


def test_the_loop_costs_little(measured):
    found = measured()
    assert found["weights_apart"] == 0  # both loops did the same work
    assert found["steps"] == STEPS
    shares = found["shares"]
    assert 0 < shares["outside"] < 0.25
    assert sum(shares[name] for name in CALLS) + shares["outside"] == pytest.approx(1, abs=0.15)


def test_a_slow_loop_is_seen(measured, monkeypatch):
    step = Progress.step

    def slow(*args, **kwargs):
        start = time.process_time()
        while time.process_time() < start + 0.03:
            pass
        step(*args, **kwargs)

    monkeypatch.setattr(Progress, "step", slow)
    found = measured()
    assert found["shares"]["outside"] > 0.25
    assert found["shares"]["bare"] < 0.85


def test_table_holds_the_measured_figures():
    shares = {"forward": 0.3, "backward": 0.5, "clip": 0.05, "update": 0.1, "outside": 0.05, "bare": 0.96}
    found = {"seconds": 0.2, "shares": shares}
    assert as_markdown({"net": found}).splitlines()[-1] == (
        "| net | 200.0 ms | 30.0% | 50.0% | 5.0% | 10.0% | 5.0% | 96.0% |"
    )
