"""Every layout that tadd_layouts.py writes, read through the table of subsets."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from defect_hub.dataset_scripts.readers.class_folders import plain_name
from defect_hub.dataset_scripts.records import make_record
from defect_hub.dataset_scripts.tadd.collection import collect
from defect_hub.dataset_scripts.tadd.subsets import NORMAL, load_subsets
from tests.dataset_scripts.tadd_layouts import LAYOUTS

# What the table decides: marine growth on a hull is a finding, and a crop of GAPs keeps the split that its name says.
DECIDED = {"images/image_0005.jpg": True}
SPLIT_IN_NAME = "GAPs"
# Masks that went through JPEG or were drawn from polygons have other borders.
BLURRED = ("conglomerate/", "vt_conglomerate/", "crackseg9k/", "rsdd", "bsdata")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_is_read_as_it_was_written(layout: str, tmp_path: Path) -> None:
    name, write = LAYOUTS[layout]
    subset, expected = load_subsets()[name], write(tmp_path)
    found = collect(tmp_path, [name])
    assert found.problems == []
    samples = {sample.source_file: sample for sample in found.samples}
    assert set(samples) == set(expected.images)
    for path, image in expected.images.items():
        row = make_record(samples[path]).row
        label = NORMAL if image.is_defective is False else subset.categories.get(plain_name(image.category))
        assert (path, row["is_defective"]) == (path, DECIDED.get(path, image.is_defective))
        if label is not None:
            assert row["label"] == label
        assert row["annotation"] in (image.annotation, "mask")
        if image.annotation == "mask":
            mask = np.asarray(Image.open(io.BytesIO(row["mask"]["bytes"]))) > 0
            assert image.mask is not None
            wrong = np.count_nonzero(mask != image.mask) / max(np.count_nonzero(image.mask), 1)
            assert wrong <= (0.25 if layout.startswith(BLURRED) else 0)
        if row["official_split"] is not None and name != SPLIT_IN_NAME:
            assert row["official_split"] == image.split
