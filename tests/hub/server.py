"""The local Hub: a server on a loopback port, kept on disk, in a thread of the test's process.

A thread, so that a test sees the log and sets faults as plain objects; the clients that a test kills are processes.
"""

import os
import socket
import threading
import time
from pathlib import Path
from typing import Any, Self

import uvicorn
from huggingface_hub import HfApi, constants
from pytest import MonkeyPatch
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.hub import collections, discussions, files, repositories, uploads
from tests.hub.access import Account, State
from tests.hub.faults import Faults, Log, Watched
from tests.hub.storage import HubError, Repo

WRITE, READ, STRANGER = "hf_localwritetoken", "hf_localreadtoken", "hf_localstrangertoken"


async def refuse(request: Request, error: Exception) -> Response:
    """Answer as the Hub does where something is wrong."""
    assert isinstance(error, HubError)
    headers = {
        "X-Error-Message": " ".join(error.message.split()).encode("ascii", "replace").decode(),
        **error.more.pop("headers", {}),
    }
    if error.code:
        headers["X-Error-Code"] = error.code
    return JSONResponse({"error": error.message, **error.more}, error.status, headers)


class LocalHub:
    """A Hub of its own for one test, with the user `tester`, a member of the organisation `org`.

    Attributes:
        url: Its address, for `HF_ENDPOINT`.
        root: The folder with all it has.
        token: A token that may write; `read_token` may read all of `org`, `stranger_token` only what is public.
        accounts: Token -> account; a test may add or change them.
        faults: What shall go wrong.
        log: All requests.
        state: Sizes of upload parts and of pages.
    """

    token, read_token, stranger_token = WRITE, READ, STRANGER

    def __init__(self, root: Path) -> None:
        self.root = root
        self.faults = Faults()
        self.log = Log()
        self.accounts = {
            WRITE: Account("tester", "write", ["org"]),
            READ: Account("tester", "read", ["org"]),
            STRANGER: Account("stranger", "none"),
        }
        self.socket = socket.create_server(("127.0.0.1", 0))
        # Connections inherit it; otherwise each answer waits some 40 ms for an acknowledgement.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.state = State(root, self.url, self.accounts)
        modules = (repositories, uploads, discussions, collections, files)
        app = Starlette(
            routes=[route for module in modules for route in module.ROUTES], exception_handlers={HubError: refuse}
        )
        app.state.hub = self.state
        watched = Watched(app, self.faults, self.log)
        # h11, for its exact control of the connection; no proxy headers, for the same reason.
        config = uvicorn.Config(watched, http="h11", lifespan="off", proxy_headers=False, log_config=None)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],), daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = self.server.force_exit = True
        self.thread.join()
        self.socket.close()

    def env(self, home: Path, token: str | None = WRITE) -> dict[str, str]:
        """Return the whole environment of a fresh process that uses this Hub, with its caches in `home`."""
        theirs = ("HF_", "HUGGING", "TRANSFORMERS_")
        own = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
        own |= {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        own |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        return own if token is None else own | {"HF_TOKEN": token}

    def attach(self, monkeypatch: MonkeyPatch) -> None:
        """Let `huggingface_hub` in this process use this Hub: what it read from the environment is set anew.

        `datasets`, `transformers` and `evaluate` keep what they read when imported: they need a fresh process.
        """
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", self.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setenv("HF_TOKEN", self.token)

    def api(self, token: str | bool = WRITE) -> HfApi:
        """Return a client in this process; False: without a token."""
        return HfApi(self.url, token)

    def repo(self, kind: str, repo_id: str) -> Repo:
        """Return what is on the disk of a `model`, `dataset` or `space`."""
        return self.state.repo(kind, repo_id)

    def files(self, kind: str, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """Return every file of a revision by its path."""
        repo = self.repo(kind, repo_id)
        tree = repo.commit(repo.resolve(revision))["tree"]
        return {path: repo.content_path(entry).read_bytes() for path, entry in tree.items()}

    def commits(self, kind: str, repo_id: str, revision: str = "main") -> list[dict[str, Any]]:
        """Return the commits of a revision (`oid`, `title`, `message`, `author`, `tree`), newest first."""
        repo = self.repo(kind, repo_id)
        return list(repo.history(repo.resolve(revision)))
