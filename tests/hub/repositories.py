"""Endpoints that make, change and delete repositories, branches and tags, and say who asks."""

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.hub.access import param, repo_of, signed_in, state_of, url_of, writer
from tests.hub.cards import SDKS
from tests.hub.storage import HubError, Repo, now


async def whoami(request: Request) -> Response:
    account = signed_in(request)
    orgs = [{"type": "org", "name": name, "roleInOrg": account.role} for name in account.orgs]
    auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": account.role}}
    return JSONResponse({"type": "user", "name": account.name, "orgs": orgs, "auth": auth})


def named(request: Request, asked: dict[str, Any]) -> Repo:
    """Return the repository of a request to create or delete one; without an organisation it is the user's own."""
    namespace = asked.get("organization") or signed_in(request).name
    kind = asked.get("type") or "model"
    writer(request, namespace, f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"')
    return state_of(request).repo(kind, f"{namespace}/{asked['name']}")


async def create(request: Request) -> Response:
    asked = await request.json()
    repo = named(request, asked)
    url = url_of(request, repo)
    if repo.exists:
        raise HubError(409, f"You already created this {repo.kind} repo", url=url)
    if repo.kind == "space" and asked.get("sdk") not in SDKS:
        raise HubError(400, f'"sdk" must be one of [{", ".join(SDKS)}]')
    private = asked.get("visibility") == "private" or asked.get("private", False)
    repo.create(signed_in(request).name, private, asked.get("sdk") if repo.kind == "space" else None)
    for table in ("variables", "secrets"):
        for row in asked.get(table) or []:
            set_value(repo, table, row)
    return JSONResponse({"url": url, "name": repo.id})


async def delete(request: Request) -> Response:
    repo = named(request, await request.json())
    if not repo.exists:
        raise HubError(404, "Repository not found", "RepoNotFound")
    repo.delete()
    return Response()


async def settings(request: Request) -> Response:
    """Change who may see the repository: `visibility`, `gated`."""
    asked = await request.json()
    repo = repo_of(request, write=True)
    changes = {"gated": asked["gated"]} if "gated" in asked else {}
    if "visibility" in asked:
        changes["private"] = asked["visibility"] == "private"
    repo.update(**changes)
    return JSONResponse({name: repo.settings[name] for name in ("private", "gated")})


def set_value(repo: Repo, table: str, row: dict[str, str]) -> None:
    """Set a variable of a Space, or a secret, whose value nobody can read back."""
    shown = {"value": row["value"]} if table == "variables" else {}
    value = {**shown, "key": row["key"], "description": row.get("description"), "updatedAt": now()}
    repo.update(**{table: {**repo.settings[table], row["key"]: value}})


async def values(table: str, request: Request) -> Response:
    """Read, set or delete the variables or the secrets of a Space."""
    repo = repo_of(request, write=True)
    if request.method == "POST":
        set_value(repo, table, await request.json())
    elif request.method == "DELETE":
        key = (await request.json())["key"]
        repo.update(**{table: {name: value for name, value in repo.settings[table].items() if name != key}})
    return JSONResponse(repo.settings[table])


async def create_branch(request: Request) -> Response:
    asked = await request.json()
    repo, branch = repo_of(request, write=True), param(request, "branch")
    if branch.startswith("refs/"):
        raise HubError(400, f"Invalid reference for a branch: {branch}")
    if branch in repo.settings["branches"]:
        raise HubError(409, f"Reference already exists: refs/heads/{branch}")
    repo.set_ref("branches", branch, repo.resolve(asked.get("startingPoint", "main")))
    return JSONResponse({})


async def delete_branch(request: Request) -> Response:
    repo, branch = repo_of(request, write=True), param(request, "branch")
    if branch == "main":
        raise HubError(403, "The main branch cannot be deleted")
    if branch not in repo.settings["branches"]:
        raise HubError(404, f"Invalid rev id: refs/heads/{branch}", "RevisionNotFound")
    repo.set_ref("branches", branch, None)
    return JSONResponse({})


async def create_tag(request: Request) -> Response:
    """Tag the revision of the path."""
    asked = await request.json()
    repo = repo_of(request, write=True)
    commit = repo.resolve(param(request, "rev"))
    if asked["tag"] in repo.settings["tags"]:
        raise HubError(409, f"Tag reference exists already: refs/tags/{asked['tag']}")
    repo.set_ref("tags", asked["tag"], commit)
    return JSONResponse({})


async def delete_tag(request: Request) -> Response:
    """Delete the tag that stands in the path where `create_tag` has the revision."""
    repo, tag = repo_of(request, write=True), param(request, "rev")
    if tag not in repo.settings["tags"]:
        raise HubError(404, f"Invalid rev id: refs/tags/{tag}", "RevisionNotFound")
    repo.set_ref("tags", tag, None)
    return JSONResponse({})


REPO = "/api/{kind}/{org}/{name}"
ROUTES = [
    Route("/api/whoami-v2", whoami),
    Route("/api/repos/create", create, methods=["POST"]),
    Route("/api/repos/delete", delete, methods=["DELETE"]),
    Route(REPO + "/settings", settings, methods=["PUT"]),
    *(
        Route(f"{REPO}/{table}", partial(values, table), methods=["GET", "POST", "DELETE"])
        for table in ("variables", "secrets")
    ),
    Route(REPO + "/branch/{branch}", create_branch, methods=["POST"]),
    Route(REPO + "/branch/{branch}", delete_branch, methods=["DELETE"]),
    Route(REPO + "/tag/{rev}", create_tag, methods=["POST"]),
    Route(REPO + "/tag/{rev}", delete_tag, methods=["DELETE"]),
]
