import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.colors import to_hex
from PIL import Image
from scipy import stats
from sklearn.feature_extraction.text import TfidfVectorizer
from threadpoolctl import threadpool_limits

from defect_hub.dataset_scripts import statistics
from defect_hub.dataset_scripts.figures import MAX_FIT, OTHER_OUTLINE, OUTLINE, class_distribution, scatter
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.schema import record_features
from defect_hub.dataset_scripts.statistics import dataset_statistics, write_statistics

NAMES = ["Scratch", "Dent", "Never seen", "Normal"]
FEATURES = record_features(NAMES)
CARD = """---
pretty_name: {name}
note: "<!-- statistics --> is no marker here"
build_digest: d1
---

# A set

<!-- statistics -->
<!-- /statistics -->

## Limits
"""
T2 = ["A long scratch, a long curved scratch.", "A dent of the steel", "The dent", "Scratch"]
Row = dict[str, Any]


def png(value: int, size: tuple[int, int] = (16, 16), seed: int | None = None) -> dict[str, Any]:
    pixels = np.full(size[::-1], value, np.uint8)
    if seed is not None:
        pixels += np.random.default_rng(seed).integers(0, 30, pixels.shape, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {"path": "a.png", "bytes": buffer.getvalue()}


def row(label: int, **columns: Any) -> Row:
    empty = dict.fromkeys(FEATURES) | {"objects": parts(), "conversation": [], "width": 16, "height": 16}
    return {**empty, "image": png(100), "label": label, "annotation": "none", **columns}


def parts(*areas: float, category: int = 0) -> dict[str, Any]:
    """Objects of these areas, as a struct of lists."""
    one = {"id": 0, "bbox": [2.0, 2.0, 4.0, 4.0], "category": category, "iscrowd": False, "is_novel": None}
    return {**{name: [value] * len(areas) for name, value in one.items()}, "area": list(areas)}


def attributes(scale: str, *cells: str) -> dict[str, Any]:
    names = ("defect_type", "shape", "direction", "spatial_distribution", "number_of_defects", "polarity", "saliency")
    position = [{"cell": cell, "fraction": 0.5} for cell in cells]
    return dict.fromkeys(names, "some") | {"scale": scale, "position": position}


def write_shards(folder: Path, shards: Mapping[str, Sequence[Row]], row_group: int = 3) -> None:
    for name, rows in shards.items():
        path = folder / "data" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(list(rows), schema=FEATURES.arrow_schema)
        pq.write_table(table, path, row_group_size=row_group)


def built(folder: Path, shards: Mapping[str, Sequence[Row]], name: str = "Tiny", row_group: int = 3) -> Path:
    write_shards(folder, shards, row_group)
    (folder / "README.md").write_text(CARD.format(name=name), "utf-8")
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Eight images: three with texts t2, masks with defects, an empty one, boxes, and a val image seen in train."""
    masked = {"annotation": "mask", "mask": png(255)}
    train = [
        row(0, t2=T2[0], **masked, objects=parts(12, 20), attributes=attributes("small", "center", "top-left")),
        row(0, t2=T2[1], **masked, objects=parts(64), attributes=attributes("large", "center")),
        row(0, width=8, height=32, annotation="boxes", objects=parts(16), attributes=attributes("large")),
        row(1, t2=T2[2]),
        row(3, **masked, is_defective=False),
    ]
    val = [row(0, t2=""), row(1, width=8, height=32)]
    return built(
        tmp_path / "set",
        {
            "default/train-00000-of-00002": train[:2],
            "default/train-00001-of-00002": train[2:],
            "default/val-00000-of-00001": val,
            "seen/val-00000-of-00001": [row(0, t2=T2[3])],
        },
    )


@pytest.fixture
def texture(tmp_path: Path) -> Callable[[int, int], Path]:
    """A set of noisy dark (class 0) and bright (class 1) images."""

    def make(dark: int, bright: int) -> Path:
        shades = [(0, 20)] * dark + [(1, 200)] * bright
        rows = [row(label, image=png(value, seed=index)) for index, (label, value) in enumerate(shades)]
        return built(tmp_path / "texture", {"default/train-00000-of-00001": rows}, row_group=7)

    return make


def test_images_and_classes_are_counted_over_all_folders(small: Path) -> None:
    found = dataset_statistics(small)
    assert found["build_digest"] == "d1"
    assert found["images"] == {"train": 5, "val": 3}
    classes = found["classes"]
    assert classes["names"] == NAMES
    assert classes["counts"] == {
        "Scratch": {"train": 3, "val": 2},
        "Dent": {"train": 1, "val": 1},
        "Normal": {"train": 1, "val": 0},
    }
    assert (classes["number"], classes["min"], classes["max"]) == (3, 1, 5)
    assert classes["mean"] == pytest.approx(8 / 3, abs=1e-6)


def test_log_normal_parameters_are_scipys_maximum_likelihood(small: Path) -> None:
    classes = dataset_statistics(small)["classes"]
    sigma, _, scale = stats.lognorm.fit([5, 2, 1], floc=0)
    assert classes["log_sigma"] == pytest.approx(sigma, rel=1e-4)
    assert np.exp(classes["log_mean"]) == pytest.approx(scale, rel=1e-4)


def test_words_and_moments_by_hand(small: Path) -> None:
    found = dataset_statistics(small)["texts"]
    assert list(found) == ["t2"]  # Levels without texts are absent, and so is the empty text.
    words = found["t2"]["words"]
    lengths = np.array([7, 5, 2, 1])
    deviations = lengths - lengths.mean()
    variance = (deviations**2).mean()
    assert words["histogram"] == [[1, 1], [2, 1], [5, 1], [7, 1]]
    assert (words["count"], words["min"], words["max"], words["median"]) == (4, 1, 7, 3.5)
    assert words["mean"] == 3.75
    assert words["std"] == pytest.approx(variance**0.5, abs=1e-6)
    assert words["skewness"] == pytest.approx((deviations**3).mean() / variance**1.5, abs=1e-6)
    assert words["excess_kurtosis"] == pytest.approx((deviations**4).mean() / variance**2 - 3, abs=1e-6)


def test_terms_are_the_non_zero_tf_idf_terms(small: Path) -> None:
    found = dataset_statistics(small)["texts"]["t2"]
    matrix = TfidfVectorizer(stop_words="english").fit_transform(T2)
    by_hand = [{"long", "scratch", "curved"}, {"dent", "steel"}, {"dent"}, {"scratch"}]
    assert np.diff(matrix.indptr).tolist() == [len(terms) for terms in by_hand]
    assert found["terms"]["histogram"] == [[1, 2], [2, 1], [3, 1]]
    assert found["terms"]["mean"] == matrix.nnz / 4
    assert found["vocabulary"] == matrix.shape[1] == len(set.union(*by_hand))


def test_equal_lengths_and_stop_words_alone_leave_null_and_zero(tmp_path: Path) -> None:
    rows = [row(0, t0="this is the"), row(0, t0="that was a")]
    found = dataset_statistics(built(tmp_path / "a", {"default/train-00000-of-00001": rows}))
    assert found["texts"]["t0"]["words"]["skewness"] is None
    assert found["texts"]["t0"]["words"]["excess_kurtosis"] is None
    assert found["texts"]["t0"]["vocabulary"] == 0
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_annotations_areas_and_sizes(small: Path) -> None:
    found = dataset_statistics(small)
    assert found["annotations"] == {"mask": 3, "boxes": 1, "none": 4}
    area = found["defect_area"]  # Neither the boxes nor the empty mask count.
    assert (area["count"], area["min"], area["max"], area["mean"]) == (2, 32 / 256, 64 / 256, 48 / 256)
    sizes = found["sizes"]
    assert (sizes["different"], sizes["width"], sizes["height"]) == (2, [8, 16], [16, 32])
    assert list(sizes["most_common"].items()) == [("16x16", 6), ("8x32", 2)]


def test_attribute_values_and_first_positions(small: Path) -> None:
    found = dataset_statistics(small)["attributes"]
    assert found["scale"] == {"large": 2, "small": 1}
    assert found["first_position"] == {"center": 2}
    assert found["direction"] == {"some": 3}


def test_sets_without_texts_masks_and_attributes_say_nothing_of_them(tmp_path: Path) -> None:
    found = dataset_statistics(built(tmp_path / "a", {"default/train-00000-of-00001": [row(0), row(1)]}))
    assert not {"texts", "attributes", "defect_area", "objects", "tsne"} & set(found)


def test_objects_of_all_row_groups_are_counted(small: Path) -> None:
    found = dataset_statistics(small)["objects"]
    assert (found["number"], found["images"]) == (4, 3)
    assert found["categories"] == {"Scratch": {"count": 4}}
    lines = [
        "category,super_category,scene,prompt,novel",
        "Dent,steel,strip,,yes",
        "Scratch,steel,strip,,no",
    ]
    (small / "categories.csv").write_text("\n".join(lines), "utf-8")
    about = {"super_category": "steel", "scene": "strip"}
    assert dataset_statistics(small)["objects"]["categories"] == {
        "Scratch": {"count": 4, **about, "novel": False},
        "Dent": {"count": 0, **about, "novel": True},
    }


def test_boxes_of_other_categories_differ_in_colour(tmp_path: Path) -> None:
    boxed = {"annotation": "boxes", "image": png(100, (112, 112)), "width": 112, "height": 112}
    both = {name: values * 2 for name, values in parts(400).items()}
    both |= {"bbox": [[20.0, 20.0, 20.0, 20.0], [60.0, 60.0, 20.0, 20.0]], "category": [0, 1]}
    folder = built(tmp_path / "a", {"default/train-00000-of-00001": [row(0, **boxed, objects=both)]})
    write_statistics(folder)
    with Image.open(folder / "statistics/samples.jpg") as sheet:
        pixels = np.asarray(sheet.convert("RGB"), int)[:, 900 - 6 * 118 :]
    for corner, colour in ((20, OUTLINE), (60, OTHER_OUTLINE)):
        line = pixels[3 + corner - 1, 3 + corner + 10]
        assert abs(line - colour).max() < 40
    assert "boxes of other categories in blue" in (folder / "README.md").read_text("utf-8")


def test_embedding_draws_evenly_and_keeps_alike_images_together(
    texture: Callable[[int, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "EMBEDDED_IMAGES", 30)
    found = dataset_statistics(texture(40, 9))["tsne"]
    labels = np.array(found["label"])
    assert found["images"] == 30
    assert np.bincount(labels).tolist() == [21, 9]  # The small class gives all it has.
    assert (found["most_per_class"], found["components"], found["perplexity"]) == (21, 29, pytest.approx(29 / 3))
    points = np.stack([found["x"], found["y"]], 1)
    distances = np.linalg.norm(points[:, None] - points, axis=-1) + np.diag(np.full(30, np.inf))
    assert (labels[distances.argmin(1)] == labels).all()


def test_equal_data_gives_equal_numbers_on_any_number_of_threads(texture: Callable[[int, int], Path]) -> None:
    folder = texture(30, 30)
    with threadpool_limits(1):
        first = dataset_statistics(folder)
    with threadpool_limits(2):
        assert dataset_statistics(folder) == first
    # Nor do shards and row groups matter.
    table = pq.read_table(folder / "data/default/train-00000-of-00001.parquet")
    (folder / "data/default/train-00000-of-00001.parquet").unlink()
    for index, piece in enumerate((table.slice(0, 11), table.slice(11))):
        path = folder / f"data/default/train-0000{index}-of-00002.parquet"
        pq.write_table(piece, path, row_group_size=4 + index)
    assert dataset_statistics(folder) == first


def test_images_that_are_all_alike_have_no_embedding(tmp_path: Path) -> None:
    rows = [row(index % 2) for index in range(20)]
    assert "tsne" not in dataset_statistics(built(tmp_path / "a", {"default/train-00000-of-00001": rows}))


def test_rows_without_image_are_counted_and_not_drawn(tmp_path: Path) -> None:
    rows = [row(index % 3, image=png(40, seed=index)) for index in range(30)]
    absent = [
        {**each, "image": None, "mask": None, "annotation": "mask"} if index % 3 == 1 else each
        for index, each in enumerate(rows)
    ]
    whole, partly = (
        built(tmp_path / name, {"default/train-00000-of-00001": part}) for name, part in (("a", rows), ("b", absent))
    )
    before, after = dataset_statistics(whole), dataset_statistics(partly)
    assert after["classes"] == before["classes"]
    assert (after["images"], after["without_image"]) == ({"train": 30}, 10)
    assert "without_image" not in before
    assert (set(before["tsne"]["label"]), set(after["tsne"]["label"])) == ({0, 1, 2}, {0, 2})
    assert after["tsne"]["images"] == 20
    write_statistics(partly)
    assert "10 images are not in this folder and are not shown." in (partly / "README.md").read_text("utf-8")
    with Image.open(partly / "statistics/samples.jpg") as sheet:
        assert sheet.height == 2 * 118  # A row for each class that has images.


def test_a_set_without_any_image_has_no_pictures(tmp_path: Path) -> None:
    rows = [row(index % 2, image=None, t0="A dent.") for index in range(20)]
    written = write_statistics(built(tmp_path / "a", {"default/train-00000-of-00001": rows}))
    assert [path.name for path in written] == ["statistics.json", "classes.png", "texts.png"]
    assert "samples.jpg" not in (tmp_path / "a" / "README.md").read_text("utf-8")


def test_an_image_without_a_path_counts_as_one(tmp_path: Path) -> None:
    rows = [row(0, image={**png(9), "path": None}), row(0, image=None)]
    assert dataset_statistics(built(tmp_path / "a", {"default/train-00000-of-00001": rows}))["without_image"] == 1


def test_classes_of_which_there_are_no_images_are_not_shown(small: Path) -> None:
    write_statistics(small)
    found = dataset_statistics(small)
    labels = [label.get_text().split()[0] for label in class_distribution(found["classes"]).axes[0].get_yticklabels()]
    assert labels == ["Scratch", "Dent", "Normal"]
    with Image.open(small / "statistics/samples.jpg") as sheet:
        assert sheet.height == 3 * 118


def test_the_fit_of_unequal_classes_leaves_room_for_the_bars() -> None:
    counts = {"a": {"train": 250}, **{f"b{index}": {"train": 150} for index in range(6)}, "c": {"train": 1}}
    sizes = np.array([sum(splits.values()) for splits in counts.values()])
    fitted = {"mean": sizes.mean(), "log_mean": np.log(sizes).mean(), "log_sigma": np.log(sizes).std()}
    axes = class_distribution({"counts": counts, **fitted}).axes[0]
    assert max(axes.get_lines()[1].get_xdata()) > 2 * 250
    assert 250 < axes.get_xlim()[1] < 1.1 * MAX_FIT * 250


def test_points_of_150_classes_are_told_apart_and_have_their_room() -> None:
    points = np.random.default_rng(0).random((2, 300))
    names = [f"a class with a rather long name {index}" for index in range(150)]
    figure = scatter({"label": [*range(150)] * 2, "x": points[0], "y": points[1]}, names)
    figure.draw_without_rendering()
    (axes,), (legend,) = figure.axes, figure.legends
    looks = {
        (to_hex(each.get_facecolor()[0]), to_hex(each.get_edgecolor()[0]), each.get_paths()[0].vertices.tobytes())
        for each in axes.collections
    }
    assert len(looks) == 150
    assert axes.get_window_extent().height > 5 * figure.dpi
    assert legend.get_window_extent().y1 < axes.get_window_extent().y0
    assert figure.bbox.x0 <= legend.get_window_extent().x0
    assert legend.get_window_extent().x1 <= figure.bbox.x1


def test_card_gets_the_section_and_keeps_the_rest(small: Path) -> None:
    card = small / "README.md"
    before = card.read_bytes()
    written = write_statistics(small)
    after = card.read_bytes()
    empty = b"# A set\n\n<!-- statistics -->\n<!-- /statistics -->\n\n## Limits\n"
    head, section, tail = before[: -len(empty)], after[len(before) - len(empty) :], b"\n\n## Limits\n"
    assert after.startswith(head + b"# A set\n\n<!-- statistics -->\n## Statistics\n")
    assert section.endswith(b"<!-- /statistics -->" + tail)
    figures = ["samples.jpg", "classes.png", "texts.png", "box_sizes.png"]
    assert [path.name for path in written] == ["statistics.json", *figures]
    assert {path.name for path in (small / "statistics").iterdir()} == {path.name for path in written}
    assert all(f"(statistics/{path.name})".encode() in section for path in written)
    assert b"| `t2` | 4 | 3.75 | +0.19 | -1.60 | 1.75 | 5 |\n" in section
    assert b"3 have a mask, 1 boxes, 4 neither. 2 masks mark a defect: 18.8% of the image in the median" in section
    assert b"4 objects on 3 images: 1.3 an image on average, 2 at most." in section
    assert b"| all | 3 | 4 | 100% / 0% / 0% | 0% / 25% / 75% |" in section
    assert b"paper" not in section
    assert json.loads(written[0].read_text("utf-8")) == dataset_statistics(small)


def test_a_second_run_changes_nothing(small: Path) -> None:
    def content() -> dict[str, bytes]:
        return {str(path.relative_to(small)): path.read_bytes() for path in small.rglob("*") if path.is_file()}

    write_statistics(small)
    first = content()
    write_statistics(small)
    assert content() == first
    assert not [path for path in small.iterdir() if path.name.startswith(".")]


def test_another_folder_gets_what_the_data_set_would(small: Path, tmp_path: Path) -> None:
    before, out = (small / "README.md").read_bytes(), tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_bytes(before)
    written = write_statistics(small, out)
    assert (small / "README.md").read_bytes() == before
    assert not (small / "statistics").exists()
    write_statistics(small)
    assert {path.name: path.read_bytes() for path in written} == {
        path.name: path.read_bytes() for path in (small / "statistics").iterdir()
    }
    assert (out / "README.md").read_bytes() == (small / "README.md").read_bytes()


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_card_without_markers_gets_them_once_at_its_end(small: Path, newline: str) -> None:
    card = small / "README.md"
    bare = CARD.format(name="x").replace("<!-- statistics -->\n<!-- /statistics -->\n\n", "").replace("\n", newline)
    card.write_bytes(bare.encode())
    write_statistics(small)
    first = card.read_bytes()
    assert first.startswith(bare.rstrip().encode() + b"\n\n<!-- statistics -->\n## Statistics\n")
    assert first.endswith(b"<!-- /statistics -->\n")
    write_statistics(small)
    assert card.read_bytes() == first


def test_the_paper_stands_beside_its_own_set_only(small: Path) -> None:
    (small / "README.md").write_text(CARD.format(name="SteelDefectX (assembled)"), "utf-8")
    write_statistics(small)
    text = (small / "README.md").read_text("utf-8")
    assert "| paper | 7,778 | 25 | 311 | 50 | 795 |" in text
    assert "| `t2` | 4 | 3.75 | +0.19 | -1.60 | 1.75 | 5 | 54.83 |" in text


def test_figures_of_an_earlier_run_do_not_outlive_it(small: Path) -> None:
    write_statistics(small)
    for path in (small / "data").rglob("*.parquet"):
        path.unlink()
    write_shards(small, {"default/train-00000-of-00001": [row(0), row(1)]})
    write_statistics(small)
    assert not (small / "statistics/texts.png").exists()
    assert "texts.png" not in (small / "README.md").read_text("utf-8")


def test_a_failure_leaves_card_and_statistics_as_they_were(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_statistics(small)
    before = {path: path.read_bytes() for path in small.rglob("*") if path.is_file()}
    (small / "data/seen/val-00000-of-00001.parquet").unlink()
    before.pop(small / "data/seen/val-00000-of-00001.parquet")

    def no_space(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", no_space)
    with pytest.raises(DataError, match="No space left"):
        write_statistics(small)
    assert {path: path.read_bytes() for path in small.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "markers", ["<!-- statistics -->", "<!-- /statistics -->", "<!-- /statistics --><!-- statistics -->"]
)
def test_broken_markers_are_named_before_anything_is_written(small: Path, markers: str) -> None:
    card = small / "README.md"
    text = CARD.format(name="x").replace("<!-- statistics -->\n<!-- /statistics -->", markers)
    card.write_text(text, "utf-8")
    with pytest.raises(DataError, match=r"README\.md: markers"):
        write_statistics(small)
    assert card.read_text("utf-8") == text
    assert not (small / "statistics").exists()


def test_folders_that_are_no_builds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Notes\n", "utf-8")
    for function in (dataset_statistics, write_statistics):
        with pytest.raises(DataError, match="is not a built data set"):
            function(tmp_path)


def test_damaged_missing_and_earlier_files_are_named(small: Path) -> None:
    shard = small / "data/default/train-00000-of-00002.parquet"
    pq.write_table(pa.table({"label": [0]}), shard)
    with pytest.raises(DataError, match=r"train-00000-of-00002\.parquet: Parquet: lacks the columns source, scene"):
        dataset_statistics(small)
    shard.write_bytes(b"not Parquet")
    with pytest.raises(DataError, match=r"train-00000-of-00002\.parquet: Parquet: cannot be read"):
        dataset_statistics(small)
    for path in (small / "data").rglob("*.parquet"):
        path.unlink()
    with pytest.raises(DataError, match="there are no files"):
        dataset_statistics(small)
