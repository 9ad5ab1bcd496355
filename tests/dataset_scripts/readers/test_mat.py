import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from scipy.ndimage import distance_transform_cdt

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.mat import read_mat

SIZE = (7, 5)
LABELS = np.random.default_rng(0).integers(1, 5, (5, 7)).astype(np.uint8)


def write(tmp_path: Path, content: dict, **options: object) -> Path:
    path = tmp_path / "a.mat"
    savemat(path, content, **options)
    return path


@pytest.mark.parametrize("options", [{}, {"do_compression": True}, {"format": "4"}])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_every_value_but_the_background_is_defect(tmp_path: Path, options: dict, dtype: type) -> None:
    path = write(tmp_path, {"labels": LABELS.astype(dtype), "other": np.ones(3)}, **options)
    for background in ([1], [1, 3]):
        regions = read_mat(SIZE, path=path, variable="labels", background=background, category="crack")
        assert list(regions) == ["crack"]
        assert np.array_equal(regions["crack"], np.array([[v not in background for v in row] for row in LABELS]))
    assert read_mat(SIZE, path=path, variable="labels", background=range(5), category="crack") == {}


@pytest.mark.parametrize("compress", [False, True])
def test_variables_in_structs(tmp_path: Path, compress: bool) -> None:
    content = {"truth": {"seg": LABELS, "inner": {"deep": LABELS == 2}}}
    path = write(tmp_path, content, do_compression=compress)
    reader = partial(read_mat, path=path, background=[1], category="crack")
    assert np.array_equal(reader(SIZE, variable="truth.seg")["crack"], LABELS != 1)
    deep = partial(read_mat, path=path, variable="truth.inner.deep", background=[0], category="crack")
    assert np.array_equal(pickle.loads(pickle.dumps(deep))(SIZE)["crack"], LABELS == 2)


def test_one_row_and_one_pixel_stay_two_dimensional(tmp_path: Path) -> None:
    for shape in ((1, 4), (4, 1), (1, 1)):
        path = write(tmp_path, {"a": {"b": np.full(shape, 2)}})
        read = read_mat(shape[::-1], path=path, variable="a.b", background=[1], category="x")["x"]
        assert read.shape == shape and read.all()


@pytest.mark.parametrize(
    ("variable", "problem"),
    [
        ("nothing", "nothing: is missing"),
        ("truth.nothing", "truth.nothing: is missing"),
        ("truth.seg.more", "truth.seg.more: is missing"),
        ("several.seg", "several.seg: is missing"),
        ("plain.seg", "plain.seg: is missing"),
        ("truth", "truth: is no 2-D array of numbers"),
        ("words", "words: is no 2-D array of numbers"),
        ("cube", "cube: is no 2-D array of numbers"),
        ("plain", "plain: 5x7 px where its image has 7x5 px"),
    ],
)
def test_unsuitable_variables(tmp_path: Path, variable: str, problem: str) -> None:
    several = np.zeros((1, 2), dtype=[("seg", object)])
    several["seg"] = 1
    content = {"truth": {"seg": LABELS}, "several": several, "words": "abc", "cube": np.ones((5, 7, 2))}
    path = write(tmp_path, {**content, "plain": LABELS.T})
    with pytest.raises(DataError, match=problem) as caught:
        read_mat(SIZE, path=path, variable=variable, background=[1], category="x")
    assert caught.value.where == path and caught.value.remedy


def test_version_7_3_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    path.write_bytes(header.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n".ljust(512, b"\0"))
    with pytest.raises(DataError, match=r"MATLAB file: is of version 7\.3\. .*-v7"):
        read_mat(SIZE, path=path, variable="a", background=[1], category="x")


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    path = write(tmp_path, {"a": {"b": np.random.default_rng(0).integers(1, 3, (5, 7))}}, do_compression=True)
    reader = partial(read_mat, path=path, variable="a.b", background=[1], category="x")
    data = path.read_bytes()
    for length in range(0, len(data), 5):
        path.write_bytes(data[:length])
        with pytest.raises(DataError):
            reader(SIZE)
    path.write_bytes(b"<html>not found</html>" * 20)
    with pytest.raises(DataError, match="MATLAB file: does not decode"):
        reader(SIZE)
    path.unlink()
    with pytest.raises(DataError, match="MATLAB file: cannot be read"):
        reader(SIZE)


def run_length_labels(path: Path) -> np.ndarray:
    """Segment numbers (H, W) from 0 of a .seg file: a header, then rows of segment, row, first and last column."""
    header, runs = path.read_text("utf-8").split("data\n")
    sides = dict(line.split() for line in header.splitlines() if line.startswith(("width", "height")))
    labels = np.full((int(sides["height"]), int(sides["width"])), -1)
    for segment, row, first, last in (map(int, line.split()) for line in runs.splitlines()):
        labels[row, first : last + 1] = segment
    assert (labels >= 0).all()
    return labels


@pytest.mark.real_data
def test_real_files_agree_with_their_run_length_text(raw_data: Path) -> None:
    root = raw_data / "CFD"
    paths = sorted((root / "groundTruth").glob("*.mat"))
    more_values = 0
    for path in paths:
        labels = run_length_labels(root / "seg" / f"{path.stem}.seg")
        image_size = Image.open(root / "image" / f"{path.stem}.jpg").size
        reader = partial(read_mat, image_size, path=path, variable="groundTruth.Segmentation", category="crack")
        assert np.array_equal(reader(background=[1])["crack"], labels != 0)
        crack = reader(background=[1, 3])["crack"]
        assert np.array_equal(crack, (labels == 1) | (labels == 3))
        # Value 3 is pavement that cracks enclose, up to 79 px wide; what remains is thin as cracks are.
        assert distance_transform_cdt(crack, "chessboard").max() <= 8
        more_values += labels.max() > 1
    assert (len(paths), more_values) == (118, 22)
