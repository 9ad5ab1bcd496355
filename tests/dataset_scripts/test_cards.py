from collections import Counter

import yaml
from datasets import Features, Value

from defect_hub.dataset_scripts.cards import (
    ConfigFacts,
    DatasetFacts,
    configs_table,
    has_block,
    renamed,
    render_card,
    with_block,
)

TEXT = Value("string")
FEATURES = Features({"label": TEXT, "t0": TEXT})
FILES = {"train": ["data/default/train-*.parquet"], "val": ["data/default/val-*.parquet", "data/seen/val-*.parquet"]}


def render(**changes: object) -> tuple[dict, str]:
    facts = {
        "name": "steel",
        "digest": "d1",
        "configs": {
            "default": ConfigFacts(FILES, FEATURES, (), (), {"train": (3, 90), "val": (1, 30)}),
            "texts": ConfigFacts(
                FILES, Features({"t0": TEXT}), ("t0",), (("t0", "!=", ""),), {"train": (3, 9), "val": (1, 3)}
            ),
        },
        "class_names": ["Crack", "Dent", "Never seen"],
        "counts": {"train": Counter(Crack=2, Dent=1), "val": Counter(Crack=1)},
        "totals": Counter(defective=4, mask=3, t0=4),
        "warnings": ["a/b: odd"],
    }
    sections = ("counts", "configs", "texts", "fields", "notes", "agreement", "duplicates", "digest")
    template = "$name $images $defective $annotated\n" + "".join(f"${section}\n" for section in sections)
    card = render_card(template, {"license": "other"}, DatasetFacts(**{**facts, **changes}))  # type: ignore[arg-type]
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


def test_front_matter_selects_columns_and_states_sizes() -> None:
    front, _ = render()
    default, texts = front["configs"]
    assert default["default"] is True
    assert "columns" not in default
    assert (texts["columns"], texts["filters"]) == (["t0"], [[["t0", "!=", ""]]])
    assert texts["data_files"] == default["data_files"]
    assert default["data_files"] == [
        {"split": "train", "path": "data/default/train-*.parquet"},
        {"split": "val", "path": FILES["val"]},
    ]
    assert front["dataset_info"][1]["splits"] == [
        {"name": "train", "num_bytes": 9, "num_examples": 3},
        {"name": "val", "num_bytes": 3, "num_examples": 1},
    ]
    assert (front["license"], front["build_digest"]) == ("other", "d1")


def test_every_config_s_info_changes_with_the_digest() -> None:
    for first, second in zip(render()[0]["dataset_info"], render(digest="d2")[0]["dataset_info"], strict=True):
        assert first != second


def test_body_states_what_was_counted() -> None:
    _, body = render()
    assert "steel 4 4 3" in body
    assert "| Crack | 2 | 1 |" in body
    assert "| **all** | 3 | 1 |" in body
    assert "Never seen" not in body
    assert "- a/b: odd" in body
    assert "None." in render(warnings=[])[1]


def test_body_says_what_was_skipped_compared_and_doubled() -> None:
    _, body = render()
    assert "No attributes were given" in body
    assert "Nobody looked for duplicates" in body
    _, body = render(
        skipped=["a.jpg: mask: is missing"],
        totals=Counter(compared=3),
        disagreements=[("a", "Scale: released small, measured medium"), ("a", "Position: other"), ("b", "Scale: x")],
        duplicates={"groups": 2, "images": 5, "across": 1, "moved": 1, "conflicts": 0, "near pairs": 4},
    )
    assert "- skipped: a.jpg: mask: is missing" in body
    assert "2 images differ from the given values (Scale 2, Position 1)" in body
    assert "flips and rotations included: 2, of 5 images, connected by 4 near pairs;" in body
    assert "Groups that straddle the splits: 1;" in body


def test_configs_are_listed_with_columns_and_rows() -> None:
    configs = {"default": ((), {"train": 12345, "val": 1}), "texts": (("label", "t0"), {"train": 3})}
    lines = [
        "| config | columns | rows |",
        "| --- | --- | --- |",
        "| `default` | all columns | train 12,345, val 1 |",
        "| `texts` | label, t0 | train 3 |",
    ]
    assert configs_table(configs) == "\n".join(lines)
    assert configs_table({}) == "\n".join(lines[:2])
    assert "| `default` | all columns | train 3, val 1 |\n| `texts` | t0 | train 3, val 1 |" in render()[1]


def test_notes_say_nothing_of_the_disk() -> None:
    _, body = render(
        warnings=["a/b: 70/15/15, see https://host/raw/a/b"],
        skipped=[
            "/home/me/sets/train/a.jpg: mask: is missing. Supply /home/me/sets/train_mask/a.png",
            "/data/x.bmp: bad",
        ],
    )
    assert "- a/b: 70/15/15, see https://host/raw/a/b\n" in body
    assert "- skipped: train/a.jpg: mask: is missing. Supply train_mask/a.png\n- skipped: x.bmp: bad\n" in body


def test_blocks_change_in_place_or_come_last() -> None:
    body = "# Title\n\n<!-- copy -->\nold\n<!-- /copy -->\n\nEnd\n"
    assert with_block(body, "copy", r"new \1" + "\n") == body.replace("old", r"new \1")
    assert with_block(body, "other", "x\n") == f"{body}\n<!-- other -->\nx\n<!-- /other -->\n"
    assert has_block(body, "copy")
    assert not has_block(body, "other")


def test_the_name_changes_wherever_it_is_used() -> None:
    body = 'load_dataset("a")\nload_dataset("a", "t2")\ndefect-hub data join a --raw R\n'
    new = 'load_dataset("org/b")\nload_dataset("org/b", "t2")\ndefect-hub data join b --raw R\n'
    assert renamed(body, "org/b") == new
