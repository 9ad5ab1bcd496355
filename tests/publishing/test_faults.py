"""Publications during which something goes wrong at the Hub, on the way to it, or with the files."""

import random
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants

from defect_hub.publishing.hub import PublishError
from defect_hub.publishing.plan import MANIFEST
from defect_hub.publishing.staged import Staged
from defect_hub.publishing.upload import Target, publish
from tests.hub.server import LocalHub

REPO = "org/data"


def staged(build: int, *numbers: int) -> Staged:
    card = f"---\nlicense: mit\n---\n\n# Build {build}\n".encode()
    blobs = {f"data/{number}.weights": random.Random(f"{build} {number}").randbytes(5000) for number in numbers}
    return Staged("dataset", {"README.md": card, **blobs}, f"data: build {build}", owned=("data/*",))


FIRST, SECOND = staged(1, 0, 1, 2), staged(2, 1, 2, 3)


@dataclass(frozen=True)
class Case:
    """A publication: what is there before, and how it is published."""

    before: Staged | None = FIRST
    target: dict[str, Any] = field(default_factory=lambda: {"tag": "v1"})
    max_operations: int = 100
    part_size: int | None = None

    def publish(self) -> None:
        publish(SECOND, Target(REPO, **self.target), max_operations=self.max_operations)


REPLACEMENT = Case()
NEW = Case(before=None)
BRANCH = Case(target={"revision": "next"})
PROPOSAL = Case(target={"create_pr": True})
SERIES = Case(max_operations=3)
PARTS = Case(part_size=1000)
REQUESTS = {
    "repository": (REPLACEMENT, "GET", "^/api/datasets/org/data$"),
    "refs": (REPLACEMENT, "GET", "/refs$"),
    "revision": (REPLACEMENT, "GET", "/revision/"),
    "tree": (REPLACEMENT, "GET", "/tree/"),
    "manifest, its size": (REPLACEMENT, "HEAD", "/resolve/"),
    "manifest": (REPLACEMENT, "GET", "/resolve/"),
    "card": (REPLACEMENT, "POST", "/validate-yaml"),
    "preupload": (REPLACEMENT, "POST", "/preupload/"),
    "batch": (REPLACEMENT, "POST", "/objects/batch"),
    "content": (REPLACEMENT, "PUT", "^/lfs/"),
    "verify": (REPLACEMENT, "POST", "/lfs/verify"),
    "commit": (REPLACEMENT, "POST", "/commit/"),
    "tag": (REPLACEMENT, "POST", "/tag/"),
    "history": (NEW, "GET", "/commits/"),
    "creation": (NEW, "POST", "/repos/create"),
    "branch": (BRANCH, "POST", "/branch/"),
    "whoami": (PROPOSAL, "GET", "/whoami"),
    "proposals": (PROPOSAL, "GET", "/discussions$"),
    "proposal": (PROPOSAL, "POST", "/commit/"),
    "part of a series": (SERIES, "POST", "/commit/"),
    "merge": (SERIES, "POST", "/merge$"),
    "part of a file": (PARTS, "PUT", "^/lfs/"),
    "end of the parts": (PARTS, "POST", "^/lfs/"),
}
PASSING = {
    "broken off": {"drop_request_at": 60},
    "answer lost": {"drop_answer_at": 0},
    "408": {"status": 408},
    "503": {"status": 503},
}


@dataclass
class Bench:
    """The Hub with a case's repository."""

    hub: LocalHub
    case: Case

    def __post_init__(self) -> None:
        self.hub.state.part_size = self.case.part_size
        if self.case.before is not None:
            publish(self.case.before, Target(REPO))

    def files(self, revision: str = "main") -> dict[str, bytes]:
        repo = self.hub.repo("dataset", REPO)
        if not repo.exists:
            return {}
        found = self.hub.files("dataset", REPO, revision)
        return {path: data for path, data in found.items() if path not in (".gitattributes", MANIFEST)}

    def check_whole(self) -> None:
        """Everybody sees the old state or the new one."""
        assert self.files() in ({} if self.case.before is None else dict(FIRST.files), dict(SECOND.files))

    def check_done(self) -> None:
        """The publication is there, once."""
        settings = self.hub.repo("dataset", REPO).settings
        proposed = self.case in (PROPOSAL, SERIES)
        assert settings["discussions"].keys() == ({"1"} if proposed else set())
        place = "next" if self.case is BRANCH else "refs/pr/1" if proposed else "main"
        assert self.files(place) == dict(SECOND.files)
        if self.case is SERIES:
            assert self.files() == dict(SECOND.files)
        if self.case.target.get("tag"):
            assert self.files("v1") == dict(SECOND.files)
        place = "main" if self.case is SERIES else place
        assert len(self.hub.commits("dataset", REPO, place)) == (2 if self.case.before is None else 3)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody waits; how long they would have."""
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


def troubles() -> Iterator[Any]:
    for name, (case, method, path) in REQUESTS.items():
        for what, trouble in PASSING.items():
            if method in ("POST", "PUT") or "drop_request_at" not in trouble:  # What has no body cannot break off.
                yield pytest.param(case, method, path, trouble, id=f"{name}: {what}")


@pytest.mark.slow
@pytest.mark.parametrize(("case", "method", "path", "trouble"), troubles())
def test_a_trouble_passes(
    hub: LocalHub, waits: list[float], case: Case, method: str, path: str, trouble: dict[str, Any]
) -> None:
    bench = Bench(hub, case)
    fault = hub.faults.add(method, path, times=2, **trouble)
    case.publish()
    bench.check_done()
    # What was done although its answer was lost need not be done again.
    assert fault.hits == 2 or ("drop_answer_at" in trouble and fault.hits == 1)
    assert waits


def refusals() -> Iterator[Any]:
    for name, (case, method, path) in REQUESTS.items():
        for status in (401, 403, 404, 409, 503, 507):
            if status == 409 and name in ("creation", "branch", "tag"):
                continue  # It is there already: no trouble.
            yield pytest.param(case, method, path, status, id=f"{name}: {status}")


@pytest.mark.slow
@pytest.mark.parametrize(("case", "method", "path", "status"), refusals())
def test_what_does_not_pass_is_explained(
    hub: LocalHub,
    waits: list[float],
    capfd: pytest.CaptureFixture[str],
    case: Case,
    method: str,
    path: str,
    status: int,
) -> None:
    bench = Bench(hub, case)
    fault = hub.faults.add(method, path, times=None, status=status)
    with pytest.raises(PublishError) as caught:
        case.publish()
    message = str(caught.value)
    assert fault.hits
    assert "\n" not in message
    assert message.startswith(f"dataset {REPO}: ")
    assert f"the Hub answered {status}" in message
    assert message.rpartition(": ")[2] != message.rpartition(f"answered {status}")[2]  # A remedy.
    for place in (message, *capfd.readouterr()):
        assert not any(secret in place for secret in (hub.token, "Bearer", "?size="))
    bench.check_whole()
    hub.faults.clear()
    case.publish()
    bench.check_done()


@pytest.mark.parametrize("status", [429, 500, 502, 504])
@pytest.mark.parametrize("request_kind", ["refs", "manifest, its size", "content", "commit", "tag"])
def test_other_troubles_pass(hub: LocalHub, waits: list[float], request_kind: str, status: int) -> None:
    case, method, path = REQUESTS[request_kind]
    bench = Bench(hub, case)
    fault = hub.faults.add(method, path, times=2, status=status)
    case.publish()
    bench.check_done()
    assert fault.hits == 2
    assert waits


@pytest.mark.parametrize("status", [400, 412, 413])
def test_a_refused_commit_changes_nothing(hub: LocalHub, waits: list[float], status: int) -> None:
    bench = Bench(hub, REPLACEMENT)
    hub.faults.add("POST", "/commit/", times=None, status=status)
    with pytest.raises(PublishError, match=f"^dataset {REPO}: the Hub answered {status}"):
        REPLACEMENT.publish()
    assert bench.files() == dict(FIRST.files)


@pytest.mark.parametrize("headers", [{"Retry-After": "77"}, {"RateLimit": '"api";r=0;t=77'}])
@pytest.mark.parametrize(("method", "path"), [("POST", "/commit/"), ("PUT", "^/lfs/"), ("GET", "/tree/")])
def test_the_hub_says_how_long_to_wait(
    hub: LocalHub, waits: list[float], headers: dict[str, str], method: str, path: str
) -> None:
    bench = Bench(hub, REPLACEMENT)
    hub.faults.add(method, path, times=1, status=429, headers=headers)
    REPLACEMENT.publish()
    bench.check_done()
    [wait] = waits
    assert 77 <= wait <= 79


def test_waits_become_longer_and_end(hub: LocalHub, waits: list[float]) -> None:
    Bench(hub, REPLACEMENT)
    fault = hub.faults.add("POST", "/commit/", times=None, status=503)
    with pytest.raises(PublishError, match="run the same command again: what has arrived is not sent again"):
        REPLACEMENT.publish()
    assert fault.hits == 6
    assert waits == [1, 2, 4, 8, 16]


def test_a_slow_hub_is_waited_for(hub: LocalHub) -> None:
    bench = Bench(hub, REPLACEMENT)
    hub.faults.add("POST", "/commit/", delay=0.5)
    hub.faults.add("PUT", "^/lfs/", delay=0.5)
    REPLACEMENT.publish()
    bench.check_done()
    assert all(len(puts) == 1 for puts in hub.log.uploads().values())


@pytest.mark.parametrize("request_kind", ["refs", "content", "commit"])
def test_a_dead_connection_is_given_up(
    hub: LocalHub, waits: list[float], monkeypatch: pytest.MonkeyPatch, request_kind: str
) -> None:
    case, method, path = REQUESTS[request_kind]
    bench = Bench(hub, case)
    monkeypatch.setattr("defect_hub.publishing.hub.SILENCE", 1.0)
    hub.faults.add(method, path, delay=600)
    case.publish()
    bench.check_done()
    assert waits == [1]


def test_nobody_answers(hub: LocalHub, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    with pytest.raises(
        PublishError, match=f"^dataset {REPO}: no answer from {nowhere} .*: run the same command again"
    ):
        REPLACEMENT.publish()


def test_a_repository_in_the_making_is_no_trouble(hub: LocalHub, waits: list[float]) -> None:
    message = "Cannot create repo: another conflicting operation is in progress"
    hub.faults.add("POST", "/repos/create", times=2, status=409, message=message)
    NEW.publish()
    assert dict(SECOND.files).items() <= hub.files("dataset", REPO).items()


def somebody_commits_before(hub: LocalHub, monkeypatch: pytest.MonkeyPatch, method: str, path: str) -> None:
    """Let somebody else change a file before the first call of a method of the client."""
    original, commit = getattr(HfApi, method), HfApi.create_commit

    def overtaken(self: HfApi, *args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(HfApi, method, original)
        theirs = [CommitOperationAdd(path, b"---\nlicense: mit\n---\n\n# Theirs\n")]
        commit(hub.api(), REPO, theirs, commit_message="theirs", repo_type="dataset")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(HfApi, method, overtaken)


def test_somebody_elses_commit_in_between_is_kept(
    hub: LocalHub, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(hub, REPLACEMENT)
    somebody_commits_before(hub, monkeypatch, "create_commit", "theirs.md")
    REPLACEMENT.publish()
    assert bench.files() == {**SECOND.files, "theirs.md": bench.files()["theirs.md"]}
    titles = [one["title"] for one in hub.commits("dataset", REPO)]
    assert titles == ["data: build 2", "theirs", "data: build 1", "initial commit"]
    assert [one.status for one in hub.log.find("POST", "/commit/")][1:] == [200, 412, 200]


def test_somebody_elses_edit_in_between_is_not_overwritten(
    hub: LocalHub, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(hub, REPLACEMENT)
    somebody_commits_before(hub, monkeypatch, "create_commit", "README.md")
    with pytest.raises(PublishError, match=r"README\.md: edited on the Hub"):
        REPLACEMENT.publish()
    assert b"Theirs" in bench.files()["README.md"]


def test_a_series_that_conflicts_says_what_to_do(
    hub: LocalHub, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(hub, SERIES)
    somebody_commits_before(hub, monkeypatch, "merge_pull_request", "README.md")
    with pytest.raises(PublishError, match=r"conflicts in README\.md.*: close it at .*/discussions/1, and run"):
        SERIES.publish()
    assert bench.files() == {**FIRST.files, "README.md": bench.files()["README.md"]}
    hub.api().change_discussion_status(REPO, 1, "closed", repo_type="dataset")
    with pytest.raises(PublishError, match="--overwrite"):
        SERIES.publish()


def from_disk(folder: Path) -> Staged:
    """The second build as files."""
    for path, data in SECOND.files.items():
        assert isinstance(data, bytes)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return Staged("dataset", {path: folder / path for path in SECOND.files}, SECOND.message, SECOND.owned)


def rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes()[::-1])


@pytest.mark.parametrize("path", ["README.md", "data/1.weights", "data/3.weights"])
@pytest.mark.parametrize("harm", [Path.unlink, rewrite])
@pytest.mark.parametrize("moment", ["list_repo_refs", "preupload_lfs_files"])
def test_a_file_that_changes_meanwhile_is_not_published(
    hub: LocalHub,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    path: str,
    harm: Callable[[Path], None],
    moment: str,
) -> None:
    bench = Bench(hub, REPLACEMENT)
    new = from_disk(tmp_path / "build")
    original = getattr(HfApi, moment)

    def harmed(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(HfApi, moment, original)
        harm(tmp_path / "build" / path)
        return original(*args, **kwargs)

    monkeypatch.setattr(HfApi, moment, harmed)
    with pytest.raises(PublishError, match=f"^dataset {REPO}: {path}: was changed or removed meanwhile"):
        publish(new, Target(REPO))
    assert bench.files() == dict(FIRST.files)
    publish(from_disk(tmp_path / "again"), Target(REPO))
    assert bench.files() == dict(SECOND.files)
