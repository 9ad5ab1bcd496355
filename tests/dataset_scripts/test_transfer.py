import re
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.transfer.build import build_transfer, transfer_table

ALUMINIUM = ["bump", "convexity", "dirty_spot", "jet_flow", "rub_mark", *(f"class_{n}" for n in range(5))]
TUBES = ["Tube_Ak", "Tube_Tq", "Tube_Gs", "Tube_Yh", "Tube_Xs"]


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def class_folders(root: Path, names: list[str], count: int = 2, inner: str = "") -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        for number in range(count):
            save(root / name / inner / f"{name}_{number}.jpg", rng.integers(90, 160, (40, 48, 3), dtype=np.uint8))
    return root


def load(out: Path, tmp_path: Path):
    return load_dataset(str(out), cache_dir=str(tmp_path / "cache"))


def test_aluminium_from_class_folders(tmp_path):
    raw = class_folders(tmp_path / "images-aluminum", ALUMINIUM)
    report = build_transfer("msd-cls", raw, tmp_path / "out")
    data = load(tmp_path / "out", tmp_path)
    assert list(data) == ["test"]
    rows = data["test"]
    names = rows.features["label"].names
    assert names == sorted(name.replace("_", " ") for name in ALUMINIUM)
    assert report.counts["test"] == dict.fromkeys(names, 2)
    for row in rows:
        name = names[row["label"]]
        assert row["t0"] == f"A photo of surface defect: {name}."
        assert row["source_file"].split("/")[0].replace("_", " ") == name
        assert (row["source"], row["object_name"]) == ("MSD-Cls", "aluminium surface")
        assert (row["annotation"], row["is_defective"], row["redistributable"]) == ("none", True, False)
        assert (row["width"], row["height"]) == (48, 40)
        assert row["t3"] is None
    assert rows[0]["image_id"] == "msd-cls/bump/bump_0"


def test_folder_above_the_class_folders_will_do(tmp_path):
    class_folders(tmp_path / "raw/images-aluminum", ALUMINIUM)
    class_folders(tmp_path / "raw/images-steel", ["rust"])
    report = build_transfer("msd-cls", tmp_path / "raw", tmp_path / "out")
    assert report.counts["test"].total() == 20


def test_tubes_with_masks(tmp_path):
    raw = class_folders(tmp_path / "raw", TUBES, inner="Images")
    mask = np.zeros((40, 48), np.uint8)
    mask[4:9, 10:20] = 255
    for name in TUBES:
        save(raw / name / "GT" / f"{name}_0.png", mask)
    build_transfer("cgfsds-9", raw, tmp_path / "out")
    rows = {row["image_id"]: row for row in load(tmp_path / "out", tmp_path)["test"]}
    with_mask, without = rows["cgfsds-9/Tube_Ak/Images/Tube_Ak_0"], rows["cgfsds-9/Tube_Ak/Images/Tube_Ak_1"]
    assert (np.asarray(with_mask["mask"]) == mask).all()
    assert with_mask["objects"]["bbox"][0] == [10, 4, 10, 5]
    assert "seamless steel tube" in with_mask["t4"]
    assert with_mask["t0"] == "A photo of surface defect: Tube Ak."
    assert (without["annotation"], without["mask"], without["t4"]) == ("none", None, None)


def test_other_class_folders_than_expected_are_listed(tmp_path):
    raw = class_folders(tmp_path / "raw", [*TUBES, "Tube_Lw", "Steel"])
    message = r"found 7 \(Steel, Tube_Ak, Tube_Gs, Tube_Lw, .*\) where the paper tests on 5\. Choose with --classes"
    with pytest.raises(DataError, match=message):
        build_transfer("cgfsds-9", raw, tmp_path / "out")
    report = build_transfer("cgfsds-9", raw, tmp_path / "out", classes=TUBES)
    assert sorted(report.counts["test"]) == sorted(name.replace("_", " ") for name in TUBES)
    card = (tmp_path / "out/README.md").read_text()
    assert "5 classes; the paper tests on 5" in card
    with pytest.raises(DataError, match=r"there is no Tube_Zz\. Choose from Steel, Tube_Ak"):
        build_transfer("cgfsds-9", raw, tmp_path / "out", classes=["Tube_Ak", "Tube_Zz"])


def test_folders_that_would_share_a_name(tmp_path):
    raw = class_folders(tmp_path / "raw", ["a_b", "a b", "c", "d", "e"])
    with pytest.raises(DataError, match="several are called 'a b' once their underscores are spaces"):
        build_transfer("cgfsds-9", raw, tmp_path / "out")


def test_problems_are_named_and_skipped_on_request(tmp_path):
    raw = class_folders(tmp_path / "raw", TUBES, inner="Images")
    (raw / "Tube_Ak/Images/bad.jpg").write_bytes(b"no image")
    save(raw / "Tube_Ak/GT/nobody.png", np.zeros((40, 48), np.uint8))
    with pytest.raises(DataError, match=r"nobody\.png: mask: has no image of the same stem.* \(and 1 more"):
        build_transfer("cgfsds-9", raw, tmp_path / "out")
    report = build_transfer("cgfsds-9", raw, tmp_path / "out", skip_bad=True)
    assert report.counts["test"].total() == 10
    assert len(report.skipped) == 2


def test_no_class_folders(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(DataError, match=r"holds no class folder with images\. Lay it out as Tube_Ak/Images/1\.jpg"):
        build_transfer("cgfsds-9", tmp_path / "raw", tmp_path / "out")
    with pytest.raises(DataError, match="does not exist"):
        build_transfer("cgfsds-9", tmp_path / "none", tmp_path / "out")
    with pytest.raises(ValueError, match="unknown set x; there are msd-cls, cgfsds-9"):
        build_transfer("x", tmp_path / "raw", tmp_path / "out")


def test_workers_change_nothing(tmp_path):
    raw = class_folders(tmp_path / "raw", TUBES)
    first = build_transfer("cgfsds-9", raw, tmp_path / "a")
    assert build_transfer("cgfsds-9", raw, tmp_path / "b", workers=2).digest == first.digest


@pytest.mark.parametrize("name", ["msd-cls", "cgfsds-9"])
def test_card_is_filled(tmp_path, name):
    about = transfer_table()[name]
    raw = class_folders(tmp_path / "raw", [f"c{n}" for n in range(about["classes"])], count=1)
    build_transfer(name, raw, tmp_path / "out")
    body = (tmp_path / "out/README.md").read_text().split("\n---\n", 1)[1]
    assert "$" not in body
    for key in ("title", "homepage", "citation", "note"):
        assert about[key] in body


def test_usage_code_of_the_card_runs(tmp_path, monkeypatch):
    build_transfer("cgfsds-9", class_folders(tmp_path / "raw", TUBES), tmp_path / "tubes")
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "tubes/README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    assert names["prompts"] == sorted(set(names["data"]["t0"]))
