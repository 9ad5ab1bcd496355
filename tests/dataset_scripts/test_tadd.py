import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datasets import concatenate_datasets, load_dataset

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.splits import split_sizes
from defect_hub.dataset_scripts.tadd.build import build_tadd, subset_table


def test_magnetic_tiles(magnetic_tiles: Path, tmp_path: Path) -> None:
    report = build_tadd(magnetic_tiles, tmp_path / "out")
    data = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    rows = concatenate_datasets(list(data.values()))
    names = rows.features["label"].names
    assert names == ["Blowhole", "Break", "Crack", "Fray", "Free", "Uneven"]
    found = Counter((names[row["label"]], row["is_defective"]) for row in rows)
    assert found == {(name, name != "Free"): 12 for name in names}
    assert split_sizes(12) == (2, 0, 10)
    assert {split: rows.num_rows for split, rows in data.items()} == {"train": 12, "test": 60}
    assert report.counts["test"] == Counter(dict.fromkeys(names, 10))
    for row in rows:
        if row["mask"] is None:
            assert row["image_id"] == "MT/Uneven/exp0"
            continue
        mask = np.asarray(row["mask"])
        assert mask.shape == (row["height"], row["width"])
        # The grey row at 127 is no defect.
        assert (mask == 255).sum() == (100 if row["is_defective"] else 0)
    assert report.warnings == ["MT/Uneven/exp0: empty mask of a defect (Uneven), taken as no annotation"]


def test_result_does_not_depend_on_the_place_of_the_raw_data(magnetic_tiles: Path, tmp_path: Path) -> None:
    first = build_tadd(magnetic_tiles, tmp_path / "a")
    second = build_tadd(magnetic_tiles.parent, tmp_path / "b", ["MT"])
    assert first.digest == second.digest


def test_problems_of_all_categories_are_reported(magnetic_tiles: Path, tmp_path: Path) -> None:
    shutil.rmtree(magnetic_tiles / "MT_Crack")
    (magnetic_tiles / "MT_Fray" / "Imgs" / "exp3.png").unlink()
    with pytest.raises(DataError, match="and 1 more"):
        build_tadd(magnetic_tiles, tmp_path / "out")
    listed = (tmp_path / "out.errors.txt").read_text().splitlines()
    assert "MT_Crack/Imgs: folder: does not exist" in listed[0]
    assert "exp3.jpg: mask: is missing. Supply " in listed[1]


def test_unknown_subset(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown subset XY; there are MT"):
        build_tadd(tmp_path, tmp_path / "out", ["XY"])


def test_subset_table_is_complete() -> None:
    for subset in subset_table().values():
        assert set(subset["expected"]) == set(subset["categories"].values())
        assert subset["normal"] in subset["expected"]


@pytest.mark.real_data
def test_real_magnetic_tiles(tmp_path: Path, raw_data: Path) -> None:
    report = build_tadd(raw_data, tmp_path / "out")
    data = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    rows = concatenate_datasets(list(data.values()))
    assert len(rows) > 300
    unannotated = [row["image_id"] for row in rows if row["mask"] is None]
    assert unannotated
    assert all(image_id.startswith("MT/Uneven/") for image_id in unannotated)
    assert len(report.warnings) == len(unannotated)
    assert {row["split_id"] for row in rows} == {"tadd-70-15-15-seed42"}
    for row in rows:
        top = row["attributes"]["position"][0]["cell"].replace("-", " ") if row["attributes"] else None
        assert top is None or f"in the {top} of the magnetic tile" in row["conversation"][1]["value"]
