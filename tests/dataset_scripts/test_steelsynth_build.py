from pathlib import Path

import pytest
from datasets import load_dataset

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.steelsynth.build import build_steelsynth


def test_build_has_both_splits_and_the_normal_class(tmp_path: Path) -> None:
    report = build_steelsynth(tmp_path / "synth", n=20, seed=1)
    data = load_dataset(str(tmp_path / "synth"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in data.items()} == {"train": 14, "val": 6}
    names = data["train"].features["label"].names
    assert names[25:] == ["Normal surface"]
    for row in data["train"]:
        normal = row["label"] == 25
        assert row["is_defective"] is not normal
        assert (row["mask"].getextrema() == (0, 0)) is normal
        assert (row["attributes"] is None) is normal
    assert "This data set is synthetic" in (tmp_path / "synth" / "README.md").read_text()
    assert report.warnings == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "synth"]


def test_same_content_for_any_number_of_workers_and_another_for_another_seed(tmp_path: Path) -> None:
    one, two, other = (
        build_steelsynth(tmp_path / "synth", n=6, seed=seed, workers=workers).digest
        for seed, workers in ((1, 1), (1, 2), (2, 1))
    )
    assert one == two
    assert one != other


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 2 images"):
        build_steelsynth(tmp_path / "synth", n=1)
    (tmp_path / "mine").write_text("x")
    with pytest.raises(DataError, match="is not a built data set"):
        build_steelsynth(tmp_path / "mine", n=2)
