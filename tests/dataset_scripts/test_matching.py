import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from defect_hub.dataset_scripts.mmio.matching import (
    Match,
    folder_prompts,
    match_categories,
    read_matches,
    read_texts,
    square_around,
)
from defect_hub.dataset_scripts.readers.errors import DataError
from tests.dataset_scripts.built_folders import CLASSES, png, row, write_built

HEAD = Match._fields
RED, GREEN = (200, 0, 0), (0, 200, 0)


class ColourEncoder:
    """Vector of an image: its mean colour, with a length that must not matter; of a text: what a table says."""

    logit_scale = 10.0

    def __init__(self, texts: dict[str, Sequence[float]]) -> None:
        self.table = texts
        self.seen: list[Image.Image] = []

    def images(self, images: list[Image.Image]) -> NDArray[np.float32]:
        self.seen += images
        assert all(image.mode == "RGB" for image in images)
        return np.stack([np.asarray(image, np.float32).mean((0, 1)) for image in images])

    def texts(self, texts: list[str]) -> NDArray[np.float32]:
        return np.array([self.table[text] for text in texts], np.float32)


@pytest.fixture
def encoder() -> ColourEncoder:
    return ColourEncoder({"red thing": (3, 0, 0), "green thing": (0, 3, 0), "both": (1, 1, 0)})


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """Red images whose crack is green, and an image of pores, dark red, that has no boxes."""
    rows = []
    for number in range(3):
        pixels = np.zeros((48, 64, 3), np.uint8)
        pixels[:] = RED
        pixels[6:38, 20:52] = GREEN
        pixels[0, 0] = number
        rows.append(row(number, [("crack", [20, 18, 32, 8])], image=picture(pixels)))
    whole = row(3, [], image=png((64, 48), colour=(100, 0, 0)), label=CLASSES.index("pore"), is_defective=True)
    normal = row(4, [], image=png((64, 48), colour=(0, 0, 200)))
    closed = row(5, [("pore", [0, 0, 20, 20])], image=None)
    return write_built(tmp_path / "built", {"train": [*rows, whole], "test": [normal, closed]})


def picture(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def lines(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        found = {(item["category"], item["text"]): item for item in reader}
        assert tuple(reader.fieldnames or ()) == HEAD
    return found


def test_scores_are_those_computed_by_hand(built: Path, encoder: ColourEncoder, tmp_path: Path) -> None:
    report = match_categories(built, ["red thing", "green thing", "both"], encoder, tmp_path / "matches.csv")
    found = lines(tmp_path / "matches.csv")
    half = 0.5**0.5
    assert {key: float(item["cosine"]) for key, item in found.items()} == pytest.approx(
        {
            ("crack", "green thing"): 1.0,
            ("crack", "both"): half,
            ("crack", "red thing"): 0.0,
            ("pore", "red thing"): 1.0,
            ("pore", "both"): half,
            ("pore", "green thing"): 0.0,
        },
        abs=1e-4,
    )
    powers = np.exp(10 * np.array([1, half, 0]))
    assert float(found["pore", "both"]["softmax"]) == pytest.approx(powers[1] / powers.sum(), abs=1e-4)
    assert [key for key, item in found.items() if item["proposed"] == "yes"] == [
        ("crack", "green thing"),
        ("pore", "red thing"),
    ]
    assert {(item["category"], item["crops"], item["accepted"]) for item in found.values()} == {
        ("crack", "3", ""),
        ("pore", "1", ""),
    }
    assert report.lines() == [
        f"{tmp_path / 'matches.csv'}: 2 of 2 categories with a proposed text; answer yes or no in column accepted"
    ]


def test_vectors_count_alike_whatever_their_length(tmp_path: Path, encoder: ColourEncoder) -> None:
    bright = row(0, [("crack", [0, 0, 64, 48])], image=png((64, 48), colour=(250, 0, 0)))
    dark = row(1, [("crack", [0, 0, 64, 48])], image=png((64, 48), colour=(0, 10, 0)))
    built = write_built(tmp_path / "built", {"train": [bright, dark]})
    match_categories(built, ["both"], encoder, tmp_path / "matches.csv")
    assert float(lines(tmp_path / "matches.csv")["crack", "both"]["cosine"]) == pytest.approx(1, abs=1e-4)


def test_the_threshold_is_of_the_chosen_score(built: Path, encoder: ColourEncoder, tmp_path: Path) -> None:
    texts = {"crack": ["both"], "pore": ["both", "red thing"]}
    out = tmp_path / "matches.csv"
    report = match_categories(built, texts, encoder, out, threshold=1.01)
    assert report.lines()[0] == (
        "note: no cosine reaches 1.01, the highest is 1.000 (pore: 'red thing'); CLIP's cosines are low, "
        "see --score softmax"
    )
    match_categories(built, texts, encoder, out)
    assert {key for key, item in lines(out).items() if item["proposed"] == "yes"} == {("pore", "red thing")}
    match_categories(built, texts, encoder, out, score="softmax", threshold=0.94)
    assert {key for key, item in lines(out).items() if item["proposed"] == "yes"} == {
        ("crack", "both"),
        ("pore", "red thing"),
    }


def test_crops_are_drawn_by_hash_from_whatever_shard(tmp_path: Path, encoder: ColourEncoder) -> None:
    rows = [
        row(number, [("crack", [0, 0, 32, 32])], image=png((40, 40), colour=(number, 0, 0))) for number in range(1, 40)
    ]
    seen = []
    for name, order in (("a", rows), ("b", rows[::-1])):
        built = write_built(tmp_path / name, {"train": order[:25], "test": order[25:]})
        encoder.seen = []
        match_categories(built, ["both"], encoder, tmp_path / f"{name}.csv", crops_per_category=5)
        seen.append({int(np.asarray(image)[0, 0, 0]) for image in encoder.seen})
    ranks = {item["image_number"]: hashlib.sha256(f"{item['sha256']}:0".encode()).hexdigest() for item in rows}
    assert seen[0] == seen[1] == set(sorted(ranks, key=lambda number: ranks[number])[:5])
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()


@pytest.mark.parametrize(
    ("bbox", "corners"),
    [
        ([20, 18, 32, 8], (20, 6, 52, 38)),  # grown to a square around its centre
        ([0, 0, 4, 4], (0, 0, 16, 16)),  # tiny, in a corner
        ([60, 40, 4, 8], (48, 32, 64, 48)),  # moved into the image
        ([2, 10, 60, 4], (2, 0, 62, 48)),  # longer than the image is high
        ([10.4, 10.4, 20.2, 3], (10, 1, 31, 22)),  # sides are rounded up
    ],
)
def test_crops_are_squares_in_the_image(bbox: list[float], corners: tuple[int, ...]) -> None:
    assert square_around(bbox, (64, 48)) == corners


def test_every_box_lies_in_its_crop() -> None:
    rng = np.random.default_rng(0)
    for x, y, width, height in rng.uniform(0, 1, (500, 4)) * (40, 30, 24, 18):
        left, top, right, bottom = square_around([x, y, width, height], (64, 48))
        assert 0 <= left < right <= 64 and 0 <= top < bottom <= 48
        # To the pixel: positions of the square are rounded.
        assert left <= x + 1 and top <= y + 1 and right >= x + width - 1 and bottom >= y + height - 1


def test_answers_survive_a_second_run(built: Path, encoder: ColourEncoder, tmp_path: Path) -> None:
    out = tmp_path / "matches.csv"
    match_categories(built, ["red thing", "both"], encoder, out)
    text = out.read_text()
    answered = {("crack", "both"): " Yes", ("pore", "both"): "no", ("pore", "red thing"): "yes"}
    content = [dict(item, accepted=answered.get(key, "")) for key, item in lines(out).items()]
    with out.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, HEAD)
        writer.writeheader()
        writer.writerows(content)
    match_categories(built, ["red thing", "green thing"], encoder, out)
    found = {key: item["accepted"] for key, item in lines(out).items()}
    assert found == {
        ("crack", "green thing"): "",
        ("crack", "both"): "yes",
        ("crack", "red thing"): "",
        ("pore", "red thing"): "yes",
        ("pore", "both"): "no",
        ("pore", "green thing"): "",
    }
    assert read_matches(out, ["crack", "pore"]) == {"crack": "both", "pore": "red thing"}
    out.unlink()
    match_categories(built, ["red thing", "both"], encoder, out)
    assert out.read_text() == text


def test_of_categories_without_pictures_only_answered_texts_are_listed(tmp_path: Path, encoder: ColourEncoder) -> None:
    shard = [row(0, [("crack", [0, 0, 20, 20])], image=png((64, 48), colour=RED))]
    shard.append(row(1, [("pore", [0, 0, 20, 20])], image=None))
    built = write_built(tmp_path / "built", {"train": shard})
    report = match_categories(built, ["red thing", "both"], encoder, tmp_path / "matches.csv")
    assert report.lines()[0] == "note: 1 categories without images: pore"
    assert {category for category, _ in lines(tmp_path / "matches.csv")} == {"crack"}
    written(tmp_path / "matches.csv", ("pore", "both", "yes"))
    match_categories(built, ["red thing", "both"], encoder, tmp_path / "matches.csv")
    found = lines(tmp_path / "matches.csv")["pore", "both"]
    assert {key: found[key] for key in HEAD[3:]} == {
        "cosine": "",
        "softmax": "",
        "crops": "0",
        "proposed": "no",
        "accepted": "yes",
    }
    assert ("pore", "red thing") not in lines(tmp_path / "matches.csv")


def test_scenes_and_prompts_come_from_the_folder(built: Path, encoder: ColourEncoder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"categories\.csv: lists no prompts\. Give the candidates with --texts"):
        folder_prompts(built)
    text = "category,super_category,scene,prompt,novel\ncrack,metallurgy,plate,red thing,false\npore,,weld,both,true\n"
    (built / "categories.csv").write_text(text)
    assert folder_prompts(built) == {"crack": ["red thing"], "pore": ["both"]}
    match_categories(built, folder_prompts(built), encoder, tmp_path / "matches.csv")
    assert {(category, item["scene"]) for (category, _), item in lines(tmp_path / "matches.csv").items()} == {
        ("crack", "plate"),
        ("pore", "weld"),
    }


def written(path: Path, *rows: tuple[str, str, str]) -> Path:
    path.write_text("category,text,accepted\n" + "".join(f'{a},"{b}",{c}\n' for a, b, c in rows), "utf-8")
    return path


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([("crack", "a", "yes"), ("crack", "b", "yes")], "line 3: accepts a second text for crack, after 'a'"),
        ([("crack", "a", "yes"), ("dent", "b", "")], "line 3: unknown category 'dent'"),
        ([("crack", "a", "maybe")], "line 2: accepted is 'maybe'. Write yes or no, or leave it empty"),
    ],
)
def test_answers_that_cannot_be_used_are_named_with_their_line(
    tmp_path: Path, rows: list[tuple[str, str, str]], problem: str
) -> None:
    with pytest.raises(DataError) as raised:
        read_matches(written(tmp_path / "matches.csv", *rows), CLASSES)
    assert str(raised.value).startswith(f"{tmp_path / 'matches.csv'}: {problem}")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("category;text;accepted\n", "columns: lacks category, text, accepted. Save it as CSV with commas"),
        ('category,text,accepted\ncrack,"a', "matches: malformed"),
        (b"category,text,accepted\ncrack,\xff,\n", "matches: malformed"),
    ],
)
def test_files_that_are_no_matches_are_refused(
    built: Path, encoder: ColourEncoder, tmp_path: Path, content: Any, problem: str
) -> None:
    path = tmp_path / "matches.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as raised:
        match_categories(built, ["both"], encoder, path)
    assert str(raised.value).startswith(f"{path}: {problem}")
    assert encoder.seen == []


def test_a_failed_run_leaves_the_earlier_file(built: Path, encoder: ColourEncoder, tmp_path: Path) -> None:
    out = tmp_path / "matches.csv"
    match_categories(built, ["both"], encoder, out)
    before = out.read_bytes()
    with pytest.raises(KeyError):
        match_categories(built, ["a text that the encoder fails on"], encoder, out)
    with pytest.raises(DataError, match=r"texts: there are no categories dent\."):
        match_categories(built, {"dent": ["both"]}, encoder, out)
    assert out.read_bytes() == before
    out.unlink()
    with pytest.raises(DataError, match=r"texts: there are none\."):
        match_categories(built, [], encoder, out)
    assert [path.name for path in tmp_path.iterdir()] == ["built"]


def test_texts_are_a_list_or_lists_by_category(tmp_path: Path) -> None:
    path = tmp_path / "texts.yaml"
    path.write_text("[a crack, a pore]")
    assert read_texts(path) == ["a crack", "a pore"]
    path.write_text("crack: a crack\npore: [a pore, a hole]\n")
    assert read_texts(path) == {"crack": ["a crack"], "pore": ["a pore", "a hole"]}
    for content in ("crack: [no]", "3", "- ''", "crack: {a: b}"):
        path.write_text(content)
        with pytest.raises(DataError, match=r"texts\.yaml: texts: is neither a list of texts nor"):
            read_texts(path)
    path.write_text("[a")
    with pytest.raises(DataError, match=r"texts\.yaml: texts: malformed"):
        read_texts(path)
