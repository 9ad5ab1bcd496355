"""Every layout that mmio_layouts.py writes, assembled through the table of scenes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from defect_hub.dataset_scripts.mmio.collection import collect
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.records import make_record
from defect_hub.dataset_scripts.samples import Sample
from tests.dataset_scripts.mmio_layouts import LAYOUTS, Expected, ExpectedImage

NO_CATEGORY = ("normal", "unknown")
OTHER_SET = "tile/round2"
"""The second round of the contest has pictures and categories of its own, and the table does not hold it."""


def test_a_set_that_the_table_does_not_hold_is_refused(tmp_path: Path) -> None:
    LAYOUTS[OTHER_SET](tmp_path)
    with pytest.raises(DataError, match="no folder that is named like a set of MMIO"):
        collect(tmp_path)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != OTHER_SET])
def test_layout_is_read_as_it_was_written(layout: str, tmp_path: Path) -> None:
    expected = LAYOUTS[layout](tmp_path)
    found = collect(tmp_path)
    assert [str(problem) for problem in found.problems if not _is_noted(problem, expected)] == []
    samples = {sample.image.relative_to(tmp_path).as_posix(): sample for sample in found.samples}
    assert len(samples) == len(found.samples)
    assert set(samples) <= set(expected.images) | expected.ignored
    needed = {path for path, image in expected.images.items() if not image.may_know_less}
    assert needed <= set(samples)
    names: set[tuple[str, str]] = set()
    for path, image in expected.images.items():
        row = _row(samples.get(path), expected, image)
        if row is not None:
            names |= _named(path, image, row, expected)
    words, categories = ([pair[side] for pair in names] for side in (0, 1))
    assert len(set(words)) == len(set(categories)) == len(names), sorted(names)
    assert not set(categories) & set(NO_CATEGORY)


def _is_noted(problem: DataError, expected: Expected) -> bool:
    return any(name in str(problem) for name in expected.noted)


def _row(sample: Sample | None, expected: Expected, image: ExpectedImage) -> dict[str, Any] | None:
    """The row of an image; None where it is rightly left out, or its annotation is one of those that are wrong."""
    if sample is None:
        return None
    try:
        return dict(make_record(sample).row)
    except DataError as error:
        assert image.may_know_less and _is_noted(error, expected), str(error)
        return None


def _named(path: str, image: ExpectedImage, row: dict[str, Any], expected: Expected) -> set[tuple[str, str]]:
    """Check a row; return the set's own words in it with the names of the categories that they became."""
    if row["official_split"] is not None or (expected.split_is_official and not image.may_know_less):
        assert (path, row["official_split"]) == (path, image.split)
    boxes = sorted(zip(map(list, row["objects"]["bbox"]), row["objects"]["category"], strict=True))
    if not boxes and image.may_know_less:
        assert row["is_defective"] in (image.is_defective, None), path
        known = row["is_defective"] and row["label"] not in NO_CATEGORY
        own = {category for category, _ in image.boxes} | {image.category}
        return {(image.category, row["label"])} if known and own == {image.category} else set()
    assert (path, row["is_defective"]) == (path, image.is_defective)
    wanted = sorted((list(box), category) for category, box in image.boxes)
    assert (path, len(boxes)) == (path, len(wanted))
    if not wanted:
        return {(image.category, row["label"])} if image.category else set()
    np.testing.assert_allclose([box for box, _ in boxes], [box for box, _ in wanted], rtol=0, atol=expected.tolerance)
    assert row["label"] in row["objects"]["category"], path
    return {(category, name) for (_, category), (_, name) in zip(wanted, boxes, strict=True)}
