import subprocess
from collections.abc import Mapping
from hashlib import sha1, sha256
from pathlib import Path

import pytest
from huggingface_hub.hf_api import RepoFile

from defect_hub.publishing.plan import MANIFEST, Plan, Remote, compare, lines, local_files, parse_manifest, shown_size
from defect_hub.publishing.staged import Staged


def remote_file(path: str, content: bytes, lfs: bool) -> RepoFile:
    """A file as the Hub's answer describes it."""
    pointer = {"size": len(content), "oid": sha256(content).hexdigest(), "pointerSize": 130} if lfs else None
    oid = sha1(b"blob %d\0" % len(content) + content).hexdigest()  # What git does.
    return RepoFile(path=path, size=len(content), oid="0" * 40 if lfs else oid, lfs=pointer)


def remote(files: Mapping[str, bytes], manifest: Mapping[str, bytes] | None = None) -> Remote:
    """A repository whose last publication wrote `manifest`; Parquet files lie in the large file storage."""
    listed = {path: sha256(content).hexdigest() for path, content in (manifest or {}).items()}
    found = {path: remote_file(path, content, path.endswith(".parquet")) for path, content in files.items()}
    return Remote(True, False, "1" * 40, found, listed)


def plan_of(local: Mapping[str, bytes], there: Mapping[str, bytes], manifest: Mapping[str, bytes]) -> Plan:
    staged = Staged("dataset", local, "x: build 1", owned=("data/*",))
    return compare(staged, local_files(staged), remote(there, manifest), there.__getitem__)


def test_the_manifest_is_what_sha256sum_checks(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a b.parquet").write_bytes(b"rows")
    (tmp_path / "README.md").write_bytes(b"# x\n")
    files = {"README.md": b"# x\n", "data/a b.parquet": tmp_path / "data" / "a b.parquet"}
    manifest = local_files(Staged("dataset", files, "x"))[MANIFEST].content
    assert isinstance(manifest, bytes)
    (tmp_path / MANIFEST).write_bytes(manifest)
    subprocess.run(["sha256sum", "--check", "--strict", MANIFEST], cwd=tmp_path, check=True, capture_output=True)
    assert parse_manifest(manifest).keys() == files.keys()


def test_an_empty_repository_gets_everything() -> None:
    plan = plan_of({"README.md": b"a", "data/x.parquet": b"b"}, {".gitattributes": b"*"}, {})
    assert plan == Plan(("README.md", "data/x.parquet", MANIFEST), (), (), (), ())


def test_only_differences_are_sent_and_nothing_where_there_are_none() -> None:
    first = {"README.md": b"a", "data/x.parquet": b"b", "data/y.parquet": b"c"}
    there = {**first, MANIFEST: local_files(Staged("dataset", first, "x"))[MANIFEST].content}
    assert plan_of(first, there, first).is_done
    second = {"README.md": b"A", "data/x.parquet": b"b"}
    plan = plan_of(second, there, first)
    assert plan == Plan((), ("README.md", MANIFEST), ("data/y.parquet",), ("data/x.parquet",), ())


def test_equal_sizes_are_no_equal_contents() -> None:
    there = {"README.md": b"b", "data/x.parquet": b"2"}
    assert plan_of({"README.md": b"a", "data/x.parquet": b"1"}, there, there).changed == (
        "README.md",
        "data/x.parquet",
    )


def test_files_of_others_stay_but_for_those_that_loaders_would_read() -> None:
    there = {".gitattributes": b"*", "notes.md": b"by hand", "data/old.parquet": b"rows"}
    plan = plan_of({"README.md": b"a"}, there, {})
    assert plan.removed == plan.foreign == ("data/old.parquet",)


@pytest.mark.parametrize("path", ["README.md", "data/x.parquet"])
def test_an_edit_on_the_hub_is_seen(path: str) -> None:
    published = {"README.md": b"a", "data/x.parquet": b"b"}
    plan = plan_of({"README.md": b"new", "data/x.parquet": b"new"}, {**published, path: b"edited"}, published)
    assert plan.foreign == (path,)


def test_the_lines_name_every_change_and_its_size() -> None:
    local = {"README.md": b"a" * 1500, "data/x.parquet": b"b"}
    there = {"README.md": b"edited", "data/x.parquet": b"b", "data/y.parquet": b"ccc"}
    staged = Staged("dataset", local, "x", owned=("data/*",))
    files, hub = local_files(staged), remote(there, {})
    told = list(lines(compare(staged, files, hub, there.__getitem__), files, hub))
    assert [line.split()[:4] for line in told[1:]] == [
        ["~", "README.md", "1.5", "kB"],
        ["-", "data/y.parquet", "3", "B"],
        ["=", "1", "files", "are"],
    ]
    assert told[0].split()[:2] == ["+", MANIFEST]
    assert "not written by defect-hub" in told[1]


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12_345_678, "12.3 MB"), (5e12, "5000.0 GB")]
)
def test_sizes(size: float, shown: str) -> None:
    assert shown_size(int(size)) == shown
