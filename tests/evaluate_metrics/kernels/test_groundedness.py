"""Claims of texts against masks drawn by hand, and against real masks."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import concatenate_datasets, load_dataset

from defect_hub.dataset_scripts.steelsynth.generate import NORMAL, generate_sample
from defect_hub.dataset_scripts.tadd.build import build_tadd
from defect_hub.dataset_scripts.texts import diagnosis_turns, natural_description, t4
from defect_hub.evaluate_metrics.kernels import Claim, Groundedness, grounded_claims
from defect_hub.modeling.mask_attributes import mask_attributes


def drawn(rows: str, scale: int = 10) -> np.ndarray:
    """A mask of squares of `scale` pixels: "#" is a defect, rows are separated by spaces."""
    cells = np.array([[cell == "#" for cell in row] for row in rows.split()])
    return np.kron(cells, np.ones((scale, scale), bool))


MASKS = {
    "clean": np.zeros((90, 90), bool),
    # 100 of 8100 pixels, 1.2 %: small
    "top left": drawn("......... .#....... ......... ......... ......... ......... ......... ......... ........."),
    # 200 pixels, 2.5 %, two regions
    "two": drawn("......... .#....... ......... ......... ......... ......... ......... .......#. ........."),
    # 400 pixels, 4.9 %: medium, one region that only touches the right column
    "center": drawn("......... ......... ......... ......... ...####.. ......... ......... ......... ........."),
    # 900 pixels, 11 %: large, one diagonal region: corners touch
    "diagonal": drawn("#........ .#....... ..#...... ...#..... ....#.... .....#... ......#.. .......#. ........#"),
    # 2700 pixels, 33 %: extensive
    "bottom": drawn("......... ......... ......... ......... ......... ......... ######### ######### #########"),
    # 5 regions
    "five": drawn("#.#.#.... ......... #.#...... ......... ......... ......... ......... ......... ........."),
}
MASKS["tiny"] = MASKS["clean"].copy()
MASKS["tiny"][80:85, 80:85] = True
# One region in the top left, and one stray pixel in the bottom right.
MASKS["stray"] = np.kron(MASKS["top left"], np.ones((2, 2), bool))
MASKS["stray"][170, 170] = True

# Words, mask, claims with the verdict of a person.
CASES = [
    ("Yes.", "top left", {"presence yes": True}),
    ("Yes.", "clean", {"presence yes": False}),
    ("No.", "clean", {"presence no": True}),
    ("There is no defect.", "tiny", {"presence no": False}),
    ("It is hard to say.", "top left", {}),
    ("The surface is grey.", "top left", {}),
    ("A scratch in the top left.", "top left", {"location in the top left": True, "count a scratch": True}),
    ("Yes, scratches at the left top.", "top left", {"presence yes": True, "location at the left top": True}),
    ("Yes, damage in the upper-left corner.", "top left", {"presence yes": True, "location in the upper left": True}),
    ("Yes, damage in the top right.", "top left", {"presence yes": True, "location in the top right": False}),
    ("Yes, damage on the left side.", "top left", {"presence yes": True, "location on the left": True}),
    ("Yes, damage on the right side.", "top left", {"presence yes": True, "location on the right": False}),
    ("Yes, damage at the top.", "top left", {"presence yes": True, "location at the top": True}),
    ("Yes, damage at the bottom.", "top left", {"presence yes": True, "location at the bottom": False}),
    ("Yes, damage in the center.", "center", {"presence yes": True, "location in the center": True}),
    ("Yes, damage in the middle.", "top left", {"presence yes": True, "location in the middle": False}),
    ("Yes, damage in the middle right.", "center", {"presence yes": True, "location in the middle right": True}),
    ("Yes, damage in the center left.", "center", {"presence yes": True, "location in the center left": False}),
    ("Yes, damage in the right half.", "center", {"presence yes": True, "location in the right half": True}),
    ("Yes, damage in the left half.", "two", {"presence yes": True, "location in the left half": True}),
    ("Yes, damage in the lower half.", "top left", {"presence yes": True, "location in the lower half": False}),
    ("Yes, damage in the bottom right.", "stray", {"presence yes": True, "location in the bottom right": False}),
    ("Yes, damage in the bottom right.", "two", {"presence yes": True, "location in the bottom right": True}),
    (
        "Cracks in the top left and the bottom right are visible.",
        "two",
        {"presence yes": True, "location in the top left": True, "location the bottom right": True},
    ),
    ("There is a crack.", "top left", {"presence yes": True, "count a crack": True}),
    ("There is a crack.", "two", {"presence yes": True, "count a crack": False}),
    ("There is a crack.", "diagonal", {"presence yes": True, "count a crack": True}),
    ("There is a crack.", "stray", {"presence yes": True, "count a crack": True}),
    ("There are two cracks.", "stray", {"presence yes": True, "count two cracks": True}),
    ("There are three cracks.", "stray", {"presence yes": True, "count three cracks": False}),
    ("There are two cracks.", "two", {"presence yes": True, "count two cracks": True}),
    ("There are 2 dark cracks.", "two", {"presence yes": True, "count 2 dark cracks": True}),
    ("There are four cracks.", "five", {"presence yes": True, "count four cracks": False}),
    ("There are several cracks.", "five", {"presence yes": True, "count several cracks": True}),
    ("There are several cracks.", "top left", {"presence yes": True, "count several cracks": False}),
    ("There are multiple cracks.", "clean", {"presence yes": False, "count multiple cracks": False}),
    ("There is at least one crack.", "five", {"presence yes": True, "count at-least-one crack": True}),
    (
        "There are two cracks and a pit.",
        "five",
        {"presence yes": True, "count two cracks": True, "count a pit": True},
    ),
    (
        "There are four cracks and six pits.",
        "five",
        {"presence yes": True, "count four cracks": True, "count six pits": False},
    ),
    ("Yes, this set of four candles is damaged.", "top left", {"presence yes": True}),
    ("Yes, tiny cracks.", "tiny", {"presence yes": True, "size tiny cracks": True}),
    ("Yes, small cracks.", "tiny", {"presence yes": True, "size small cracks": False}),
    ("Yes, little cracks.", "tiny", {"presence yes": True, "size little cracks": True}),
    ("Yes, small cracks.", "top left", {"presence yes": True, "size small cracks": True}),
    ("Yes, medium-sized cracks.", "center", {"presence yes": True, "size medium-sized cracks": True}),
    ("Yes, medium cracks.", "two", {"presence yes": True, "size medium cracks": False}),
    ("Yes, large cracks.", "diagonal", {"presence yes": True, "size large cracks": True}),
    ("Yes, big cracks.", "bottom", {"presence yes": True, "size big cracks": True}),
    ("Yes, large cracks.", "bottom", {"presence yes": True, "size large cracks": False}),
    ("Yes, extensive cracks.", "bottom", {"presence yes": True, "size extensive cracks": True}),
    ("Yes, huge cracks.", "diagonal", {"presence yes": True, "size huge cracks": False}),
    ("The crack is small.", "top left", {"size the crack is small": True}),
    (
        "Yes, damage. It covers a small part of the image.",
        "bottom",
        {"presence yes": True, "size covers a small part": False},
    ),
    (
        "There is a crack in the center, but no pit on the left.",
        "center",
        {"presence yes": True, "location in the center": True, "count a crack": True},
    ),
    ("No, the pill in the center shows no defect.", "clean", {"presence no": True}),
    ("This is a pill in the center. There are cracks.", "top left", {"presence yes": True}),
    (
        "There is a pit. It lies at the bottom.",
        "top left",
        {"presence yes": True, "count a pit": True, "location at the bottom": False},
    ),
]


@pytest.mark.parametrize(("text", "mask", "expected"), CASES)
def test_claims_of_hand_drawn_masks(text, mask, expected):
    assert {f"{claim.kind} {claim.words}": claim.supported for claim in grounded_claims(text, MASKS[mask])} == expected


@pytest.mark.parametrize(
    ("area", "word"),
    [
        (99, "tiny"), (100, "small"), (299, "small"), (300, "medium"), (999, "medium"), (1000, "large"),
        (2500, "large"), (2501, "extensive"),
    ],
)  # fmt: skip
def test_bounds_of_size_words(area, word):
    mask = np.zeros(10_000, bool)
    mask[:area] = True
    supported = [
        size
        for size in ("tiny", "small", "medium", "large", "extensive")
        if all(claim.supported for claim in grounded_claims(f"Yes, {size} cracks.", mask.reshape(100, 100)))
    ]
    assert supported == [word]


@pytest.mark.parametrize("row", range(3))
@pytest.mark.parametrize("column", range(3))
def test_every_cell_has_its_names(row, column):
    mask = np.zeros((30, 60), bool)
    mask[10 * row + 2 : 10 * row + 8, 20 * column + 2 : 20 * column + 8] = True
    rows, columns = (("top", "upper"), ("middle", "center"), ("bottom", "lower")), (("left",), ("center",), ("right",))
    found = set()
    for i, j in np.ndindex(3, 3):
        for first in rows[i]:
            for second in columns[j]:
                for text in (f"Damage in the {first} {second}.", f"Damage in the {second}-{first} area."):
                    if all(claim.supported for claim in grounded_claims(text, mask) if claim.kind == "location"):
                        found.add((i, j))
    # "Center" may be a row and a column: "left center" and "center left" are one cell.
    assert found == {(row, column)}


def test_steelsynth_texts_are_grounded_and_shuffled_ones_are_not():
    texts, masks = [], []
    for index in range(60):
        sample = generate_sample(seed=6, index=index, size=64)
        attributes = None
        if sample.class_name != NORMAL:
            attributes = mask_attributes(sample.image, sample.mask, sample.class_name)
        texts += [
            natural_description(attributes, index),
            diagnosis_turns("steel surface", attributes, None)[1]["value"],
        ]
        masks += [sample.mask] * 2
        if attributes:
            texts.append(t4(attributes))
            masks.append(sample.mask)
    assert groundedness_of(texts, masks)["groundedness"] >= 0.99
    random.Random(0).shuffle(texts)
    assert groundedness_of(texts, masks)["groundedness"] < 0.6


def groundedness_of(texts, masks) -> dict:
    state = Groundedness()
    state.update(texts, masks)
    return state.compute()


@pytest.mark.real_data
def test_texts_of_real_masks_are_grounded_and_shuffled_ones_are_not(raw_data: Path, tmp_path: Path):
    build_tadd(raw_data, tmp_path / "tadd", workers=2)
    parts = load_dataset(str(tmp_path / "tadd"), cache_dir=str(tmp_path / "cache")).values()
    rows = [row for row in concatenate_datasets(list(parts)).remove_columns("image") if row["annotation"] == "mask"]
    assert len(rows) > 350
    masks = [np.asarray(row["mask"]) > 0 for row in rows]
    for texts in ([row["t2"] for row in rows], [row["conversation"][1]["value"] for row in rows]):
        found = groundedness_of(texts, masks)
        assert min(found[kind] for kind in ("groundedness", "presence", "location", "count", "size")) >= 0.99
        assert found["claims_per_text"] > 3
        random.Random(0).shuffle(texts)
        shuffled = groundedness_of(texts, masks)
        assert max(shuffled[kind] for kind in ("location", "count", "size")) < 0.75


def test_shares_of_claims():
    texts = ["Yes, a small scratch in the top left.", "There are two pits.", "Hm."]
    assert groundedness_of(texts, [MASKS["top left"]] * 3) == {
        "groundedness": 5 / 6,
        "presence": 1.0,
        "location": 1.0,
        "count": 0.5,
        "size": 1.0,
        "claims_per_text": 2.0,
        "without_claims": 1 / 3,
    }


def test_a_text_without_claims_has_no_score():
    found = groundedness_of(["Nice picture."], [MASKS["two"]])
    assert {key: value for key, value in found.items() if key != "undefined"} == {
        "claims_per_text": 0.0,
        "without_claims": 1.0,
    }
    assert found["undefined"]["groundedness"] == "no text claims anything"
    assert found["undefined"]["size"] == "no text says anything of size"
    assert "claims_per_text" in Groundedness().compute()["undefined"]


def test_states_add_up_and_travel():
    texts, masks = [text for text, _, _ in CASES], [MASKS[mask] for _, mask, _ in CASES]
    parts = [Groundedness() for _ in range(3)]
    for start, part in enumerate(parts):
        part.update(texts[start::3], masks[start::3])
    total = Groundedness.from_bytes(parts[2].to_bytes())
    for part in parts[:2]:
        total.merge(part)
    assert total.compute() == groundedness_of(texts, masks)


def test_masks_of_any_kind():
    expected = [Claim("presence", "yes", True)]
    mask = MASKS["tiny"]
    for kind in (mask, mask.astype(np.uint8), mask.astype(float), torch.from_numpy(mask), mask.tolist()):
        assert grounded_claims("Yes.", kind) == expected
    assert grounded_claims("Yes.", torch.from_numpy(mask).to(torch.bfloat16)) == expected
    state = Groundedness()
    state.update(["Yes.", "Yes."], torch.zeros(2, 5, 5))
    assert state.compute()["presence"] == 0


def test_a_bad_batch_changes_nothing():
    state = Groundedness()
    state.update(["Yes."], [MASKS["two"]])
    before = state.to_bytes()
    good = MASKS["two"]
    for texts, masks, message in (
        (["Yes.", "Yes."], [good], "2 texts but 1 masks"),
        (["Yes.", "Yes."], [good, good * 255], "0 or 1"),
        (["Yes.", "Yes."], [good, good[0]], r"must be \(H, W\)"),
        (["Yes.", None], [good, good], "must be a string"),
        ("ab", [good, good], "must be a list of strings, got the string 'ab'"),
    ):
        with pytest.raises(ValueError, match=message):
            state.update(texts, masks)
    assert state.to_bytes() == before
