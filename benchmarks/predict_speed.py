"""Memory and speed of `defect_hub.train.predict`, in fresh processes.

Run `python -m defect_hub.benchmarks.predict_speed --data BUILT_SET --split val`; it prints a Markdown table. Memory is
measured with a model that costs nothing, so that many images can be had; speed with the checkpoint inside the package.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, pipeline

from defect_hub.embedded import EMBEDDED_CHECKPOINT
from defect_hub.modeling.diagnosis_record import diagnosis_record
from defect_hub.train.data import load_split
from defect_hub.train.predict import main as predict
from defect_hub.train.prediction import run
from defect_hub.train.whole_file import write_whole

SIDE = 64


class NoModel:
    """As much of a pipeline as the command uses: the image itself is the map."""

    object_name = "object"

    def __init__(self) -> None:
        self.processor = self
        self.model = SimpleNamespace(dtype=torch.float32)

    def prompt_input_ids(self, names: list[str]) -> None:
        """Any name will do."""

    def __call__(self, images: Any, **options: Any) -> BatchFeature:
        return BatchFeature({})

    def forward(self, inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
        """No output."""
        return {"outputs": {}}

    def post_process_diagnosis(
        self, outputs: Any, images: list[np.ndarray], threshold: float | None, object_names: list[str]
    ) -> list[dict[str, Any]]:
        """Records of the gray images (H, W)."""
        maps = [gray.astype(np.float32) / 255 for gray in images]
        return [
            diagnosis_record(values, float(values.max()), threshold=0.5, pixel_threshold=0.9, object_name=name)
            for values, name in zip(maps, object_names, strict=True)
        ]


def write_rows(folder: Path, count: int) -> None:
    """A folder of `count` noisy PNGs, and the same as Parquet in `parquet`."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / "images" / f"{number // 1000:03d}" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 100, (SIDE, SIDE), dtype=np.uint8)).save(path)  # dark: normal
    paths = sorted((folder / "images").rglob("*.png"))
    features = datasets.Features({"image": datasets.Image(), "image_id": datasets.Value("string")})
    stored = [{"bytes": path.read_bytes(), "path": None} for path in paths]
    rows = datasets.Dataset.from_dict({"image": stored, "image_id": [path.name for path in paths]}, features)
    (folder / "parquet").mkdir()
    rows.to_parquet(folder / "parquet" / "test.parquet", batch_size=100)


def peak_memory(arguments: list[str]) -> float:
    """MB that one fresh process took at most."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_predict_without_model, (arguments,))


def _predict_without_model(arguments: list[str]) -> float:
    run.pipeline = lambda *args, **options: NoModel()
    if predict(arguments):
        raise RuntimeError("the command failed")
    # Not getrusage: a process inherits that peak from the one that starts it.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure_memory(counts: list[int], folder: Path) -> dict[str, float]:
    """MB by source and number of rows."""
    found = {}
    for count in counts:
        place = folder / str(count)
        write_rows(place, count)
        for source, options in {"images": [], "parquet": ["--streaming"]}.items():
            arguments = ["--model", str(EMBEDDED_CHECKPOINT), "--data", str(place / source), "--maps", *options]
            found[f"{source}, {count} rows"] = peak_memory([*arguments, "--out", str(place / f"{source}-out")])
    return found


def measure_speed(data: str, split: str, folder: Path) -> dict[str, float]:
    """Images/s of the command, start included, and of the pipeline one by one, in one process, without text."""
    pipe = pipeline("defect-diagnosis", model=str(EMBEDDED_CHECKPOINT))
    rows = load_split(data, split)
    start = time.perf_counter()
    for row in rows:
        pipe(row["image"], object_name=row["object_name"], describe=False)
    found = {"pipeline, one by one": len(rows) / (time.perf_counter() - start)}
    arguments = ["--model", str(EMBEDDED_CHECKPOINT), "--data", data, "--split", split, "--no-describe"]
    for size in (1, 16):
        start = time.perf_counter()
        if predict([*arguments, "--batch-size", str(size), "--out", str(folder / f"batches-{size}")]):
            raise RuntimeError("the command failed")
        found[f"command, --batch-size {size}"] = len(rows) / (time.perf_counter() - start)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--rows", type=int, nargs="+", default=[2000, 8000])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "peak MB": measure_memory(args.rows, Path(folder)),
            "images/s": measure_speed(args.data, args.split, Path(folder)),
        }
    write_whole(args.out, json.dumps(found, indent=2) + "\n")
    for unit, values in found.items():
        print(f"\n| what | {unit} |\n| --- | ---: |")
        for name, value in values.items():
            print(f"| {name} | {value:.1f} |")


if __name__ == "__main__":
    main()
