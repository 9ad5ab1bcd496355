"""The authors' text file and hand-over files of descriptions."""

import json
from pathlib import Path
from typing import Any

import pytest

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.tadd.texts import find_texts, read_descriptions, read_texts


def entry(name: Any, text: Any = "A picture.") -> dict[str, Any]:
    turns = [{"from": "human", "value": "Describe."}, {"from": "gpt", "value": text}]
    return {
        "image_name": name,
        "conversation": [*turns, {"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}],
    }


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), "utf-8")
    return path


def test_names_and_texts_are_put_in_order(tmp_path: Path) -> None:
    path = write(
        tmp_path / "TADD_text.json",
        [
            entry("MT\\test\\Blowhole\\exp1_num_1", "  This is \n a tile. "),
            entry("./CFD//001.JPG"),
            entry("a.b/1.5"),
            entry("cfd/001.jpg"),
        ],
    )
    assert read_texts(path) == {
        "mt/test/blowhole/exp1_num_1.jpg": "This is a tile.",
        "cfd/001.jpg": "A picture.",
        "a.b/1.5.jpg": "A picture.",
    }


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ("text", "entry 2: has no image_name"),
        ({}, "entry 2: has no image_name"),
        (entry(7), "entry 2: has no image_name"),
        (entry(" / "), "entry 2: has no image_name"),
        (entry("b.jpg", " "), "entry 2: b.jpg has no answer"),
        (entry("b.jpg", None), "entry 2: b.jpg has no answer"),
        ({"image_name": "b.jpg"}, "entry 2: b.jpg has no answer"),
        ({"image_name": "b.jpg", "conversation": [{"from": "human", "value": "x"}]}, "entry 2: b.jpg has no answer"),
    ],
)
def test_wrong_entries_are_named(tmp_path: Path, wrong: Any, problem: str) -> None:
    path = write(tmp_path / "TADD_text.json", [entry("a.jpg"), wrong])
    with pytest.raises(DataError, match=problem) as caught:
        read_texts(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_unusable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_texts(tmp_path / "none.json")
    with pytest.raises(DataError, match="expected a list"):
        read_texts(write(tmp_path / "dict.json", {}))
    with pytest.raises(DataError, match="cannot be read"):
        read_descriptions(tmp_path / "none.jsonl")


def found(names: list[str], images: list[tuple[str, str]]) -> list[str | None]:
    return find_texts({name: f"text of {name}" for name in names}, images)


@pytest.mark.parametrize(
    "name",
    [
        "mt/test/blowhole/exp1_num_1.jpg",
        "test/blowhole/exp1_num_1.png",
        "exp1_num_1.jpg",
        "tadd/mt/test/blowhole/exp1_num_1.jpg",
    ],
)
def test_path_suffix_or_name(name: str) -> None:
    images = [("MT", "test/Blowhole/exp1_num_1.JPG"), ("MT", "test/Blowhole/exp1_num_2.jpg")]
    assert found([name], images) == [f"text of {name}", None]


def test_the_longest_suffix_wins() -> None:
    names = ["good/000.jpg", "test/good/000.jpg", "cable/test/good/000.jpg", "000.jpg"]
    images = [("MVTec-AD", "cable/test/good/000.png"), ("MVTec-AD", "bottle/test/good/000.png")]
    assert found(names, images) == ["text of cable/test/good/000.jpg", "text of test/good/000.jpg"]


def test_a_name_with_several_texts_has_none(tmp_path: Path) -> None:
    path = write(tmp_path / "TADD_text.json", [entry("000.jpg"), entry("b.jpg"), entry("000", "Another text.")])
    texts = read_texts(path)
    assert texts == {"000.jpg": "", "b.jpg": "A picture."}
    assert find_texts(texts, [("MT", "x/000.jpg"), ("MT", "x/b.jpg")]) == [None, "A picture."]


def test_what_two_images_could_claim_is_nobodys() -> None:
    images = [("MVTec-AD", "cable/test/good/000.png"), ("MVTec-AD", "bottle/test/good/000.png")]
    assert found(["test/good/000.jpg"], images) == [None, None]
    assert found(["000.jpg"], images) == [None, None]
    assert found(["000.jpg"], [("MT", "000.jpg"), ("CFD", "000.jpg")]) == [None, None]


def test_of_two_images_the_one_that_fits_better_has_the_text() -> None:
    names = ["bottle/test/good/000.jpg"]
    images = [("MVTec-AD", "cable/000.png"), ("MVTec-AD", "bottle/test/good/000.png")]
    assert found(names, images) == [None, "text of bottle/test/good/000.jpg"]


def test_the_name_alone_serves_another_layout_of_the_same_source_only() -> None:
    images = [("RSDD 2", "Images/rail_7.png")]
    assert found(["rsdd-2/test/crack/rail_7.jpg"], images) == ["text of rsdd-2/test/crack/rail_7.jpg"]
    assert found(["rsdd-2/test/crack/rail_7.jpg", "mt/test/x/rail_7.jpg"], images) == [
        "text of rsdd-2/test/crack/rail_7.jpg"
    ]
    assert found(["mt/test/crack/rail_7.jpg"], images) == [None]
    assert found(["rsdd-2/test/a/rail_7.jpg", "rsdd-2/test/b/rail_7.jpg"], images) == [None]


def test_two_texts_under_one_name_with_two_suffixes_are_ambiguous() -> None:
    images = [("MT", "a.jpg")]
    assert find_texts({"mt/a.jpg": "x", "mt/a.png": "y"}, images) == [None]
    assert find_texts({"mt/a.jpg": "x", "mt/a.png": "x"}, images) == ["x"]


def test_the_order_of_images_does_not_matter() -> None:
    names = ["mt/a.jpg", "b.jpg", "cfd/test/b.jpg"]
    images = [("MT", "a.png"), ("CFD", "test/b.jpg"), ("MT", "b.jpg"), ("CFD", "raw/a.jpg")]
    forward = dict(zip(images, found(names, images), strict=True))
    assert forward == dict(zip(images[::-1], found(names, images[::-1]), strict=True))
    assert forward[("MT", "a.png")] == "text of mt/a.jpg"


def test_descriptions_by_hash(tmp_path: Path) -> None:
    path = tmp_path / "descriptions.jsonl"
    lines = [{"sha256": "A" * 64, "description": " A  rail. "}, {"sha256": "a" * 64, "description": "A rail."}]
    path.write_text("\n\n".join(map(json.dumps, lines)) + "\n", "utf-8")
    assert read_descriptions(path) == {"a" * 64: "A rail."}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 3: is no JSON"),
        ("[]", "line 3: has no sha256"),
        ('{"sha256": "12", "description": "x"}', "line 3: has no sha256"),
        (json.dumps({"sha256": "b" * 64, "description": " "}), "line 3: has no description"),
        (json.dumps({"sha256": "b" * 64}), "line 3: has no description"),
        (json.dumps({"sha256": "a" * 64, "description": "Another."}), "line 3: a+ has another text"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "descriptions.jsonl"
    path.write_text(json.dumps({"sha256": "a" * 64, "description": "A rail."}) + f"\n\n{line}\n", "utf-8")
    with pytest.raises(DataError, match=problem):
        read_descriptions(path)
