import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.steeldefectx.hub import local_release

COMMIT = "0" * 40
REPO = "someone/SteelDefectX"


class HubHandler(BaseHTTPRequestHandler):
    """The two questions that a download asks a Hub: which files has a repository, and their content."""

    root: Path

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        path = self.path.split("?")[0]
        if path.startswith(f"/api/datasets/{REPO}/revision/"):
            self.send(json.dumps({"id": REPO, "sha": COMMIT, "siblings": []}).encode(), "application/json")
        elif path.startswith(f"/api/datasets/{REPO}/tree/"):
            files = sorted(file for file in self.root.rglob("*") if file.is_file())
            tree = [
                {
                    "type": "file",
                    "path": file.relative_to(self.root).as_posix(),
                    "size": file.stat().st_size,
                    "oid": "0",
                }
                for file in files
            ]
            self.send(json.dumps(tree).encode(), "application/json")
        elif path.startswith(f"/datasets/{REPO}/resolve/"):
            data = (self.root / path.split("/resolve/")[1].split("/", 1)[1]).read_bytes()
            self.send(data if with_body else b"", "application/octet-stream", data)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def send(self, body: bytes, kind: str, data: bytes | None = None) -> None:
        whole = body if data is None else data
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(whole)))
        self.send_header("ETag", f'"{sha256(whole).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub(release: Path) -> Iterator[str]:
    """Address of a local Hub that holds the release and a file that nobody needs."""
    (release / "notes").mkdir()
    (release / "notes" / "big.bin").write_bytes(b"x")
    handler = type("Handler", (HubHandler,), {"root": release})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def command(hub: str, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_ENDPOINT": hub, "HF_HOME": str(home)}
    full = [sys.executable, "-m", "defect_hub.cli", "data", *arguments]
    return subprocess.run(full, env=env, capture_output=True, text=True)


@pytest.mark.slow
def test_a_release_is_fetched_from_the_hub_by_its_id(hub: str, release: Path, tmp_path: Path) -> None:
    home, out = tmp_path / "home", tmp_path / "steeldefectx"
    built = command(hub, home, "build", "steeldefectx", "--raw", REPO, "--out", str(out))
    assert built.returncode == 0, built.stderr
    assert "train 12, val 5 images" in built.stdout
    local = command(hub, home, "build", "steeldefectx", "--raw", str(release), "--out", str(tmp_path / "local"))
    assert built.stdout.split("digest")[1] == local.stdout.split("digest")[1]
    assert not list(home.rglob("big.bin"))


@pytest.mark.slow
def test_an_unknown_repository_is_one_line(hub: str, tmp_path: Path) -> None:
    built = command(hub, tmp_path / "home", "build", "steeldefectx", "--raw", "no/such", "--out", str(tmp_path / "x"))
    assert built.returncode == 2
    error = built.stderr.splitlines()[-1]
    assert error.startswith("error: no/such: raw: is no local folder and cannot be fetched (RepositoryNotFoundError")
    assert error.endswith("or give a local folder")


def test_a_local_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someone" / "SteelDefectX").mkdir(parents=True)
    assert local_release(REPO) == Path(REPO)
    assert local_release("not a repository id") == Path("not a repository id")


def test_offline_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="cannot be fetched"):
        local_release(REPO)
