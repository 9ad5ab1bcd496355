import csv
import hashlib
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import Dataset, concatenate_datasets, load_dataset
from PIL import Image

from defect_hub.dataset_scripts.readers.boxes import Box
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.steeldefectx import sources
from defect_hub.dataset_scripts.steeldefectx.assembly import assemble_samples, build_from_sources
from defect_hub.dataset_scripts.steeldefectx.release import load_classes
from defect_hub.dataset_scripts.steeldefectx.sources import load_sources

TABLE = Path(sources.__file__).with_name("sources.yaml")


def steel(seed: int, size: tuple[int, int] = (40, 40)) -> np.ndarray:
    return np.random.default_rng(seed).integers(110, 130, size, dtype=np.uint8)


def save(path: Path, pixels: np.ndarray | int) -> Path:
    """Write an image of these pixels, or of noise with this seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels if isinstance(pixels, np.ndarray) else steel(pixels)).save(path)
    return path


def voc(path: Path, *boxes: tuple, size: tuple[int, int] = (40, 40)) -> Path:
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox>"
        "</object>"
        for name, a, b, c, d in boxes
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "<annotation><folder>cr</folder><filename>wrong</filename>"
        f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>1</depth></size>{objects}</annotation>"
    )
    return path


@pytest.fixture
def neu(tmp_path: Path) -> Path:
    """A raw folder with four images of NEU-DET."""
    raw = tmp_path / "raw"
    for seed, name in enumerate(["crazing_1", "crazing_2", "rolled-in_scale_12", "inclusion_7"]):
        save(raw / f"NEU-DET/IMAGES/{name}.png", seed)
        voc(raw / f"NEU-DET/ANNOTATIONS/{name}.xml", (name.rpartition("_")[0], 1, 11, 40, 20))
    return raw


def assembled(raw: Path, **options):
    return assemble_samples(raw, skip_missing=True, **options)


def by_id(assembly) -> dict:
    return {sample.image_id: sample for samples in assembly.splits.values() for sample in samples}


def dropped(assembly) -> dict[str, tuple[str, str]]:
    return {
        f"{report.source.name}/{item.path}": (item.reason, item.detail)
        for report in assembly.reports
        for item in report.dropped
    }


def layouts() -> list:
    table = yaml.safe_load(TABLE.read_text())["sources"]
    return [pytest.param(name, row, id=f"{name}-{row['example']}") for name in table for row in table[name]["layouts"]]


@pytest.mark.parametrize(("name", "layout"), layouts())
def test_each_example_of_the_table_is_found_in_its_layout(tmp_path, name, layout):
    paths = layout["example"].split(", ")
    for path in paths:
        if path.endswith(".xml"):
            voc(tmp_path / path)
        else:
            save(tmp_path / path, steel(len(path)))
    # Files that no layout names change nothing.
    save(tmp_path / paths[0].split("/")[0] / "Workflow_Images/deep/readme.png", 99)
    table = [source for source in load_sources() if source.name == name]
    (found,) = sources.find_sources(tmp_path, table)
    (entry,) = found.listing.entries
    assert entry.image == tmp_path / paths[0]
    annotation = entry.mask if "masks" in layout else entry.boxes
    assert annotation == (tmp_path / paths[1] if len(paths) > 1 else None)
    if table[0].classes:
        assert sources.plain_name(entry.class_name) in table[0].classes


def test_class_maps_cover_the_classes_and_no_others():
    table = {source.name: source for source in load_sources()}
    mapped = {name: {c for targets in source.classes.values() for c in targets} for name, source in table.items()}
    assert set.union(*mapped.values()) == set(load_classes().defects)
    assert len(mapped["NEU"]) == 5 + 2  # its scratches are two classes here
    assert len(mapped["GC10"]) == 10
    assert len(mapped["X-SDD"]) == 6 + 2
    assert len(mapped["S3D"]) == 5
    for source in table.values():
        assert sum(source.expected.values()) in (0, source.images)
        assert set(source.expected) <= set(source.classes)
        assert source.note or source.verified


def test_rows_of_the_built_set(tmp_path, neu):
    voc(neu / "NEU-DET/ANNOTATIONS/inclusion_7.xml", ("inclusion", 1, 11, 40, 20), ("crazing", 5, 5, 8, 14))
    save(neu / "X-SDD/X-SDD/datas/red iron/2001.png", steel(50, (64, 32)))
    report = build_from_sources(neu, tmp_path / "out", skip_missing=True)
    data = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: rows.num_rows for split, rows in data.items()} == {"train": 4, "val": 1, "test": 1}
    rows = {row["image_id"]: row for row in concatenate_datasets([data["train"], data["val"]])}
    assert set(rows) == {
        "NEU/IMAGES/crazing_1",
        "NEU/IMAGES/crazing_2",
        "NEU/IMAGES/inclusion_7",
        "NEU/IMAGES/rolled-in_scale_12",
        "X-SDD/datas/red iron/2001",
    }
    row = rows["NEU/IMAGES/inclusion_7"]
    names = data["train"].features["label"].names
    assert names == list(load_classes().defects)
    assert names[row["label"]] == "Inclusion"
    assert np.asarray(row["image"]).shape == (256, 256)
    scale = 256 / 40
    objects = row["objects"]
    boxes = [(names[item], np.array(bbox)) for item, bbox in zip(objects["category"], objects["bbox"], strict=True)]
    assert [category for category, _ in boxes] == ["Inclusion", "Crazing"]
    np.testing.assert_allclose(boxes[0][1], np.array([0, 10, 40, 10]) * scale)
    np.testing.assert_allclose(boxes[1][1], np.array([4, 4, 4, 10]) * scale)
    assert (row["annotation"], row["mask"], row["is_defective"]) == ("boxes", None, True)
    assert (row["source"], row["license"], row["redistributable"]) == ("NEU", "not stated", False)
    assert row["split_id"] == "steeldefectx-assembled-70-30-seed42"
    assert (row["source_file"], row["text_source"]) == ("IMAGES/inclusion_7.png", "composed")
    raw_bytes = (neu / "NEU-DET/IMAGES/inclusion_7.png").read_bytes()
    assert row["source_sha256"] == hashlib.sha256(raw_bytes).hexdigest() != row["sha256"]
    assert row["t0"] == "A photo of steel surface defect: Inclusion."
    assert row["t1"].startswith("A photo of Inclusion, which shows elongated streaks")
    assert row["class_description"]["cause"] == "smelting residue embedded during rolling"
    assert row["attributes"]["number_of_defects"] == "one"

    other = rows["X-SDD/datas/red iron/2001"]
    assert (other["annotation"], other["objects"]["bbox"], other["attributes"], other["t4"]) == (
        "none",
        [],
        None,
        None,
    )
    assert (other["license"], other["redistributable"]) == ("Apache-2.0", True)
    assert np.asarray(other["image"]).shape == (256, 256)
    assert report.sources[:3] == [
        "NEU: 4 of 4 images kept",
        "X-SDD: 1 of 1 images kept",
        "not found: GC10, S3D, FSC-20, ESDIs-SOD",
    ]


def test_card_says_what_is_here_and_what_is_not(tmp_path, neu):
    save(neu / "NEU-DET/IMAGES/a$1_1.png", 7)
    shutil.copy(neu / "NEU-DET/IMAGES/crazing_1.png", neu / "NEU-DET/IMAGES/crazing_a$0_9.png")
    (neu / "NEU-DET/IMAGES/crazing_8.png").write_bytes(b"no image")
    table = yaml.safe_load(TABLE.read_text())
    table["sources"]["NEU"]["classes"] |= {"a$1": "White rust", "crazing_a$0": "Crazing"}
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(table))
    build_from_sources(neu, tmp_path / "out", skip_missing=True, sources=own)
    card = (tmp_path / "out/README.md").read_text()
    body = card.split("\n---\n", 1)[1]
    line = "1 dropped (duplicate), 1 dropped (unreadable)"
    assert f"| NEU | `NEU-DET` | 1,800 | 7 | 5 | {line} | boxes 4, none 1 |" in body
    assert "| S3D | not found | 880 | 0 | 0 | - | - |" in body
    assert "| NEU | crazing | Crazing | 3 | 2 | 300 |" in body
    assert "| NEU | a$1 | White rust | 1 | 1 |  |" in body
    assert "`IMAGES/crazing_a$0_9.png`: duplicate, same file as NEU/IMAGES/crazing_1" in body
    assert "`IMAGES/crazing_8.png`: unreadable, is not an image" in body
    assert "21 of the 25 classes have no image: Bright scratch, Crease," in body
    for source in load_sources():
        assert source.homepage in body
        assert source.citation in body
    assert body.count("**Not verified**") == 3
    assert not re.findall(r"\$[a-z_]+", body)


def test_usage_code_of_the_card_runs(tmp_path, neu, monkeypatch):
    build_from_sources(neu, tmp_path / "assembled", skip_missing=True)
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "assembled/README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    assert next(iter(names["pairs"]))["t1"].startswith("A photo of ")
    assert set(names["boxes"]["annotation"]) == {"boxes"}


def test_missing_sources_are_all_named_with_the_layouts_expected(tmp_path, neu):
    with pytest.raises(DataError) as caught:
        build_from_sources(neu, tmp_path / "out")
    message = str(caught.value)
    assert message.startswith(
        f"{neu}: sources: GC10, X-SDD, S3D not found. Supply GC10 as GC10-DET/1/img_01.jpg, GC10"
    )
    assert "X-SDD as X-SDD/datas/red iron/2001.jpg or" in message
    assert "--skip-missing" in message
    # FSC-20 and ESDIs-SOD are extras.
    assert "FSC-20" not in message
    assert not (tmp_path / "out").exists()


def test_skipping_everything_is_no_data_set(tmp_path):
    with pytest.raises(DataError, match="sources: NEU, GC10, X-SDD, S3D not found"):
        assembled(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        assembled(tmp_path / "none")


def test_a_source_in_an_unknown_layout_is_not_skipped(tmp_path, neu):
    save(neu / "GC10-DET/pictures/all/of/them/1.png", 5)
    with pytest.raises(
        DataError, match=r"GC10-DET: layout: holds no image where GC10 has them\. Lay it out as GC10-DET/1"
    ):
        assembled(neu)


def test_neu_cls_beside_neu_det_is_the_same_set(neu):
    save(neu / "NEU-CLS/Cr_1.bmp", 8)
    assembly = assembled(neu)
    assert len(by_id(assembly)) == 4
    assert assembly.reports[0].line() == "NEU: 4 of 4 images kept; NEU-CLS is the same set and was not read"


def test_gc10_multi_label_images_slips_and_images_without_boxes(tmp_path):
    raw = tmp_path / "raw"
    save(raw / "GC10-DET/9/img_1.jpg", steel(1, (50, 100)))
    save(raw / "GC10-DET/10/img_2.jpg", 2)
    save(raw / "GC10-DET/10/img_3.jpg", 3)
    save(raw / "GC10-DET/10/img_4.jpg", 4)
    boxes = ("9_zhehen", 1, 1, 9, 9), ("10_yaozhed", 1, 1, 9, 9), ("d", 2, 2, 5, 5), ("1_chongkong", 1, 1, 9, 9)
    voc(raw / "GC10-DET/lable/img_1.xml", *boxes, size=(100, 50))
    voc(raw / "GC10-DET/lable/img_2.xml", ("7_yiwu", 3, 3, 9, 9))
    voc(raw / "GC10-DET/lable/img_4.xml", ("d", 3, 3, 9, 9))
    voc(raw / "GC10-DET/lable/img_77.xml")
    assembly = assembled(raw)
    samples = by_id(assembly)
    assert {key: sample.class_name for key, sample in samples.items()} == {
        "GC10/9/img_1": "Crease",
        "GC10/10/img_2": "Waist folding",
        "GC10/10/img_3": "Waist folding",
        "GC10/10/img_4": "Waist folding",
    }
    categories = [box.category for box in samples["GC10/9/img_1"].boxes]
    assert categories == ["Crease", "Waist folding", "Punching"]
    assert samples["GC10/10/img_2"].boxes == (Box("Inclusion", 2, 2, 7, 7),)
    assert samples["GC10/10/img_3"].boxes is None
    assert samples["GC10/10/img_4"].boxes is None
    assert assembly.problems == []
    assert assembly.reports[0].line() == (
        "GC10: 4 of 4 images kept; 2 boxes named d ignored; 1 annotation files without an image"
    )


def test_repeated_images_are_kept_once_across_formats_and_sources(neu):
    shutil.copy(neu / "NEU-DET/IMAGES/crazing_1.png", neu / "NEU-DET/IMAGES/crazing_3.png")
    save(neu / "NEU-DET/IMAGES/crazing_4.bmp", 1)  # the pixels of crazing_2.png
    save(neu / "FSC-20/Rolled-In Scale/1.jpg", 60)
    save(neu / "FSC-20/Rolled-In Scale/2.png", np.repeat(steel(2)[..., None], 3, axis=2))  # of rolled-in_scale_12, RGB
    assembly = assembled(neu)
    assert dropped(assembly) == {
        "NEU/IMAGES/crazing_3.png": ("duplicate", "same file as NEU/IMAGES/crazing_1"),
        "NEU/IMAGES/crazing_4.bmp": ("duplicate", "same pixels as NEU/IMAGES/crazing_2"),
        "FSC-20/Rolled-In Scale/2.png": ("duplicate", "same pixels as NEU/IMAGES/rolled-in_scale_12"),
    }
    assert len(by_id(assembly)) == 5
    assert [report.line() for report in assembly.reports] == [
        "NEU: 4 of 6 images kept; 2 dropped (duplicate)",
        "FSC-20: 1 of 2 images kept; 1 dropped (duplicate)",
    ]


def test_equal_values_in_another_shape_are_another_image(tmp_path):
    pixels = steel(1, (20, 80))
    save(tmp_path / "X-SDD/red iron/1.png", pixels)
    save(tmp_path / "X-SDD/red iron/2.png", pixels.reshape(80, 20))
    assert len(by_id(assembled(tmp_path))) == 2


def test_equal_images_of_different_classes_are_all_dropped(neu):
    for name in ("inclusion_1", "patches_1"):
        shutil.copy(neu / "NEU-DET/IMAGES/crazing_1.png", neu / f"NEU-DET/IMAGES/{name}.png")
    assembly = assembled(neu)
    assert set(dropped(assembly)) == {f"NEU/IMAGES/{name}_1.png" for name in ("crazing", "inclusion", "patches")}
    assert dropped(assembly)["NEU/IMAGES/patches_1.png"] == (
        "label conflict",
        "Patches; equal to NEU/IMAGES/crazing_1 (Crazing), NEU/IMAGES/inclusion_1 (Inclusion)",
    )
    assert len(by_id(assembly)) == 3


def test_images_that_cannot_be_read_are_dropped(neu):
    path = neu / "NEU-DET/IMAGES/crazing_1.png"
    path.write_bytes(path.read_bytes()[:200])
    save(neu / "NEU-DET/IMAGES/crazing_2.png", np.zeros((40, 40, 4), np.uint8))
    assembly = assembled(neu)
    assert list(dropped(assembly)) == ["NEU/IMAGES/crazing_1.png", "NEU/IMAGES/crazing_2.png"]
    first, second = dropped(assembly).values()
    assert first[0] == second[0] == "unreadable"
    assert first[1].startswith("does not decode (")
    assert second[1].startswith("pixel mode RGBA")
    assert assembly.problems == []


def test_all_problems_are_named_at_once_and_skipped_on_request(tmp_path, neu):
    save(neu / "NEU-DET/IMAGES/dents_1.png", 20)
    save(neu / "NEU-DET/IMAGES/dents_2.png", 21)
    for number, text in enumerate(["<annotation>", None, None, None]):
        save(neu / f"NEU-DET/IMAGES/patches_{number}.png", 30 + number)
        if text:
            (neu / f"NEU-DET/ANNOTATIONS/patches_{number}.xml").write_text(text)
    voc(neu / "NEU-DET/ANNOTATIONS/patches_1.xml", ("dents", 1, 1, 5, 5))
    voc(neu / "NEU-DET/ANNOTATIONS/patches_2.xml", size=(41, 40))
    voc(neu / "NEU-DET/ANNOTATIONS/patches_3.xml", ("patches", 1, 1, 50, 5))
    with pytest.raises(DataError, match="and 3 more"):
        build_from_sources(neu, tmp_path / "out", skip_missing=True)
    lines = (tmp_path / "out.errors.txt").read_text().splitlines()
    expected = [
        r"NEU-DET: 2 images: class 'dents' is not in the class map of NEU\. Map it in a table like sources\.yaml",
        r"patches_0\.xml: XML: malformed",
        r"patches_1\.xml: box: class 'dents' is not in the class map of NEU",
        r"patches_2\.xml: size: is for 41x40 px where its image has 40x40 px",
    ]
    assert len(lines) == len(expected)
    for pattern, line in zip(expected, lines, strict=True):
        assert re.search(pattern, line)

    report = build_from_sources(neu, tmp_path / "out", skip_missing=True, skip_bad=True)
    assert sum(counts.total() for counts in report.counts.values()) == 5
    assert report.sources[0] == "NEU: 5 of 10 images kept; 5 with problems"
    assert report.warnings[0] == "boxes changed or left out: 1 clipped; `box_repairs.csv` lists them"
    listed = (tmp_path / "out/box_repairs.csv").read_text().splitlines()
    assert listed[1:] == ["NEU/IMAGES/patches_3,1,Patches,clipped,0,0,50,5,0,0,40,5"]
    assert [str(problem) for problem in report.skipped] == lines


def test_copies_of_a_scratch_are_no_conflict_where_only_their_boxes_differ(tmp_path):
    both = scratched(30, 250, slice(40, 46))
    both[18:21, 8:56] = 60
    save(tmp_path / "NEU-DET/IMAGES/scratches_1.png", both)
    voc(tmp_path / "NEU-DET/ANNOTATIONS/scratches_1.xml", ("scratches", 9, 12, 56, 28), size=(64, 64))
    save(tmp_path / "FSC-20/scratches/1.bmp", both)
    save(tmp_path / "FSC-20/scratches/2.bmp", scratched(31, 250))
    assembly = assembled(tmp_path)
    assert dropped(assembly) == {"FSC-20/scratches/1.bmp": ("duplicate", "same pixels as NEU/IMAGES/scratches_1")}
    assert by_id(assembly)["NEU/IMAGES/scratches_1"].class_name == "Dark scratches"
    assert by_id(assembly)["FSC-20/scratches/2"].class_name == "Bright scratch"
    # A folder of bright scratches contradicts it.
    save(tmp_path / "S3D/Bright scratch/1.png", both)
    assert {reason for reason, _ in dropped(assembled(tmp_path)).values()} == {"label conflict"}


def scratched(seed: int, value: int, rows: slice = slice(18, 21)) -> np.ndarray:
    pixels = steel(seed, (64, 64))
    pixels[rows, 8:56] = value
    return pixels


def test_scratches_are_bright_or_dark_by_their_polarity(tmp_path):
    raw = tmp_path / "raw"
    for number, value in enumerate([200, 40, 180, 60]):
        save(raw / f"NEU-DET/IMAGES/scratches_{number}.png", scratched(number, value))
        save(raw / f"X-SDD/surface scratch/{number}.png", scratched(10 + number, value))
    voc(raw / "NEU-DET/ANNOTATIONS/scratches_0.xml", ("scratches", 9, 15, 56, 24), size=(64, 64))
    # The box tells which of two lines the scratch is; another class keeps its name.
    both = scratched(30, 230, slice(40, 46))
    both[18:21, 8:56] = 60
    save(raw / "NEU-DET/IMAGES/scratches_8.png", both)
    boxes = ("scratches", 9, 12, 56, 28), ("inclusion", 1, 36, 60, 50)
    voc(raw / "NEU-DET/ANNOTATIONS/scratches_8.xml", *boxes, size=(64, 64))
    save(raw / "NEU-DET/IMAGES/inclusion_9.png", scratched(31, 210))
    boxes = ("inclusion", 1, 36, 60, 50), ("scratches", 9, 15, 56, 24)
    voc(raw / "NEU-DET/ANNOTATIONS/inclusion_9.xml", *boxes, size=(64, 64))
    samples = by_id(assembled(raw))
    bright, dark = "Bright scratch", "Dark scratches"
    assert {key: sample.class_name for key, sample in samples.items()} == {
        **{f"NEU/IMAGES/scratches_{n}": name for n, name in enumerate([bright, dark, bright, dark])},
        **{f"X-SDD/surface scratch/{n}": name for n, name in enumerate([bright, dark, bright, dark])},
        "NEU/IMAGES/scratches_8": dark,
        "NEU/IMAGES/inclusion_9": "Inclusion",
    }
    assert [box.category for box in samples["NEU/IMAGES/scratches_0"].boxes] == [bright]
    assert [box.category for box in samples["NEU/IMAGES/scratches_8"].boxes] == [dark, "Inclusion"]
    assert [box.category for box in samples["NEU/IMAGES/inclusion_9"].boxes] == ["Inclusion", bright]


def test_an_own_table_reads_what_ours_cannot(tmp_path, neu):
    mask = np.zeros((40, 40), np.uint8)
    mask[:20] = 255
    save(neu / "ESDIs-SOD/train/images/7_12.jpg", 70)
    save(neu / "ESDIs-SOD/train/GT/7_12.png", mask)
    (problem,) = assembled(neu).problems
    assert "ESDIs-SOD: 1 images: class '7' is not in the class map of ESDIs-SOD. Map it in a table" in str(problem)
    table = yaml.safe_load(TABLE.read_text())
    table["sources"]["ESDIs-SOD"]["classes"] = {7: "White rust"}
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(table))
    build_from_sources(neu, tmp_path / "out", skip_missing=True, sources=own)
    rows = load_dataset(str(tmp_path / "out"), "segmentation", split="train", cache_dir=str(tmp_path / "cache"))
    (row,) = rows
    assert (np.asarray(row["mask"]) == np.repeat([255, 0], 128)[:, None]).all()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda table: table.update(sources=3), "sources: no table of sources"),
        (lambda table: table["sources"].update(NEU=None), "NEU: lacks title, homepage"),
        (lambda table: table["sources"]["NEU"].pop("license"), r"own\.yaml: NEU: lacks license"),
        (
            lambda table: table["sources"]["NEU"]["classes"].update(x="Rust"),
            "NEU: malformed .'Rust' is none of the 25",
        ),
        (lambda table: table["sources"]["NEU"]["classes"].update(x={"by_polarity": ["Crazing"]}), "two classes"),
        (lambda table: table["sources"]["NEU"]["classes"].update(x=[1]), "NEU: malformed"),
        (lambda table: table["sources"]["NEU"]["expected"].update(x=1), "expected: x is not in classes"),
        (lambda table: table["sources"]["NEU"]["layouts"].append({"images": ["."]}), "NEU: malformed"),
        (lambda table: table["sources"]["NEU"]["layouts"][0].update(class_of="moon"), "class_of is 'moon'"),
        (lambda table: table["sources"]["NEU"]["layouts"][0].update(color="red"), "NEU: malformed"),
    ],
)
def test_errors_of_an_own_table(tmp_path, neu, edit, message):
    table = yaml.safe_load(TABLE.read_text())
    edit(table)
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(table))
    with pytest.raises(DataError, match=message):
        assembled(neu, sources=own)


def test_unreadable_table(tmp_path, neu):
    with pytest.raises(DataError, match=r"none\.yaml: sources: cannot be read"):
        assembled(neu, sources=tmp_path / "none.yaml")
    (tmp_path / "own.yaml").write_text("{")
    with pytest.raises(DataError, match="no table of sources"):
        assembled(neu, sources=tmp_path / "own.yaml")


def test_result_depends_neither_on_workers_nor_on_file_order(tmp_path, neu):
    for number in range(60):
        save(neu / f"NEU-DET/IMAGES/patches_{number}.png", 100 + number)
    first = build_from_sources(neu, tmp_path / "a", skip_missing=True)
    second = build_from_sources(neu, tmp_path / "b", skip_missing=True, workers=2)
    assert first.digest == second.digest
    split_by_sha = {
        (row["source_sha256"], split)
        for split in ("train", "val")
        for row in load_dataset(str(tmp_path / "a"), split=split, cache_dir=str(tmp_path / "cache"))
    }
    images = neu / "NEU-DET/IMAGES"
    for number in range(60):
        (images / f"patches_{number}.png").rename(images / f"patches_{999 - number}.png")
    renamed = assembled(neu)
    found = {
        (hashlib.sha256(sample.image.read_bytes()).hexdigest(), split)
        for split, samples in renamed.splits.items()
        for sample in samples
    }
    assert found == split_by_sha


@pytest.fixture(scope="module")
def real(tmp_path_factory, raw_data):
    """NEU-DET and X-SDD built: the folder, its rows and the raw folder."""
    folder = tmp_path_factory.mktemp("real")
    build_from_sources(raw_data, folder / "out", skip_missing=True, workers=2)
    data = load_dataset(str(folder / "out"), cache_dir=str(folder / "cache"))
    return folder / "out", concatenate_datasets([data["train"], data["val"]]), raw_data


def column_pairs(rows: Dataset, *names: str) -> list[tuple]:
    return list(zip(*(rows[name] for name in names), strict=True))


@pytest.mark.real_data
def test_real_counts_by_class(real):
    _, rows, raw = real
    names = rows.features["label"].names
    found = Counter((source, names[label]) for source, label in column_pairs(rows, "source", "label"))
    files = [*raw.glob("NEU-DET/IMAGES/*.jpg"), *raw.glob("NEU-DET/Validation_Images/*.jpg")]
    unique = {hashlib.sha256(path.read_bytes()).hexdigest(): re.sub(r"_\d+$", "", path.stem) for path in files}
    neu = Counter(unique.values())
    folders = [path for path in raw.glob("X-SDD/X-SDD/datas/*") if path.is_dir()]
    xsdd = {
        folder.name: len({hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()})
        for folder in folders
    }
    assert xsdd["red iron"] == 397 - 9
    same_name = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale")
    expected = {("NEU", re.sub("[-_]", " ", name).capitalize()): neu[name] for name in same_name}
    expected |= {("X-SDD", name.capitalize()): count for name, count in xsdd.items()}
    expected["X-SDD", "Red iron sheet"] = expected.pop(("X-SDD", "Red iron"))
    scratches = {"NEU": neu["scratches"], "X-SDD": expected.pop(("X-SDD", "Surface scratch"))}
    for source, count in scratches.items():
        assert found.pop((source, "Bright scratch"), 0) + found.pop((source, "Dark scratches"), 0) == count
    assert found == expected


@pytest.mark.real_data
def test_real_split_is_seventy_to_thirty_within_each_class(real):
    folder, rows, _ = real
    with (folder / "splits.csv").open() as file:
        split_of = {row["image_id"]: row["split"] for row in csv.DictReader(file)}
    classes: dict[int, list[str]] = {}
    for image_id, label in column_pairs(rows, "image_id", "label"):
        classes.setdefault(label, []).append(split_of[image_id])
    for splits in classes.values():
        assert abs(splits.count("train") - 0.7 * len(splits)) <= 0.5
        assert set(splits) == {"train", "val"} or len(splits) < 2


@pytest.mark.real_data
def test_real_images_are_resized_and_boxes_scaled(real):
    _, rows, raw = real
    assert set(column_pairs(rows, "width", "height")) == {(256, 256)}
    odd = {}
    for path in raw.glob("X-SDD/X-SDD/datas/*/*"):
        with Image.open(path) as image:
            if image.size != (128, 128):
                odd[path.relative_to(raw / "X-SDD/X-SDD").as_posix()] = image.size
    assert {(122, 128), (130, 128)} & set(odd.values())
    index = {source_file: number for number, source_file in enumerate(rows["source_file"])}
    for name in odd:
        assert rows[index[name]]["image"].size == (256, 256)
    row = rows[index["IMAGES/inclusion_2.jpg"]]
    text = (raw / "NEU-DET/ANNOTATIONS/inclusion_2.xml").read_text()
    corners = np.array([[int(v) for v in re.findall(rf"<{key}>(\d+)<", text)] for key in ("xmin", "ymin")]).T
    boxes = np.array(row["objects"]["bbox"])
    np.testing.assert_allclose(boxes[:, :2], (corners - 1) * 256 / 200, rtol=1e-6)


@pytest.mark.real_data
def test_real_repeated_images_are_reported(real, tmp_path):
    folder, rows, raw = real
    card = (folder / "README.md").read_text()
    assert len(re.findall(r"`datas/red iron/\d+\.jpg`: duplicate, same file as X-SDD/datas/red iron/\d+", card)) == 9
    assert len(set(rows["source_sha256"])) == len(rows)
    # The whole NEU-DET has one repeated image, of which this part has neither copy: repeat one under its names.
    copy = tmp_path / "raw/NEU-DET/IMAGES"
    copy.mkdir(parents=True)
    for name in ("patches_101", "patches_105"):
        shutil.copy(raw / "NEU-DET/IMAGES/patches_10.jpg", copy / f"{name}.jpg")
    assert dropped(assembled(tmp_path / "raw")) == {
        "NEU/IMAGES/patches_105.jpg": ("duplicate", "same file as NEU/IMAGES/patches_101")
    }
