"""What the local Hub refuses, and what goes wrong when a test asks for it."""

import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from tests.hub.fixture import hub as hub
from tests.hub.server import LocalHub

BLOB = os.urandom(300_000)


@pytest.fixture
def api(hub: LocalHub) -> HfApi:
    """A client of a Hub with the empty dataset `org/d`."""
    hub.api().create_repo("org/d", repo_type="dataset")
    return hub.api()


def commit(api: HfApi, files: dict[str, bytes]) -> str:
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return api.create_commit("org/d", operations, commit_message="x", repo_type="dataset").oid


def made(hub: LocalHub) -> int:
    """Count the commits after the first."""
    return len(hub.commits("dataset", "org/d")) - 1


def test_tokens_have_roles(hub: LocalHub, api: HfApi) -> None:
    who = hub.api(hub.read_token).whoami()
    assert (who["name"], [org["name"] for org in who["orgs"]]) == ("tester", ["org"])
    assert who["auth"]["accessToken"]["role"] == "read"
    for token, expected in (("hf_unknown", 401), (hub.read_token, 403), (hub.stranger_token, 403), (False, 401)):
        with pytest.raises(HfHubHTTPError) as error:
            commit(hub.api(token), {"a": b"a"})
        assert error.value.response.status_code == expected
    with pytest.raises(HfHubHTTPError, match="You don't have the rights to create a model") as error:
        api.create_repo("elsewhere/m")
    assert error.value.response.status_code == 403
    assert made(hub) == 0


def test_private_is_as_good_as_missing(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    commit(api, {"a": b"a"})
    api.update_repo_settings("org/d", repo_type="dataset", private=True)
    assert hub.api(hub.read_token).dataset_info("org/d").private
    for token, expected in ((hub.stranger_token, 404), (False, 401)):
        with pytest.raises(RepositoryNotFoundError) as error:
            hub.api(token).hf_hub_download("org/d", "a", repo_type="dataset", cache_dir=tmp_path)
        assert error.value.response.status_code == expected


def test_gated_shows_its_card_and_keeps_its_files(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    commit(api, {"a": b"a"})
    api.update_repo_settings("org/d", repo_type="dataset", gated="manual")
    stranger = hub.api(hub.stranger_token)
    assert stranger.dataset_info("org/d").gated == "manual"
    for client in (stranger, hub.api(False)):
        with pytest.raises(GatedRepoError):
            client.hf_hub_download("org/d", "a", repo_type="dataset", cache_dir=tmp_path)
    with pytest.raises(GatedRepoError):
        stranger.auth_check("org/d", repo_type="dataset")
    assert hub.api(hub.read_token).hf_hub_download("org/d", "a", repo_type="dataset", cache_dir=tmp_path)


def test_a_broken_upload_leaves_nothing(hub: LocalHub, api: HfApi) -> None:
    hub.faults.add("PUT", "^/lfs/", drop_request_at=100_000)
    address = f"{hub.url}/lfs/datasets/org/d/{sha256(BLOB).hexdigest()}?size={len(BLOB)}"
    with pytest.raises(httpx2.TransportError):
        httpx2.put(address, content=BLOB)
    assert not [path for path in hub.root.rglob("*") if path.is_file() and path.stat().st_size > 10_000]
    assert httpx2.put(address, content=BLOB[1:]).status_code == 400
    assert not list(hub.root.rglob("lfs/*"))


def test_a_client_sends_again_what_broke_off(hub: LocalHub, api: HfApi) -> None:
    fault = hub.faults.add("PUT", "^/lfs/", drop_request_at=100_000)
    commit(api, {"a.parquet": BLOB})
    assert fault.hits == 1
    [puts] = hub.log.uploads().values()
    assert [(put.status, put.received, put.finished) for put in puts] == [(None, 100_000, False), (200, 300_000, True)]
    assert not list(hub.root.rglob("incoming/*"))
    assert hub.files("dataset", "org/d")["a.parquet"] == BLOB


def test_a_request_that_breaks_off_does_nothing_one_whose_answer_is_lost_does_all(hub: LocalHub, api: HfApi) -> None:
    hub.faults.add("POST", "/commit/", drop_request_at=10)
    with pytest.raises(httpx2.TransportError):
        commit(api, {"a": b"a"})
    assert made(hub) == 0
    hub.faults.add("POST", "/commit/", drop_answer_at=0)
    with pytest.raises(httpx2.TransportError):
        commit(api, {"a": b"a"})
    assert made(hub) == 1
    assert not hub.log[-1].finished and hub.log[-1].status is None


@pytest.mark.parametrize("status", [401, 403, 404, 409, 429, 500, 502, 503, 507])
def test_a_status_is_answered_and_nothing_done(hub: LocalHub, api: HfApi, status: int) -> None:
    hub.faults.add("POST", "/commit/", status=status, headers={"Retry-After": "7"}, message="Not now")
    with pytest.raises(HfHubHTTPError, match="Not now") as error:
        commit(api, {"a": b"a"})
    assert error.value.response.status_code == status
    assert error.value.response.headers["Retry-After"] == "7"
    assert made(hub) == 0


def test_a_fault_strikes_the_nth_time_and_the_client_backs_off(hub: LocalHub, api: HfApi) -> None:
    fault = hub.faults.add("PUT", skip=1, status=503, headers={"Retry-After": "0"})
    commit(api, {"a.parquet": BLOB, "b.parquet": BLOB[1:]})
    assert fault.hits == 1
    assert sorted(put.status or 0 for puts in hub.log.uploads().values() for put in puts) == [200, 200, 503]


def test_slow_is_slow(hub: LocalHub, api: HfApi) -> None:
    hub.faults.add("GET", "/refs", delay=0.3)
    start = time.monotonic()
    api.list_repo_refs("org/d", repo_type="dataset")
    assert time.monotonic() - start >= 0.3
    hub.faults.add("GET", "/refs", delay=60)
    hub.faults.clear()
    api.list_repo_refs("org/d", repo_type="dataset")
    assert time.monotonic() - start < 30


def test_a_broken_download_is_resumed(
    hub: LocalHub, api: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50_000)  # the client keeps whole chunks only
    commit(api, {"a.parquet": BLOB})
    hub.faults.add("GET", "/resolve/", drop_answer_at=200_000)
    path = api.hf_hub_download("org/d", "a.parquet", repo_type="dataset", cache_dir=tmp_path)
    assert Path(path).read_bytes() == BLOB
    gets = hub.log.find("GET", "/resolve/")
    assert [(one.status, one.sent, one.finished) for one in gets] == [(200, 200_000, False), (206, 100_000, True)]


UPLOAD = """
import sys
from huggingface_hub import HfApi
HfApi().upload_folder(repo_id="org/d", repo_type="dataset", folder_path=sys.argv[1])
"""


@pytest.mark.slow
def test_a_client_is_killed_at_a_byte_and_only_the_blob_in_flight_is_sent_again(
    hub: LocalHub, api: HfApi, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.parquet").write_bytes(os.urandom(1_000_000))
    command = [sys.executable, "-c", UPLOAD, str(folder)]
    killed = subprocess.Popen(command, env=hub.env(tmp_path / "home"))
    before = hub.log.received
    hub.faults.after_bytes(3_000_000, lambda: os.kill(killed.pid, signal.SIGKILL))
    assert killed.wait() == -signal.SIGKILL
    # uvicorn hands on what it has, of each of five connections: up to 64 KiB, and up to 256 KiB that it was reading.
    assert 3_000_000 <= hub.log.received - before < 5_000_000 and made(hub) == 0
    subprocess.run(command, env=hub.env(tmp_path / "home"), check=True)
    files = hub.files("dataset", "org/d")
    assert {path.name: path.read_bytes() for path in folder.iterdir()}.items() <= files.items()
    uploads = hub.log.uploads()
    assert len(uploads) == 6
    assert all([put.status for put in puts].count(200) == 1 for puts in uploads.values())
    broken = [put for puts in uploads.values() for put in puts if put.status is None]
    assert 1 <= len(broken) <= 5  # the client sends up to five blobs at a time
