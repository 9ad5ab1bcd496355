"""The benchmark of COCO AP: its methods agree, and its table is printed."""

import sys

import pytest

from defect_hub.benchmarks import coco_speed


def test_methods_agree_on_all_figures():
    results = coco_speed.measure(coco_speed.make_data(60, 6), repeats=1)
    reference = results["pycocotools"][1]
    assert 0 < reference[0] < 1
    for _, figures in results.values():
        assert figures == pytest.approx(reference, abs=1e-9)


@pytest.mark.slow
def test_prints_a_table(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["coco_speed", "--images", "30", "--repeats", "1"])
    coco_speed.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == list(coco_speed.METHODS)
    assert {line.count("|") for line in lines} == {7}
