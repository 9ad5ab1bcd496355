"""Processes that tests may kill, forked from a server that has imported the heavy libraries already.

multiprocessing has one server, which imports what it was told when it started; so all users of it are named here.
"""

import os
from collections.abc import Callable
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.publishing.publisher", "tests.train.judged_run"])


def forked(target: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Return a process, not started yet, that calls `target`.

    The environment of all of them is that of the first, which starts the server.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
        forkserver.ensure_running()
    return _CONTEXT.Process(target=target, args=arguments)
