from pathlib import Path

from scripts.parameter_table import table


def test_the_documented_table_is_the_present_one():
    documentation = Path(__file__).parents[2] / "docs" / "spgdd_gpt.md"
    assert f"\n\n{table()}\n\n" in documentation.read_text(encoding="utf-8")
