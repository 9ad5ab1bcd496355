import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from defect_hub.publishing.hub import PublishError
from defect_hub.publishing.plan import MANIFEST
from defect_hub.publishing.staged import Staged
from defect_hub.publishing.upload import Target, publish
from tests.hub.server import LocalHub

REPO = "org/data"
CARD = b"---\nlicense: mit\n---\n\n# Data\n"


def staged(files: Mapping[str, Path | bytes], build: str = "1") -> Staged:
    return Staged("dataset", {"README.md": CARD, **files}, f"data: build {build}", owned=("data/*",))


def shards(*names: str, salt: str = "") -> dict[str, bytes]:
    """Files that are no text, so that they go to the large file storage."""
    return {f"data/{name}.parquet": b"PAR1\xff" + f"{name}{salt}".encode() * 300 for name in names}


def content(hub: LocalHub, revision: str = "main") -> dict[str, bytes]:
    return {path: data for path, data in hub.files("dataset", REPO, revision).items() if path != ".gitattributes"}


def titles(hub: LocalHub) -> list[str]:
    return [commit["title"] for commit in hub.commits("dataset", REPO)]


def test_a_new_repository_is_one_commit_and_sha256sum_agrees(hub: LocalHub, tmp_path: Path) -> None:
    files = shards("a", "b")
    said: list[str] = []
    address = publish(staged(files), Target(REPO), say=said.append)
    assert address == f"{hub.url}/datasets/{REPO}"
    assert titles(hub) == ["data: build 1", "initial commit"]
    published = content(hub)
    assert {path: published[path] for path in published if path != MANIFEST} == {"README.md": CARD, **files}
    for path, data in published.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", MANIFEST], cwd=tmp_path, check=True)
    assert said[0] == f"dataset {REPO} (new, public)"
    assert said[-1].startswith(f"{address} is complete, at ")


def test_the_same_again_makes_no_commit_and_sends_nothing(hub: LocalHub) -> None:
    publish(staged(shards("a", "b")), Target(REPO))
    before, sent = hub.commits("dataset", REPO), len(hub.log.uploads())
    said: list[str] = []
    publish(staged(shards("a", "b")), Target(REPO), say=said.append)
    assert hub.commits("dataset", REPO) == before
    assert len(hub.log.uploads()) == sent
    assert "  nothing to change" in said


def test_a_changed_build_replaces_shards_and_leaves_no_orphan(hub: LocalHub) -> None:
    publish(staged({**shards("a", "b", "c"), "duplicates.csv": b"old"}), Target(REPO))
    sent = len(hub.log.uploads())
    publish(staged({**shards("a"), **shards("b", salt="new")}, "2"), Target(REPO))
    assert content(hub).keys() == {"README.md", MANIFEST, "data/a.parquet", "data/b.parquet"}
    assert titles(hub)[:2] == ["data: build 2", "data: build 1"]
    assert len(hub.log.uploads()) == sent + 1


def test_a_dry_run_writes_nothing(hub: LocalHub) -> None:
    said: list[str] = []
    publish(staged(shards("a")), Target(REPO), dry_run=True, say=said.append)
    assert not hub.repo("dataset", REPO).exists
    assert said[-1] == "nothing was sent (--dry-run)"
    assert any(line.split()[:2] == ["+", "data/a.parquet"] for line in said)
    publish(staged(shards("a")), Target(REPO))
    before = hub.commits("dataset", REPO)
    publish(staged(shards("a", salt="new")), Target(REPO), dry_run=True, say=said.append)
    assert hub.commits("dataset", REPO) == before
    assert {exchange.method for exchange in hub.log} <= {"GET", "HEAD", "POST", "PUT"}
    assert any(line.split()[:2] == ["~", "data/a.parquet"] for line in said)


def test_a_private_repository_is_made_and_a_public_one_is_no_surprise(hub: LocalHub) -> None:
    publish(staged(shards("a")), Target(REPO, private=True))
    assert hub.repo("dataset", REPO).settings["private"] is True
    publish(staged(shards("a")), Target("org/public"))
    with pytest.raises(PublishError, match="is public already"):
        publish(staged(shards("b")), Target("org/public", private=True))


def test_a_branch_is_made_from_main(hub: LocalHub) -> None:
    publish(staged(shards("a")), Target(REPO))
    publish(staged(shards("a", "b"), "2"), Target(REPO, revision="v2"))
    assert "data/b.parquet" not in content(hub)
    assert "data/b.parquet" in content(hub, "v2")


def test_tags_name_a_state_and_are_not_moved(hub: LocalHub) -> None:
    publish(staged(shards("a")), Target(REPO, tag="v1.0.0"))
    publish(staged(shards("a")), Target(REPO, tag="v1.0.0"))
    with pytest.raises(PublishError, match=r"tag v1\.0\.0 names another state"):
        publish(staged(shards("b"), "2"), Target(REPO, tag="v1.0.0"))
    assert "data/a.parquet" in content(hub)
    publish(staged(shards("b"), "2"), Target(REPO, tag="v1.1.0"))
    assert "data/a.parquet" in content(hub, "v1.0.0")
    assert "data/b.parquet" in content(hub, "v1.1.0")


def test_a_tag_forgotten_by_an_interruption_is_made_later(hub: LocalHub) -> None:
    publish(staged(shards("a")), Target(REPO))
    publish(staged(shards("a")), Target(REPO, tag="v1.0.0"))
    assert content(hub, "v1.0.0") == content(hub)
    assert len(titles(hub)) == 2


def test_a_pull_request_is_made_once_and_continued(hub: LocalHub) -> None:
    publish(staged(shards("a")), Target(REPO))
    proposed = Target(REPO, create_pr=True)
    address = publish(staged(shards("b"), "2"), proposed)
    assert address == f"{hub.url}/datasets/{REPO}/discussions/1"
    assert publish(staged(shards("b"), "2"), proposed) == address
    assert "data/b.parquet" not in content(hub)
    assert content(hub, "refs/pr/1").keys() == {"README.md", MANIFEST, "data/b.parquet"}


def test_a_changed_build_goes_into_the_same_pull_request(hub: LocalHub) -> None:
    publish(staged(shards("a")), Target(REPO))
    proposed = Target(REPO, create_pr=True)
    address = publish(staged(shards("secret"), "2"), proposed)
    assert publish(staged(shards("c"), "3"), proposed) == address
    assert content(hub, "refs/pr/1").keys() == {"README.md", MANIFEST, "data/c.parquet"}
    assert publish(staged(shards("a")), proposed) == address  # What is withdrawn leaves the proposal as well.
    assert content(hub, "refs/pr/1") == content(hub)


def test_a_pull_request_of_somebody_else_stays_theirs(hub: LocalHub) -> None:
    publish(staged(shards("a")), Target(REPO))
    hub.api().create_pull_request(REPO, "Publish with defect-hub, better", repo_type="dataset")
    assert publish(staged(shards("b"), "2"), Target(REPO, create_pr=True)).endswith("/discussions/2")


def test_many_files_are_a_numbered_series_merged_at_once(hub: LocalHub) -> None:
    publish(staged(shards("a")), Target(REPO))
    names = [f"n{number}" for number in range(10)]
    publish(staged(shards(*names), "2"), Target(REPO), max_operations=4)
    assert content(hub).keys() == {"README.md", MANIFEST, *shards(*names)}
    assert len(titles(hub)) == 3  # The series is one step for everybody who reads main.
    series = [commit["title"] for commit in hub.commits("dataset", REPO, "refs/pr/1")][:3]
    assert series == [
        "data: build 2 (part 3 of 3)",
        "data: build 2 (part 2 of 3)",
        "Publish with defect-hub, in parts",
    ]


def test_a_series_goes_on_where_it_was_interrupted(hub: LocalHub) -> None:
    publish(staged(shards("a")), Target(REPO))
    new = staged(shards(*[f"n{number}" for number in range(10)]), "2")
    hub.faults.add("POST", "/commit/", skip=1, times=None, status=403)
    with pytest.raises(PublishError, match="403"):
        publish(new, Target(REPO), max_operations=4)
    assert content(hub).keys() == {"README.md", MANIFEST, "data/a.parquet"}
    hub.faults.clear()
    publish(new, Target(REPO), max_operations=4)
    assert content(hub).keys() == {*new.files, MANIFEST}
    assert all(len(puts) == 1 for puts in hub.log.uploads().values())


def test_an_edit_on_the_hub_is_not_lost(hub: LocalHub) -> None:
    publish(staged(shards("a")), Target(REPO))
    edit = CommitOperationAdd("README.md", CARD + b"\nA correction.\n")
    hub.api().create_commit(REPO, [edit], commit_message="by hand", repo_type="dataset")
    with pytest.raises(PublishError, match=r"README\.md: edited on the Hub.* --overwrite"):
        publish(staged(shards("b"), "2"), Target(REPO))
    assert b"A correction." in content(hub)["README.md"]
    publish(staged(shards("b"), "2"), Target(REPO), overwrite=True)
    assert content(hub)["README.md"] == CARD


def test_a_repository_of_somebody_else_is_not_emptied(hub: LocalHub) -> None:
    hub.api().create_repo(REPO, repo_type="dataset")
    theirs = [CommitOperationAdd(path, data) for path, data in {**shards("x"), "LICENSE": b"mine"}.items()]
    hub.api().create_commit(REPO, theirs, commit_message="theirs", repo_type="dataset")
    with pytest.raises(PublishError, match=r"not published by defect-hub, and data/x\.parquet .* right repository"):
        publish(staged(shards("b")), Target(REPO))
    publish(staged(shards("b")), Target(REPO), overwrite=True)
    assert content(hub).keys() == {"README.md", MANIFEST, "LICENSE", "data/b.parquet"}


def test_a_file_removed_on_the_hub_comes_back(hub: LocalHub) -> None:
    publish(staged(shards("a", "b")), Target(REPO))
    gone = CommitOperationDelete("data/a.parquet")
    hub.api().create_commit(REPO, [gone], commit_message="oops", repo_type="dataset")
    publish(staged(shards("a", "b")), Target(REPO))
    assert "data/a.parquet" in content(hub)


def test_a_new_space_gets_its_sdk_and_replaces_the_first_readme(hub: LocalHub) -> None:
    card = b"---\ntitle: x\nsdk: gradio\nsdk_version: 6.31.0\napp_file: app.py\n---\n\n# X\n"
    publish(Staged("space", {"README.md": card, "app.py": b"1"}, "x"), Target("org/x"))
    assert hub.files("space", "org/x")["README.md"] == card
    hub.api().create_repo("org/y", repo_type="space", space_sdk="gradio")  # Interrupted after this.
    publish(Staged("space", {"README.md": card, "app.py": b"1"}, "x"), Target("org/y"))
    assert hub.files("space", "org/y")["README.md"] == card


def test_a_bad_card_is_refused_before_anything_is_sent(hub: LocalHub) -> None:
    bad = Staged("dataset", {"README.md": b"---\nlicense: [\n---\n", **shards("a")}, "x")
    with pytest.raises(ValueError, match="README"):
        publish(bad, Target(REPO))
    assert not hub.log.uploads()
    assert not hub.repo("dataset", REPO).exists


def test_a_private_word_is_refused_before_anything_is_sent(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"out": str(tmp_path.resolve() / "x")}))
    with pytest.raises(PublishError, match=r"run\.json: holds the folder"):
        publish(staged({"run.json": tmp_path / "run.json"}), Target(REPO))
    assert not hub.repo("dataset", REPO).exists


@pytest.mark.parametrize("repo", ["data", "a/b/c", "https://huggingface.co/datasets/org/data", "org/my data", ""])
def test_ids_that_are_none(repo: str) -> None:
    with pytest.raises(PublishError, match="NAMESPACE/NAME"):
        Target(repo)


@pytest.mark.parametrize("wrong", [{"revision": "refs/pr/1"}, {"tag": "v 1"}, {"tag": "v1..0"}, {"revision": ""}])
def test_names_of_branches_and_tags(wrong: dict[str, str]) -> None:
    with pytest.raises(PublishError, match="no name for a branch or tag"):
        Target(REPO, **wrong)


def test_a_branch_is_not_called_like_a_tag(hub: LocalHub) -> None:
    publish(staged(shards("a")), Target(REPO, tag="v1"))
    with pytest.raises(PublishError, match="v1 is a tag"):
        publish(staged(shards("b"), "2"), Target(REPO, revision="v1"))
    assert "data/a.parquet" in content(hub, "v1")


def test_a_dead_connection_of_another_transfer_is_explained(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ConnectionError("https://cas.example/?signature=secret")  # As hf_xet raises it.

    monkeypatch.setattr(HfApi, "preupload_lfs_files", broken)
    with pytest.raises(PublishError, match="run the same command again") as caught:
        publish(staged(shards("a")), Target(REPO))
    assert "secret" not in str(caught.value)


def test_targets_that_contradict_themselves() -> None:
    for wrong in ({"tag": "v1"}, {"revision": "dev"}):
        with pytest.raises(PublishError, match="pull request is made against main"):
            Target(REPO, create_pr=True, **wrong)
