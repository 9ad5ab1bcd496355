import sys
from pathlib import Path

import pytest

from defect_hub.benchmarks import box_speed


def test_generated_annotations_agree_and_are_counted(tmp_path: Path) -> None:
    box_speed.write_release(tmp_path, 10, 64)
    boxes, seconds = box_speed.read_boxes(tmp_path, 64)
    assert boxes == 10 * box_speed.BOXES and seconds > 0
    assert sorted(path.parent.name for path in tmp_path.rglob("*.jpg")) == ["train"] * 8 + ["validation"] * 2


@pytest.mark.slow
def test_table_has_a_line_for_each_size(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["box_speed", "--n", "10", "20", "--side", "64", "--workers", "1"])
    box_speed.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1:3] for line in lines[2:]] == [[" 64 ", " 10 "], [" 64 ", " 20 "]]
