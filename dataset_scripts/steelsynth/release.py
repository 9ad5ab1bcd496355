"""Write steelsynth in the release layout of SteelDefectX, so that one builder reads both."""

from __future__ import annotations

import io
import json
import tempfile
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from tqdm import tqdm

from defect_hub.dataset_scripts.steelsynth.defects import DRAWERS
from defect_hub.dataset_scripts.steelsynth.generate import NORMAL, generate_sample
from defect_hub.dataset_scripts.texts import NORMAL_SENTENCE, natural_description, t4
from defect_hub.dataset_scripts.workers import map_in_order
from defect_hub.modeling.mask_attributes import mask_attributes

JPEG_QUALITY = 92
DESCRIPTIONS_FILE = "class_descriptions.json"


def class_descriptions() -> dict[str, str]:
    """T1 sentence of each generated class and of the normal surface."""
    table = yaml.safe_load((files("defect_hub.dataset_scripts.steeldefectx") / "classes.yaml").read_text("utf-8"))
    sentences = {
        row["name"]: f"A photo of {row['name']}, which shows {row['visual']} caused by {row['cause']}."
        for row in table["classes"]
        if row["name"] in DRAWERS
    }
    normal = table["normal"]
    return sentences | {normal["name"]: f"A photo of {normal['name']}, which shows {normal['visual']}."}


def write_sample(index: int, folder: Path, split: str, seed: int, size: int) -> dict[str, Any]:
    """Write image and mask of one sample below `folder` and return its entry of `<split>-text.json`.

    The attributes are measured on the decoded JPEG, so that anybody finds the same values in the files.
    """
    sample = generate_sample(seed, index, size)
    stem = f"steelsynth_{index:06d}"
    encoded = io.BytesIO()
    Image.fromarray(sample.image).save(encoded, "JPEG", quality=JPEG_QUALITY)
    (folder / split / f"{stem}.jpg").write_bytes(encoded.getvalue())
    mask = Image.fromarray(sample.mask.astype(np.uint8) * 255)
    mask.save(folder / f"{split}_mask" / f"{stem}.png", compress_level=1)
    attributes = None
    if sample.class_name != NORMAL:
        attributes = mask_attributes(np.asarray(Image.open(encoded)), sample.mask, sample.class_name)
    return {
        "image_name": f"{stem}.jpg",
        "class_name": sample.class_name,
        "natural_language_description": natural_description(attributes, seed + index),
        "structured_attributes": attributes,
        "template_sentence": t4(attributes) if attributes else NORMAL_SENTENCE,
    }


def _replace(new: Path, out: Path, aside: Path) -> None:
    """Put the complete folder `new` at `out`; an older release goes to `aside`."""
    if out.exists():
        out.rename(aside)
    new.rename(out)


def write_release(out: Path, n_train: int, n_val: int, seed: int = 42, workers: int = 1, size: int = 256) -> None:
    """Write a release folder; an older release there is replaced only when the new one is complete.

    Args:
        out: Folder for `{train,val}/`, `{train,val}_mask/`, `{train,val}-text.json` and `class_descriptions.json`.
        n_train: Images in `train` (indices from 0).
        n_val: Images in `val` (the indices behind those of `train`).
        seed: Seed of the data set; the bytes depend on it and on `size` alone, not on `workers`.
        workers: Processes.
        size: Side of the images in pixels, at least 64.

    Raises:
        FileExistsError: `out` holds something that is not a release.
    """
    if out.exists() and any(out.iterdir()) and not (out / DESCRIPTIONS_FILE).is_file():
        raise FileExistsError(f"{out} exists and is not a release; choose another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        folder = Path(temporary, "new")
        for split, indices in (("train", range(n_train)), ("val", range(n_train, n_train + n_val))):
            for name in (split, f"{split}_mask"):
                (folder / name).mkdir(parents=True)
            work = partial(write_sample, folder=folder, split=split, seed=seed, size=size)
            entries = list(
                tqdm(map_in_order(work, indices, workers), f"steelsynth {split}", len(indices), unit="image")
            )
            (folder / f"{split}-text.json").write_text(json.dumps(entries, indent=1), "utf-8")
        (folder / DESCRIPTIONS_FILE).write_text(json.dumps(class_descriptions(), indent=1), "utf-8")
        _replace(folder, out, Path(temporary, "old"))
