import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from defect_hub.benchmarks import spgdd_gpt_speed as speed
from defect_hub.modeling.presets_spgdd_gpt import tiny_config


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny preset in place of the paper's size, with room for the example's token ids."""
    words = {"text_config": tiny_config().text_config.to_dict() | {"vocab_size": 1000}}
    clip = tiny_config().clip_config.to_dict()
    clip["text_config"]["vocab_size"] = 1000
    monkeypatch.setattr(
        speed, "paper_config", lambda **changes: tiny_config(**({"clip_config": clip} | words | changes))
    )


def test_calls_take_turns_behind_a_warm_up() -> None:
    order: list[str] = []
    times = speed.interleaved({name: lambda name=name: order.append(name) for name in "ab"}, 3)
    assert "".join(order) == "abababab"
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}


def test_ratio_is_the_median_of_the_rounds() -> None:
    found = speed.compared({"a": [1.0, 2.0, 9.0], "b": [2.0, 1.0, 3.0]}, "a", "b")
    assert found == {"a, ms": 2000, "b, ms": 2000, "ratio": 2, "ratio of minima": 1}


def test_peak_counts_what_is_held_together() -> None:
    def call() -> None:
        first = torch.empty(2**20, dtype=torch.uint8)
        second = torch.empty(3 * 2**20, dtype=torch.uint8)
        del first, second
        torch.empty(2 * 2**20, dtype=torch.uint8)

    assert speed.peak_allocation(call) == (4, 3)


@torch.no_grad()
def test_scoring_makes_no_tensor_of_all_pairs(tiny: None) -> None:
    rows = speed.scoring_table(1)
    assert [(row["matching"], row["batch"]) for row in rows] == [
        (m, b) for m in ("aligned", "nearest") for b in (1, 4)
    ]
    assert all(row["largest tensor, MiB"] < 0.05 * row["(B, K, T, T, C) would be, MiB"] for row in rows)


@torch.no_grad()
def test_cached_texts_cost_less(tiny: None) -> None:
    (row,) = speed.text_table(4)
    assert row["prompts"] == 48
    assert row["ratio"] < 1


def test_full_size_needs_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert speed.free_gibibytes() > 0
    monkeypatch.setattr(speed, "free_gibibytes", lambda: 3.0)
    with pytest.raises(SystemExit, match=r"needs 17 GiB of free memory, 3\.0 GiB are"):
        speed.full_size_table()


@torch.no_grad()
def test_tables_of_the_complete_model(tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs on a GPU at full size, on the CPU and tiny."""
    monkeypatch.setattr(speed, "peak_gibibytes", lambda call: call() and 0.0)
    monkeypatch.setattr(speed, "bandwidth", lambda device: 1e9)
    monkeypatch.setattr(speed, "NEW_TOKENS", 5)
    model = speed.build_complete("cpu", torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert [row["decoding"] for row in speed.latency_table(model, 1)] == ["dynamic cache", "static cache, compiled"]
    assert [row["batch"] for row in speed.throughput_table(model, 1, batch=2)] == [2, 2]
    before = {name: value.clone() for name, value in model.named_parameters()}
    (row,) = speed.training_table(model, 1, batch=2)
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed
    assert not any("clip" in name or "language_model" in name for name in changed)
    assert int(row["trained parameters"].replace(",", "")) == sum(
        value.numel() for value in model.parameters() if value.requires_grad
    )


def test_report_names_command_and_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables: dict[str, Any] = {"Texts": [{"prompts": 48, "ratio": 0.12345}]}
    monkeypatch.setattr(speed, "measure", lambda options: tables)
    monkeypatch.setattr(sys, "argv", ["spgdd_gpt_speed", "--json", str(tmp_path / "speed.json")])
    speed.main()
    assert "| prompts | ratio |\n| ---: | ---: |\n| 48 | 0.123 |" in capsys.readouterr().out
    report = json.loads((tmp_path / "speed.json").read_text())
    assert report["tables"] == tables
    assert {"command", "commit", "versions", "hardware", "date", "threads"} <= report.keys()
    assert str(tmp_path) not in report["command"]
