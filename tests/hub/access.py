"""Who asks the local Hub, and what they may do: tokens, private and gated repositories."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from starlette.requests import Request

from tests.hub.storage import HubError, Repo


@dataclass
class Account:
    """The owner of a token. `none` is a stranger's token: known, without rights in the organisations."""

    name: str
    role: Literal["write", "read", "none"]
    orgs: list[str] = field(default_factory=list)

    def owns(self, namespace: str) -> bool:
        return self.role != "none" and namespace in [self.name, *self.orgs]

    def may_write(self, namespace: str) -> bool:
        return self.role == "write" and self.owns(namespace)


@dataclass
class State:
    """What all endpoints share."""

    root: Path
    url: str
    accounts: dict[str, Account]
    part_size: int | None = None
    """Size of the parts of a multipart upload, in bytes; larger files are sent in parts. None: never in parts."""
    page_size: int = 1000

    def repo(self, kind: str, repo_id: str) -> Repo:
        return Repo(self.root, kind, repo_id)


def state_of(request: Request) -> State:
    return request.app.state.hub


def param(request: Request, name: str) -> str:
    """Return a part of the path, unquoted."""
    return unquote(request.path_params[name])


def account_of(request: Request) -> Account | None:
    """Return who asks, None without a token."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    account = state_of(request).accounts.get(header.removeprefix("Bearer "))
    if account is None:
        raise HubError(401, "Invalid credentials in Authorization header")
    return account


def signed_in(request: Request) -> Account:
    """Return who asks; nobody is refused."""
    account = account_of(request)
    if account is None:
        raise HubError(401, "Invalid username or password.")
    return account


def writer(request: Request, namespace: str, message: str = "Authorization error.") -> Account:
    """Return who asks if they may write in a namespace."""
    account = signed_in(request)
    if not account.may_write(namespace):
        raise HubError(403, message)
    return account


def repo_of(request: Request, write: bool = False) -> Repo:
    """Return the repository of the path if whoever asks may see it, or write to it.

    As on the Hub, one that is missing and one that must not be seen are the same: 404, without a token 401.
    """
    kind = request.path_params.get("kind", "models").removesuffix("s")
    namespace = param(request, "org")
    repo = state_of(request).repo(kind, f"{namespace}/{param(request, 'name')}")
    account = account_of(request)
    seen = repo.exists and (not repo.settings["private"] or (account is not None and account.owns(namespace)))
    if not seen:
        status, message = (401, "Invalid username or password.") if account is None else (404, "Repository not found")
        raise HubError(status, message, "RepoNotFound")
    if write:
        writer(request, namespace)
    return repo


def gate(request: Request, repo: Repo) -> None:
    """Refuse the files of a gated repository to those outside its organisation."""
    account = account_of(request)
    if repo.settings["gated"] and (account is None or not account.owns(repo.id.split("/")[0])):
        message = f"Access to {repo.kind} {repo.id} is restricted."
        raise HubError(401 if account is None else 403, message, "GatedRepo")


def url_of(request: Request, repo: Repo, *parts: Any) -> str:
    """Return the address of a page of a repository."""
    prefix = "" if repo.kind == "model" else f"{repo.kind}s/"
    return "/".join([state_of(request).url, prefix + repo.id, *map(str, parts)])
