from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from defect_hub.publishing.hub import PublishError
from defect_hub.publishing.privacy import refuse_private

TOKEN = "hf_" + "aB3" * 11 + "x"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory and a token of our own."""
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("HF_TOKEN", "a-token-of-another-form")
    return Path("/home/ada")


def look_through(files: dict[str, Path | bytes]) -> None:
    """As if the Hub had none of them."""
    refuse_private(files, files)


def shard(folder: Path, **columns: list) -> Path:
    """A compressed Parquet file, in which nothing can be read without a reader."""
    path = folder / "train.parquet"
    pq.write_table(pa.table(columns), path, compression="gzip", write_statistics=False)
    return path


def test_what_is_harmless_passes(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    files = {
        "README.md": b"from hf_hub import x; hf_transfer; /home/of/somebody/else; /home/adam; /home/ada-2/x",
        "empty.txt": tmp_path / "empty.txt",
        "train.parquet": shard(tmp_path, text=["a scratch"] * 300),
    }
    look_through(files)


@pytest.mark.parametrize("secret", [TOKEN, "a-token-of-another-form"])
def test_tokens_are_found_and_not_repeated(secret: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(f'{{"token": "{secret}"}}')
    with pytest.raises(PublishError, match=r"run.json: holds .*access token") as caught:
        look_through({"run.json": tmp_path / "run.json"})
    assert secret not in str(caught.value)


def test_the_home_directory_is_found_in_bytes(home: Path) -> None:
    for place in (f"{home}/train.py", f'"{home}"'):
        with pytest.raises(PublishError, match=r"card\.md: holds the home directory"):
            look_through({"card.md": f"python {place}".encode()})


def test_the_published_folder_is_found_by_each_of_its_names(tmp_path: Path) -> None:
    folder, link = tmp_path / "runs", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    for place in (folder.resolve(), link.absolute(), folder.resolve() / "more"):
        (folder / "run.json").write_text(f'{{"out": "{place}"}}')
        with pytest.raises(PublishError, match=r"run\.json: holds the folder"):
            look_through({"run.json": link / "run.json"})


@pytest.mark.parametrize("column", ["text", "nested", "image"])
def test_compressed_columns_are_read(column: str, home: Path, tmp_path: Path) -> None:
    place = f"{home}/raw/1.png"
    values = {
        "text": [place],
        "nested": [{"source": [{"file": place}]}],
        "image": [{"bytes": b"\x89PNG tEXt" + place.encode(), "path": "1.png"}],
    }
    path = shard(tmp_path, **{column: values[column] * 300})
    assert place.encode() not in path.read_bytes()  # Or this test would show nothing.
    with pytest.raises(PublishError, match=r"data/train\.parquet: holds the home directory"):
        look_through({"data/train.parquet": path})


def test_the_metadata_of_the_schema_is_read(home: Path, tmp_path: Path) -> None:
    table = pa.table({"n": [1]}).replace_schema_metadata({"made_by": f"{home}/build.py"})
    pq.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(PublishError, match="home directory"):
        look_through({"train.parquet": tmp_path / "train.parquet"})
