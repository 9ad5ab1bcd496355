import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from defect_hub.dataset_scripts.output import is_build, replace_folder
from defect_hub.dataset_scripts.readers.errors import DataError

CARD = "---\nlicense: other\nbuild_digest: abc\n---\n"


def make_build(out: Path, content: str = "old") -> None:
    out.mkdir()
    (out / "README.md").write_text(CARD)
    (out / "data").write_text(content)


def test_earlier_build_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_build(out)
    with replace_folder(out) as folder:
        (folder / "README.md").write_text(CARD)
        (folder / "data").write_text("new")
        assert (out / "data").read_text() == "old"
    assert is_build(out)
    assert (out / "data").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EACCES, "denied"), RuntimeError()])
def test_failure_leaves_the_earlier_build_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    out = tmp_path / "out"
    make_build(out)
    with pytest.raises(type(error)), replace_folder(out) as folder:
        (folder / "data").write_text("new")
        raise error
    assert (out / "data").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_full_disk_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"output: {os.strerror(errno.ENOSPC)}"), replace_folder(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "x")
    assert list(tmp_path.iterdir()) == []


def test_foreign_folder_and_file_are_never_replaced(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    (folder / "README.md").write_text("# my holiday pictures\n")
    file.write_text("precious")
    for out in (folder, file):
        with pytest.raises(DataError, match="is not a built data set"), replace_folder(out):
            pytest.fail("the block must not run")
    assert file.read_text() == "precious"


def test_empty_folder_may_be_filled(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with replace_folder(out) as folder:
        (folder / "data").touch()
    assert (out / "data").exists()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    stale, other = (tmp_path / f".{name}.{process.pid}.tmp" for name in ("out", "out2"))
    alive = tmp_path / f".out.{os.getppid()}.tmp"
    for folder in (stale, other, alive):
        folder.mkdir()
    with replace_folder(tmp_path / "out") as folder:
        (folder / "README.md").write_text(CARD)
    assert {path.name for path in tmp_path.iterdir()} == {"out", other.name, alive.name}
