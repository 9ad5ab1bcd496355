"""Endpoints of discussions and pull requests."""

import secrets
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.hub.access import param, repo_of, signed_in
from tests.hub.storage import Entry, HubError, Repo, now

PAGE = 10


def event(author: str, kind: str, **data: Any) -> dict[str, Any]:
    """Return an entry of a discussion's story."""
    return {"id": secrets.token_hex(12), "author": {"name": author}, "createdAt": now(), "type": kind, "data": data}


def comment_event(author: str, text: str) -> dict[str, Any]:
    latest = {"raw": text, "html": text, "updatedAt": now(), "author": {"name": author}}
    return event(author, "comment", edited=False, hidden=False, latest=latest, history=[])


def open_discussion(
    repo: Repo,
    title: str,
    text: str,
    author: str,
    pull: str | None = None,
    base: str | None = None,
    draft: bool = False,
) -> int:
    """Open a discussion, or a pull request whose head is the commit `pull`, made on the commit `base`."""
    number = len(repo.settings["discussions"]) + 1
    found = {"num": number, "title": title, "author": {"name": author}, "createdAt": now(), "base": base}
    found |= {"status": "draft" if draft else "open", "isPullRequest": pull is not None, "merged": None}
    found["events"] = [comment_event(author, text)]
    save(repo, found)
    if pull is not None:
        repo.set_ref("pulls", str(number), pull)
    return number


def save(repo: Repo, discussion: dict[str, Any]) -> None:
    repo.update(discussions={**repo.settings["discussions"], str(discussion["num"]): discussion})


def find(request: Request, write: bool = False) -> tuple[Repo, dict[str, Any]]:
    repo = repo_of(request, write)
    discussion = repo.settings["discussions"].get(param(request, "num"))
    if discussion is None:
        raise HubError(404, "Discussion not found")
    return repo, {**discussion, "repo": {"name": repo.id, "type": repo.kind}}


def commits_of(repo: Repo, discussion: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the commits of a pull request, oldest first."""
    found: list[dict[str, Any]] = []
    for commit in repo.history(repo.settings["pulls"][str(discussion["num"])]):
        if commit["oid"] == discussion["base"]:
            break
        found.insert(0, commit)
    return found


async def listing(request: Request) -> Response:
    repo, query = repo_of(request), request.query_params
    pull = {"pull_request": True, "discussion": False}.get(query.get("type", "all"))
    is_open = {"open": True, "closed": False}.get(query.get("status", "all"))
    found = [
        {**one, "repo": {"name": repo.id, "type": repo.kind}}
        for one in reversed(repo.settings["discussions"].values())
        if pull in (None, one["isPullRequest"])
        and is_open in (None, one["status"] in ("open", "draft"))
        and query.get("author", one["author"]["name"]) == one["author"]["name"]
    ]
    start = int(query.get("p", 0)) * PAGE
    return JSONResponse({"discussions": found[start : start + PAGE], "count": len(found), "start": start})


async def create(request: Request) -> Response:
    """Open a discussion, or a pull request without commits, which is a draft."""
    asked = await request.json()
    repo, author = repo_of(request, write=True), signed_in(request).name
    main = repo.resolve("main") if asked["pullRequest"] else None
    number = open_discussion(repo, asked["title"], asked["description"], author, main, main, draft=True)
    if main is None:
        save(repo, {**repo.settings["discussions"][str(number)], "status": "open"})
    return JSONResponse({"num": number, "pullRequest": asked["pullRequest"]})


async def details(request: Request) -> Response:
    repo, discussion = find(request)
    if discussion["isPullRequest"]:
        commits = commits_of(repo, discussion)
        discussion["events"] += [
            {**event(one["author"], "commit", subject=one["title"], oid=one["oid"]), "createdAt": one["date"]}
            for one in commits
        ]
        conflicts = merge(repo, discussion)[1] if discussion["status"] != "merged" else []
        discussion["changes"] = {"base": "refs/heads/main", "mergeCommitId": discussion["merged"]}
        discussion |= {"filesWithConflicts": conflicts, "diff": ""}
    return JSONResponse(discussion)


async def comment(request: Request) -> Response:
    asked = await request.json()
    repo, discussion = find(request)
    message = comment_event(signed_in(request).name, asked["comment"])
    discussion["events"].append(message)
    save(repo, discussion)
    return JSONResponse({"newMessage": message})


def set_status(repo: Repo, discussion: dict[str, Any], status: str, author: str, text: str | None) -> dict[str, Any]:
    """Change the status, and tell it in the discussion."""
    change = event(author, "status-change", status=status)
    comments = [] if text is None else [comment_event(author, text)]
    save(repo, {**discussion, "status": status, "events": [*discussion["events"], *comments, change]})
    return change


async def change_status(request: Request) -> Response:
    asked = await request.json()
    repo, discussion = find(request, write=True)
    author = signed_in(request).name
    return JSONResponse({"newStatus": set_status(repo, discussion, asked["status"], author, asked.get("comment"))})


def merge(repo: Repo, discussion: dict[str, Any]) -> tuple[dict[str, Entry], list[str]]:
    """Return the tree of main with a pull request's changes, and the paths that both have changed."""
    base: Mapping[str, Entry] = repo.commit(discussion["base"])["tree"]
    ours = repo.commit(repo.resolve("main"))["tree"]
    theirs = repo.commit(repo.settings["pulls"][str(discussion["num"])])["tree"]
    merged, conflicts = dict(ours), []
    for path in sorted(base.keys() | theirs.keys()):
        change = theirs.get(path)
        if change == base.get(path) or change == ours.get(path):
            continue
        if ours.get(path) != base.get(path):
            conflicts.append(path)
        elif change is None:
            del merged[path]
        else:
            merged[path] = change
    return merged, conflicts


async def merge_pull(request: Request) -> Response:
    """Squash a pull request into one commit on main."""
    asked = await request.json() if await request.body() else None
    repo, discussion = find(request, write=True)
    if discussion["status"] != "open" or not discussion["isPullRequest"]:
        raise HubError(400, f"This pull request is {discussion['status']}: only an open one can be merged")
    tree, conflicts = merge(repo, discussion)
    if conflicts:
        raise HubError(409, f"There are conflicts in {', '.join(conflicts)}")
    author = signed_in(request).name
    lines = [f"- {one['title']} ({one['oid']})" for one in commits_of(repo, discussion)]
    title = f"{discussion['title']} (#{discussion['num']})"
    oid = repo.write_commit(repo.resolve("main"), tree, title, "\n".join(lines), author)
    repo.set_ref("branches", "main", oid)
    change = set_status(repo, {**discussion, "merged": oid}, "merged", author, (asked or {}).get("comment"))
    return JSONResponse({"newStatus": change})


BASE = "/api/{kind}/{org}/{name}/discussions"
ROUTES = [
    Route(BASE, listing),
    Route(BASE, create, methods=["POST"]),
    Route(BASE + "/{num}", details),
    Route(BASE + "/{num}/comment", comment, methods=["POST"]),
    Route(BASE + "/{num}/status", change_status, methods=["POST"]),
    Route(BASE + "/{num}/merge", merge_pull, methods=["POST"]),
]
