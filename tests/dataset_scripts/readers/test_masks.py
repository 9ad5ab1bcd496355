import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.masks import (
    read_category_masks,
    read_colour_mask,
    read_index_mask,
    read_masks,
)

WIDTH, HEIGHT = SIZE = (13, 9)
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def marks(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((HEIGHT, WIDTH)) > 0.7


def save(path: Path, pixels: np.ndarray | Image.Image, **options: object) -> Path:
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(path, **options)
    return path


def palette(index: np.ndarray, colours: list[tuple[int, int, int]]) -> Image.Image:
    picture = Image.fromarray(index.astype(np.uint8), "L").convert("L")
    picture.putpalette([value for colour in colours for value in colour])
    return picture


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "RGBA", "LA"])
@pytest.mark.parametrize("above", [0, 127])
def test_black_and_white_mask_of_every_mode(tmp_path: Path, mode: str, above: int) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(marks().astype(np.uint8) * 255).convert(mode))
    assert Image.open(path).mode == mode
    regions = read_masks(SIZE, paths=[path], category="crack", above=above)
    assert list(regions) == ["crack"]
    assert np.array_equal(regions["crack"], marks())


def test_pixels_of_any_mask_count_and_none_gives_no_category(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{seed}.png", marks(seed).astype(np.uint8) * 255) for seed in (0, 1, 2)]
    union = read_masks(SIZE, paths=paths, category="crack")["crack"]
    assert np.array_equal(union, marks(0) | marks(1) | marks(2))
    black = save(tmp_path / "black.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    assert read_masks(SIZE, paths=[black], category="crack") == {}
    assert read_masks(SIZE, paths=[black], category="crack", above=0) == {}


def test_limit_on_gray_values(tmp_path: Path) -> None:
    row = np.array([0, 1, 10, 127, 128, 255], np.uint8)
    gray = save(tmp_path / "gray.png", row[None])
    rgb = save(tmp_path / "rgb.png", np.stack([row[None]] * 3, -1))
    for path in (gray, rgb):
        for above in (0, 10, 127):
            read = read_masks((6, 1), paths=[path], category="a", above=above)["a"]
            assert np.array_equal(read[0], row > above)


def test_limit_0_takes_stored_values_and_not_colours(tmp_path: Path) -> None:
    index = marks().astype(np.uint8)
    inverted = save(tmp_path / "inverted.png", palette(index, [WHITE, (0, 0, 0)]))
    assert np.array_equal(read_masks(SIZE, paths=[inverted], category="a", above=0)["a"], marks())
    assert np.array_equal(read_masks(SIZE, paths=[inverted], category="a")["a"], ~marks())
    # A blue of 1 has the gray value 0.
    blue = save(tmp_path / "blue.png", np.stack([index * 0, index * 0, index], -1))
    assert np.array_equal(read_masks(SIZE, paths=[blue], category="a", above=0)["a"], marks())


@pytest.mark.parametrize("above", [0, 127])
def test_transparent_pixels_are_no_defect(tmp_path: Path, above: int) -> None:
    alpha = np.where(marks(1), 255, 0)
    white = np.full((HEIGHT, WIDTH), 255)
    path = save(tmp_path / "a.png", np.stack([white, white, white, alpha], -1).astype(np.uint8))
    assert np.array_equal(read_masks(SIZE, paths=[path], category="a", above=above)["a"], marks(1))
    keyed = save(tmp_path / "b.png", palette(marks(2).astype(np.uint8) + 1, [(0, 0, 0), WHITE, WHITE]), transparency=1)
    assert np.array_equal(read_masks(SIZE, paths=[keyed], category="a", above=above)["a"], marks(2))


def test_index_masks_take_values_and_not_colours(tmp_path: Path) -> None:
    index = np.random.default_rng(0).integers(0, 4, (HEIGHT, WIDTH)).astype(np.uint8)
    gray = save(tmp_path / "gray.png", index)
    coloured = save(tmp_path / "coloured.png", palette(index, [WHITE, RED, RED, BLUE]))
    assert Image.open(coloured).mode == "P"
    for path in (gray, coloured):
        regions = read_index_mask(SIZE, path=path, values={1: "inclusion", 2: "patches", 3: "inclusion", 9: "none"})
        assert list(regions) == ["inclusion", "patches"]
        assert np.array_equal(regions["inclusion"], (index == 1) | (index == 3))
        assert np.array_equal(regions["patches"], index == 2)
        ignoring = read_index_mask(SIZE, path=path, values={2: "patches"}, ignored=(0, 1, 3))
        assert np.array_equal(ignoring["patches"], index == 2) and list(ignoring) == ["patches"]


def test_unknown_values_of_an_index_mask(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.array([[0, 1, 7]], np.uint8))
    with pytest.raises(DataError, match=r"a\.png: mask: holds the values 0, 1, 7 where 0, 1, 2 are known"):
        read_index_mask((3, 1), path=path, values={1: "a", 2: "b"})
    many = save(tmp_path / "many.png", np.arange(256, dtype=np.uint8)[None])
    with pytest.raises(DataError, match=r"10, 11, \.\.\. where"):
        read_index_mask((256, 1), path=many, values={1: "a"})
    assert read_index_mask((1, 1), path=save(tmp_path / "b.png", np.zeros((1, 1), np.uint8)), values={}) == {}


def coloured_pixels() -> tuple[np.ndarray, np.ndarray]:
    """Class numbers 0 to 4 and the colours that show them; 3 is a distractor, 4 a colour near red."""
    index = np.random.default_rng(3).integers(0, 5, (HEIGHT, WIDTH))
    return index, np.array([(0, 0, 0), RED, BLUE, (0, 255, 0), (254, 0, 0)], np.uint8)[index]


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "P", "bmp"])
def test_colour_masks(tmp_path: Path, kind: str) -> None:
    index, rgb = coloured_pixels()
    alpha = np.full(index.shape, 255, np.uint8)
    if kind == "RGBA":
        alpha = np.where(marks(), 0, 128).astype(np.uint8)
        path = save(tmp_path / "a.png", np.dstack([rgb, alpha]))
    elif kind == "P":
        path = save(tmp_path / "a.png", palette(index, [(0, 0, 0), RED, BLUE, (0, 255, 0), (254, 0, 0)]))
    else:
        path = save(tmp_path / ("a.bmp" if kind == "bmp" else "a.png"), rgb)
    regions = read_colour_mask(SIZE, path=path, colours={RED: "rust", BLUE: "dent", (1, 2, 3): "none"})
    assert list(regions) == ["rust", "dent"]
    for value, category in ((1, "rust"), (2, "dent")):
        assert np.array_equal(regions[category], (index == value) & (alpha > 0))
    together = read_colour_mask(SIZE, path=path, colours={RED: "rust", BLUE: "rust"})["rust"]
    assert np.array_equal(together, regions["rust"] | regions["dent"])
    assert read_colour_mask(SIZE, path=path, colours={WHITE: "rust"}) == {}


def test_black_may_be_a_category_but_not_where_it_is_transparent(tmp_path: Path) -> None:
    rgba = np.zeros((1, 2, 4), np.uint8)
    rgba[0, 1, 3] = 255
    path = save(tmp_path / "a.png", rgba)
    assert read_colour_mask((2, 1), path=path, colours={(0, 0, 0): "hole"})["hole"].tolist() == [[False, True]]


def test_jpeg_has_no_class_colours(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", coloured_pixels()[1])
    with pytest.raises(DataError, match=r"a\.jpg: mask: JPEG"):
        read_colour_mask(SIZE, path=path, colours={RED: "rust"})


def test_one_mask_for_each_category(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"a_{name}.png" for name in ("crack", "spall", "rust", "dent")}
    save(paths["crack"], marks(0).astype(np.uint8) * 255)
    save(paths["spall"], marks(1).astype(np.uint8) * 255)
    save(paths["rust"], np.zeros((HEIGHT, WIDTH), np.uint8))
    regions = read_category_masks(SIZE, paths=paths)
    assert list(regions) == ["crack", "spall"]
    assert np.array_equal(regions["crack"], marks(0))
    assert np.array_equal(regions["spall"], marks(1))
    faint = save(tmp_path / "faint.png", marks(2).astype(np.uint8))
    assert read_category_masks(SIZE, paths={"a": faint}) == {}
    assert np.array_equal(read_category_masks(SIZE, paths={"a": faint}, above=0)["a"], marks(2))


def test_absence_of_all_category_masks_is_an_error(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"a_{name}.png" for name in ("crack", "spall")}
    with pytest.raises(DataError, match=r"mask: none of a_crack\.png, a_spall\.png exists") as caught:
        read_category_masks(SIZE, paths=paths)
    assert caught.value.where == tmp_path


READERS: list[Callable[[Path], partial]] = [
    lambda path: partial(read_masks, paths=[path], category="a"),
    lambda path: partial(read_masks, paths=[path], category="a", above=0),
    lambda path: partial(read_index_mask, path=path, values={1: "a"}),
    lambda path: partial(read_colour_mask, path=path, colours={RED: "a"}),
    lambda path: partial(read_category_masks, paths={"a": path}),
]


def rgb_of_16_bits() -> bytes:
    """A PNG of 2x1 px and 16-bit RGB, which Pillow cannot write."""
    import struct
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head, body = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0), zlib.compress(b"\0" + b"\xff\0" * 6)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("reader", READERS)
def test_unusable_files(tmp_path: Path, reader: Callable[[Path], partial]) -> None:
    path = save(tmp_path / "a.png", np.zeros((9, 13), np.uint8))
    noise = save(tmp_path / "noise.png", np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)).read_bytes()
    assert reader(path)((13, 9)) == {}
    with pytest.raises(DataError, match=r"a\.png: mask: 13x9 px where its image has 9x13 px") as caught:
        reader(path)((9, 13))
    assert (caught.value.where, caught.value.field) == (path, "mask")
    deep = [np.full((1, 2), 3000, np.uint16), np.ones((1, 2), np.int32), np.ones((1, 2), np.float32)]
    for name, pixels in zip(("a.png", "b.tif", "c.tif"), deep, strict=True):
        with pytest.raises(DataError, match="mask: pixel mode"):
            reader(save(tmp_path / name, pixels))((2, 1))
    for content, problem in (
        (rgb_of_16_bits(), "pixel mode RGB( of 16 bits)?, not"),
        (b"<html>not found</html>", "is not an image"),
        (noise[:-600], "does not decode"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"mask: ({problem})"):
            reader(path)((2, 1))
    path.unlink()
    with pytest.raises(DataError, match=r"mask: (cannot be read|none of a\.png exists)"):
        reader(path)((2, 1))


def test_readers_pickle(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", marks().astype(np.uint8))
    for reader in (READERS[1](path), READERS[2](path)):
        assert np.array_equal(pickle.loads(pickle.dumps(reader))(SIZE)["a"], marks())


@pytest.mark.real_data
@pytest.mark.parametrize(("folder", "count"), [("DeepCrack", 34), ("Crack500", 16)])
def test_real_crack_masks(raw_data: Path, folder: str, count: int) -> None:
    paths = sorted((raw_data / folder).glob("*_lab/*.png"))
    assert len(paths) == count
    edges = 0
    for path in paths:
        stored = np.asarray(Image.open(path))
        assert stored.shape[2] == 3 and (np.ptp(stored, axis=-1) == 0).all()
        height, width = stored.shape[:2]
        read = read_masks((width, height), paths=[path], category="crack")
        assert np.array_equal(read["crack"], stored[..., 1] > 127)
        edges += ((stored[..., 0] > 0) & (stored[..., 0] < 255)).any()
    assert edges  # Interpolated grays, which the limit halves.


@pytest.mark.real_data
def test_real_index_masks(raw_data: Path) -> None:
    names = {1: "inclusion", 2: "patches", 3: "scratches"}
    paths = sorted((raw_data / "NEU_Seg/annotations").glob("*/*.png"))
    assert len(paths) == 119
    seen = set()
    for path in paths:
        stored = np.asarray(Image.open(path))
        regions = read_index_mask((200, 200), path=path, values=names)
        assert {value for value, name in names.items() if name in regions} == {*np.unique(stored)} - {0}
        assert all(np.array_equal(regions[name], stored == value) for value, name in names.items() if name in regions)
        seen |= {*regions}
    assert seen == {*names.values()}


def test_interpolated_borders_take_the_number_of_their_region(tmp_path: Path) -> None:
    index = np.zeros((40, 60), np.uint8)
    index[5:15, 5:15], index[4, 5:15], index[15, 5:15] = 3, 1, 2
    index[20:30, 20:40], index[30, 20:40] = 2, 1
    Image.fromarray(index).save(tmp_path / "m.png")
    values = {1: "bent", 2: "burnt", 3: "scratch"}
    plain = read_index_mask((60, 40), path=tmp_path / "m.png", values=values)
    assert set(plain) == {"bent", "burnt", "scratch"}
    found = read_index_mask((60, 40), path=tmp_path / "m.png", values=values, interpolated=True)
    assert {name: int(defect.sum()) for name, defect in found.items()} == {"burnt": 220, "scratch": 120}
    assert np.array_equal(found["scratch"] | found["burnt"], index > 0)
