"""Publications that are killed at any place, and repeated."""

import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from defect_hub.publishing.staged import Staged
from defect_hub.publishing.upload import Target, publish
from tests.hub.faults import Exchange, Fault
from tests.hub.server import LocalHub
from tests.publishing.publisher import publisher

pytestmark = pytest.mark.slow
KILLS = 20
TAG = "v1.0.0"


def shards(build: int, *numbers: int) -> dict[str, bytes]:
    """Files for the large file storage, larger than what a socket takes at once."""
    return {f"data/{number}.parquet": random.Random(f"{build} {number}").randbytes(400_000) for number in numbers}


def staged(build: int, files: dict[str, bytes]) -> Staged:
    card = f"---\nlicense: mit\n---\n\n# Build {build}\n".encode()
    return Staged("dataset", {"README.md": card, **files}, f"data: build {build}", owned=("data/*",))


@dataclass(frozen=True)
class Case:
    """A publication to interrupt: what is there before, what shall be there, and how many files a commit takes."""

    before: Staged | None
    after: Staged
    max_operations: int = 100

    def publish(self, repo_id: str) -> None:
        publish(self.after, Target(repo_id, tag=TAG), max_operations=self.max_operations)


FIRST = staged(1, {**shards(1, 0, 1, 2, 3), "notes.txt": b"old\n" * 3000, "gone.csv": b"a\n"})
SECOND = staged(2, {**shards(1, 0), **shards(2, 1, 2, 4), "notes.txt": b"new\n" * 3000, "added.csv": b"b\n"})
CASES = {
    "new repository": Case(None, FIRST),
    "replacement": Case(FIRST, SECOND),
    "series": Case(FIRST, SECOND, max_operations=3),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@dataclass
class Bench:
    """Kills publications of one case, each in a repository of its own, and compares with one that nobody disturbed."""

    hub: LocalHub
    case: Case

    def __post_init__(self) -> None:
        self.states: dict[str, dict[str, bytes]] = {"fresh": {}}
        if self.case.before is not None:
            publish(self.case.before, Target("org/old00"))
            self.states = {"old": self.files("org/old00")}
        self.prepare("org/new00")
        start = len(self.hub.log)
        self.case.publish("org/new00")
        self.states["new"] = self.files("org/new00")
        self.requests: Sequence[Exchange] = self.hub.log[start:]

    def prepare(self, repo_id: str) -> None:
        """Put there what is replaced."""
        if self.case.before is not None:
            shutil.copytree(self.hub.repo("dataset", "org/old00").folder, self.hub.repo("dataset", repo_id).folder)

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """What a repository holds, but for what the Hub itself puts there."""
        found = self.hub.files("dataset", repo_id, revision)
        return {path: data for path, data in found.items() if path != ".gitattributes"}

    def uploads(self, repo_id: str) -> dict[str, list[Exchange]]:
        """Transfers of each large file into a repository."""
        found: dict[str, list[Exchange]] = {}
        for one in self.hub.log.find("PUT", f"^/lfs/datasets/{repo_id}/"):
            found.setdefault(one.path.split("/")[5], []).append(one)
        return found

    def kill(self, repo_id: str, arm: Callable[[Callable[[], None]], object]) -> str:
        """Kill a publication where `arm` says; returns the state that it leaves, which is never half-new."""
        child = publisher(self.hub, self.case.after, Target(repo_id, tag=TAG), self.case.max_operations)
        arm(child.kill)
        child.start()
        child.join()
        self.hub.faults.clear()
        while self.hub.server.server_state.tasks:  # It may be working on the last words of the dead.
            time.sleep(0.001)
        assert child.exitcode in (-signal.SIGKILL, 0)
        if not self.hub.repo("dataset", repo_id).exists:
            assert self.case.before is None
            return "absent"
        [state] = [name for name, files in self.states.items() if files == self.files(repo_id)]
        return state

    def finish(self, repo_id: str, kills: int = 1) -> int:
        """Repeat the publication and check its result; returns the number of transfers that were broken off."""
        self.case.publish(repo_id)
        assert self.files(repo_id) == self.files(repo_id, TAG) == self.states["new"]
        commits = self.hub.commits("dataset", repo_id)
        assert len(commits) == len(self.hub.commits("dataset", "org/new00"))
        assert len(self.hub.repo("dataset", repo_id).settings["pulls"]) == (self.case.max_operations < 100)
        uploads, undisturbed = self.uploads(repo_id), self.uploads("org/new00")
        assert uploads.keys() == undisturbed.keys()
        assert all([one.status for one in transfers].count(200) == 1 for transfers in uploads.values())
        broken = sum(len(transfers) - 1 for transfers in uploads.values())
        assert broken <= kills
        return broken


@pytest.fixture
def bench(hub: LocalHub, case: Case) -> Bench:
    return Bench(hub, case)


def kind(exchange: Exchange) -> str:
    """What a request is for."""
    path = re.sub(r"^/(api/)?datasets/org/[a-z]+\d+|^/lfs/.*", "", exchange.path)
    return f"{exchange.method} {path}"


def places(requests: Sequence[Exchange]) -> Iterator[int]:
    """Random places of a publication, shared out among the kinds of requests: bytes of all requests before them."""
    dice = random.Random(6)
    ends: dict[str, list[tuple[int, int]]] = {}
    total = 0
    for one in requests:
        total += one.received
        if one.received:
            ends.setdefault(kind(one), []).append((total, one.received))
    for number in range(KILLS):
        end, size = dice.choice(ends[sorted(ends)[number % len(ends)]])
        yield end - dice.randrange(size)


def test_killed_at_any_byte(bench: Bench) -> None:
    states, broken = [], 0
    for number, place in enumerate(places(bench.requests)):
        repo_id = f"org/run{number:02}"
        bench.prepare(repo_id)
        states.append(bench.kill(repo_id, partial(bench.hub.faults.after_bytes, place)))
        broken += bench.finish(repo_id)
    assert {*states} >= bench.states.keys() - {"fresh"}
    assert broken > 0


def test_killed_at_any_request(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also at those without a body, which only ask."""
    take = bench.hub.faults.take
    states = []
    for number in sorted(random.Random(7).sample(range(len(bench.requests)), KILLS)):
        repo_id = f"org/run{number:02}"
        bench.prepare(repo_id)

        def arm(kill: Callable[[], None], last: int = len(bench.hub.log) + number + 1) -> None:
            def take_and_kill(exchange: Exchange) -> Fault:
                if len(bench.hub.log) == last:
                    kill()
                return take(exchange)

            monkeypatch.setattr(bench.hub.faults, "take", take_and_kill)

        states.append(bench.kill(repo_id, arm))
        monkeypatch.setattr(bench.hub.faults, "take", take)
        bench.finish(repo_id)
    assert states == sorted(states, key=["absent", "fresh", "old", "new"].index)


def test_killed_again_and_again(bench: Bench) -> None:
    bench.prepare("org/run00")
    dice, kills, state = random.Random(8), 0, ""
    while kills < KILLS and state != "new":
        state = bench.kill("org/run00", partial(bench.hub.faults.after_bytes, dice.randrange(1, 600_000)))
        kills += 1
    bench.finish("org/run00", kills)


@pytest.mark.parametrize("path", ["^/lfs/", "/commit/"])
def test_control_c_ends_the_command_quietly(hub: LocalHub, tmp_path: Path, path: str) -> None:
    folder = tmp_path / "pixel_auroc"
    shutil.copytree(Path(__file__).parents[2] / "evaluate_metrics" / "pixel_auroc", folder)
    (folder / "examples").mkdir()
    Image.new("L", (8, 8)).save(folder / "examples" / "map.png")  # pictures go through LFS
    command = [sys.executable, "-m", "defect_hub.cli", "publish", "metric", str(folder), "--repo", "org/pixel_auroc"]
    command += ["--staging", str(tmp_path / "staging")]
    environment = hub.env(tmp_path / "home")
    hub.faults.add(path=path, delay=2)
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not hub.log.find(path=path):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert len(errors.splitlines()) <= 1, errors  # No traceback.
    assert hub.files("space", "org/pixel_auroc").keys() == {".gitattributes", "README.md"}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert "pixel_auroc.py" in hub.files("space", "org/pixel_auroc")
    assert all([one.status for one in puts].count(200) == 1 for puts in hub.log.uploads().values())
