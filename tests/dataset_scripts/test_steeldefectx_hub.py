import subprocess
import sys
from pathlib import Path

import pytest

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.steeldefectx.hub import local_release
from tests.hub.fixture import hub as hub
from tests.hub.server import LocalHub

REPO = "org/SteelDefectX"


@pytest.fixture
def published(hub: LocalHub, release: Path) -> LocalHub:
    """A local Hub that holds the release and a file that nobody needs."""
    api = hub.api()
    api.create_repo(REPO, repo_type="dataset")
    api.upload_folder(repo_id=REPO, repo_type="dataset", folder_path=release)
    api.upload_file(path_or_fileobj=b"x", path_in_repo="notes/big.bin", repo_id=REPO, repo_type="dataset")
    return hub


def command(hub: LocalHub, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    full = [sys.executable, "-m", "defect_hub.cli", "data", *arguments]
    return subprocess.run(full, env=hub.env(home), capture_output=True, text=True)


@pytest.mark.slow
def test_a_release_is_fetched_from_the_hub_by_its_id(published: LocalHub, release: Path, tmp_path: Path) -> None:
    home, out = tmp_path / "home", tmp_path / "steeldefectx"
    built = command(published, home, "build", "steeldefectx", "--raw", REPO, "--out", str(out))
    assert built.returncode == 0, built.stderr
    assert "train 12, val 5 images" in built.stdout
    local = command(published, home, "build", "steeldefectx", "--raw", str(release), "--out", str(tmp_path / "local"))
    assert built.stdout.split("digest")[1] == local.stdout.split("digest")[1]
    assert not list(home.rglob("big.bin"))


@pytest.mark.slow
def test_an_unknown_repository_is_one_line(hub: LocalHub, tmp_path: Path) -> None:
    built = command(hub, tmp_path / "home", "build", "steeldefectx", "--raw", "no/such", "--out", str(tmp_path / "x"))
    assert built.returncode == 2
    error = built.stderr.splitlines()[-1]
    assert error.startswith("error: no/such: raw: is no local folder and cannot be fetched (RepositoryNotFoundError")
    assert error.endswith("or give a local folder")


def test_a_local_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / REPO).mkdir(parents=True)
    assert local_release(REPO) == Path(REPO)
    assert local_release("not a repository id") == Path("not a repository id")


def test_offline_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="cannot be fetched"):
        local_release(REPO)
