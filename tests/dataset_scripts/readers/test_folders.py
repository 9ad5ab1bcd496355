from pathlib import Path

import pytest

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.folders import list_files, pair_by_stem, walk_files


def test_lists_images_by_name_whatever_the_case(tmp_path: Path) -> None:
    for name in ("b.JPG", "a[1].png", "c.txt"):
        (tmp_path / name).touch()
    (tmp_path / "d.jpg").mkdir()
    assert [path.name for path in list_files(tmp_path)] == ["a[1].png", "b.JPG"]


def test_missing_and_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="folder: does not exist"):
        list_files(tmp_path / "x")
    with pytest.raises(DataError, match=r"holds no \.png file"):
        list_files(tmp_path, (".png",))


def test_pairs_and_everything_that_does_not_pair() -> None:
    images = [Path("i/a.jpg"), Path("i/a.png"), Path("i/b.jpg")]
    pairs, problems = pair_by_stem(images, [Path("m/a.png"), Path("m/c.png")])
    assert pairs == [(Path("i/a.jpg"), Path("m/a.png")), (Path("i/b.jpg"), None)]
    assert [(problem.where, problem.field) for problem in problems] == [
        (Path("i/a.png"), "image"),
        (Path("m/c.png"), "mask"),
    ]


def test_walk_follows_links_once(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/inner/1.png", "a.jpg"):
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "3.png").touch()
    (tmp_path / "raw" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "raw" / "b" / "inner" / "back").symlink_to(tmp_path / "raw")
    found = [path.relative_to(tmp_path / "raw").as_posix() for path in walk_files(tmp_path / "raw")]
    assert found == ["a.jpg", "b/2.png", "b/inner/1.png", "linked/3.png"]
