"""A publisher and her readers at a local Hub; all that they do is done by fresh processes."""

import itertools
import json
import os
import re
import socket
import subprocess
import sys
import sysconfig
import urllib.request
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from tests.hub.server import LocalHub

ROOT = Path(__file__).parents[2]
FRESH = Path(__file__).parent / "fresh"
PATIENCE_S = 300


class Scene:
    """Ada publishes from a folder in her home; readers have no token, and mostly not our package either.

    Attributes:
        hub: Where it is published.
        home: Of Ada; its name is in no published byte.
        desk: Her working folder, with what she publishes.
        said: What her commands printed.
        stranger: Python of an environment with all libraries but not our package.
    """

    user = "ada-secret"

    def __init__(self, hub: LocalHub, root: Path) -> None:
        self.hub = hub
        self.root = root
        self.home = root / "home-of-ada"
        self.desk = self.home / "defects"
        self.desk.mkdir(parents=True)
        self.said: list[str] = []
        self.stranger = make_stranger(root / "stranger")
        self._numbers = itertools.count(1)

    def folder(self) -> Path:
        """Return a new empty folder, outside of Ada's home."""
        made = self.root / f"reader-{next(self._numbers)}"
        made.mkdir()
        return made

    def publish(self, *arguments: str, place: Path | None = None) -> str:
        """Run `defect-hub publish` as Ada does, and return what it printed."""
        env = self.hub.env(self.home / ".cache" / "huggingface")
        env |= {"HOME": str(self.home), "USER": self.user, "LOGNAME": self.user}
        command = [sys.executable, "-P", "-m", "defect_hub.cli", "publish", *arguments]
        done = run(command, place or self.desk, env)
        self.said += [done.stdout, done.stderr]
        return printed(done)

    def environment(self, folder: Path, **variables: str) -> dict[str, str]:
        """Return the environment of a reader with the caches in `folder`."""
        return self.hub.env(folder / "cache", token=None) | variables

    def python(self, code: str | Path, *arguments: str, folder: Path, package: bool = False, **variables: str) -> str:
        """Run code as a reader does, in `folder`, with our package or without it; return the last line it printed."""
        source = [str(code)] if isinstance(code, Path) else ["-c", code]
        command = [sys.executable if package else str(self.stranger), "-P", *source, *arguments]
        lines = printed(run(command, folder, self.environment(folder, **variables))).splitlines()
        return lines[-1] if lines else ""

    def json(self, script: str, *arguments: str, folder: Path, **variables: str) -> Any:
        """Run a script of fresh/ without our package; return the JSON that it printed."""
        return json.loads(self.python(FRESH / script, *arguments, folder=folder, **variables))

    def shell(self, code: str, folder: Path, **variables: str) -> str:
        """Run what a card shows for a shell."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return printed(
            run(["bash", "-euo", "pipefail", "-c", code], folder, self.environment(folder, PATH=path, **variables))
        )

    def clone(self, kind: str, repo_id: str) -> Path:
        """Fetch a whole repository into a new folder."""
        folder = self.folder() / "clone"
        with pytest.MonkeyPatch.context() as patch:
            self.hub.attach(patch)
            self.hub.api(token=False).snapshot_download(repo_id, repo_type=kind, local_dir=folder)
        return folder

    @contextmanager
    def serving(self, app: Path, **variables: str) -> Iterator[str]:
        """Run the app of a Space's clone with our package; yields its address."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        variables = {"GRADIO_SERVER_PORT": port, "GRADIO_ANALYTICS_ENABLED": "False", "DEFECT_HUB_MODEL": ""}
        env = self.environment(app.parent.parent, **variables)
        with (app.parent.parent / "log").open("w") as log:
            server = subprocess.Popen([sys.executable, app.name], cwd=app.parent, env=env, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(server, url)
            yield url
        finally:
            server.terminate()
            server.wait()

    def card(self, kind: str, repo_id: str) -> str:
        """Return the README.md of a repository."""
        return self.hub.files(kind, repo_id)["README.md"].decode()


def make_stranger(folder: Path) -> Path:
    """Make an environment that sees our libraries; files that end in .pth, of our editable install, do not count."""
    venv.create(folder, symlinks=True, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def run(command: list[str], folder: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE_S)


def printed(done: subprocess.CompletedProcess[str]) -> str:
    """What a process printed; where it failed, so does the test, with what it said."""
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def wait_for(server: subprocess.Popen[bytes], url: str) -> None:
    """Wait until a server answers."""
    deadline = monotonic() + PATIENCE_S
    while server.poll() is None and monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            sleep(0.2)
    raise AssertionError(f"{url} does not answer, exit code {server.poll()}")


def blocks(card: str, language: str) -> list[str]:
    """The code that a card shows."""
    return re.findall(rf"^```{language}\n(.*?)^```", card, re.DOTALL | re.MULTILINE)
