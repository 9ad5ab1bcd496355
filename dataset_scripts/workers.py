"""Work in several processes with results in order and bounded memory."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Like `map`, in worker processes of one thread each; at most two items a worker are in flight.

    The threads of linear algebra would spin against the other workers, and results would pile up in memory.

    Args:
        function: A function that pickles.
        items: Its arguments.
        workers: Number of processes; with 1 the work is done here.
    """
    if workers == 1:
        with threadpool_limits(1):
            yield from map(function, items)
        return
    with ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(os.getpid(),)) as pool:
        source = iter(items)
        waiting: deque[Future[Result]] = deque(pool.submit(function, item) for item in islice(source, 2 * workers))
        try:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(source, 1))
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker(main_process: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle.
    threading.Thread(target=_end_with, args=(main_process,), daemon=True).start()
    threadpool_limits(1)


def _end_with(main_process: int) -> None:
    """End this worker when the main process is gone: killed outright, it leaves workers that wait for ever."""
    while os.getppid() == main_process:
        time.sleep(1)
    os._exit(1)


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one perhaps shorter."""
    source = iter(items)
    while chunk := list(islice(source, size)):
        yield chunk
