"""Endpoints that read a repository: files, trees, information, refs, history."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlencode

import yaml
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from tests.hub.access import account_of, gate, param, repo_of, state_of, writer
from tests.hub.cards import front_matter
from tests.hub.storage import Entry, HubError, Repo, git_oid

EXPANDED_PAGE = 50


async def resolve(request: Request) -> Response:
    """Give a file, or a part of it; the ETag is the name of the content."""
    repo = repo_of(request)
    revision, path = param(request, "rev"), param(request, "path")
    commit = repo.resolve(revision)
    gate(request, repo)
    headers = {"X-Repo-Commit": commit}
    entry = repo.commit(commit)["tree"].get(path)
    if entry is None:
        raise HubError(404, "Entry not found", "EntryNotFound", headers=headers)
    headers["ETag"] = f'"{entry.get("sha256", entry["oid"])}"'
    if "sha256" in entry:
        headers |= {"X-Linked-ETag": headers["ETag"], "X-Linked-Size": str(entry["size"])}
    text = request.query_params.get("download") is None and path.endswith((".md", ".txt", ".py"))
    media = "text/plain; charset=utf-8" if text else "application/octet-stream"
    return FileResponse(repo.content_path(entry), headers=headers, media_type=media)


def file_info(path: str, entry: Entry) -> dict[str, Any]:
    """Return a file as the tree shows it."""
    info = {"type": "file", "oid": entry["oid"], "size": entry["size"], "path": path}
    if "sha256" in entry:
        info["lfs"] = {"oid": entry["sha256"], "size": entry["size"], "pointerSize": entry["pointer"]}
    return info


def folder_info(path: str, tree: Mapping[str, Entry]) -> dict[str, Any]:
    """Return a folder as the tree shows it; its oid changes with what is inside."""
    inside = [f"{name} {entry['oid']}" for name, entry in tree.items() if name.startswith(f"{path}/")]
    return {"type": "directory", "oid": git_oid("\n".join(inside).encode(), "tree"), "size": 0, "path": path}


def entries_below(tree: Mapping[str, Entry], folder: str, recursive: bool) -> list[dict[str, Any]]:
    """Return files and folders below a folder (empty: the root), sorted by path."""
    prefix = f"{folder}/" if folder else ""
    found: dict[str, dict[str, Any]] = {}
    for path, entry in tree.items():
        if path.startswith(prefix):
            names = path.removeprefix(prefix).split("/")
            for depth in range(1, len(names) if recursive else min(len(names), 2)):
                above = prefix + "/".join(names[:depth])
                if above not in found:
                    found[above] = folder_info(above, tree)
            if recursive or len(names) == 1:
                found[path] = file_info(path, entry)
    return [found[path] for path in sorted(found)]


def expanded(repo: Repo, oid: str, infos: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add to files and folders the last commit that changed them."""
    history = list(repo.history(oid))

    def state(commit: dict[str, Any] | None, info: dict[str, Any]) -> object:
        tree = {} if commit is None else commit["tree"]
        entry = tree.get(info["path"])
        return entry if info["type"] == "file" else folder_info(info["path"], tree)

    def last(info: dict[str, Any]) -> dict[str, Any]:
        pairs = zip(history, [*history[1:], None], strict=True)
        commit = next(newer for newer, older in pairs if state(newer, info) != state(older, info))
        return {"id": commit["oid"], "title": commit["title"], "date": commit["date"]}

    return [{**info, "lastCommit": last(info)} for info in infos]


def is_true(value: str | None) -> bool:
    return (value or "").lower() in ("true", "1")


async def tree(request: Request) -> Response:
    """List a folder, page by page: the Link header names the next page."""
    repo = repo_of(request)
    oid = repo.resolve(param(request, "rev"))
    folder = param(request, "path") if "path" in request.path_params else ""
    query = request.query_params
    found = entries_below(repo.commit(oid)["tree"], folder, is_true(query.get("recursive")))
    if folder and not found:
        raise HubError(404, f'{folder} does not exist on "{param(request, "rev")}"', "EntryNotFound")
    expand = is_true(query.get("expand"))
    size, start = EXPANDED_PAGE if expand else state_of(request).page_size, int(query.get("cursor", 0))
    page = found[start : start + size]
    headers = {}
    if start + size < len(found):
        following = urlencode({**query, "cursor": start + size})
        headers["Link"] = f'<{state_of(request).url}{request.scope["path"]}?{following}>; rel="next"'
    return JSONResponse(expanded(repo, oid, page) if expand else page, headers=headers)


async def paths_info(request: Request) -> Response:
    """Describe the given paths; those that do not exist are left out."""
    body = await request.body()
    repo = repo_of(request)
    asked = parse_qs(body.decode())
    oid = repo.resolve(param(request, "rev"))
    files = repo.commit(oid)["tree"]
    found = []
    for path in asked.get("paths", []):
        if path in files:
            found.append(file_info(path, files[path]))
        elif any(name.startswith(f"{path}/") for name in files):
            found.append(folder_info(path, files))
    return JSONResponse(expanded(repo, oid, found) if is_true(asked.get("expand", [""])[0]) else found)


def summary(repo: Repo, oid: str, blobs: bool = False) -> dict[str, Any]:
    """Return what the Hub tells of a repository at a commit."""
    settings, commit = repo.settings, repo.commit(oid)
    readme = commit["tree"].get("README.md")
    try:
        card = None if readme is None else front_matter(repo.content_path(readme).read_text(encoding="utf-8"))
    except yaml.YAMLError:
        card = None
    siblings = []
    for path, entry in commit["tree"].items():
        sibling: dict[str, Any] = {"rfilename": path}
        if blobs:
            sibling |= {"size": entry["size"], "blobId": entry["oid"]}
            if "sha256" in entry:
                sibling["lfs"] = {"sha256": entry["sha256"], "size": entry["size"], "pointerSize": entry["pointer"]}
        siblings.append(sibling)
    answer = {"id": repo.id, "author": repo.id.split("/")[0], "sha": oid, "lastModified": commit["date"]}
    answer |= {name: settings[name] for name in ("private", "gated", "createdAt")}
    answer |= {"disabled": False, "downloads": 0, "likes": 0}
    answer |= {"siblings": siblings, "tags": (card or {}).get("tags", [])}
    if card is not None:
        answer["cardData"] = card
    if repo.kind == "model":
        answer["modelId"] = repo.id
    if repo.kind == "space":
        answer["sdk"] = settings["sdk"]
    return answer


async def info(request: Request) -> Response:
    repo = repo_of(request)
    oid = repo.resolve(param(request, "rev") if "rev" in request.path_params else "main")
    return JSONResponse(summary(repo, oid, is_true(request.query_params.get("blobs"))))


async def listing(kind: str, request: Request) -> Response:
    """List the repositories of an owner that whoever asks may see."""
    author = request.query_params.get("author", "*")
    account = account_of(request)
    repos = []
    for path in sorted((state_of(request).root / f"{kind}s").glob(f"{author}/*/repo.json")):
        repo = state_of(request).repo(kind, "/".join(path.parts[-3:-1]))
        if not repo.settings["private"] or (account is not None and account.owns(path.parts[-3])):
            repos.append(summary(repo, repo.resolve("main")))
    return JSONResponse(repos)


async def auth_check(request: Request) -> Response:
    repo = repo_of(request)
    gate(request, repo)
    if request.url.path.endswith("/write"):
        writer(request, repo.id.split("/")[0])
    return JSONResponse({})


async def refs(request: Request) -> Response:
    settings = repo_of(request).settings

    def rows(table: str, prefix: str) -> list[dict[str, str]]:
        return [{"name": name, "ref": prefix + name, "targetCommit": oid} for name, oid in settings[table].items()]

    answer = {"branches": rows("branches", "refs/heads/"), "converts": [], "tags": rows("tags", "refs/tags/")}
    if request.query_params.get("include_prs"):
        answer["pullRequests"] = rows("pulls", "refs/pr/")
    return JSONResponse(answer)


async def commits(request: Request) -> Response:
    """Return the history, newest first."""
    repo = repo_of(request)
    found = []
    for one in repo.history(repo.resolve(param(request, "rev"))):
        authors = [{"user": one["author"]}]
        row = {"id": one["oid"], "title": one["title"], "message": one["message"], "date": one["date"]}
        found.append({**row, "authors": authors})
    return JSONResponse(found)


REPO = "/api/{kind}/{org}/{name}"
ROUTES = [
    Route("/{kind}/{org}/{name}/resolve/{rev}/{path:path}", resolve),
    Route("/{org}/{name}/resolve/{rev}/{path:path}", resolve),
    *(Route(f"/api/{kind}s", partial(listing, kind)) for kind in ("model", "dataset", "space")),
    Route(REPO, info),
    Route(REPO + "/revision/{rev}", info),
    Route(REPO + "/tree/{rev}", tree),
    Route(REPO + "/tree/{rev}/{path:path}", tree),
    Route(REPO + "/paths-info/{rev}", paths_info, methods=["POST"]),
    Route(REPO + "/refs", refs),
    Route(REPO + "/commits/{rev}", commits),
    Route(REPO + "/auth-check", auth_check),
    Route(REPO + "/auth-check/write", auth_check),
]
