from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pycocotools.coco import COCO

from defect_hub.dataset_scripts.box_statistics import (
    OBJECT_COLUMNS,
    BoxTally,
    box_sizes_text,
    long_tail_text,
    read_objects,
)
from defect_hub.dataset_scripts.category_list import read_categories
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.schema import record_features

NAMES = ["spur", "short", "mouse bite", "scratch", "normal"]
SCHEMA = record_features(NAMES).arrow_schema
Row = dict[str, Any]


def row(size: tuple[int, int], *objects: tuple[int, float, float], scene: str | None = None) -> Row:
    """An image with objects (category, width, height)."""
    lists = {
        "id": [*range(len(objects))],
        "bbox": [[1.0, 2.0, width, height] for _, width, height in objects],
        "category": [category for category, _, _ in objects],
        "area": [width * height for _, width, height in objects],
        "iscrowd": [False] * len(objects),
        "is_novel": [None] * len(objects),
    }
    return dict.fromkeys(SCHEMA.names) | {"width": size[0], "height": size[1], "scene": scene, "objects": lists}


def statistics(
    rows: Sequence[Row], about: Mapping[str, Mapping[str, Any]] | None = None, group: int = 2
) -> dict[str, Any]:
    tally = BoxTally()
    for start in range(0, len(rows), group):
        table = pa.Table.from_pylist(list(rows[start : start + group]), schema=SCHEMA)
        tally.add(table, read_objects(table))
    return tally.statistics(NAMES, about or {})


ROWS = [
    row((640, 480), (0, 10, 10), (0, 32, 32), (2, 200, 48), scene="PCB"),
    row((640, 480), scene="PCB"),
    row((200, 200), (1, 100, 100), (0, 9, 9), scene="steel"),
    row((1280, 320), (0, 64, 60), scene="PCB"),
]
LISTED = {
    name: {"super_category": "electronics", "scene": "PCB", "novel": name == "short"}
    for name in ("spur", "short", "mouse bite", "scratch")
}


def test_objects_of_a_row_group_are_flattened(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS, schema=SCHEMA), tmp_path / "a.parquet")
    with pq.ParquetFile(tmp_path / "a.parquet") as file:
        found = read_objects(file.read_row_group(0, columns=list(OBJECT_COLUMNS)))
    assert found.counts.tolist() == [3, 0, 2, 1]
    assert found.rows.tolist() == [0, 0, 0, 2, 2, 3]
    assert found.categories.tolist() == [0, 0, 2, 1, 0, 0]
    assert found.sides.tolist() == [[10, 10], [32, 32], [200, 48], [100, 100], [9, 9], [64, 60]]
    assert found.row_areas().tolist() == [100 + 1024 + 9600, 0, 10081, 3840]


def test_categories_are_counted_and_ranked() -> None:
    found = statistics(ROWS)
    assert (found["number"], found["images"]) == (6, 3)
    assert list(found["categories"].items()) == [
        ("spur", {"count": 4}),
        ("short", {"count": 1}),
        ("mouse bite", {"count": 1}),
    ]
    assert found["per_image"] == {"mean": 2.0, "median": 2.0, "max": 3, "histogram": [[1, 1], [2, 1], [3, 1]]}


def test_listed_categories_without_objects_count_zero() -> None:
    found = statistics(ROWS, LISTED)["categories"]
    assert found["scratch"] == {"count": 0, "super_category": "electronics", "scene": "PCB", "novel": False}
    assert found["short"]["novel"]
    assert list(found) == ["spur", "short", "mouse bite", "scratch"]


def test_sizes_and_scenes_by_hand() -> None:
    found = statistics(ROWS)
    # Medium begins at 1024 px and large at 9216 px; sides of the three pictures are scaled by 1, 3.2 and 0.5.
    assert found["sizes"]["own"] == {"small": 2, "medium": 2, "large": 2}
    assert found["sizes"]["at_640"] == {"small": 3, "medium": 1, "large": 2}
    assert found["scenes"] == {
        "PCB": {
            "images": 2,
            "number": 4,
            "own": {"small": 1, "medium": 2, "large": 1},
            "at_640": {"small": 2, "medium": 1, "large": 1},
        },
        "steel": {
            "images": 1,
            "number": 2,
            "own": {"small": 1, "medium": 0, "large": 1},
            "at_640": {"small": 1, "medium": 0, "large": 1},
        },
    }
    assert "scenes" not in statistics([row((10, 10), (0, 2, 2))])


def random_rows(seed: int) -> list[Row]:
    rng = np.random.default_rng(seed)
    return [
        row(
            tuple(rng.integers(100, 2000, 2).tolist()),
            *((int(rng.integers(4)), *rng.uniform(2, 400, 2).tolist()) for _ in range(rng.integers(5))),
        )
        for _ in range(50)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_sizes_are_those_of_pycocotools(seed: int) -> None:
    rows = random_rows(seed)
    areas = [area for each in rows for area in each["objects"]["area"]]
    coco = COCO()
    coco.dataset = {
        "images": [{"id": 0}],
        "categories": [{"id": 0, "name": "a"}],
        "annotations": [{"id": i, "image_id": 0, "category_id": 0, "area": area} for i, area in enumerate(areas)],
    }
    coco.createIndex()
    ranges = {"small": [0, 32**2], "medium": [32**2, 96**2], "large": [96**2, 1e10]}
    expected = {size: len(coco.getAnnIds(areaRng=bounds)) for size, bounds in ranges.items()}
    assert statistics(rows, group=7)["sizes"]["own"] == expected


@pytest.mark.parametrize("seed", range(3))
def test_shapes_shares_and_inequality_by_their_definitions(seed: int) -> None:
    rows = random_rows(seed)
    found = statistics(rows, group=50)
    boxes = [(each, box) for each in rows for box in each["objects"]["bbox"]]
    ratios = [box[2] / box[3] for _, box in boxes]
    shares = [box[2] * box[3] / (each["width"] * each["height"]) for each, box in boxes]
    for key, values in (("aspect_ratio", ratios), ("area_share", shares)):
        assert found[key]["50%"] == pytest.approx(np.median(values), rel=1e-4)
        assert found[key]["95%"] == pytest.approx(np.percentile(values, 95), rel=1e-4)
    long = [max(ratio, 1 / ratio) >= 3 for ratio in ratios]
    assert found["aspect_ratio"]["elongated"] == pytest.approx(np.mean(long), abs=1e-6)
    counts = np.array([about["count"] for about in found["categories"].values()])
    # Gini coefficient: half the mean absolute difference over the mean.
    gini = np.abs(np.subtract.outer(counts, counts)).mean() / 2 / counts.mean()
    assert found["long_tail"]["gini"] == pytest.approx(gini, abs=1e-6)
    assert found["long_tail"]["imbalance"] == pytest.approx(counts.max() / counts.min(), abs=1e-6)
    assert (found["long_tail"]["categories"], found["long_tail"]["head_share"]) == (4, 1)


def test_side_histogram_has_four_bins_an_octave_and_holds_every_object() -> None:
    found = statistics([row((640, 640), (0, 32, 32), (0, 31.9, 31.9), (0, 0.5, 0.5)), row((320, 320), (0, 38, 38))])
    edges, own, scaled = (np.array(found["sides"][key]) for key in ("edges", "own", "at_640"))
    np.testing.assert_allclose(edges[1:] / edges[:-1], 2**0.25, rtol=1e-5)
    assert (edges[0], own.sum(), scaled.sum()) == (1, 4, 4)  # Below one pixel counts as one.
    first = int(np.flatnonzero(np.isclose(edges, 32))[0])
    assert own[[0, first - 1, first]].tolist() == [1, 1, 2]  # 38 px is below 32 * 2 ** 0.25.
    assert (scaled[first], scaled[-1], edges[-2]) == (1, 1, pytest.approx(64))
    assert edges[-2] <= 76 < edges[-1]


def test_row_groups_do_not_matter() -> None:
    rows = random_rows(5)
    assert statistics(rows, group=1) == statistics(rows, group=17) == statistics(rows, group=50)


@pytest.mark.parametrize("rows", [[], [row((10, 10)), row((10, 10))]])
def test_without_objects_there_is_nothing_to_tell(rows: list[Row]) -> None:
    assert statistics(rows, LISTED) == {}


def test_list_of_categories(tmp_path: Path) -> None:
    assert read_categories(tmp_path) == {}
    path = tmp_path / "categories.csv"
    lines = ["category,super_category,scene,prompt,novel", '"knot, dead",wood,boards,,yes', "resin,,,,no"]
    path.write_text("\n".join(lines), "utf-8")
    assert read_categories(tmp_path) == {
        "knot, dead": {"super_category": "wood", "scene": "boards", "prompt": "", "novel": True},
        "resin": {"super_category": "", "scene": "", "prompt": "", "novel": False},
    }
    path.write_text("category,scene,prompt,novel\nresin,,,no\n", "utf-8")
    with pytest.raises(DataError, match=r"categories\.csv: header: lacks the column 'super_category'"):
        read_categories(tmp_path)


def test_texts_of_the_card() -> None:
    found = statistics(ROWS, LISTED)
    sizes, tail = box_sizes_text(found), long_tail_text(found)
    assert sizes.startswith("6 objects on 3 images: 2.0 an image on average, 3 at most.")
    assert "17% of the boxes are at least 3 times as long as wide" in sizes
    assert "| PCB | 2 | 4 | 25% / 50% / 25% | 50% / 25% / 25% |\n" in sizes
    assert sizes.endswith("| all | 3 | 6 | 33% / 33% / 33% | 50% / 17% / 33% |")
    assert "Of 3 categories with objects, the most frequent has 4 times the objects of the rarest" in tail
    assert "1 listed categories have none here. 1 categories are novel, with 1 objects:" in tail
