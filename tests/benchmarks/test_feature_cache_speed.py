"""The cache's speed table: what it measures, on the tiny encoder."""

import pytest

from defect_hub.benchmarks.feature_cache_speed import as_markdown, measure
from defect_hub.dataset_scripts.steelsynth.build import build_steelsynth
from defect_hub.train.data import load_split


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("speed")
    build_steelsynth(folder / "steelsynth", n=12, seed=1)
    rows = load_split(str(folder / "steelsynth"), "train")
    return measure(rows.select(range(6)), folder / "cache", batch_size=2, paper_size=False)


def test_both_sides_train_the_same_batches(results: dict) -> None:
    assert results["losses"].keys() >= {"text", "pixel", "tddf", "sep"}
    for size, difference in results["losses"].values():
        assert difference < 0.01 * size
    assert max(difference for _, difference in results["losses"].values()) > 0  # bfloat16, so not nothing
    assert results["images"] == 6
    # Tiny tower: blocks of 96, 96 and 64 channels, 225 patches and CLS, two bytes, four flips.
    assert results["megabytes_per_image"] == pytest.approx(4 * 2 * (225 * 256 + 64) / 1e6, rel=0.01)


def test_table_holds_the_measured_figures(results: dict) -> None:
    speeds = results["images_per_second"]
    assert results["speedup"] == speeds["cache"] / speeds["images"]
    table = as_markdown(results)
    assert f"| training from the cache | {speeds['cache']:.2f} images/s |" in table
    assert f"| ratio | {results['speedup']:.1f} |" in table
