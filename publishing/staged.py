"""What a repository of the Hub shall hold, before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

NAME = r"\w[\w.-]*"
REPO_ID = rf"{NAME}/{NAME}"
MANIFEST = "SHA256SUMS"
"""Added to every repository: lists every file of ours, in the form that `sha256sum --check` reads."""
RepoType = Literal["dataset", "model", "space"]


class Repository(TypedDict):
    """A repository, as huggingface_hub's calls want it named."""

    repo_id: str
    repo_type: RepoType


@dataclass(frozen=True)
class Staged:
    """The files of a repository.

    Attributes:
        repo_type: Kind of repository.
        files: Path in the repository -> local file, or content; README.md, the card, is among them.
        message: First line of the commit.
        owned: Patterns (`fnmatch` on the whole path) of files that are ours whoever wrote them: what lies there on the
            Hub and not in `files` is removed.
        notes: Lines for the plan: rows withheld, files left out and why.
    """

    repo_type: RepoType
    files: Mapping[str, Path | bytes]
    message: str
    owned: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
