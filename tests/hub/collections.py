"""Endpoints of collections, kept in `collections.json`."""

import json
import re
import secrets
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.hub.access import account_of, param, signed_in, state_of, writer
from tests.hub.storage import HubError, now, write_json

SHOWN_ITEMS = 4
"""Items of a collection in a listing."""

Collection = dict[str, Any]


def path_of(request: Request) -> Path:
    return state_of(request).root / "collections.json"


def load(request: Request) -> dict[str, Collection]:
    """Return all collections by slug, in the order in which they were made."""
    path = path_of(request)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def save(request: Request, collection: Collection) -> None:
    collection["lastUpdated"] = now()
    for position, item in enumerate(collection["items"]):
        item["position"] = position
    write_json(path_of(request), {**load(request), collection["slug"]: collection})


def find(request: Request, write: bool = False) -> Collection:
    """Return the collection of the path; its trailing id counts, its title may have changed."""
    slug = f"{param(request, 'org')}/{param(request, 'slug')}"
    collection = next((one for key, one in load(request).items() if key[-24:] == slug[-24:]), None)
    account = account_of(request)
    if collection is None or (collection["private"] and (account is None or not account.owns(collection["owner"]))):
        raise HubError(404, "Collection not found")
    if write:
        writer(request, collection["owner"])
    return collection


async def listing(request: Request) -> Response:
    """List the collections of an owner, each with its first items only."""
    owner, account = request.query_params.get("owner"), account_of(request)
    found = []
    for one in load(request).values():
        seen = not one["private"] or (account is not None and account.owns(one["owner"]))
        if seen and owner in (None, one["owner"]):
            row = {**one, "items": one["items"][:SHOWN_ITEMS]}
            del row["position"]
            found.append(row)
    return JSONResponse(found)


async def create(request: Request) -> Response:
    asked = await request.json()
    owner = asked.get("namespace") or signed_in(request).name
    writer(request, owner, f'You don\'t have the rights to create a collection under the namespace "{owner}"')
    for slug, one in load(request).items():
        if (one["owner"], one["title"]) == (owner, asked["title"]):
            raise HubError(409, "This collection already exists", slug=slug)
    words = re.sub(r"[^a-z0-9]+", "-", asked["title"].lower()).strip("-")
    slug = f"{owner}/{words}-{secrets.token_hex(12)}"
    collection = {"slug": slug, "title": asked["title"], "owner": owner, "items": [], "position": len(load(request))}
    collection |= {"private": bool(asked.get("private")), "theme": "orange", "upvotes": 0}
    collection["description"] = asked.get("description")
    save(request, collection)
    return JSONResponse(collection)


async def get(request: Request) -> Response:
    return JSONResponse(find(request))


async def change(request: Request) -> Response:
    """Change title, description, theme or whether it is private."""
    asked = await request.json()
    collection = find(request, write=True) | asked
    save(request, collection)
    return JSONResponse({"success": True, "data": collection})


async def delete(request: Request) -> Response:
    slug = find(request, write=True)["slug"]
    write_json(path_of(request), {key: one for key, one in load(request).items() if key != slug})
    return JSONResponse({"success": True})


async def add_item(request: Request) -> Response:
    """Add a repository at the end; it must exist, and not be in the collection."""
    asked = await request.json()
    collection = find(request, write=True)
    kind, repo_id = asked["item"]["type"], asked["item"]["id"]
    if not state_of(request).repo(kind, repo_id).exists:
        raise HubError(404, f"{kind} {repo_id} not found")
    if any((item["type"], item["id"]) == (kind, repo_id) for item in collection["items"]):
        raise HubError(409, "This item is already in the collection")
    item = {"_id": secrets.token_hex(12), "id": repo_id, "type": kind}
    if "note" in asked:
        item["note"] = {"text": asked["note"], "html": asked["note"]}
    collection["items"].append(item)
    save(request, collection)
    return JSONResponse(collection)


async def item(request: Request) -> Response:
    """Delete an item, or change its note or its position."""
    collection = find(request, write=True)
    items = collection["items"]
    found = next((one for one in items if one["_id"] == param(request, "item")), None)
    if found is None:
        raise HubError(404, "Item not found")
    items.remove(found)
    if request.method == "PATCH":
        asked = await request.json()
        if "note" in asked:
            found["note"] = {"text": asked["note"], "html": asked["note"]}
        items.insert(asked.get("position", found["position"]), found)
    save(request, collection)
    return JSONResponse({"success": True})


ONE = "/api/collections/{org}/{slug}"
ROUTES = [
    Route("/api/collections", listing),
    Route("/api/collections", create, methods=["POST"]),
    Route(ONE, get),
    Route(ONE, change, methods=["PATCH"]),
    Route(ONE, delete, methods=["DELETE"]),
    Route(ONE + "/items", add_item, methods=["POST"]),
    Route(ONE + "/items/{item}", item, methods=["PATCH", "DELETE"]),
]
