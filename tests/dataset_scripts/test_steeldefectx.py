import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.records import make_record
from defect_hub.dataset_scripts.samples import Sample
from defect_hub.dataset_scripts.steeldefectx.build import SOURCE, build_steeldefectx
from defect_hub.dataset_scripts.steeldefectx.release import load_classes, read_release

PAPER_CLASSES = [
    "Bright scratch",
    "Crazing",
    "Crease",
    "Crescent gap",
    "Dark scratches",
    "Finishing roll printing",
    "Inclusion",
    "Iron scale compression",
    "Iron sheet ash",
    "Oil spot",
    "Oxide scale of plate system",
    "Oxide scale of temperature system",
    "Patches",
    "Pitted surface",
    "Punching",
    "Red iron sheet",
    "Rolled in scale",
    "Rolled pit",
    "Secondary rust skin",
    "Silk spot",
    "Slag inclusion",
    "Waist folding",
    "Water spot",
    "Welding line",
    "White rust",
]


@pytest.fixture
def defects_only(release: Path) -> Path:
    """A release as the authors publish it: without normal surfaces."""
    for split in ("train", "val"):
        text_file = release / f"{split}-text.json"
        entries = json.loads(text_file.read_text())
        for entry in entries:
            if entry["class_name"] == "Normal surface":
                stem = Path(entry["image_name"]).stem
                (release / split / f"{stem}.jpg").unlink()
                (release / f"{split}_mask" / f"{stem}.png").unlink()
        text_file.write_text(json.dumps([e for e in entries if e["class_name"] != "Normal surface"]))
    return release


def images(raw: Path, split: str = "train") -> list[Path]:
    return sorted((raw / split).iterdir())


def edit_entry(raw: Path, **changes: Any) -> None:
    text_file = raw / "train-text.json"
    entries = json.loads(text_file.read_text())
    entries[0].update(changes)
    text_file.write_text(json.dumps(entries))


def read(raw: Path) -> tuple[dict[str, list[Sample]], list[DataError]]:
    return read_release(raw, load_classes(), SOURCE)


def test_label_space_is_the_paper_s_and_normal_only_where_it_occurs(defects_only: Path) -> None:
    assert load_classes().label_space(read(defects_only)[0]) == PAPER_CLASSES


def test_normal_surfaces_stand_behind_the_paper_s_classes(release: Path) -> None:
    assert load_classes().label_space(read(release)[0]) == [*PAPER_CLASSES, "Normal surface"]


def test_rows_carry_the_release_s_texts(defects_only: Path) -> None:
    splits, problems = read(defects_only)
    assert problems == []
    entries = {entry["image_name"]: entry for entry in json.loads((defects_only / "train-text.json").read_text())}
    classes = json.loads((defects_only / "class_descriptions.json").read_text())
    for sample in splits["train"]:
        found = make_record(sample)
        record = found.row
        assert found.disagreements == []
        entry = entries[record["image"]["path"]]
        assert record["label"] == entry["class_name"]
        assert record["t1"] == classes[entry["class_name"]]
        visual, cause = classes[entry["class_name"]].split(", which shows ")[1].removesuffix(".").split(" caused by ")
        parts = {"name": entry["class_name"], "visual_attributes": visual, "cause": cause}
        assert record["class_description"] == parts
        assert record["conversation"][1]["value"].endswith(f"Likely cause: {cause}.")
        assert record["t2"] == entry["natural_language_description"]
        assert record["t4"] == entry["template_sentence"]
        assert record["attributes"]["number_of_defects"] == entry["structured_attributes"]["Number of Defects"]
        positions = [[p["cell"], p["fraction"]] for p in record["attributes"]["position"]]
        assert positions == entry["structured_attributes"]["Position"]
        mask = np.asarray(Image.open(defects_only / "train_mask" / f"{sample.image.stem}.png")) > 127
        assert sum(record["objects"]["area"]) == mask.sum()


def test_template_slip_is_mended(defects_only: Path) -> None:
    edit_entry(defects_only, template_sentence="A tiny bright Bright scratch is observed on the bright steel.")
    splits, _ = read(defects_only)
    texts = {sample.texts["t4"] for sample in splits["train"]}
    assert "A tiny Bright scratch is observed on the bright steel." in texts


def missing_mask(raw: Path) -> None:
    (raw / "train_mask" / f"{images(raw)[0].stem}.png").unlink()


def truncated_image(raw: Path) -> None:
    images(raw)[0].write_bytes(images(raw)[0].read_bytes()[:400])


def sixteen_bit_image(raw: Path) -> None:
    image = images(raw)[0]
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(image.with_suffix(".png"))
    image.unlink()
    edit_entry(raw, image_name=f"{image.stem}.png")


def tiny_image(raw: Path) -> None:
    Image.new("L", (1, 1)).save(images(raw)[0])


def other_size(raw: Path) -> None:
    Image.new("L", (32, 64)).save(raw / "train_mask" / f"{images(raw)[0].stem}.png")


def mask_without_image(raw: Path) -> None:
    shutil.copy(next((raw / "val_mask").iterdir()), raw / "val_mask" / "zzz.png")


def missing_entry(raw: Path) -> None:
    (raw / "train-text.json").write_text(json.dumps(json.loads((raw / "train-text.json").read_text())[1:]))


def entry_without_image(raw: Path) -> None:
    entries = json.loads((raw / "train-text.json").read_text())
    (raw / "train-text.json").write_text(json.dumps([*entries, {**entries[0], "image_name": "zzz.jpg"}]))


def wrong_class(raw: Path) -> None:
    edit_entry(raw, class_name="Scratchy")


def missing_attribute(raw: Path) -> None:
    edit_entry(raw, structured_attributes={"Shape": "linear"})


def missing_key(raw: Path) -> None:
    entries = json.loads((raw / "train-text.json").read_text())
    del entries[0]["template_sentence"]
    (raw / "train-text.json").write_text(json.dumps(entries))


def unknown_key(raw: Path) -> None:
    edit_entry(raw, comment="nice", bbox=[1, 2])


def no_text(raw: Path) -> None:
    edit_entry(raw, natural_language_description=7)


def odd_position(raw: Path) -> None:
    entry = json.loads((raw / "train-text.json").read_text())[0]
    edit_entry(raw, structured_attributes={**entry["structured_attributes"], "Position": [["upper left", 1.0]]})


def two_entries(raw: Path) -> None:
    entries = json.loads((raw / "train-text.json").read_text())
    (raw / "train-text.json").write_text(json.dumps([*entries, entries[0]]))


def edit_description(raw: Path, sentence: str | None) -> None:
    file = raw / "class_descriptions.json"
    descriptions = json.loads(file.read_text())
    name = json.loads((raw / "train-text.json").read_text())[0]["class_name"]
    descriptions.pop(name)
    file.write_text(json.dumps(descriptions if sentence is None else {**descriptions, name: sentence}))


def undescribed_class(raw: Path) -> None:
    edit_description(raw, None)


def odd_description(raw: Path) -> None:
    edit_description(raw, "It is a defect.")


def malformed_json(raw: Path) -> None:
    (raw / "val-text.json").write_text("[{")


def empty_folder(raw: Path) -> None:
    shutil.rmtree(raw / "val")
    (raw / "val").mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (missing_mask, r"\.jpg: mask: is missing\. Supply .*train_mask/.*\.png"),
        (truncated_image, r"\.jpg: image: does not decode"),
        (sixteen_bit_image, r"\.png: image: pixel mode I;16"),
        (tiny_image, r"\.jpg: image: 1x1 px"),
        (other_size, r"\.png: mask: 32x64 px where its image has 64x64 px"),
        (mask_without_image, r"zzz\.png: mask: has no image"),
        (missing_entry, r"\.jpg: text: has no entry in train-text\.json"),
        (entry_without_image, r"train-text\.json: zzz\.jpg: has an entry but no image"),
        (wrong_class, r"train-text\.json: .*\.jpg: class_name: 'Scratchy' is not a class"),
        (missing_attribute, r"structured_attributes: lacks Defect type, Direction"),
        (missing_key, r"train-text\.json: .*\.jpg: entry: lacks template_sentence\. Give exactly the keys"),
        (unknown_key, r"train-text\.json: .*\.jpg: entry: has unknown bbox, comment\."),
        (no_text, r"natural_language_description: is not a text"),
        (odd_position, r"structured_attributes: Position: is no list of cells with fractions"),
        (two_entries, r"\.jpg: has two entries"),
        (undescribed_class, r"class_descriptions\.json: .*: has no description"),
        (odd_description, r"class_descriptions\.json"),
        (malformed_json, r"val-text\.json: JSON: malformed"),
        (empty_folder, r"val: folder: holds no"),
    ],
)
def test_bad_releases_name_file_field_and_remedy_and_keep_the_earlier_build(
    defects_only: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    out = tmp_path / "out"
    build_steeldefectx(defects_only, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    spoil(defects_only)
    with pytest.raises(DataError, match=message) as caught:
        build_steeldefectx(defects_only, out)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]


def test_all_problems_are_listed_at_once(defects_only: Path, tmp_path: Path) -> None:
    first, second, third = images(defects_only)[:3]
    (defects_only / "train_mask" / f"{first.stem}.png").unlink()
    second.write_bytes(b"no image")
    third.write_bytes(third.read_bytes()[:300])
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"mask: is missing.*\(and 2 more, see .*out\.errors\.txt\)"):
        build_steeldefectx(defects_only, out)
    assert not out.exists()
    lines = (tmp_path / "out.errors.txt").read_text().splitlines()
    assert [name in line for name, line in zip((first.name, second.name, third.name), lines, strict=True)] == [
        True
    ] * 3


def test_one_stem_may_occur_in_both_splits(defects_only: Path) -> None:
    stem = images(defects_only, "val")[0].stem
    for folder, suffix in (("", ".jpg"), ("_mask", ".png")):
        shutil.copy(defects_only / f"val{folder}" / f"{stem}{suffix}", defects_only / f"train{folder}")
    entry = next(e for e in json.loads((defects_only / "val-text.json").read_text()) if stem in e["image_name"])
    train = json.loads((defects_only / "train-text.json").read_text())
    (defects_only / "train-text.json").write_text(json.dumps([*train, entry]))
    splits, problems = read(defects_only)
    assert problems == []
    ids = {sample.image_id for samples in splits.values() for sample in samples}
    assert {f"train/{stem}", f"val/{stem}"} <= ids
