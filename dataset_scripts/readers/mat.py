"""Defect pixels from label images in MATLAB files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.images import check_size, read_bytes


def read_mat(
    image_size: tuple[int, int], *, path: Path, variable: str, background: Sequence[int], category: str
) -> dict[str, NDArray[np.bool_]]:
    """Read a label image from a MATLAB file up to version 7.2.

    Args:
        image_size: (width, height) of the image in pixels.
        path: The .mat file.
        variable: Name of the label image, with dots into structs: "groundTruth.Segmentation".
        background: Values that are no defect.
        category: What every other value marks.

    Returns:
        Defect pixels (H, W) of the category; empty where no pixel is marked.

    Raises:
        DataError: The file is missing, damaged or of version 7.3; the variable is missing, no array of numbers, or of
            another size than the image.
    """
    labels = _variable(path, variable)
    if not isinstance(labels, np.ndarray) or labels.ndim != 2 or labels.dtype.kind not in "buif":
        raise DataError(path, variable, "is no 2-D array of numbers", "Check that this is a file of label images")
    check_size((labels.shape[1], labels.shape[0]), image_size, path, variable)
    defect = ~np.isin(labels, background)
    return {category: defect} if defect.any() else {}


def _variable(path: Path, variable: str) -> Any:
    name, *fields = variable.split(".")
    content = _load(path, name)
    try:
        value = content[name]
        for field in fields:
            value = value[field].item()  # A struct is an array of one element.
    except (KeyError, IndexError, ValueError) as error:  # No variable, no struct, no such field or several structs.
        raise DataError(path, variable, "is missing", "Check that this is a file of this set") from error
    return value


def _load(path: Path, name: str) -> dict[str, Any]:
    data = read_bytes(path, "MATLAB file")
    try:
        return loadmat(io.BytesIO(data), variable_names=[name])
    except NotImplementedError as error:
        raise DataError(path, "MATLAB file", "is of version 7.3", "Save it in MATLAB with the option -v7") from error
    except Exception as error:  # Damaged bytes raise nearly anything here: zlib.error, TypeError, IndexError ...
        problem = f"does not decode ({error})"
        raise DataError(path, "MATLAB file", problem, "Replace the file by an intact copy") from error
