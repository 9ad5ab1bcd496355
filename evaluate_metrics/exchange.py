"""How the processes of one evaluation hand what they have counted to process 0: by files in a folder they share.

The files of `evaluate` itself are not used for it. Their readers take what a killed process has written so far for all
of it, a process that computes again may write over what it handed in before, and where process 0 comes late, processes
take each other's test of its lock for the lock, and do not wait for it.
"""

import glob
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

_POLL_SECONDS = 0.02


class Exchange:
    """Brings bytes of all processes to process 0, at each call of `gather`, which all of them make equally often.

    Process 0 writes a call with a token that nobody used before; the others answer it with the token and their bytes,
    in a file that gets its name when it is complete. So what a killed process has begun, or an earlier run has left
    behind, is never taken.

    Args:
        folder: of all processes.
        experiment_id: of the run; two runs at a time need two.
        num_process: number of processes.
        process_id: of this one, from 0.
        timeout: seconds to wait for the others.
    """

    def __init__(self, folder: Path, experiment_id: str, num_process: int, process_id: int, timeout: float) -> None:
        self.folder = folder
        self.experiment_id = experiment_id
        self.num_process = num_process
        self.process_id = process_id
        self.timeout = timeout
        self._round = 0

    def gather(self, data: bytes) -> list[bytes] | None:
        """Return the bytes of all processes by their id, on process 0; None on the others, once it has theirs.

        Raises:
            ValueError: a process did not come in time, or two have the same id.
        """
        stem = f"{self.experiment_id}-{self.num_process}-{self._round}"
        self._round += 1
        call = self.folder / f"{stem}.call"
        if self.process_id == 0:
            return [data, *self._collect(call, stem)]
        self._answer(call, self.folder / f"{stem}-{self.process_id}-{uuid4().hex}.answer", data)
        return None

    def _collect(self, call: Path, stem: str) -> list[bytes]:
        token = uuid4().hex.encode()
        answers: dict[int, list[Path]] = {}
        _write(call, token)
        try:
            for _ in self._wait():
                for process_id in range(1, self.num_process):
                    files = self.folder.glob(f"{glob.escape(stem)}-{process_id}-*.answer")
                    answers[process_id] = [file for file in files if _starts_with(file, token)]
                if all(answers.values()):
                    break
            else:
                missing = [process_id for process_id, files in answers.items() if not files]
                raise ValueError(f"processes {missing} of {self.num_process} {self._late()}")
            doubled = [process_id for process_id, files in answers.items() if len(files) > 1]
            if doubled:
                raise ValueError(f"several processes have the process_id {doubled[0]}; give each its own")
            found = [files[0] for files in answers.values()]
            data = [file.read_bytes()[len(token) :] for file in found]
            for file in found:
                file.unlink()
            return data
        finally:
            call.unlink(missing_ok=True)

    def _answer(self, call: Path, answer: Path, data: bytes) -> None:
        """Answer the call, again if process 0 is started again, until it has taken the answer away."""
        answered = None
        try:
            for _ in self._wait():
                if answered is not None and not answer.exists():
                    return
                token = _read(call)
                if token not in (None, answered):
                    _write(answer, token + data)
                    answered = token
            raise ValueError(f"process 0 of {self.num_process} {self._late()}")
        finally:
            answer.unlink(missing_ok=True)

    def _wait(self) -> Iterator[None]:
        deadline = time.monotonic() + self.timeout
        while True:
            yield
            if time.monotonic() > deadline:
                return
            time.sleep(_POLL_SECONDS)

    def _late(self) -> str:
        return (
            f"did not hand over within {self.timeout} seconds (experiment_id {self.experiment_id} in {self.folder}): "
            "killed, late, or of another experiment_id; run all again, or with a longer timeout"
        )


def _write(path: Path, data: bytes) -> None:
    """Write a file that is there entirely, or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _starts_with(path: Path, token: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(token)) == token
    except FileNotFoundError:
        return False
