"""The error table on few maps."""

from defect_hub.benchmarks.metrics_error import HARD, errors, main


def test_errors_are_those_of_binned_scores():
    found = errors("shifted_100", 17, seed=0)  # 17 maps of 256x256 are more than are kept exactly
    assert any(found)
    assert max(found[:3]) < 1e-4


def test_the_table_has_a_row_for_each_distribution(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["metrics_error", "--maps", "1", "--seeds", "1"])
    monkeypatch.setattr("defect_hub.benchmarks.metrics_error.SCORES", {"random": lambda x: x})
    main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| random | 0 | 0 | 0 | 0 |"
    assert len(lines) == 3 + len(HARD)
