import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.images import encode_mask, read_image, read_mask


def test_image_keeps_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(np.tile(np.arange(0, 160, 10, dtype=np.uint8), (12, 1))).save(path)
    image = read_image(path)
    assert image.data == path.read_bytes()
    assert image.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert image.gray.shape == (12, 16)
    assert np.array_equal(image.gray, np.asarray(Image.open(path)))


def test_rgb_and_palette_images_are_read_as_gray(tmp_path: Path) -> None:
    rgb = Image.new("RGB", (10, 10), (200, 200, 200))
    rgb.save(tmp_path / "rgb.png")
    rgb.convert("P").save(tmp_path / "palette.png")
    for name in ("rgb.png", "palette.png"):
        assert read_image(tmp_path / name).gray.mean() == pytest.approx(200, abs=5)


def sixteen_bit() -> Image.Image:
    return Image.fromarray(np.full((20, 20), 3000, np.uint16))


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (sixteen_bit(), "pixel mode I;16"),
        (Image.new("RGBA", (20, 20)), "pixel mode RGBA"),
        (Image.new("LA", (20, 20)), "pixel mode LA"),
        (Image.new("L", (1, 1)), "1x1 px"),
        (Image.new("L", (100, 7)), "100x7 px"),
    ],
)
def test_unsuitable_images_name_file_field_and_remedy(tmp_path: Path, image: Image.Image, problem: str) -> None:
    path = tmp_path / "a.png"
    image.save(path)
    with pytest.raises(DataError, match=problem) as caught:
        read_image(path)
    assert (caught.value.where, caught.value.field) == (path, "image")
    assert caught.value.remedy


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_truncated_image(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(DataError, match="does not decode"):
        read_image(path)


def test_file_that_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match="is not an image"):
        read_image(path)


def test_mask_threshold_halves_grey_edges(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 127, 128, 255]], np.uint8)).save(path)
    mask = read_mask(path, (4, 1))
    assert mask.defect.tolist() == [[False, False, True, True]]
    assert mask.gray.tolist() == [[0, 127, 128, 255]]
    assert np.asarray(Image.open(io.BytesIO(mask.data))).tolist() == [[0, 0, 255, 255]]


def test_binary_mask_keeps_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).save(path, compress_level=9)
    assert read_mask(path, (2, 2)).data == path.read_bytes()


def test_resizing_is_symmetric_and_says_what_was_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    pixels = np.random.default_rng(0).integers(0, 255, (50, 70), dtype=np.uint8)
    Image.fromarray(np.stack([pixels] * 3, -1)).save(path)
    image = read_image(path, (64, 32))
    assert (image.gray.shape, image.source_size, image.name) == ((32, 64), (70, 50), "a.png")
    assert Image.open(io.BytesIO(image.data)).mode == "L"
    Image.fromarray(pixels[::-1, ::-1]).save(path)
    assert np.array_equal(read_image(path, (64, 32)).gray[::-1, ::-1], image.gray)


def test_mask_of_another_size_and_missing_mask(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (4, 8)).save(path)
    with pytest.raises(DataError, match="mask: 4x8 px where its image has 8x4 px"):
        read_mask(path, (8, 4))
    with pytest.raises(DataError, match="mask: cannot be read"):
        read_mask(tmp_path / "b.png", (8, 4))


def test_encoded_mask_is_binary_single_channel() -> None:
    mask = np.random.default_rng(0).random((9, 13)) > 0.5
    with Image.open(io.BytesIO(encode_mask(mask))) as image:
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), mask * 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_images_without_colour_have_gray_values_only(tmp_path: Path, mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 2, (20, 30), dtype=np.uint8) * 255
    Image.fromarray(pixels).convert(mode).save(tmp_path / "a.png")
    for size in (None, (15, 10)):
        image = read_image(tmp_path / "a.png", size)
        assert image.colour is None
    assert np.array_equal(read_image(tmp_path / "a.png").gray, pixels)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_colour_of_one_pixel_in_one_channel_counts(tmp_path: Path, channel: int) -> None:
    pixels = np.full((20, 30, 3), 100, np.uint8)
    pixels[19, 29, channel] = 101
    picture = Image.fromarray(pixels)
    picture.save(tmp_path / "rgb.png")
    picture.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    for name in ("rgb.png", "palette.png"):
        image = read_image(tmp_path / name)
        stored = Image.open(tmp_path / name)
        assert np.array_equal(image.colour, np.asarray(stored.convert("RGB")))
        assert np.array_equal(image.gray, np.asarray(stored.convert("L")))


def test_colour_of_a_resized_image_is_that_of_its_bytes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", (64, 32))
    stored = Image.open(io.BytesIO(image.data))
    assert (stored.mode, image.colour.shape) == ("RGB", (32, 64, 3))
    assert np.array_equal(image.colour, np.asarray(stored))
    assert np.array_equal(image.gray, np.asarray(stored.convert("L")))


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_pictures_that_are_shown_turned_are_refused(tmp_path: Path, name: str) -> None:
    picture = Image.new("L", (40, 20), 90)
    for orientation in (1, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.save(tmp_path / name, exif=exif)
        if orientation == 1:
            assert read_image(tmp_path / name).gray.shape == (20, 40)
    with pytest.raises(DataError, match=r"image: has an EXIF orientation, .* Turn the pixels themselves"):
        read_image(tmp_path / name)
    with pytest.raises(DataError, match="mask: has an EXIF orientation"):
        read_mask(tmp_path / name, (40, 20))
