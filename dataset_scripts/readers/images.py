"""Images and masks as bytes and arrays; every file is read and decoded once."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from defect_hub.dataset_scripts.readers.errors import DataError

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
MODES = ("1", "L", "P", "RGB")
"""Pillow modes that mean one thing only. 16-bit ranges and transparency are the owner's to resolve, not ours."""
MIN_SIDE = 8
MASK_THRESHOLD = 127
PNG_OPTIONS = {"compress_level": 1, "compress_type": zlib.Z_RLE}
"""Run-length coding behind PNG's filters: on real steel 16 % smaller than zlib's level 1, and in less time."""


@dataclass(frozen=True)
class LoadedImage:
    """An image file, perhaps resized.

    Attributes:
        name: File name without folders.
        data: The bytes of the file; those of a new PNG where it was resized.
        gray: Decoded gray values (H, W), uint8.
        colour: Decoded RGB values (H, W, 3), uint8; None where the file that was read has no colour.
        source_sha256: Hex digest of the file that was read.
        source_size: (width, height) of the file that was read, in pixels.
    """

    name: str
    data: bytes
    gray: NDArray[np.uint8]
    colour: NDArray[np.uint8] | None
    source_sha256: str
    source_size: tuple[int, int]

    @property
    def sha256(self) -> str:
        """Hex digest of `data`."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class LoadedMask:
    """A mask file.

    Attributes:
        data: PNG bytes with the values 0 and 255 only: the file's own where it is one.
        gray: Decoded gray values (H, W), uint8.
        defect: Defect pixels (H, W): gray values above 127, which halves the grey edges of anti-aliased masks.
        binary: Whether there are no gray values but 0 and 255.
    """

    data: bytes
    gray: NDArray[np.uint8]
    defect: NDArray[np.bool_]
    binary: bool


def read_image(path: Path, size: tuple[int, int] | None = None) -> LoadedImage:
    """Read an 8-bit gray, palette or RGB image of at least 8x8 px.

    Args:
        path: Image file.
        size: (width, height) to resize to, bicubic with antialiasing; stored as PNG, in gray where all channels are
            equal. None keeps the file's bytes.

    Raises:
        DataError: The file is missing, does not decode, or is of another mode or size.
    """
    data = read_bytes(path, "image")
    source = hashlib.sha256(data).hexdigest()
    picture = decode(data, path, "image")
    if min(picture.size) < MIN_SIDE:
        found = f"{picture.width}x{picture.height} px, the smallest accepted side is {MIN_SIDE} px"
        raise DataError(path, "image", found, "Remove the image or supply it in full size")
    name, pixels = path.name, _without_equal_channels(picture)
    if size is not None:
        pixels = pixels.resize(size, Image.Resampling.BICUBIC)
        name, data = f"{path.stem}.png", _png(pixels)
    colour = None if pixels.mode == "L" else np.asarray(pixels)
    return LoadedImage(name, data, _gray(pixels), colour, source, picture.size)


def read_mask(path: Path, image_size: tuple[int, int], size: tuple[int, int] | None = None) -> LoadedMask:
    """Read a mask image.

    Args:
        path: Mask file, 8-bit.
        image_size: (width, height) of the image file that the mask belongs to.
        size: (width, height) to resize to; a pixel is defect where more than half of what it covers is.

    Raises:
        DataError: The file is missing, does not decode or has another size than the image.
    """
    data = read_bytes(path, "mask")
    picture = decode(data, path, "mask")
    check_size(picture.size, image_size, path, "mask")
    gray = _gray(picture)
    if size is not None:
        hard = Image.fromarray((gray > MASK_THRESHOLD).astype(np.uint8) * 255)
        gray = np.asarray(hard.resize(size, Image.Resampling.BILINEAR))
    defect = gray > MASK_THRESHOLD
    binary = bool(((gray == 0) | (gray == 255)).all())
    keep = binary and size is None and picture.format == "PNG" and picture.mode == "L"
    return LoadedMask(data if keep else encode_mask(defect), gray, defect, binary)


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """Binary mask (H, W) as a single-channel PNG of 0 and 255."""
    return _png(Image.fromarray(mask.astype(np.uint8) * 255))


def check_size(size: tuple[int, int], image_size: tuple[int, int], path: Path, field: str) -> None:
    """Check that an annotation is as large as its image; both sizes are (width, height) in pixels.

    Raises:
        DataError: It is not.
    """
    if size != image_size:
        found = f"{size[0]}x{size[1]} px where its image has {image_size[0]}x{image_size[1]} px"
        raise DataError(path, field, found, f"Supply the {field} in the size of the image")


def read_bytes(path: Path, field: str) -> bytes:
    """Bytes of a file; `field` says what it is, e.g. "mask".

    Raises:
        DataError: The file is missing or unreadable.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(path, field, f"cannot be read ({error.strerror})", f"Supply the {field} file") from error


def decode(
    data: bytes, path: Path, field: str, modes: Collection[str] = MODES, wanted: str = "8-bit gray or RGB"
) -> Image.Image:
    """Decode the bytes of an image file.

    Args:
        data: Content of the file.
        path: Where it is from.
        field: What it is, e.g. "mask".
        modes: Accepted Pillow modes.
        wanted: The modes in words.

    Raises:
        DataError: The bytes do not decode, have another mode or 16 bits a channel, or are to be shown turned.
    """
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        # Pillow gives 16-bit RGB the mode RGB and drops the low bytes; only the raw modes before loading tell.
        deep = any(";16" in str(tile) for tile in picture.tile)
        picture.load()
    except UnidentifiedImageError as error:
        raise DataError(path, field, "is not an image", "Replace the file by an intact copy") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow raises all of these.
        raise DataError(path, field, f"does not decode ({error})", "Replace the file by an intact copy") from error
    if picture.mode not in modes or deep:
        found = f"{picture.mode} of 16 bits" if picture.mode in modes else picture.mode
        problem = f"pixel mode {found}, not {wanted}"
        raise DataError(path, field, problem, f"Convert the file to {wanted} first")
    if picture.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1):
        # Whoever decodes the image later sees it turned, and no annotation fits.
        remedy = "Turn the pixels themselves and remove the tag (`exiftran -a`, `PIL.ImageOps.exif_transpose`)"
        raise DataError(path, field, "has an EXIF orientation, which viewers obey and annotations do not", remedy)
    return picture


def _gray(picture: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(picture if picture.mode == "L" else picture.convert("L"))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **PNG_OPTIONS)
    return buffer.getvalue()


def _without_equal_channels(picture: Image.Image) -> Image.Image:
    """Gray where a palette or RGB image has no colour, else RGB."""
    if picture.mode == "L":
        return picture
    if picture.mode == "1":
        return picture.convert("L")
    colour = picture if picture.mode == "RGB" else picture.convert("RGB")
    first = colour.getchannel(0)
    gray = first.tobytes()  # Bytes compare several times faster than strided arrays.
    return first if all(colour.getchannel(channel).tobytes() == gray for channel in (1, 2)) else colour
