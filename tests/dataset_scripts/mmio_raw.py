"""Raw folders of MMIO for tests, written image by image, and what a build of them holds."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import load_dataset
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from defect_hub.dataset_scripts.mmio.scenes import load_scenes

CATEGORIES = [category.name for category in load_scenes().categories]
Corners = tuple[float, float, float, float]
NamedBox = tuple[str, Corners]
BOX: Corners = (11, 21, 50, 60)  # xmin, ymin, xmax, ymax from 1, both inside: [10, 20, 40, 40]


def texture(seed: int, size: tuple[int, int] = (96, 96)) -> NDArray[np.uint8]:
    """Gray values (H, W) of a picture of (width, height) that survives compression."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=size[::-1]), 2)
    return np.clip(120 + 25 * noise / noise.std(), 0, 255).astype(np.uint8)


def save(path: Path, gray: NDArray[np.uint8], quality: int = 95) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(gray).save(path, quality=quality)


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def voc(boxes: Sequence[NamedBox], size: tuple[int, int]) -> str:
    sides = ("xmin", "ymin", "xmax", "ymax")
    objects = [
        f"<object><name>{name}</name><bndbox>"
        + "".join(f"<{side}>{value}</{side}>" for side, value in zip(sides, corners, strict=True))
        + "</bndbox></object>"
        for name, corners in boxes
    ]
    head = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"<annotation>{head}{''.join(objects)}</annotation>"


def write_neu(raw: Path, stem: str, boxes: Sequence[NamedBox], gray: NDArray[np.uint8], quality: int = 95) -> None:
    save(raw / "NEU-DET" / "IMAGES" / f"{stem}.jpg", gray, quality)
    write_text(raw / "NEU-DET" / "ANNOTATIONS" / f"{stem}.xml", voc(boxes, gray.shape[::-1]))


def write_pair(raw: Path, stem: str, rows: Sequence[str], seed: int) -> None:
    """A tested board of DeepPCB with its template; rows: `x1 y1 x2 y2 type`."""
    group = raw / "DeepPCB" / "PCBData" / f"group{stem[:5]}"
    save(group / stem[:5] / f"{stem}_test.jpg", texture(seed))
    save(group / stem[:5] / f"{stem}_temp.jpg", texture(seed + 1))
    write_text(group / f"{stem[:5]}_not" / f"{stem}.txt", "".join(f"{row}\n" for row in rows))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def loaded(out: Path, config: str = "default") -> dict[str, list[dict[str, Any]]]:
    """Rows of each split as `load_dataset` gives them, without pictures."""
    data = load_dataset(str(out), config)
    return {
        split: list(rows.remove_columns([*{"image", "mask"} & {*rows.column_names}])) for split, rows in data.items()
    }


def all_rows(out: Path, config: str = "default") -> dict[str, dict[str, Any]]:
    return {row["image_id"]: row for rows in loaded(out, config).values() for row in rows}


def names_of(row: Mapping[str, Any]) -> list[str]:
    return [CATEGORIES[number] for number in row["objects"]["category"]]
