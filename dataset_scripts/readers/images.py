"""Images and masks as bytes and arrays; every file is read and decoded once."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from defect_hub.dataset_scripts.readers.errors import DataError

MODES = ("1", "L", "P", "RGB")
"""Pillow modes that mean one thing only. 16-bit ranges and transparency are the owner's to resolve, not ours."""
MIN_SIDE = 8
MASK_THRESHOLD = 127


@dataclass(frozen=True)
class LoadedImage:
    """An image file.

    Attributes:
        name: File name without folders.
        data: The bytes of the file.
        gray: Decoded gray values (H, W), uint8.
    """

    name: str
    data: bytes
    gray: NDArray[np.uint8]

    @property
    def sha256(self) -> str:
        """Hex digest of the file's bytes."""
        return hashlib.sha256(self.data).hexdigest()


def read_image(path: Path) -> LoadedImage:
    """Read an 8-bit gray, palette or RGB image of at least 8x8 px.

    Raises:
        DataError: The file is missing, does not decode, or is of another mode or size.
    """
    data = _read_bytes(path, "image")
    gray = _decode_gray(data, path, "image")
    if min(gray.shape) < MIN_SIDE:
        size = f"{gray.shape[1]}x{gray.shape[0]} px, the smallest accepted side is {MIN_SIDE} px"
        raise DataError(path, "image", size, "Remove the image or supply it in full size")
    return LoadedImage(path.name, data, gray)


def read_mask(path: Path, size: tuple[int, int], threshold: int = MASK_THRESHOLD) -> NDArray[np.bool_]:
    """Read a mask image as defect pixels.

    Args:
        path: Mask file, 8-bit.
        size: (width, height) of the image that the mask belongs to.
        threshold: Gray values above it are defect; 127 halves the grey edges of anti-aliased masks.

    Returns:
        (H, W) bool.

    Raises:
        DataError: The file is missing, does not decode or has another size than the image.
    """
    gray = _decode_gray(_read_bytes(path, "mask"), path, "mask")
    if gray.shape[::-1] != size:
        found = f"{gray.shape[1]}x{gray.shape[0]} px where its image has {size[0]}x{size[1]} px"
        raise DataError(path, "mask", found, "Supply the mask in the size of the image")
    return gray > threshold


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """Binary mask (H, W) as a single-channel PNG of 0 and 255."""
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _read_bytes(path: Path, field: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(path, field, f"cannot be read ({error.strerror})", f"Supply the {field} file") from error


def _decode_gray(data: bytes, path: Path, field: str) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            mode = image.mode
            gray = np.asarray(image.convert("L"))
    except UnidentifiedImageError as error:
        raise DataError(path, field, "is not an image", "Replace the file by an intact copy") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow raises all of these.
        raise DataError(path, field, f"does not decode ({error})", "Replace the file by an intact copy") from error
    if mode not in MODES:
        problem = f"pixel mode {mode}, not 8-bit gray or RGB"
        raise DataError(path, field, problem, "Convert the file to 8-bit gray or RGB first")
    return gray
