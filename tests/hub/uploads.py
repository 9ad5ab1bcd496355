"""Endpoints that write files: preupload, large-file storage, commit."""

import base64
import json
import tempfile
from fnmatch import fnmatchcase
from hashlib import md5, sha256
from pathlib import Path, PurePosixPath
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.hub.access import param, repo_of, signed_in, state_of, url_of
from tests.hub.cards import check_card, lfs_line
from tests.hub.discussions import open_discussion
from tests.hub.storage import Entry, HubError, Repo

MAX_REGULAR = 10 * 2**20
"""Larger files must go to large-file storage, bytes."""
SAMPLE = 512
"""How much of a file's beginning a client shows, bytes."""


def is_binary(sample: bytes) -> bool:
    """Guess from its first bytes whether a file is no text."""
    try:
        # A longer file may be cut off within a character.
        (sample[:-3] if len(sample) == SAMPLE else sample).decode()
    except UnicodeDecodeError:
        return True
    return b"\0" in sample


def is_ignored(path: str, patterns: str) -> bool:
    """Whether a `.gitignore` of plain patterns (of names, folders and whole paths) leaves a file out."""
    folders = [str(parent) for parent in PurePosixPath(path).parents]
    names = [path, *folders, *path.split("/")]
    lines = [line.strip().strip("/") for line in patterns.splitlines() if line.strip() and not line.startswith("#")]
    return any(fnmatchcase(name, pattern) for pattern in lines for name in names)


async def preupload(request: Request) -> Response:
    """Say of every file how it shall be sent, what the branch has at its path, and whether git ignores it."""
    asked = await request.json()
    repo = repo_of(request, write=True)
    tree = repo.commit(repo.resolve(param(request, "rev")))["tree"]
    ignored = asked.get("gitIgnore")
    if ignored is None:
        ignored = repo.content_path(tree[".gitignore"]).read_text() if ".gitignore" in tree else ""
    files = []
    for file in asked["files"]:
        path, sample = file["path"], base64.b64decode(file["sample"])
        large = repo.uses_lfs(tree, path) or file["size"] > MAX_REGULAR or is_binary(sample)
        answer = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": is_ignored(path, ignored)}
        if path in tree:
            answer["oid"] = tree[path].get("sha256", tree[path]["oid"])
        files.append(answer)
    return JSONResponse({"files": files})


async def lfs_batch(request: Request) -> Response:
    """Say which large files have not arrived yet, and where to send them."""
    asked = await request.json()
    repo = repo_of(request, write=True)
    objects = [upload_of(request, repo, wanted["oid"], wanted["size"]) for wanted in asked["objects"]]
    return JSONResponse({"transfer": "basic", "objects": objects}, media_type="application/vnd.git-lfs+json")


def upload_of(request: Request, repo: Repo, oid: str, size: int) -> dict[str, Any]:
    """Return the instructions for one large file, none if it is there."""
    if repo.lfs_path(oid).exists():
        return {"oid": oid, "size": size}
    href = f"{state_of(request).url}/lfs/{repo.kind}s/{repo.id}/{oid}"
    upload: dict[str, Any] = {"href": f"{href}?size={size}"}
    part_size = state_of(request).part_size
    if part_size is not None and size > part_size:
        parts = {str(number): f"{href}/{number}" for number in range(1, -(-size // part_size) + 1)}
        upload = {"href": href, "header": {"chunk_size": str(part_size), **parts}}
    verify = url_of(request, repo) + ".git/info/lfs/verify"
    return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": {"href": verify}}}


def keep(repo: Repo, temporary: Path, oid: str, size: int | None) -> None:
    """Take a large file in if it is what it is said to be; it appears at once as a whole."""
    with temporary.open("rb") as file:
        found = sha256()
        while chunk := file.read(2**20):
            found.update(chunk)
    if found.hexdigest() != oid or size not in (None, temporary.stat().st_size):
        raise HubError(400, "The content does not have the SHA-256 or the length that was announced")
    repo.lfs_path(oid).parent.mkdir(parents=True, exist_ok=True)
    temporary.replace(repo.lfs_path(oid))


async def put_blob(request: Request) -> Response:
    """Receive a large file, or one part of it; a transfer that breaks off leaves nothing.

    The address is the permission, as with a signed address of a storage service.
    """
    kind, org, name, oid = (request.path_params[key] for key in ("kind", "org", "name", "oid"))
    repo = state_of(request).repo(kind.removesuffix("s"), f"{org}/{name}")
    incoming = repo.folder / "incoming"
    incoming.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=incoming, delete=False) as file:
        try:
            async for chunk in request.stream():
                file.write(chunk)
            file.flush()
            part = request.path_params.get("part")
            if part is None:
                keep(repo, Path(file.name), oid, int(request.query_params["size"]))
                return Response()
            Path(file.name).replace(incoming / f"{oid}.{part}")
            digest = md5((incoming / f"{oid}.{part}").read_bytes(), usedforsecurity=False).hexdigest()
            return Response(headers={"ETag": f'"{digest}"'})
        finally:
            Path(file.name).unlink(missing_ok=True)


async def complete_blob(request: Request) -> Response:
    """Join the parts of a large file."""
    asked = await request.json()
    kind, org, name, oid = (request.path_params[key] for key in ("kind", "org", "name", "oid"))
    repo = state_of(request).repo(kind.removesuffix("s"), f"{org}/{name}")
    parts = [repo.folder / "incoming" / f"{oid}.{part['partNumber']}" for part in asked["parts"]]
    whole = repo.folder / "incoming" / oid
    if not repo.lfs_path(oid).exists():  # else the answer of a first completion was lost
        whole.write_bytes(b"".join(part.read_bytes() for part in parts))
        keep(repo, whole, oid, None)
        for part in parts:
            part.unlink()
    return JSONResponse({"success": True})


async def verify_blob(request: Request) -> Response:
    asked = await request.json()
    path = repo_of(request, write=True).lfs_path(asked["oid"])
    if not path.exists() or path.stat().st_size != asked["size"]:
        raise HubError(404, "Object does not exist on the server")
    return JSONResponse({})


async def commit(request: Request) -> Response:
    """Make one commit of all operations, on a branch or as a new pull request; nothing where one of them fails."""
    lines = [json.loads(line) for line in (await request.body()).splitlines() if line.strip()]
    repo = repo_of(request, write=True)
    author = signed_in(request).name
    header = next(line["value"] for line in lines if line["key"] == "header")
    revision = param(request, "rev")
    parent = repo.resolve(revision)
    ref = repo.find_ref(revision)
    as_pull = request.query_params.get("create_pr") in ("1", "true")
    if not as_pull and (ref is None or ref[0] == "tags"):
        raise HubError(400, "Commits can only be made on a branch")
    if header.get("parentCommit") not in (None, parent):
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    tree = dict(repo.commit(parent)["tree"])
    before = tree.get("README.md")
    for line in lines:
        if line["key"] != "header":
            OPERATIONS[line["key"]](repo, tree, line["value"])
    if tree.get("README.md") not in (None, before):
        refuse_bad_card(repo, tree["README.md"])
    oid = repo.write_commit(parent, tree, header["summary"], header.get("description", ""), author)
    answer = {"success": True, "commitOid": oid, "commitUrl": url_of(request, repo, "commit", oid), "hookOutput": ""}
    if as_pull:
        number = open_discussion(repo, header["summary"], header.get("description", ""), author, pull=oid, base=parent)
        answer["pullRequestUrl"] = url_of(request, repo, "discussions", number)
    elif ref is not None:
        repo.set_ref(*ref, oid)
    return JSONResponse(answer)


def add_file(repo: Repo, tree: dict[str, Entry], value: dict[str, str]) -> None:
    content = base64.b64decode(value["content"])
    if len(content) > MAX_REGULAR:
        raise HubError(400, f"Your push was rejected because it contains files larger than 10 MiB: {value['path']}")
    tree[value["path"]] = repo.store(content)


def add_lfs_file(repo: Repo, tree: dict[str, Entry], value: dict[str, str]) -> None:
    """Add a large file that has arrived; the Hub notes in `.gitattributes` what no pattern there covers."""
    path = value["path"]
    if not repo.lfs_path(value["oid"]).exists():
        message = "Your push was rejected because an LFS pointer pointed to a file that does not exist."
        raise HubError(400, f"{message} Offending file: {path}")
    tree[path] = repo.lfs_entry(value["oid"])
    if not repo.uses_lfs(tree, path):
        entry = tree.get(".gitattributes")
        old = b"" if entry is None else repo.content_path(entry).read_bytes()
        tree[".gitattributes"] = repo.store(old + lfs_line(path.replace(" ", "[[:space:]]")).encode())


def delete_file(repo: Repo, tree: dict[str, Entry], value: dict[str, str]) -> None:
    if tree.pop(value["path"], None) is None:
        raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")


def delete_folder(repo: Repo, tree: dict[str, Entry], value: dict[str, str]) -> None:
    folder = value["path"].rstrip("/") + "/"
    inside = [path for path in tree if path.startswith(folder)]
    if not inside:
        raise HubError(404, "A folder with this name doesn't exist", "EntryNotFound")
    for path in inside:
        del tree[path]


OPERATIONS = {
    "file": add_file,
    "lfsFile": add_lfs_file,
    "deletedFile": delete_file,
    "deletedFolder": delete_folder,
}


def refuse_bad_card(repo: Repo, entry: Entry) -> None:
    errors, _ = check_card(repo.content_path(entry).read_text(encoding="utf-8"), repo.kind)
    if errors:
        raise HubError(400, "Invalid metadata in README.md: " + "; ".join(errors))


async def validate_yaml(request: Request) -> Response:
    asked = await request.json()
    errors, warnings = check_card(asked["content"], asked["repoType"])
    answer = {"errors": [{"message": text} for text in errors], "warnings": [{"message": text} for text in warnings]}
    return JSONResponse(answer, 400 if errors else 200)


ROUTES = [
    Route("/api/validate-yaml", validate_yaml, methods=["POST"]),
    Route("/api/{kind}/{org}/{name}/preupload/{rev}", preupload, methods=["POST"]),
    Route("/api/{kind}/{org}/{name}/commit/{rev}", commit, methods=["POST"]),
    *(
        Route(f"{prefix}/{{org}}/{{name}}.git/info/lfs/{path}", endpoint, methods=["POST"])
        for prefix in ("/{kind}", "")
        for path, endpoint in (("objects/batch", lfs_batch), ("verify", verify_blob))
    ),
    Route("/lfs/{kind}/{org}/{name}/{oid}", put_blob, methods=["PUT"]),
    Route("/lfs/{kind}/{org}/{name}/{oid}", complete_blob, methods=["POST"]),
    Route("/lfs/{kind}/{org}/{name}/{oid}/{part}", put_blob, methods=["PUT"]),
]
