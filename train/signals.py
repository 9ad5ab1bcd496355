"""Leaving a run in an orderly way: a signal is remembered until the current step is done."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED_EXIT_CODE = 75  # EX_TEMPFAIL: run the same command again to go on
# SIGUSR1 is what schedulers send some minutes before they take the machine away.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def ignore_in_worker(worker: int) -> None:
    """For `DataLoader`: a signal to the whole group is the main process's to answer; it ends its workers itself."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(INTERRUPTED_EXIT_CODE)


@contextmanager
def leaving_on_signals() -> Iterator[None]:
    """Outside of the steps a signal ends the process at once, with the code that says: run the same command again."""
    previous = {number: signal.signal(number, _leave) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class StopSignal:
    """Remembers SIGINT, SIGTERM or SIGUSR1.

    Attributes:
        received: whether this process got one.
    """

    def __init__(self) -> None:
        self.received = False
        self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True

    def restore(self) -> None:
        """Give the signals back to their former handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
