"""Small built folders, row by row, without a builder: what leaves a folder is tested on any content."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from PIL import Image

from defect_hub.dataset_scripts.parquet import ShardWriter
from defect_hub.dataset_scripts.schema import record_features

CLASSES = ("crack", "pore", "normal", "unknown")
DIGEST = "d" * 64


def png(size: tuple[int, int], seed: int = 0, colour: tuple[int, int, int] | None = None) -> bytes:
    """A picture of (width, height), noise or of one colour."""
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if colour:
        pixels[:] = colour
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def row(
    number: int,
    boxes: Sequence[tuple[str, Sequence[float]]],
    *,
    image: bytes | None,
    name: str = "",
    size: tuple[int, int] = (64, 48),
    **columns: Any,
) -> dict[str, Any]:
    """A row with boxes of (category, [x, y, width, height])."""
    name = name or f"{number}.png"
    names = [category for category, _ in boxes]
    bboxes = [list(map(float, bbox)) for _, bbox in boxes]
    return {
        "image": None if image is None else {"path": name, "bytes": image},
        "image_id": f"plate/{number}",
        "image_number": number,
        "sha256": hashlib.sha256(image or str(number).encode()).hexdigest(),
        "source_file": f"raw/{name}",
        "width": size[0],
        "height": size[1],
        "source": "plate",
        "license": "CC-BY-4.0",
        "redistributable": True,
        "object_name": "steel plate",
        "label": CLASSES.index(names[0] if names else "normal"),
        "super_category": "metallurgy",
        "is_defective": bool(names),
        "annotation": "boxes" if names else "none",
        "objects": {
            "id": [10 * number + place for place in range(len(boxes))],
            "bbox": bboxes,
            "category": [CLASSES.index(category) for category in names],
            "area": [bbox[2] * bbox[3] for bbox in bboxes],
            "iscrowd": [False] * len(boxes),
            "is_novel": [category == "pore" for category in names],
        },
        **columns,
    }


def write_built(
    out: Path, shards: Mapping[str, Sequence[dict[str, Any]]], configs: Sequence[Mapping[str, Any]] = ()
) -> Path:
    """A built folder with these rows in `data/default/<name>-*.parquet` and these configs beside "default"."""
    features = record_features(CLASSES)
    for name, rows in shards.items():
        with ShardWriter(out / "data" / "default", name, features, {}) as writer:
            writer.write(pa.Table.from_pylist(list(rows), schema=features.arrow_schema))
    default = {
        "config_name": "default",
        "data_files": [{"split": name, "path": f"data/default/{name}-*.parquet"} for name in shards],
    }
    front = {
        "pretty_name": "Plates",
        "configs": [default, *configs],
        "dataset_info": [{"config_name": "default", "features": features._to_yaml_list()}],
        "build_digest": DIGEST,
    }
    (out / "README.md").write_text(f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# Plates\n", "utf-8")
    return out
