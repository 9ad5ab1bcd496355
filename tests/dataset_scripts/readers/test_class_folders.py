from pathlib import Path

import pytest

from defect_hub.dataset_scripts.readers.class_folders import Layout, list_layout, plain_name


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def listed(root: Path, layout: Layout) -> list[tuple]:
    def relative(path: Path | None) -> str | None:
        return path and path.relative_to(root).as_posix()

    return [
        (relative(entry.image), entry.class_name, relative(entry.boxes), relative(entry.mask))
        for entry in list_layout(root, layout).entries
    ]


@pytest.mark.parametrize("name", ["rolled-in_scale", "Rolled in  Scale", " ROLLED_IN-SCALE "])
def test_plain_name(name):
    assert plain_name(name) == "rolled in scale"


def test_class_folders(tmp_path):
    touch(tmp_path, "red iron/2.JPG", "red iron/1.png", "ash/1.jpg", "ash/notes.txt", "top.jpg", "deep/er/1.jpg")
    assert listed(tmp_path, Layout(["*"], "folder")) == [
        ("ash/1.jpg", "ash", None, None),
        ("red iron/1.png", "red iron", None, None),
        ("red iron/2.JPG", "red iron", None, None),
    ]


def test_class_in_the_file_name_and_boxes_in_other_folders(tmp_path):
    touch(tmp_path, "images/rolled-in_scale_12.jpg", "val_images/rolled-in_scale_3.jpg", "images/odd.jpg")
    touch(tmp_path, "XML/rolled-in_scale_12.xml", "val_xml/rolled-in_scale_3.xml")
    layout = Layout(["Images", "Val-Images"], "stem", boxes=["val_xml", "xml"])
    assert listed(tmp_path, layout) == [
        ("images/odd.jpg", "odd", None, None),
        ("images/rolled-in_scale_12.jpg", "rolled-in_scale", "XML/rolled-in_scale_12.xml", None),
        ("val_images/rolled-in_scale_3.jpg", "rolled-in_scale", "val_xml/rolled-in_scale_3.xml", None),
    ]


def test_masks_of_equal_stems_belong_to_their_class_folder(tmp_path):
    touch(tmp_path, "a/Images/1.jpg", "a/GT/1.png", "b/Images/1.jpg", "b/GT/1.png")
    assert listed(tmp_path, Layout(["*/Images"], "folder", masks=["*/GT"])) == [
        ("a/Images/1.jpg", "a", None, "a/GT/1.png"),
        ("b/Images/1.jpg", "b", None, "b/GT/1.png"),
    ]


def test_files_directly_in_the_folder(tmp_path):
    touch(tmp_path, "Cr_1.bmp", "sub/Cr_2.bmp")
    assert listed(tmp_path, Layout(["."], "stem")) == [("Cr_1.bmp", "Cr", None, None)]


def test_annotation_files_without_image_and_of_equal_stems_are_told(tmp_path):
    touch(tmp_path, "images/a_1.jpg", "x/a_1.xml", "y/a_1.xml", "y/a_2.xml")
    listing = list_layout(tmp_path, Layout(["images"], "stem", boxes=["x", "y"]))
    assert [path.name for path in listing.unused] == ["a_2.xml"]
    (problem,) = listing.problems
    assert str(problem).startswith(f"{tmp_path}/y/a_1.xml: annotation: has the same stem as x/a_1.xml")


def test_nothing_there(tmp_path):
    touch(tmp_path, "other/1.jpg")
    listing = list_layout(tmp_path, Layout(["images/*"], "folder"))
    assert (listing.entries, listing.unused, listing.problems) == ([], [], [])
