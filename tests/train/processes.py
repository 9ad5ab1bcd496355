"""Several processes of one run, forked: what they import is there already."""

import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from tests.fork_server import forked


def run_together(
    processes: int, function: Callable[[Accelerator], Any], timeout: float = 60, trains: bool = False
) -> list[Any]:
    """What a function returns in each of the processes, or the error that it raises.

    Args:
        processes: joined by gloo; with 1 there is nothing to join.
        function: gets the accelerator of its process.
        timeout: in seconds. Whoever is not done by then hangs: all are ended, and the test fails.
        trains: whether the function has gradients computed. A fork cannot do that once another test in its parent has
            compiled a model, so these processes come from the fork server, and the function must be picklable.
    """
    context = multiprocessing.get_context("fork")
    started, results = [], []
    until = time.monotonic() + timeout
    with tempfile.TemporaryDirectory() as meeting:
        for rank in range(processes):
            receiver, sender = context.Pipe(duplex=False)
            arguments = (rank, processes, f"file://{meeting}/place", function, sender)
            process = forked(_process, *arguments) if trains else context.Process(target=_process, args=arguments)
            process.daemon = True
            process.start()
            sender.close()
            started.append((process, receiver))
        try:
            for rank, (_, receiver) in enumerate(started):
                if not receiver.poll(max(0.0, until - time.monotonic())):
                    pytest.fail(f"process {rank} of {processes} hangs: nothing after {timeout} seconds")
                results.append(receiver.recv())
        finally:
            for process, _ in started:
                process.kill()
                process.join()
    return results


def _process(
    rank: int, processes: int, meeting: str, function: Callable[[Accelerator], Any], results: Connection
) -> None:
    torch.set_num_threads(1)
    AcceleratorState._reset_state(reset_partial_state=True)  # that of the test, which was forked along
    GradientState._reset_state()
    if processes > 1:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        os.environ |= {name: str(value) for name, value in names.items()}
        torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
    try:
        accelerator = Accelerator(cpu=True)
        assert accelerator.num_processes == processes
        results.send(function(accelerator))
    except Exception as error:
        traceback.print_exc()
        results.send(error)
    signal.pause()  # until the test has all results: the others may still be reading from this process
