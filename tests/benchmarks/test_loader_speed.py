"""The loader's speed table: what it measures, on the tiny encoder."""

import time

import pytest

from defect_hub.benchmarks.loader_speed import as_markdown, consumed, measure
from defect_hub.dataset_scripts.steelsynth.build import build_steelsynth
from defect_hub.train.data import load_split


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("speed") / "steelsynth"
    build_steelsynth(folder, n=12, seed=1)
    rows, stream = (load_split(str(folder), "train", streaming=streaming) for streaming in (False, True))
    return measure(rows, stream, batch_size=2, count=2, encoded=1, paper_size=False)


def test_every_way_of_loading_is_measured(results: dict) -> None:
    names = [f"{way}, {workers} workers" for way in ("decoded in each epoch", "streamed") for workers in (0, 1, 2)]
    assert list(results["ways"]) == ["decoded once, 0 workers", *names]
    for name, found in results["ways"].items():
        assert (found["processor_ms_per_image"] is None) == ("0 workers" not in name)
        assert 0 < found["waiting_share"] < 1
        assert found["images_per_second"] > 0
        assert found["encoded_images_per_second"] > 0


def test_waiting_and_consuming_are_told_apart() -> None:
    def slow():
        while True:
            time.sleep(0.05)
            yield {}

    times = consumed(slow(), 3, lambda batch: time.sleep(0.1))
    assert times.waiting == pytest.approx(0.15, rel=0.4)
    assert times.consuming == pytest.approx(0.3, rel=0.4)
    assert times.processor < 0.05


def test_table_holds_the_measured_figures(results: dict) -> None:
    found = results["ways"]["streamed, 2 workers"]
    alone, encoder = found["images_per_second"], found["encoded_images_per_second"]
    line = (
        f"| streamed, 2 workers | {found['seconds_to_first_batch']:.1f} s | in the workers | "
        f"{alone:.0f} images/s | {encoder:.2f} images/s | {alone / encoder:.0f} | {found['waiting_share']:.2%} |"
    )
    assert line in as_markdown(results).splitlines()
