import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from defect_hub.dataset_scripts.prepare import prepare_cache
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.schema import record_features
from defect_hub.dataset_scripts.steelsynth.build import build_steelsynth


def in_fresh_process(folder: Path, home: Path, *loads: str) -> list[Any]:
    """Evaluate expressions on `load_dataset` offline in `folder` with an own cache."""
    script = f"import json\nfrom datasets import load_dataset\nprint(json.dumps([{', '.join(loads)}]))"
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout)


@pytest.mark.slow
def test_name_loads_from_the_parent_and_once_prepared_from_anywhere(tmp_path: Path) -> None:
    parent, elsewhere, home = (tmp_path / name for name in ("parent", "elsewhere", "home"))
    elsewhere.mkdir()
    build_steelsynth(parent / "steelsynth", n=10, seed=1)
    loads = (
        'len(load_dataset("steelsynth")["train"])',
        'len(load_dataset("steelsynth")["train"].column_names)',
        'load_dataset("steelsynth", "t4", split="train").column_names',
        'list(next(iter(load_dataset("steelsynth", "segmentation", split="val", streaming=True))))',
    )
    expected = [7, len(record_features(["Pit"])), ["image", "label", "t4"], ["image", "label", "mask"]]
    assert in_fresh_process(parent, tmp_path / "home-a", *loads) == expected
    command = [sys.executable, "-m", "defect_hub.cli", "data", "prepare", str(parent / "steelsynth")]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home)}
    lines = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[-1] == 'load_dataset("steelsynth", "default")'
    assert in_fresh_process(elsewhere, home, *loads) == expected

    build_steelsynth(parent / "steelsynth", n=20, seed=1)
    subprocess.run(command, env=env, capture_output=True, check=True)
    assert in_fresh_process(elsewhere, home, loads[0]) == [14]


def test_only_builds_are_prepared(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a built data set"):
        prepare_cache(tmp_path)
