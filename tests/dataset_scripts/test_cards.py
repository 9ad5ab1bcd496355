from collections import Counter

import yaml
from datasets import Features, Value

from defect_hub.dataset_scripts.cards import ConfigFacts, DatasetFacts, render_card

FEATURES = Features({"label": Value("string"), "text": Value("string")})


def render(**changes: object) -> tuple[dict, str]:
    facts = {
        "name": "steel",
        "digest": "d1",
        "configs": {
            "default": ConfigFacts("default", FEATURES, {"train": (3, 90), "val": (1, 30)}),
            "labels": ConfigFacts("default", Features({"label": Value("string")}), {"train": (3, 9), "val": (1, 3)}),
        },
        "class_names": ["Crack", "Dent", "Never seen"],
        "counts": {"train": Counter(Crack=2, Dent=1), "val": Counter(Crack=1)},
        "totals": Counter(defective=4, annotated=3, T0=4),
        "warnings": ["a/b: odd"],
    }
    template = "$name $images $defective $annotated\n$counts\n$configs\n$texts\n$fields\n$notes\n$digest\n"
    card = render_card(template, {"license": "other"}, DatasetFacts(**{**facts, **changes}))  # type: ignore[arg-type]
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


def test_front_matter_selects_columns_and_states_sizes() -> None:
    front, _ = render()
    default, labels = front["configs"]
    assert default["default"] is True
    assert "columns" not in default
    assert labels["columns"] == ["label"]
    assert labels["data_files"] == default["data_files"]
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
