"""Bytes of several processes to the first: here threads stand for them, `test_processes` has real ones."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from defect_hub.evaluate_metrics.exchange import Exchange


def member(folder: Path, process_id: int, n: int = 2, timeout: float = 20) -> Exchange:
    return Exchange(folder, "run [1]", n, process_id, timeout)


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("late", [0, 1])
def test_every_round_brings_the_bytes_of_that_round_once(tmp_path, n, late):
    def run(process_id: int) -> list[list[bytes] | None]:
        exchange = member(tmp_path, process_id, n)
        found = []
        for number in range(5):
            if process_id == late:
                time.sleep(0.05)
            found.append(exchange.gather(f"{process_id}:{number}".encode()))
        return found

    with ThreadPoolExecutor(n) as pool:
        first, *others = pool.map(run, range(n))
    assert first == [[f"{process_id}:{number}".encode() for process_id in range(n)] for number in range(5)]
    assert others == [[None] * 5] * (n - 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("process_id", "missing"), [(0, r"processes \[1\] of 2"), (1, "process 0 of 2")])
def test_a_missing_process_is_an_error_after_the_timeout(tmp_path, process_id, missing):
    with pytest.raises(ValueError, match=f"{missing} did not hand over within 0.1 seconds"):
        member(tmp_path, process_id, timeout=0.1).gather(b"own")
    assert list(tmp_path.iterdir()) == []


def test_what_an_earlier_run_left_behind_is_not_taken(tmp_path):
    (tmp_path / "run [1]-2-0-1-old.answer").write_bytes(b"0" * 32 + b"stale")
    (tmp_path / "run [1]-2-0-1-cut.answer").write_bytes(b"")
    (tmp_path / "run [1]-2-0.call").write_bytes(b"0" * 32)
    with pytest.raises(ValueError, match="did not hand over"):
        member(tmp_path, 0, timeout=0.1).gather(b"own")


def test_the_call_of_a_killed_process_0_is_answered_again_when_it_is_started_again(tmp_path):
    (tmp_path / "run [1]-2-0.call").write_bytes(b"0" * 32)
    answering = threading.Thread(target=member(tmp_path, 1).gather, args=(b"one",))
    answering.start()
    while not list(tmp_path.glob("*.answer")):
        time.sleep(0.01)
    assert member(tmp_path, 0).gather(b"zero") == [b"zero", b"one"]
    answering.join(timeout=20)
    assert not answering.is_alive()


def test_two_processes_of_one_id_are_refused(tmp_path):
    call = tmp_path / "run [1]-3-0.call"

    def answers() -> int:
        return sum(file.read_bytes()[:32] == call.read_bytes() for file in tmp_path.glob("*.answer"))

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(member(tmp_path, 0, n=3).gather, b"zero")
        for _ in range(2):
            pool.submit(member(tmp_path, 1, n=3, timeout=1).gather, b"one")
        while not call.exists() or answers() < 2:
            time.sleep(0.01)
        pool.submit(member(tmp_path, 2, n=3, timeout=1).gather, b"two")
        with pytest.raises(ValueError, match="several processes have the process_id 1"):
            first.result(timeout=20)
