"""Defect pixels by category from mask images; a fully transparent pixel is never a defect."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.images import MASK_THRESHOLD, check_size, decode, read_bytes

GRAY_OR_COLOUR = ("1", "L", "P", "RGB", "LA", "RGBA")
INDEX = ("L", "P")
MAX_LISTED = 12
"""Values named in an error: a gray picture taken for class numbers may hold 256."""


def read_masks(
    image_size: tuple[int, int], *, paths: Sequence[Path], category: str, above: int = MASK_THRESHOLD
) -> dict[str, NDArray[np.bool_]]:
    """Read one or more masks of one category; a pixel is defect where any of them says so.

    Args:
        image_size: (width, height) of the image in pixels.
        paths: Mask files, at least one.
        category: What they mark.
        above: A gray value above it is defect. 0 takes every stored value but 0: in palette images the index and not
            its colour, in RGB any channel.

    Returns:
        Defect pixels (H, W) of the category; empty where no pixel is marked.

    Raises:
        DataError: A file is missing, does not decode, or is of another size than the image.
    """
    defect = reduce(np.logical_or, (_binary(path, image_size, above) for path in paths))
    return {category: defect} if defect.any() else {}


def read_category_masks(
    image_size: tuple[int, int], *, paths: Mapping[str, Path], above: int = MASK_THRESHOLD
) -> dict[str, NDArray[np.bool_]]:
    """Read a set that keeps one mask file a category; a category without a file has no pixels.

    Args:
        image_size: (width, height) of the image in pixels.
        paths: Mask files by category.
        above: See `read_masks`.

    Returns:
        Defect pixels (H, W) of each category that has some.

    Raises:
        DataError: None of the files exists; one does not decode, or is of another size than the image.
    """
    present = {category: path for category, path in paths.items() if path.is_file()}
    if not present:
        where = next(iter(paths.values())).parent
        names = ", ".join(path.name for path in paths.values())
        raise DataError(where, "mask", f"none of {names} exists", "Supply the masks of the image")
    masks = {category: _binary(path, image_size, above) for category, path in present.items()}
    return {category: defect for category, defect in masks.items() if defect.any()}


def read_index_mask(
    image_size: tuple[int, int],
    *,
    path: Path,
    values: Mapping[int, str],
    ignored: Collection[int] = (0,),
    interpolated: bool = False,
) -> dict[str, NDArray[np.bool_]]:
    """Read a mask whose stored values are class numbers.

    Args:
        image_size: (width, height) of the image in pixels.
        path: Mask file, 8-bit with one channel or a palette, whose colours do not matter.
        values: Category by value; several values may share one.
        ignored: Values that are no defect.
        interpolated: The mask was resized as if its values were brightness, so that borders hold numbers of classes
            that are not there: each 8-connected region gets its most frequent number.

    Returns:
        Defect pixels (H, W) of each category that has some.

    Raises:
        DataError: The file is missing, does not decode, is of another size or mode, or holds a value that is neither
            in `values` nor ignored.
    """
    index = np.asarray(_open(path, image_size, INDEX, "class numbers in one 8-bit channel"))
    if interpolated:
        index = _most_frequent(index)
    found = np.flatnonzero(np.bincount(index.ravel())).tolist()
    known = sorted({*values, *ignored})
    if not set(known).issuperset(found):
        listed = f"{', '.join(map(str, found[:MAX_LISTED]))}{', ...' if len(found) > MAX_LISTED else ''}"
        problem = f"holds the values {listed} where {', '.join(map(str, known))} are known"
        raise DataError(path, "mask", problem, "Check that this is a mask of class numbers of this set")
    regions: dict[str, NDArray[np.bool_]] = {}
    for value, category in values.items():
        if value in found:
            regions[category] = (index == value) | regions.get(category, False)
    return regions


def _most_frequent(index: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Class numbers (H, W) with that of most pixels for each 8-connected region of those that are not 0."""
    regions, count = ndimage.label(index, np.ones((3, 3), dtype=int))
    pixels = np.bincount(regions.ravel() * 256 + index.ravel(), minlength=(count + 1) * 256).reshape(-1, 256)
    return pixels.argmax(axis=1).astype(np.uint8)[regions] * (index > 0)


def read_colour_mask(
    image_size: tuple[int, int], *, path: Path, colours: Mapping[tuple[int, int, int], str]
) -> dict[str, NDArray[np.bool_]]:
    """Read a mask whose colours are classes.

    Args:
        image_size: (width, height) of the image in pixels.
        path: Mask file, 8-bit. JPEG is refused: it changes colours.
        colours: Category by (red, green, blue); several colours may share one. Every other colour is no defect.

    Returns:
        Defect pixels (H, W) of each category that has some.

    Raises:
        DataError: The file is missing, does not decode, is JPEG, or is of another size or mode.
    """
    picture = _open(path, image_size, GRAY_OR_COLOUR, "8-bit gray, RGB or RGBA")
    if picture.format == "JPEG":
        raise DataError(path, "mask", "JPEG does not keep the colours of classes", "Supply the mask as PNG or BMP")
    codes = np.asarray(picture.convert("RGBA")).view("<u4")[..., 0]  # alpha, blue, green, red from the high byte down
    visible = codes > 0xFFFFFF
    rgb = codes & 0xFFFFFF
    regions: dict[str, NDArray[np.bool_]] = {}
    for (red, green, blue), category in colours.items():
        pixels = (rgb == red + (green << 8) + (blue << 16)) & visible
        if pixels.any():
            regions[category] = pixels | regions.get(category, False)
    return regions


def _binary(path: Path, image_size: tuple[int, int], above: int) -> NDArray[np.bool_]:
    picture = _open(path, image_size, GRAY_OR_COLOUR, "8-bit gray, RGB or RGBA")
    defect = np.asarray(picture.convert("L")) > above if above else _stored(picture)
    if picture.has_transparency_data:
        defect = defect & (np.asarray(picture.convert("RGBA").getchannel("A")) > 0)
    return defect


def _stored(picture: Image.Image) -> NDArray[np.bool_]:
    """Pixels (H, W) with a stored value that is not 0, transparency aside."""
    channels = (picture.getchannel(band) for band in picture.getbands() if band != "A")
    return reduce(np.logical_or, (np.asarray(channel) != 0 for channel in channels))


def _open(path: Path, image_size: tuple[int, int], modes: Collection[str], wanted: str) -> Image.Image:
    picture = decode(read_bytes(path, "mask"), path, "mask", modes, wanted)
    check_size(picture.size, image_size, path, "mask")
    return picture
