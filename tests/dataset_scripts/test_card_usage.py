"""The code that a card shows runs as it stands, and its tables say what loads."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import load_dataset

from defect_hub.dataset_scripts.steeldefectx.build import build_steeldefectx
from defect_hub.dataset_scripts.steelsynth.build import build_steelsynth
from defect_hub.dataset_scripts.tadd.build import build_tadd


@pytest.fixture(params=["steeldefectx", "steelsynth", "tadd"])
def built(request: pytest.FixtureRequest, release: Path, magnetic_tiles: Path, tmp_path: Path) -> Path:
    out = tmp_path / "parent" / request.param
    if request.param == "steeldefectx":
        build_steeldefectx(release, out)
    elif request.param == "steelsynth":
        build_steelsynth(out, n=12, seed=1)
    else:
        build_tadd(magnetic_tiles, out)
    return out


@pytest.mark.slow
def test_shown_code_runs(built: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (built / "README.md").read_text("utf-8"), re.DOTALL)
    assert blocks
    for code in blocks:
        script = (
            f"{code}\nprint({{name: list(part.features) for name, part in data.items()}}, next(iter(pairs)).keys())"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=built.parent,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


def test_tables_state_what_loads(built: Path, tmp_path: Path) -> None:
    card = (built / "README.md").read_text("utf-8")
    data = load_dataset(str(built), cache_dir=str(tmp_path / "cache"))
    for split, rows in data.items():
        assert re.search(rf"\| `default` \| all columns \|.*\b{split} {len(rows)}\b", card)
    for split in data.keys() - {"test" if "val" in data else ""}:
        totals = re.search(r"\| \*\*all\*\* \|(.*)\|", card)
        assert totals is not None
        assert str(len(data[split])) in totals[1]
    for column in data["train"].features:
        assert f"`{column}`" in card or re.fullmatch(r"t[123]", column)
    for link in re.findall(r"\]\((?!http)([^)#]+)", card):
        assert (built / link).exists(), link
    assert not re.findall(r"\$[a-z]+", card.split("---\n", 2)[2])
