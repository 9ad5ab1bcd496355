"""What the local Hub keeps on disk: repositories of immutable commits, and their blobs by content.

A repository is a folder: `repo.json` (settings and refs, replaced atomically), `commits/<oid>.json` (one whole tree
each, never changed), `git/<sha1>` (files of git) and `lfs/<sha256>` (large files, which repositories do not share).
"""

import json
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha1
from pathlib import Path
from typing import Any

from tests.hub.cards import gitattributes_of, is_lfs, space_readme

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n"

Entry = dict[str, Any]
"""A file of a tree: `oid` (of git; of the pointer for a large file), `size` and, for a large file, `sha256`."""


class HubError(Exception):
    """An answer of the Hub that is not a success."""

    def __init__(self, status: int, message: str, code: str = "", **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.more = more


def now() -> str:
    """Return the time as the Hub writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def git_oid(content: bytes, kind: str = "blob") -> str:
    """Return the name that git gives to a content."""
    return sha1(f"{kind} {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write by a temporary file and a rename, so that no reader sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        json.dump(value, file)
    Path(file.name).replace(path)


@dataclass(frozen=True)
class Repo:
    """One repository; `kind` is `model`, `dataset` or `space`."""

    root: Path
    kind: str
    id: str

    @property
    def folder(self) -> Path:
        return self.root / f"{self.kind}s" / self.id

    @property
    def exists(self) -> bool:
        return (self.folder / "repo.json").is_file()

    @property
    def settings(self) -> dict[str, Any]:
        return json.loads((self.folder / "repo.json").read_text(encoding="utf-8"))

    def update(self, **changes: Any) -> None:
        """Change settings or refs in one step."""
        write_json(self.folder / "repo.json", {**self.settings, **changes})

    def create(self, author: str, private: bool, sdk: str | None) -> None:
        """Begin with the commit that the Hub makes: `.gitattributes`, and the card of a Space."""
        files = {".gitattributes": gitattributes_of(self.kind)}
        if sdk is not None:
            files["README.md"] = space_readme(self.id.split("/")[1], sdk)
        tree = {path: self.store(text.encode()) for path, text in files.items()}
        first = self.write_commit(None, tree, "initial commit", "", author)
        settings: dict[str, Any] = {"private": private, "gated": False, "sdk": sdk, "createdAt": now()}
        settings |= {"variables": {}, "secrets": {}}
        refs = {"branches": {"main": first}, "tags": {}, "pulls": {}, "discussions": {}}
        write_json(self.folder / "repo.json", {**settings, **refs})

    def delete(self) -> None:
        shutil.rmtree(self.folder)

    # Blobs

    def lfs_path(self, sha256: str) -> Path:
        return self.folder / "lfs" / sha256

    def store(self, content: bytes) -> Entry:
        """Keep a file of git and return its entry."""
        oid = git_oid(content)
        path = self.folder / "git" / oid
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".tmp").write_bytes(content)
            path.with_suffix(".tmp").rename(path)
        return {"oid": oid, "size": len(content)}

    def lfs_entry(self, sha256: str) -> Entry:
        """Return the entry of a large file that has arrived."""
        size = self.lfs_path(sha256).stat().st_size
        pointer = POINTER.format(oid=sha256, size=size).encode()
        return {"oid": git_oid(pointer), "size": size, "sha256": sha256, "pointer": len(pointer)}

    def content_path(self, entry: Entry) -> Path:
        """Return where the bytes of a file are."""
        return self.lfs_path(entry["sha256"]) if "sha256" in entry else self.folder / "git" / entry["oid"]

    # Commits and refs

    def write_commit(
        self, parent: str | None, tree: Mapping[str, Entry], title: str, message: str, author: str
    ) -> str:
        """Write a snapshot and return its oid; no ref points to it yet."""
        commit: dict[str, Any] = {
            "parent": parent,
            "title": title,
            "message": message,
            "author": author,
            "date": now(),
        }
        commit["tree"] = dict(sorted(tree.items()))
        oid = git_oid(json.dumps([commit, time.time_ns()]).encode(), "commit")
        write_json(self.folder / "commits" / f"{oid}.json", {"oid": oid, **commit})
        return oid

    def commit(self, oid: str) -> dict[str, Any]:
        return json.loads((self.folder / "commits" / f"{oid}.json").read_text(encoding="utf-8"))

    def history(self, oid: str) -> Iterable[dict[str, Any]]:
        """Yield the commit and its ancestors, newest first."""
        following: str | None = oid
        while following is not None:
            commit = self.commit(following)
            yield commit
            following = commit["parent"]

    def find_ref(self, revision: str) -> tuple[str, str] | None:
        """Return the table and the name of a branch, pull request or tag."""
        settings = self.settings
        for prefix, table in (("refs/pr/", "pulls"), ("refs/heads/", "branches"), ("refs/tags/", "tags")):
            name = revision.removeprefix(prefix)
            if name in settings[table] and (name != revision or table != "pulls"):
                return table, name
        return None

    def resolve(self, revision: str) -> str:
        """Return the commit that a revision means: a branch, tag, pull request or (a beginning of) an oid."""
        if (found := self.find_ref(revision)) is not None:
            table, name = found
            return self.settings[table][name]
        matches = list((self.folder / "commits").glob(f"{revision}*.json")) if revision.isalnum() else []
        if len(revision) >= 7 and len(matches) == 1:
            return matches[0].stem
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def set_ref(self, table: str, name: str, oid: str | None) -> None:
        """Point a ref to a commit, or remove it."""
        refs = {**self.settings[table], name: oid}
        if oid is None:
            del refs[name]
        self.update(**{table: refs})

    def uses_lfs(self, tree: Mapping[str, Entry], path: str) -> bool:
        """Whether `.gitattributes` of the tree sends the path to large-file storage."""
        attributes = tree.get(".gitattributes")
        text = "" if attributes is None else self.content_path(attributes).read_text(encoding="utf-8")
        return is_lfs(path, text)
