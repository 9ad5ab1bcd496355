"""Generated hashes with planted copies, and recall on changed copies of pictures."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from defect_hub.benchmarks.duplicate_search import (
    CHANGES,
    RATES,
    copies_line,
    generated_line,
    main,
    originals_line,
    plant,
    planted_found,
)
from defect_hub.dataset_scripts.duplicates import find_candidates


def texture(seed: int) -> NDArray[np.uint8]:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(128, 128)), 2)
    return np.clip(120 + 25 * noise / noise.std(), 0, 255).astype(np.uint8)


def test_copies_are_planted_at_their_rates_and_found() -> None:
    hashes, rates = plant(2000, 400, crowd=0)
    assert hashes.shape == (2000, 32)
    assert set(rates.tolist()) == set(RATES)
    candidates = find_candidates(hashes)
    found = planted_found(candidates, 2000, 400)
    assert found[rates == RATES[0]].all()
    assert found.sum() == len(candidates.first)  # Unrelated hashes are no candidates.
    assert not planted_found(find_candidates(hashes[:1600]), 2000, 400).any()


def test_crowd_is_reported() -> None:
    cells = generated_line("alike", 3000, 40, crowd=0.9).split(" | ")
    assert int(cells[-1].strip(" |")) > 1000
    cells = generated_line("random", 3000, 40, crowd=0).split(" | ")
    assert int(cells[-1].strip(" |")) == 0


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_of_textures_are_found(change: str) -> None:
    cells = copies_line("textures", change, [texture(seed) for seed in range(8)]).split(" | ")
    assert cells[2:5] == ["8", "1.0000", "1.0000"]


def test_duplicates_of_a_set_are_counted() -> None:
    images = [texture(0), texture(1), texture(0), np.ascontiguousarray(texture(1)[::-1])]
    assert originals_line("set", images).startswith("| set | 4 | 1 | 1 | 1 | ")


def test_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folders = ("NEU-DET/IMAGES", "X-SDD/X-SDD/datas/red iron", "MT/MT_Free/Imgs")
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(texture(number)).save(tmp_path / folder / f"{number}.jpg")
    monkeypatch.setattr("sys.argv", ["duplicate_search", "--hashes", "500", "--planted", "50", "--raw", str(tmp_path)])
    main()
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len({row.count("|") for row in rows[:4]}) == 1
    assert sum(row.startswith(("| NEU-DET", "| X-SDD", "| MT")) for row in rows) == 3 * (len(CHANGES) + 1)
