"""Rows and small pictures on disk, and what becomes of samples."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image

from defect_hub.dataset_scripts.fingerprints import miniature
from defect_hub.dataset_scripts.row_batches import Spool, load_stored, make_batch
from defect_hub.dataset_scripts.samples import Sample, Source
from defect_hub.dataset_scripts.schema import record_features

Gray = NDArray[np.uint8]
SCHEMA = pa.schema({"number": pa.int64()})


def pictures() -> list[Gray]:
    rng = np.random.default_rng(0)
    return [rng.integers(256, size=shape, dtype=np.uint8) for shape in ((9, 8), (256, 200), (30, 256), (8, 8))]


def test_rows_and_miniatures_come_back_in_order(tmp_path: Path) -> None:
    grays = pictures()
    with Spool(tmp_path / "rows.arrow", SCHEMA) as spool:
        spool.append(pa.table({"number": [0, 1, 2]}, SCHEMA), [*grays[:2], grays[2].T])
        spool.append(pa.table({"number": pa.array([], pa.int64())}, SCHEMA), [])
        spool.append(pa.table({"number": [3]}, SCHEMA), grays[3:])
        assert len(spool) == 4
        spool.finish()
        tables = list(spool.tables())
        assert [(start, table["number"].to_pylist()) for start, table in tables] == [(0, [0, 1, 2]), (3, [3])]
        expected = [*grays[:2], grays[2].T, grays[3]]
        stored = pickle.loads(pickle.dumps(spool.miniatures))  # As a worker gets them.
        assert len(stored) == 4
        for source, gray in reversed(list(zip(stored, expected, strict=True))):
            assert np.array_equal(load_stored(source), gray)


@pytest.mark.parametrize("finished", [True, False])
def test_nothing_stays_on_disk(tmp_path: Path, finished: bool) -> None:
    with pytest.raises(KeyboardInterrupt), Spool(tmp_path / "rows.arrow", SCHEMA) as spool:
        spool.append(pa.table({"number": [0]}, SCHEMA), pictures()[:1])
        if finished:
            spool.finish()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_every_row_has_its_miniature_and_bad_samples_have_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    source = Source("MT", "magnetic tile", "metallurgy", "other", False, "seed42", "composed")
    samples, grays = [], []
    for number, shape in enumerate([(300, 40), (20, 20)]):
        grays.append(rng.integers(256, size=shape, dtype=np.uint8))
        Image.fromarray(grays[-1]).save(tmp_path / f"{number}.png")
        samples.append(Sample(f"MT/{number}", tmp_path / f"{number}.png", None, "normal", source, False))
    bad = Sample("MT/bad", tmp_path / "absent.png", None, "normal", source, False)
    batch = make_batch([samples[0], bad, samples[1]], record_features(["normal"]).arrow_schema)
    assert batch.table["image_id"].to_pylist() == ["MT/0", "MT/1"]
    assert [problem.where for problem in batch.problems] == [bad.image]
    assert len(batch.miniatures) == 2
    for found, gray in zip(batch.miniatures, grays, strict=True):
        assert np.array_equal(found, miniature(gray))
    assert batch.miniatures[0].shape == (256, 40)
