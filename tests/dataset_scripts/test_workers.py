import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from defect_hub.dataset_scripts.workers import chunks, map_in_order


def slow_square(number: int) -> int:
    time.sleep(0.02 * (number % 3))
    return number * number


def fail_at_five(number: int) -> int:
    if number == 5:
        raise ValueError("five")
    return number


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order(workers: int) -> None:
    assert list(map_in_order(slow_square, range(20), workers)) == [number * number for number in range(20)]


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_the_work_are_raised(workers: int) -> None:
    with pytest.raises(ValueError, match="five"):
        list(map_in_order(fail_at_five, range(20), workers))


def test_few_items_are_taken_ahead() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = map_in_order(slow_square, items(), 2)
    assert next(results) == 0
    assert len(taken) <= 5
    results.close()  # type: ignore[attr-defined]


def test_chunks_hold_everything_once() -> None:
    assert list(chunks(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(chunks([], 3)) == []


@pytest.mark.slow
def test_an_interrupted_build_ends_quietly_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "defect_hub.cli", "data", "build", "steelsynth", "--n", "3000", "--workers", "2"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not any(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does: every process of the group
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_workers_end_with_a_main_process_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "defect_hub.cli", "data", "build", "steelsynth", "--n", "3000", "--workers", "2"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")], stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while len(group_of(process.pid)) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(group_of(process.pid)) >= 3
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while group_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert group_of(process.pid) == []


def group_of(leader: int) -> list[int]:
    """Processes of a group, without those that only wait to be collected."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # It ended meanwhile.
            continue
        if int(group) == leader and state != "Z":
            found.append(int(path.parent.name))
    return found
