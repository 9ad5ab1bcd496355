import sys

import numpy as np
import pytest

from defect_hub.benchmarks import metrics_speed


def test_masks_are_half_empty_and_2_percent_defective() -> None:
    masks = metrics_speed.elliptical_defects(200, 64, np.random.default_rng(0))
    assert masks.any(axis=(1, 2)).sum() == 100
    assert 0.015 < masks.mean() < 0.03


def test_all_methods_measure_the_same() -> None:
    seconds, values = metrics_speed.measure(metrics_speed.make_maps(4), repeats=1)
    assert all(spent > 0 for spent in seconds.values())
    for measured in values.values():
        for column, value in measured.items():
            assert value == pytest.approx(values[metrics_speed.REFERENCE][column], abs=1e-5)


@pytest.mark.slow
def test_table_has_a_line_for_each_method(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["metrics_speed", "--maps", "2", "4", "--repeats", "1"])
    metrics_speed.main()
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == ["| 2"] * len(metrics_speed.METHODS) + ["| 4"] * len(
        metrics_speed.METHODS
    )
