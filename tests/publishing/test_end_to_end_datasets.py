"""Data sets, from the built folder over the Hub to somebody who has neither our package nor a token."""

import hashlib
import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from defect_hub.dataset_scripts.tadd.build import build_tadd
from tests.dataset_scripts import tadd_layouts
from tests.publishing.fresh.rows import digest
from tests.publishing.scene import Scene, blocks

pytestmark = pytest.mark.slow
Digests = dict[str, dict[str, list[str]]]
IMAGES = ("image", "mask")


def expected(folder: Path) -> Digests:
    """The rows of a built folder, read with no library but pyarrow as the card says."""
    found: Digests = {}
    for config in yaml.safe_load((folder / "README.md").read_text("utf-8").split("---\n")[1])["configs"]:
        filters = [[tuple(term) for term in terms] for terms in config.get("filters", [])] or None
        for entry in config["data_files"]:
            paths = [entry["path"]] if isinstance(entry["path"], str) else entry["path"]
            shards = sorted(shard for path in paths for shard in folder.glob(path))
            tables = [pq.read_table(shard, columns=config.get("columns"), filters=filters) for shard in shards]
            rows = [digest(row) for table in tables for row in table.to_pylist()]
            found.setdefault(config["config_name"], {})[entry["split"]] = rows
    return found


def tables_of(files: dict[str, bytes]) -> Iterator[pa.Table]:
    for path, data in files.items():
        if path.endswith(".parquet"):
            yield pq.read_table(io.BytesIO(data))


def pictures(tables: Iterator[pa.Table], source: str) -> set[bytes]:
    """The image files of a source."""
    rows = (row for table in tables for row in table.to_pylist() if row["source"] == source)
    return {row[name]["bytes"] for row in rows for name in IMAGES if row[name]}


def local_pictures(folder: Path, source: str) -> set[bytes]:
    return pictures((pq.read_table(shard) for shard in sorted(folder.glob("data/*/*.parquet"))), source)


def remote_pictures(scene: Scene, repo_id: str, source: str) -> set[bytes]:
    return pictures(tables_of(scene.hub.files("dataset", repo_id)), source)


def assert_nowhere(pictures: set[bytes], root: Path) -> None:
    """Assert that none of some image files is in a file below a folder, as it is or inside of Parquet columns."""
    withheld = {hashlib.sha256(picture).digest() for picture in pictures}
    for path in (path for path in root.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert not [picture for picture in pictures if picture in content], path
        if content.startswith(b"PAR1"):
            rows = pq.read_table(io.BytesIO(content)).to_pylist()
            found = {hashlib.sha256(row[name]["bytes"]).digest() for row in rows for name in IMAGES if row.get(name)}
            assert not found & withheld, path


def test_rows_from_the_hub_are_those_of_the_local_build(scene: Scene, steel: Path) -> None:
    read = partial(scene.json, "rows.py")
    with ThreadPoolExecutor() as pool:
        stream = ("stream", "org/steeldefectx", "main", "t4", "default")
        streaming = pool.submit(read, *stream, folder=scene.folder())
        loading = pool.submit(read, "load", "org/steeldefectx", "v1.0.0", folder=scene.folder())
    wanted = expected(steel)
    assert {name: len(rows) for name, rows in wanted["default"].items()} == {"train": 42, "val": 18}
    assert streaming.result() == {name: wanted[name] for name in ("t4", "default")}
    assert loading.result() == wanted


def test_a_download_is_checked_and_works_without_a_network(scene: Scene, steel: Path) -> None:
    folder = scene.folder()
    (fetch,) = blocks(scene.card("dataset", "org/steeldefectx"), "bash")
    said = scene.shell(fetch, folder)
    checked = re.findall(r"^(.*): OK$", said, re.MULTILINE)
    remote = scene.hub.files("dataset", "org/steeldefectx").keys()
    assert {*checked} == remote - {".gitattributes", "SHA256SUMS"}
    before = len(scene.hub.log)
    found = scene.json("rows.py", "load", "steeldefectx", "main", "t4", folder=folder, HF_HUB_OFFLINE="1")
    assert found["t4"] == expected(steel)["t4"]
    assert len(scene.hub.log) == before
    with pytest.raises(AssertionError, match="FAILED"):
        (folder / "steeldefectx" / "splits.csv").write_text("broken")
        scene.shell("cd steeldefectx && sha256sum --check SHA256SUMS", folder)


def test_code_of_the_card_runs(scene: Scene, steel: Path) -> None:
    (code,) = blocks(scene.card("dataset", "org/steeldefectx"), "python")
    check = "\nprint(len(data['train']), next(iter(pairs))['t4'])"
    said = scene.python(code + check, folder=scene.folder())
    first = next(row for row in pq.read_table(steel / "data" / "default", columns=["t4"]).to_pylist() if row["t4"])
    assert said == f"42 {first['t4']}"


def test_withheld_images_come_and_go_with_the_rights(scene: Scene) -> None:
    raw, built = scene.desk / "raw", scene.desk / "tadd"
    for name in ("bsdata", "rsdd"):
        tadd_layouts.LAYOUTS[name][1](raw)
    build_tadd(raw, built)
    free, closed = local_pictures(built, "BSData"), local_pictures(built, "RSDD")
    assert (len(free), len(closed)) == (5, 8)

    said = scene.publish("dataset", "tadd", "--repo", "org/tadd")
    assert "withheld: images of 4 rows (RSDD 4); give --i-hold-the-rights SOURCE to publish them" in said
    assert_nowhere(closed, scene.hub.root)
    with pytest.raises(AssertionError):
        assert_nowhere(free, scene.hub.root)
    assert remote_pictures(scene, "org/tadd", "BSData") == free

    said = scene.publish("dataset", "tadd", "--repo", "org/tadd", "--i-hold-the-rights", "RSDD")
    assert "published because you hold the rights: images of 4 rows (RSDD 4)" in said
    assert remote_pictures(scene, "org/tadd", "RSDD") == closed

    scene.publish("dataset", "tadd", "--repo", "org/tadd")
    assert remote_pictures(scene, "org/tadd", "RSDD") == set()
    assert remote_pictures(scene, "org/tadd", "BSData") == free
    titles = [commit["title"] for commit in scene.hub.commits("dataset", "org/tadd")]
    assert len(titles) == 4 and titles[0] == titles[2]


@pytest.mark.real_data
def test_real_tiles_travel_and_real_roads_stay(scene: Scene, raw_data: Path) -> None:
    built = scene.desk / "roads"
    build_tadd(raw_data, built, ["MT", "DeepCrack"], workers=2)
    roads, tiles = local_pictures(built, "DeepCrack"), local_pictures(built, "MT")
    said = scene.publish("dataset", "roads", "--repo", "org/roads")
    assert "withheld: images of 34 rows (DeepCrack 34)" in said
    assert_nowhere(roads, scene.hub.root)
    assert remote_pictures(scene, "org/roads", "MT") == tiles
    assert len(tiles) > 317 and len(roads) > 34
    found = scene.json("rows.py", "stream", "org/roads", "main", "MT", folder=scene.folder())
    assert found["MT"] == expected(built)["MT"]
    assert sum(map(len, found["MT"].values())) == 317
