"""What all processes of a run do together: gather what each has, fail where one fails, wait for the main process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object


def gathered(items: list[Any], accelerator: Accelerator | None) -> list[Any]:
    """The items of all processes, on all processes, in the order of the processes; called by all."""
    return gather_object(items) if accelerator else items


@contextmanager
def failing_together(accelerator: Accelerator | None) -> Iterator[None]:
    """A block that all processes enter; if it fails on one, all raise once all have left it.

    Nothing inside may wait for other processes: the one that failed would not come.

    Args:
        accelerator: of the run; None: this process alone.

    Raises:
        ValueError: another process failed; it says how. The failed process raises its own error.
    """
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    told = " ".join(str(failure).split()) if failure else ""
    others = [text for text in gathered([told], accelerator) if text]
    if failure:
        raise failure
    if others:
        raise ValueError(others[0])


def patient_barrier(accelerator: Accelerator) -> Callable[[], None]:
    """A barrier for the end of a run, where the main process may work alone for hours; made by all processes together.

    Ordinary collectives give up after their time-out, and a launcher may end those that outlive the first to leave.
    """
    if accelerator.num_processes == 1:
        return lambda: None
    group: Any = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=7))

    def wait() -> None:
        torch.distributed.barrier(group)

    return wait
