"""A diagnosis as a row of a table."""

import io
from typing import Any

import datasets
import numpy as np
from datasets import List, Value
from PIL import Image

_TEXT, _NUMBER = Value("string"), Value("float64")
_PIXELS, _COUNT = Value("int32"), Value("int64")
MAP_SCALE = 65535
_COMPRESSION = 1
"""Of PNGs: the level beyond takes several times as long for a few per cent."""


def prediction_features(maps: bool) -> datasets.Features:
    """Columns of a prediction; all but the first five are null where `error` is not.

    Args:
        maps: whether the anomaly maps are kept.
    """
    return datasets.Features(
        {
            "row": _COUNT,
            "image_id": _TEXT,
            "object_name": _TEXT,
            "sha256": _TEXT,
            "error": _TEXT,
            "score": _NUMBER,
            "is_defective": Value("bool"),
            "threshold": _NUMBER,
            "score_std": _NUMBER,
            "regions": List({"box": List(_PIXELS, length=4), "area_px": _COUNT, "position": _TEXT, "score": _NUMBER}),
            "attributes": {
                "number": _PIXELS,
                "position": List({"cell": _TEXT, "fraction": _NUMBER}),
                "scale": _TEXT,
                "scale_ratio": _NUMBER,
                **dict.fromkeys(("shape", "direction", "distribution", "polarity", "saliency"), _TEXT),
                "contrast": _NUMBER,
            },
            "description": _TEXT,
            "text_source": _TEXT,
            "unsupported_claims": List(_TEXT),
            "mask": datasets.Image(),
            **({"anomaly_map": datasets.Image()} if maps else {}),
        }
    )


def prediction_row(record: dict[str, Any], maps: bool) -> dict[str, Any]:
    """A record of `post_process_diagnosis` as columns of `prediction_features`.

    Args:
        record: of one image.
        maps: whether to keep the anomaly map, as a 16-bit PNG: 0-1 becomes 0-65535.
    """
    names = ("score", "is_defective", "threshold", "score_std", "regions", "description", "text_source")
    row = {name: record[name] for name in (*names, "unsupported_claims")}
    attributes = record["attributes"]
    if attributes is not None:
        cells = [{"cell": cell, "fraction": share} for cell, share in attributes["position"]]
        attributes = attributes | {"position": cells}
    row |= {"attributes": attributes, "mask": _png(record["mask"])}
    if maps:
        row["anomaly_map"] = _png((record["anomaly_map"] * MAP_SCALE).round().astype(np.uint16))
    return row


def _png(pixels: np.ndarray) -> dict[str, Any]:
    """(H, W), uint8 or uint16, as `datasets` stores images."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=_COMPRESSION)
    return {"bytes": file.getvalue(), "path": None}
