"""Images and masks as bytes and arrays; every file is read and decoded once."""

from __future__ import annotations

import hashlib
import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

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
        source_sha256: Hex digest of the file that was read.
        source_size: (width, height) of the file that was read, in pixels.
    """

    name: str
    data: bytes
    gray: NDArray[np.uint8]
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
    data = _read_bytes(path, "image")
    source = hashlib.sha256(data).hexdigest()
    picture = _decode(data, path, "image")
    if min(picture.size) < MIN_SIDE:
        found = f"{picture.width}x{picture.height} px, the smallest accepted side is {MIN_SIDE} px"
        raise DataError(path, "image", found, "Remove the image or supply it in full size")
    if size is None:
        return LoadedImage(path.name, data, _gray(picture), source, picture.size)
    resized = _without_equal_channels(picture).resize(size, Image.Resampling.BICUBIC)
    return LoadedImage(f"{path.stem}.png", _png(resized), _gray(resized), source, picture.size)


def read_mask(path: Path, image_size: tuple[int, int], size: tuple[int, int] | None = None) -> LoadedMask:
    """Read a mask image.

    Args:
        path: Mask file, 8-bit.
        image_size: (width, height) of the image file that the mask belongs to.
        size: (width, height) to resize to; a pixel is defect where more than half of what it covers is.

    Raises:
        DataError: The file is missing, does not decode or has another size than the image.
    """
    data = _read_bytes(path, "mask")
    picture = _decode(data, path, "mask")
    if picture.size != image_size:
        found = f"{picture.width}x{picture.height} px where its image has {image_size[0]}x{image_size[1]} px"
        raise DataError(path, "mask", found, "Supply the mask in the size of the image")
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


def _gray(picture: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(picture if picture.mode == "L" else picture.convert("L"))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **PNG_OPTIONS)
    return buffer.getvalue()


def _without_equal_channels(picture: Image.Image) -> Image.Image:
    """Gray where a palette or RGB image has no colour, else RGB."""
    if picture.mode in ("1", "L"):
        return picture.convert("L")
    colour = picture.convert("RGB")
    red, green, blue = np.moveaxis(np.asarray(colour), -1, 0)
    return colour.getchannel(0) if np.array_equal(red, green) and np.array_equal(red, blue) else colour


def _read_bytes(path: Path, field: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(path, field, f"cannot be read ({error.strerror})", f"Supply the {field} file") from error


def _decode(data: bytes, path: Path, field: str) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        picture.load()
    except UnidentifiedImageError as error:
        raise DataError(path, field, "is not an image", "Replace the file by an intact copy") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow raises all of these.
        raise DataError(path, field, f"does not decode ({error})", "Replace the file by an intact copy") from error
    if picture.mode not in MODES:
        problem = f"pixel mode {picture.mode}, not 8-bit gray or RGB"
        raise DataError(path, field, problem, "Convert the file to 8-bit gray or RGB first")
    return picture
