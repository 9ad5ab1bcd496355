"""Metrics over real processes, some of them killed: the result is exactly that of one process, or an error."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tests.evaluate_metrics.modules import EXPECTED, load, samples

pytestmark = pytest.mark.slow
SPAWN = multiprocessing.get_context("spawn")


def part_of(name: str, process_id: int, n: int, folder: Path, timeout: float = 100) -> Callable[[], dict | None]:
    """Add every n-th sample of a process; return what computes."""
    metric = load(name, num_process=n, process_id=process_id, cache_dir=str(folder), timeout=timeout)
    predictions, references = (values[process_id::n] for values in samples(name))
    metric.add_batch(predictions=predictions, references=references)
    return metric.compute


def compute_all(process_id: int, n: int, folder: Path, results: Connection) -> None:
    """Compute every metric twice."""
    results.send([part_of(name, process_id, n, folder)() for name in EXPECTED for _ in range(2)])


def compute_one(name: str, process_id: int, folder: Path, _: Connection) -> None:
    part_of(name, process_id, 2, folder)()


def die_before_computing(name: str, folder: Path, ready: Connection) -> None:
    part_of(name, 1, 2, folder)
    ready.send("added")
    os.kill(os.getpid(), signal.SIGKILL)


def die_while_writing(name: str, folder: Path, ready: Connection) -> None:
    compute = part_of(name, 1, 2, folder)

    def write_half(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
            file.flush()
            os.fsync(file.fileno())
            os.kill(os.getpid(), signal.SIGKILL)

    Path.write_bytes = write_half
    ready.send("added")
    compute()


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[BaseProcess, Connection]]]:
    """Start processes, each with a pipe to read from; those that still run at the end are killed."""
    started = []

    def _start(target: Callable[..., None], *args: object) -> tuple[BaseProcess, Connection]:
        receive, send = SPAWN.Pipe(duplex=False)
        started.append(SPAWN.Process(target=target, args=(*args, send)))
        started[-1].start()
        # Only the process holds it now: when it ends, reading ends too.
        send.close()
        return started[-1], receive

    yield _start
    for process in started:
        process.kill()
        process.join()


def wait_for(folder: Path, pattern: str) -> None:
    for _ in range(1200):
        if list(folder.rglob(pattern)):
            return
        time.sleep(0.05)
    raise AssertionError(f"no {pattern} in {folder} after a minute")


@pytest.mark.parametrize("n", [2, 4])
def test_processes_equal_one_exactly_and_again(n, tmp_path, start):
    pipes = [start(compute_all, process_id, n, tmp_path)[1] for process_id in range(n)]
    first, *others = (pipe.recv() for pipe in pipes)
    assert first == [EXPECTED[name] for name in EXPECTED for _ in range(2)]
    assert others == [[None] * len(first)] * (n - 1)


@pytest.mark.parametrize(
    ("name", "die"), [("image_auroc", die_before_computing), ("pixel_metrics", die_while_writing)]
)
def test_a_killed_process_is_an_error(name, die, tmp_path, start):
    first = part_of(name, 0, 2, tmp_path, timeout=3)
    killed, pipe = start(die, name, tmp_path)
    assert pipe.recv() == "added"
    with pytest.raises(ValueError, match=r"processes \[1\] of 2 did not hand over"):
        first()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    parts = [file.stat().st_size for file in tmp_path.rglob("*.part")]
    assert (len(parts) == 1 and parts[0] > 0) if die is die_while_writing else parts == []


def test_what_a_killed_run_left_behind_is_not_merged_into_the_next(tmp_path, start):
    name = "pixel_metrics"
    killed, _ = start(compute_one, name, 0, tmp_path)
    wait_for(tmp_path, "*.call")
    killed.kill()
    killed.join()
    # It answers the call of the dead process, in full, and is killed before anybody takes the answer.
    killed, _ = start(compute_one, name, 1, tmp_path)
    wait_for(tmp_path, "*.answer")
    killed.kill()
    killed.join()
    assert len(list(tmp_path.rglob("*.call"))) == len(list(tmp_path.rglob("*.answer"))) == 1

    with pytest.raises(ValueError, match=r"processes \[1\] of 2 did not hand over"):
        part_of(name, 0, 2, tmp_path, timeout=0.2)()
    start(compute_one, name, 1, tmp_path)
    assert part_of(name, 0, 2, tmp_path)() == EXPECTED[name]
