"""What was published, by all end-to-end tests of this run: cards that hold, and nothing of the publisher's machine.

Its name is the last, so that in a whole run it sees what the others published; alone, what the fixtures do.
"""

import io
import re
import socket
import tempfile
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard, SpaceCard
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from defect_hub.publishing.plan import MANIFEST
from tests.publishing.scene import ROOT, Scene

CARDS = {"dataset": DatasetCard, "model": ModelCard, "space": SpaceCard}

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("steel", "model", "adapters", "metric", "space")]


def repositories(scene: Scene) -> Iterator[tuple[str, str]]:
    """Kind and id of all that has been published."""
    for kind in CARDS:
        for path in sorted((scene.hub.root / f"{kind}s").glob("*/*/repo.json")):
            repo_id = "/".join(path.parts[-3:-1])
            if MANIFEST in scene.hub.files(kind, repo_id):
                yield kind, repo_id


def front_matter(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def test_cards_are_valid(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.hub.attach(monkeypatch)
    found = list(repositories(scene))
    assert {kind for kind, _ in found} == {*CARDS} and len(found) >= 5
    for kind, repo_id in found:
        card = CARDS[kind](scene.card(kind, repo_id), ignore_metadata_errors=False)
        card.validate()
        assert front_matter(str(card)) == front_matter(scene.card(kind, repo_id))
        assert card.data.license


def test_links_of_cards_lead_to_files_of_the_repository(scene: Scene) -> None:
    for kind, repo_id in repositories(scene):
        files, card = scene.hub.files(kind, repo_id).keys(), scene.card(kind, repo_id)
        targets = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", card)
        relative = {one or other for one, other in targets if not re.match(r"https?://|#|mailto:", one or other)}
        assert {target.split("#")[0] for target in relative} <= files, repo_id
        for config in front_matter(card).get("configs", []):
            for entry in config["data_files"]:
                paths = [entry["path"]] if isinstance(entry["path"], str) else entry["path"]
                assert all(any(fnmatchcase(file, path) for file in files) for path in paths), (repo_id, entry)
    assert len(re.findall(r"\]\(statistics/", scene.card("dataset", "org/steeldefectx"))) > 3


def test_every_name_in_code_of_cards_is_a_repository_of_the_hub(scene: Scene) -> None:
    """No card speaks of a placeholder, or of a folder on the publisher's disk."""
    for kind, repo_id in repositories(scene):
        call = re.compile(r"(?:load_dataset\(|evaluate\.load\(|_pretrained\(|model=)\"(.+?)\"")
        assert {*call.findall(scene.card(kind, repo_id))} <= {repo_id}


def traces_of(scene: Scene) -> re.Pattern[bytes]:
    """What tells of the publisher or her machine."""
    words = [scene.hub.token, scene.user, scene.home.name, f"{scene.root}/", f"{ROOT}/", f"{tempfile.gettempdir()}/"]
    return re.compile(b"|".join([*(re.escape(word.encode()) for word in words), rb"(?<![\w.])/(?:home|Users|root)/"]))


def readable(content: bytes) -> Iterator[bytes]:
    """A file, and what it holds compressed: the columns of Parquet, and the notes in pictures."""
    yield content
    if content.startswith(b"PAR1"):
        with pq.ParquetFile(io.BytesIO(content)) as shard:
            yield repr((shard.schema_arrow.metadata, shard.metadata.to_dict())).encode()
            for column in shard.read().flatten().columns:
                yield from (part for chunk in column.chunks for part in cells(chunk))
    elif content.startswith((b"\x89PNG", b"\xff\xd8\xff")):
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            yield repr((image.info, dict(image.getexif()))).encode()


def cells(chunk: pa.Array) -> Iterator[bytes]:
    """The values of a column: images as files of their own, all else as text."""
    if pa.types.is_binary(chunk.type):
        for value in chunk.to_pylist():
            yield from readable(value or b"")
    else:
        yield repr(chunk.to_pylist()).encode()


def found_in(content: bytes, pattern: re.Pattern[bytes]) -> set[bytes]:
    return {match[0] for part in readable(content) for match in pattern.finditer(part)}


def published(scene: Scene) -> dict[str, bytes]:
    """Every file of every revision, and what else the Hub has: titles of commits, settings, collections."""
    paths = (path for path in scene.hub.root.rglob("*") if path.is_file())
    return {path.relative_to(scene.hub.root).as_posix(): path.read_bytes() for path in paths}


def test_nothing_published_tells_of_the_publisher(scene: Scene) -> None:
    contents, traces = published(scene), traces_of(scene)
    assert sum("/git/" in name or "/lfs/" in name for name in contents) > 60
    assert {name: found for name, content in contents.items() if (found := found_in(content, traces))} == {}


def test_no_text_published_names_the_host(scene: Scene) -> None:
    host = re.compile(rb"\b" + re.escape(socket.gethostname().encode()) + rb"\b")
    for name, content in published(scene).items():
        if b"\0" not in content:
            assert not host.search(content), name


def test_commands_printed_no_secret(scene: Scene) -> None:
    said = "\n".join(scene.said).encode()
    assert b"is complete, at " in said
    assert {*traces_of(scene).findall(said)} == set()


@pytest.mark.parametrize("needle", ["token", "user", "home"])
def test_the_search_would_find_it(scene: Scene, needle: str) -> None:
    secret = {"token": scene.hub.token, "user": scene.user, "home": f"{scene.home}/"}[needle]
    hidden = {
        "picture": png(secret),
        "column": parquet({"t4": [secret + "." * 1000]}),
        "picture in a column": parquet({"image": [{"bytes": png(secret), "path": None}]}),
    }
    assert not any(secret.encode() in content for content in hidden.values())
    plain = {"text": f"see {secret} there".encode(), "schema": parquet({"t4": ["x"]}, {"pandas": secret})}
    for name, content in {**hidden, **plain}.items():
        assert found_in(content, traces_of(scene)), name


def png(note: str) -> bytes:
    notes, file = PngInfo(), io.BytesIO()
    notes.add_text("Comment", note + "." * 1000, zip=True)
    Image.new("L", (8, 8)).save(file, "PNG", pnginfo=notes)
    return file.getvalue()


def parquet(columns: Mapping[str, list], metadata: Mapping[str, str] | None = None) -> bytes:
    file = io.BytesIO()
    table = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(table, file, compression="gzip", write_statistics=False)
    return file.getvalue()
