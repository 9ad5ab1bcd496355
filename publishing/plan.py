"""What a publication changes: the files that shall be there beside those that are."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash
from tqdm import tqdm

from defect_hub.publishing.hub import ask
from defect_hub.publishing.staged import MANIFEST, Repository, Staged

GIT_FILES = (".gitattributes",)
"""Kept by the Hub itself."""
FIRST_FILES = (*GIT_FILES, "README.md")
"""What the Hub puts into a new repository."""


@dataclass(frozen=True)
class LocalFile:
    """A file to publish.

    Attributes:
        content: File, or its bytes.
        size: In bytes.
        sha256: Of the content, in hexadecimal digits.
        modified: When the file had this content, in nanoseconds.
    """

    content: Path | bytes
    size: int
    sha256: str
    modified: int = 0

    @property
    def is_unchanged(self) -> bool:
        """Whether the file is as it was when it was hashed, by its size and time."""
        if isinstance(self.content, bytes):
            return True
        if not self.content.is_file():
            return False
        found = self.content.stat()
        return (found.st_size, found.st_mtime_ns) == (self.size, self.modified)

    @cached_property
    def git_oid(self) -> str:
        """The name that git gives the content."""
        return git_hash(self.content if isinstance(self.content, bytes) else self.content.read_bytes())


@dataclass(frozen=True)
class Remote:
    """A revision of a repository on the Hub.

    Attributes:
        exists: Whether the repository is there.
        private: Whether only its owners see it.
        head: Commit of the revision; None where the revision is not there.
        files: Its files by path.
        manifest: SHA-256 of each file as the last publication wrote it.
        tags: Commit of each tag.
        fresh: Whether nobody has committed anything yet.
        asked: False for a guess at what is there, because the Hub could not be asked.
    """

    exists: bool = False
    private: bool = False
    head: str | None = None
    files: Mapping[str, RepoFile] = field(default_factory=dict)
    manifest: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    fresh: bool = False
    asked: bool = True


@dataclass(frozen=True)
class Plan:
    """What a publication does to a repository.

    Attributes:
        added: Paths of new files.
        changed: Paths of files that get another content.
        removed: Paths of files that go: an earlier publication of ours wrote them, or nobody else may.
        kept: Paths of files that are there already.
        foreign: Paths among `changed` and `removed` whose content is not what a publication of ours wrote.
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    kept: tuple[str, ...]
    foreign: tuple[str, ...]

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return not (self.added or self.changed or self.removed)

    @property
    def sent(self) -> tuple[str, ...]:
        """Paths of the files whose content the Hub needs."""
        return (*self.added, *self.changed)


def local_files(staged: Staged) -> dict[str, LocalFile]:
    """The files of a repository with sizes and hashes, and the manifest that lists them."""
    found = {}
    for path, content in tqdm(sorted(staged.files.items()), desc="hashing", unit="file", leave=False, delay=1):
        if isinstance(content, bytes):
            found[path] = LocalFile(content, len(content), hashlib.sha256(content).hexdigest())
        else:
            stat = content.stat()
            with content.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[path] = LocalFile(content, stat.st_size, digest, stat.st_mtime_ns)
    lines = "".join(f"{file.sha256}  {path}\n" for path, file in found.items()).encode()
    found[MANIFEST] = LocalFile(lines, len(lines), hashlib.sha256(lines).hexdigest())
    return found


def read_remote(api: HfApi, repository: Repository, revision: str) -> Remote:
    """What the Hub has.

    Args:
        api: Access to the Hub.
        repository: Which one.
        revision: Branch, or reference of a pull request.

    Raises:
        PublishError: The Hub does not answer, or refuses.
    """
    about = f"{repository['repo_type']} {repository['repo_id']}"
    try:
        info = ask(lambda: api.repo_info(**repository), about)
    except RepositoryNotFoundError:
        return Remote()
    refs = ask(lambda: api.list_repo_refs(**repository), about)
    tags = {tag.name: tag.target_commit for tag in refs.tags}
    try:
        head = ask(lambda: api.repo_info(**repository, revision=revision), about).sha or ""
    except RevisionNotFoundError:
        return Remote(exists=True, private=bool(info.private), tags=tags)
    tree = ask(lambda: list(api.list_repo_tree(**repository, revision=head, recursive=True)), about)
    files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    manifest: dict[str, str] = {}
    fresh = False
    if MANIFEST in files:
        manifest = parse_manifest(download(api, repository, head, MANIFEST))
    elif files.keys() <= {*FIRST_FILES}:
        fresh = len(ask(lambda: api.list_repo_commits(**repository, revision=head), about)) == 1
    return Remote(True, bool(info.private), head, files, manifest, tags, fresh)


def parse_manifest(content: bytes) -> dict[str, str]:
    """SHA-256 of each path that a manifest lists; lines of another form are nobody's."""
    lines = (line.split("  ", 1) for line in content.decode(errors="replace").split("\n"))
    return {line[1]: line[0] for line in lines if len(line) == 2}


def download(api: HfApi, repository: Repository, revision: str, path: str) -> bytes:
    """The content of a small file on the Hub."""
    with tempfile.TemporaryDirectory() as folder:
        place = ask(
            lambda: api.hf_hub_download(**repository, filename=path, revision=revision, local_dir=folder),
            f"{repository['repo_type']} {repository['repo_id']}: {path}",
        )
        return Path(place).read_bytes()


def compare(staged: Staged, local: Mapping[str, LocalFile], remote: Remote, read: Callable[[str], bytes]) -> Plan:
    """What has to change.

    Args:
        staged: What shall be there, and which files are ours whoever wrote them.
        local: Its files.
        remote: What is there.
        read: Gives the content of a file that is there.
    """
    added: list[str] = []
    changed: list[str] = []
    kept: list[str] = []
    for path, file in local.items():
        there = remote.files.get(path)
        (added if there is None else kept if _is_equal(file, there) else changed).append(path)
    removed = [path for path in sorted(remote.files.keys() - local.keys()) if _is_ours(path, staged, remote)]
    touched = [path for path in (*changed, *removed) if path != MANIFEST and not remote.fresh]
    foreign = list(_foreign(touched, remote, read))
    return Plan(tuple(added), tuple(changed), tuple(removed), tuple(kept), tuple(foreign))


def _is_equal(file: LocalFile, there: RepoFile) -> bool:
    if file.size != there.size:
        return False
    return file.sha256 == there.lfs.sha256 if there.lfs else file.git_oid == there.blob_id


def _is_ours(path: str, staged: Staged, remote: Remote) -> bool:
    listed = path in remote.manifest or any(fnmatchcase(path, pattern) for pattern in staged.owned)
    return listed and path not in GIT_FILES


def _foreign(paths: Sequence[str], remote: Remote, read: Callable[[str], bytes]) -> Iterator[str]:
    """Those whose content on the Hub is not the one that the manifest there states."""
    for path in paths:
        lfs = remote.files[path].lfs
        stated = remote.manifest.get(path)
        if stated is None or stated != (lfs.sha256 if lfs else hashlib.sha256(read(path)).hexdigest()):
            yield path


def lines(plan: Plan, local: Mapping[str, LocalFile], remote: Remote) -> Iterator[str]:
    """The plan for a terminal: each file that changes, and how many stay."""
    for mark, paths in (("+", plan.added), ("~", plan.changed), ("-", plan.removed)):
        for path in paths:
            size = local[path].size if path in local else remote.files[path].size
            note = "   not written by defect-hub" if path in plan.foreign else ""
            yield f"  {mark} {path:<60} {shown_size(size):>9}{note}"
    if plan.kept:
        size = sum(local[path].size for path in plan.kept)
        yield f"  = {len(plan.kept)} files are there already, {shown_size(size)}"


def shown_size(size: int) -> str:
    """Bytes in the unit that suits them."""
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
