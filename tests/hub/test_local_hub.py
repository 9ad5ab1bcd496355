"""The local Hub, asked by `huggingface_hub` and `datasets` as the real one is."""

import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, DatasetCard, HfApi, HfFileSystem, RepoFile
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.hub.fixture import hub as hub
from tests.hub.server import LocalHub

CARD = b"---\nlicense: mit\n---\n# Card\n"
WEIGHTS = bytes(range(256)) * 40


@pytest.fixture
def api(hub: LocalHub) -> HfApi:
    """A client of a Hub with the model `org/m`, which has a file of each kind."""
    client = hub.api()
    client.create_repo("org/m")
    added = {"README.md": CARD, "code/main.py": b"pass\n", "w.safetensors": WEIGHTS}
    client.create_commit("org/m", additions(added), commit_message="First")
    return client


def additions(files: dict[str, bytes]) -> list[CommitOperationAdd]:
    return [CommitOperationAdd(path, content) for path, content in files.items()]


def status_of(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code


def test_a_folder_goes_up_and_comes_down(hub: LocalHub, tmp_path: Path) -> None:
    api = hub.api()
    api.create_repo("org/data", repo_type="dataset")
    folder = tmp_path / "folder"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_bytes(CARD)
    (folder / "data" / "train.parquet").write_bytes(WEIGHTS)
    info = api.upload_folder(repo_id="org/data", repo_type="dataset", folder_path=folder, commit_message="First")
    files = hub.files("dataset", "org/data")
    assert b"*.parquet filter=lfs" in files.pop(".gitattributes")
    assert files == {"README.md": CARD, "data/train.parquet": WEIGHTS}
    assert [commit["title"] for commit in hub.commits("dataset", "org/data")] == ["First", "initial commit"]
    down = Path(api.snapshot_download("org/data", repo_type="dataset", cache_dir=tmp_path / "cache"))
    assert down.name == info.oid
    assert (down / "data" / "train.parquet").read_bytes() == WEIGHTS

    again = api.upload_folder(repo_id="org/data", repo_type="dataset", folder_path=folder, commit_message="Again")
    assert again.oid == info.oid
    assert [len(puts) for puts in hub.log.uploads().values()] == [1]


def test_trees_name_every_file_as_git_does(api: HfApi) -> None:
    tree = {entry.path: entry for entry in api.list_repo_tree("org/m", recursive=True)}
    assert list(tree) == [".gitattributes", "README.md", "code", "code/main.py", "w.safetensors"]
    small, large = tree["code/main.py"], tree["w.safetensors"]
    assert isinstance(small, RepoFile) and isinstance(large, RepoFile)
    assert (small.blob_id, small.size, small.lfs) == ("2ae28399f5fda2dfb1b04405f4a3b4895f5fac1e", 5, None)
    assert large.lfs is not None and large.lfs.size == large.size == len(WEIGHTS)
    [folder, found] = api.get_paths_info("org/m", ["code", "code/main.py", "nowhere"], expand=True)
    assert folder.path == "code" and found.last_commit is not None and found.last_commit.title == "First"
    assert [entry.path for entry in api.list_repo_tree("org/m", "code")] == ["code/main.py"]
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree("org/m", "nowhere"))


def test_long_trees_come_in_pages(hub: LocalHub, api: HfApi) -> None:
    hub.state.page_size = 2
    assert len(list(api.list_repo_tree("org/m", recursive=True))) == 5
    assert len(hub.log.find("GET", "/tree/")) == 3


def test_a_file_has_the_name_of_its_content_as_etag(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    tree = {entry.path: entry for entry in api.list_repo_tree("org/m", recursive=True)}
    for path in ("README.md", "w.safetensors"):
        seen = api.get_hf_file_metadata(url=f"{hub.url}/org/m/resolve/main/{path}")
        entry = tree[path]
        assert isinstance(entry, RepoFile)
        assert seen.etag == (entry.lfs.sha256 if entry.lfs else entry.blob_id)
        assert (seen.size, seen.commit_hash) == (entry.size, api.model_info("org/m").sha)
    assert Path(api.hf_hub_download("org/m", "w.safetensors", cache_dir=tmp_path)).read_bytes() == WEIGHTS
    with HfFileSystem(endpoint=hub.url, token=hub.token).open("org/m/w.safetensors", block_size=100) as file:
        file.seek(5000)
        assert file.read(10) == WEIGHTS[5000:5010]
    assert hub.log.find("GET", "/resolve/")[-1].sent < 1000


def test_what_is_missing_has_the_error_of_the_hub(api: HfApi, tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("org/nothing")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("org/m", revision="nothing")
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download("org/m", "nothing", cache_dir=tmp_path)
    with pytest.raises(RevisionNotFoundError):
        api.create_commit("org/m", additions({"a": b"a"}), commit_message="x", revision="nothing")
    assert not api.file_exists("org/m", "nothing") and not api.repo_exists("org/nothing")


def test_large_binary_and_covered_files_go_to_large_file_storage(hub: LocalHub, api: HfApi) -> None:
    files = {
        "long.txt": b"x" * (10 * 2**20 + 1),
        "my figure.png": b"\x89PNG\0\r\n",
        "empty.bin": b"",
        "é.txt": b"\xc3\xa9",
    }
    api.create_commit("org/m", additions(files), commit_message="More")
    tree = hub.commits("model", "org/m")[0]["tree"]
    assert [path for path in files if "sha256" in tree[path]] == ["long.txt", "my figure.png"]
    added = hub.files("model", "org/m")[".gitattributes"].decode().splitlines()[-2:]
    assert [line.split()[0] for line in added] == ["long.txt", "my[[:space:]]figure.png"]


def test_files_above_the_part_size_are_sent_in_parts(hub: LocalHub, api: HfApi) -> None:
    hub.state.part_size = 4000
    api.create_commit("org/m", additions({"big.parquet": WEIGHTS[1:]}), commit_message="Parts")
    assert hub.files("model", "org/m")["big.parquet"] == WEIGHTS[1:]
    assert [one.received for one in list(hub.log.uploads().values())[-1]] == [4000, 4000, 2239]
    assert not list(hub.root.rglob("incoming/*"))


def test_a_commit_is_all_or_nothing(hub: LocalHub, api: HfApi) -> None:
    head = api.model_info("org/m").sha
    for path in ("nothing", "nothing/"):
        with pytest.raises(RemoteEntryNotFoundError):
            api.create_commit("org/m", [*additions({"a": b"a"}), CommitOperationDelete(path)], commit_message="x")
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as error:
        api.create_commit("org/m", additions({"a": b"a"}), commit_message="x", parent_commit="0" * 40)
    assert status_of(error) == 412
    assert api.model_info("org/m").sha == head and "a" not in hub.files("model", "org/m")

    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationDelete("code/"),
        *additions({"a": b"a"}),
    ]
    api.create_commit("org/m", operations, commit_message="New", commit_description="Long", parent_commit=head)
    assert set(hub.files("model", "org/m")) == {".gitattributes", "README.md", "w.safetensors", "a"}
    assert set(hub.files("model", "org/m", str(head))) == {
        ".gitattributes",
        "README.md",
        "w.safetensors",
        "code/main.py",
    }
    [newest, *_] = api.list_repo_commits("org/m")
    assert (newest.title, newest.message, newest.authors) == ("New", "Long", ["tester"])


def test_a_large_file_that_never_arrived_cannot_be_committed(hub: LocalHub, api: HfApi) -> None:
    hub.faults.add("PUT", "^/lfs/", status=200, times=None)  # a storage that loses what it accepts
    hub.faults.add("POST", "/verify", status=200)
    with pytest.raises(BadRequestError, match="LFS pointer pointed to a file that does not exist"):
        api.create_commit("org/m", additions({"v.safetensors": b"v"}), commit_message="Lost")
    assert len(hub.commits("model", "org/m")) == 2


def test_content_that_is_not_what_it_is_said_to_be_is_refused(hub: LocalHub, tmp_path: Path) -> None:
    api = hub.api()
    api.create_repo("org/m")
    path = tmp_path / "w.safetensors"
    path.write_bytes(WEIGHTS)
    addition = CommitOperationAdd("w.safetensors", path)
    assert addition.upload_info.sha256
    path.write_bytes(WEIGHTS[::-1])
    with pytest.raises(RuntimeError) as error:
        api.create_commit("org/m", [addition], commit_message="Changed meanwhile")
    assert isinstance(error.value.__cause__, BadRequestError)
    assert not list(hub.root.rglob("lfs/*")) and not list(hub.root.rglob("incoming/*"))


def test_branches_and_tags(hub: LocalHub, api: HfApi) -> None:
    first = api.model_info("org/m").sha
    api.create_tag("org/m", tag="v1.0.0")
    api.create_branch("org/m", branch="next/two", revision="v1.0.0")
    api.create_commit("org/m", additions({"a": b"a"}), commit_message="x", revision="next/two")
    assert "a" in hub.files("model", "org/m", "next/two") and "a" not in hub.files("model", "org/m")
    with pytest.raises(HfHubHTTPError) as error:
        api.create_tag("org/m", tag="v1.0.0", revision="next/two")
    assert status_of(error) == 409
    with pytest.raises(HfHubHTTPError) as error:
        api.create_branch("org/m", branch="next/two")
    assert status_of(error) == 409
    with pytest.raises(BadRequestError):
        api.create_branch("org/m", branch="refs/pr/5")
    refs = api.list_repo_refs("org/m")
    assert {ref.name for ref in refs.branches} == {"main", "next/two"}
    assert [(ref.ref, ref.target_commit) for ref in refs.tags] == [("refs/tags/v1.0.0", first)]
    with pytest.raises(BadRequestError):
        api.create_commit("org/m", additions({"a": b"a"}), commit_message="x", revision="v1.0.0")
    api.delete_branch("org/m", branch="next/two")
    api.delete_tag("org/m", tag="v1.0.0")
    assert len(api.list_repo_refs("org/m").branches) == 1 and not api.list_repo_refs("org/m").tags
    with pytest.raises(RevisionNotFoundError):
        api.delete_tag("org/m", tag="v1.0.0")


def test_a_pull_request_is_committed_to_and_merged(hub: LocalHub, api: HfApi) -> None:
    info = api.create_commit("org/m", additions({"a": b"a"}), commit_message="Add a", create_pr=True)
    assert (info.pr_num, info.pr_revision) == (1, "refs/pr/1")
    api.create_commit("org/m", [CommitOperationDelete("code/")], commit_message="Drop code", revision="refs/pr/1")
    api.create_commit("org/m", additions({"b": b"b"}), commit_message="Meanwhile")
    assert "a" not in hub.files("model", "org/m") and "a" in hub.files("model", "org/m", "refs/pr/1")
    assert [one.num for one in api.get_repo_discussions("org/m", discussion_status="open")] == [1]
    api.merge_pull_request("org/m", 1, comment="Thanks")
    assert set(hub.files("model", "org/m")) == {".gitattributes", "README.md", "w.safetensors", "a", "b"}
    details = api.get_discussion_details("org/m", 1)
    assert details.status == "merged" and details.merge_commit_oid == api.model_info("org/m").sha
    assert [event.type for event in details.events] == ["comment", "comment", "status-change", "commit", "commit"]
    assert hub.commits("model", "org/m")[0]["title"] == "Add a (#1)"


def test_drafts_and_conflicts_are_not_merged(hub: LocalHub, api: HfApi) -> None:
    draft = api.create_pull_request("org/m", "Later")
    assert (draft.status, draft.git_reference) == ("draft", "refs/pr/1")
    api.create_commit("org/m", additions({"README.md": CARD + b"1"}), commit_message="x", revision="refs/pr/1")
    with pytest.raises(BadRequestError, match="draft"):
        api.merge_pull_request("org/m", 1)
    assert api.change_discussion_status("org/m", 1, "open").new_status == "open"
    api.create_commit("org/m", additions({"README.md": CARD + b"2"}), commit_message="y")
    assert api.get_discussion_details("org/m", 1).conflicting_files == ["README.md"]
    with pytest.raises(HfHubHTTPError, match=r"conflicts in README\.md") as error:
        api.merge_pull_request("org/m", 1)
    assert status_of(error) == 409
    assert hub.files("model", "org/m")["README.md"] == CARD + b"2"


def test_spaces_have_a_card_an_sdk_and_variables(hub: LocalHub) -> None:
    api = hub.api()
    variables = [{"key": "MODEL", "value": "org/m"}]
    api.create_repo("org/s", repo_type="space", space_sdk="gradio", space_variables=variables)
    assert b"sdk: gradio" in hub.files("space", "org/s")["README.md"]
    assert api.space_info("org/s").sdk == "gradio"
    api.add_space_variable("org/s", "LANGUAGE", "en")
    assert {key: one.value for key, one in api.get_space_variables("org/s").items()} == {
        "MODEL": "org/m",
        "LANGUAGE": "en",
    }
    assert set(api.delete_space_variable("org/s", "MODEL")) == {"LANGUAGE"}


def test_repositories_are_made_listed_and_deleted(hub: LocalHub, api: HfApi) -> None:
    with pytest.raises(HfHubHTTPError) as error:
        api.create_repo("org/m")
    assert status_of(error) == 409
    assert api.create_repo("org/m", exist_ok=True).repo_id == "org/m"
    api.create_repo("org/hidden", private=True)
    assert [one.id for one in api.list_models(author="org")] == ["org/hidden", "org/m"]
    assert [one.id for one in hub.api(hub.stranger_token).list_models(author="org")] == ["org/m"]
    api.update_repo_settings("org/m", private=True)
    assert api.model_info("org/m").private
    api.delete_repo("org/m")
    api.delete_repo("org/m", missing_ok=True)
    assert not hub.repo("model", "org/m").exists


def test_collections(api: HfApi) -> None:
    api.create_repo("org/d", repo_type="dataset")
    collection = api.create_collection("Steel & Co", namespace="org", description="All", exists_ok=True)
    assert collection.slug.startswith("org/steel-co-")
    assert api.create_collection("Steel & Co", namespace="org", exists_ok=True).slug == collection.slug
    with pytest.raises(HfHubHTTPError) as error:
        api.create_collection("Steel & Co", namespace="org")
    assert status_of(error) == 409
    api.add_collection_item(collection.slug, "org/m", "model", note="The model")
    api.add_collection_item(collection.slug, "org/d", "dataset")
    for item, kind, expected in (("org/m", "model", 409), ("org/nothing", "model", 404)):
        with pytest.raises(HfHubHTTPError) as error:
            api.add_collection_item(collection.slug, item, kind)  # type: ignore[arg-type]
        assert status_of(error) == expected
    [found] = api.list_collections(owner="org")
    assert [(item.item_id, item.note) for item in found.items] == [("org/m", "The model"), ("org/d", None)]
    api.update_collection_item(collection.slug, found.items[1].item_object_id, position=0, note="Data")
    api.delete_collection_item(collection.slug, found.items[0].item_object_id)
    [left] = api.get_collection(collection.slug).items
    assert (left.item_id, left.note, left.position) == ("org/d", "Data", 0)
    assert api.update_collection_metadata(collection.slug, description="New").description == "New"
    api.delete_collection(collection.slug)
    assert not list(api.list_collections(owner="org"))


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        ("model", "license: [mit", "Invalid YAML"),
        ("model", "license: free", '"license" must be one of'),
        ("model", "language: English", '"language" must only contain lowercase characters'),
        ("model", "tags: steel", '"tags" must be an array'),
        ("dataset", "configs:\n- data_files: x", '"configs" must be an array'),
        ("space", "title: x", '"sdk" is required'),
        ("space", "sdk: shiny", '"sdk" must be one of'),
        ("space", "sdk: static\ncolorTo: steel", '"colorTo" must be one of'),
        ("space", f"sdk: static\nshort_description: {'x' * 61}", "less than or equal to 60"),
    ],
)
def test_bad_cards_are_refused_before_and_at_the_commit(hub: LocalHub, kind: str, text: str, problem: str) -> None:
    api = hub.api()
    api.create_repo("org/x", repo_type=kind, space_sdk="static" if kind == "space" else None)
    card = f"---\n{text}\n---\n"
    with pytest.raises(ValueError, match=problem):
        api.create_commit("org/x", additions({"README.md": card.encode()}), commit_message="x", repo_type=kind)
    hub.faults.add("POST", "/validate-yaml", status=200)
    with pytest.raises(BadRequestError, match=r"Invalid metadata in README\.md"):
        api.create_commit("org/x", additions({"README.md": card.encode()}), commit_message="x", repo_type=kind)
    assert len(hub.commits(kind, "org/x")) == 1


def test_good_cards_pass(hub: LocalHub) -> None:
    DatasetCard("---\nlicense: cc-by-4.0\nlanguage:\n- en\nconfigs:\n- config_name: a\n---\n").validate()
    hub.api().create_repo("org/x")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        hub.api().create_commit("org/x", additions({"README.md": b"# No YAML\n"}), commit_message="x")


LOAD = """
from datasets import load_dataset
whole = load_dataset("org/data", "b", split="train")
streamed = load_dataset("org/data", "b", split="train", streaming=True)
assert list(whole) == list(streamed)
print(whole["x"][:], load_dataset("org/data", split="train")["x"][:])
"""


@pytest.mark.slow
def test_datasets_loads_and_streams_in_a_fresh_process(hub: LocalHub, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    card = "---\nconfigs:\n" + "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}/train-*.parquet\n"
        + ("  default: true\n" if name == "a" else "")
        for name in "ab"
    )
    files = {"README.md": f"{card}---\n".encode()}
    for name, values in (("a", [1, 2]), ("b", [3, 4, 5])):
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"x": values}), path)
        files[f"{name}/train-00000-of-00001.parquet"] = path.read_bytes()
    hub.api().create_repo("org/data", repo_type="dataset", private=True)
    hub.api().create_commit("org/data", additions(files), commit_message="x", repo_type="dataset")
    command = [sys.executable, "-c", LOAD]
    done = subprocess.run(command, env=hub.env(tmp_path / "home"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[3, 4, 5] [1, 2]\n"
