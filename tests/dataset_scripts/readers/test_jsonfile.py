from pathlib import Path

import pytest

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.jsonfile import read_json


def test_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"é": [1]}', "utf-8")
    assert read_json(path, dict) == {"é": [1]}


@pytest.mark.parametrize(
    ("content", "problem"), [(b"[1,", "line 1 column"), (b"\xff", "malformed"), (b"{}", "top level is a dict")]
)
def test_bad_files(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=problem):
        read_json(path, list)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_json(tmp_path / "a.json", list)
