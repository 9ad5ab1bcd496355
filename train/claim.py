"""One run at a time in a folder."""

import fcntl
import os
from pathlib import Path

LOCK_FILE = ".lock"


def claim_folder(folder: Path) -> None:
    """Make a folder this process's own until it ends, however it ends; to be called once a process.

    The lock is the process's: its workers do not inherit it, and the system drops it with the process.

    Raises:
        ValueError: if another process has claimed it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / LOCK_FILE, os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written ({error.strerror}). Choose another folder") from error
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file)
        raise ValueError(
            f"{folder}: another run is using this folder. Wait for it, end it (also processes that outlived a killed "
            "launcher), or choose another folder"
        ) from error
