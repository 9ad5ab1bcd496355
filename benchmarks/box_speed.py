"""How fast detection data is built from the release layout of MMIO, and how much memory that takes.

Run `python -m defect_hub.benchmarks.box_speed --n 2000 8000 --side 256 640`; it prints a Markdown table. The images
are generated: smooth noise as JPEG, four boxes each, annotated in YOLO and in COCO.
"""

import argparse
import io
import json
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from datasets import Features
from PIL import Image
from tqdm import tqdm

from defect_hub.dataset_scripts.mmio.build import build_mmio, read_release
from defect_hub.dataset_scripts.output import row_shards
from defect_hub.dataset_scripts.parquet import ShardWriter
from defect_hub.dataset_scripts.schema import View

BOXES = 4
CATEGORIES = 100
GRAIN = 16
"""Pixels of an image for each value of noise."""


def write_release(root: Path, count: int, side: int, seed: int = 42) -> None:
    """Write `count` images of `side` x `side` px, four fifths of them in `train`, with both annotations."""
    random = np.random.default_rng(seed)
    for split, numbers in (("train", range(count * 4 // 5)), ("validation", range(count * 4 // 5, count))):
        images, labels = root / "Images" / split, root / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        coco: dict[str, list[dict[str, object]]] = {"images": [], "annotations": []}
        coco["categories"] = [{"id": number + 1, "name": f"category {number}"} for number in range(CATEGORIES)]
        for number in tqdm(numbers, desc=f"{side} px, {split}", leave=False):
            noise = random.integers(0, 256, (side // GRAIN, side // GRAIN), dtype=np.uint8)
            picture = Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)
            picture.save(images / f"{number}.jpg", quality=90)
            corners = random.integers(0, side // 2, (BOXES, 2))
            sides = random.integers(8, side // 2, (BOXES, 2))
            names = random.integers(0, CATEGORIES, BOXES)
            coco["images"].append({"id": number, "file_name": f"{number}.jpg", "width": side, "height": side})
            lines = []
            for place, (corner, extent, name) in enumerate(zip(corners, sides, names, strict=True)):
                bbox = [*map(float, corner), *map(float, extent)]
                identity = {"id": number * BOXES + place, "image_id": number, "category_id": int(name) + 1}
                coco["annotations"].append({**identity, "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0})
                centre = (corner + extent / 2) / side
                lines.append(f"{name} {centre[0]:.6f} {centre[1]:.6f} {extent[0] / side:.6f} {extent[1] / side:.6f}")
            (labels / f"{number}.txt").write_text("\n".join(lines) + "\n")
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"{split}.json").write_text(json.dumps(coco))


class PeakMemory:
    """The most memory that this process holds inside the context, without files mapped from disk; in MB."""

    def __enter__(self) -> "PeakMemory":
        self.megabytes = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            status = Path("/proc/self/status").read_text()
            kilobytes = int(status.partition("RssAnon:")[2].split()[0])
            self.megabytes = max(self.megabytes, kilobytes / 1024)


def read_boxes(root: Path, side: int) -> tuple[int, float]:
    """Boxes of a release, and the seconds in which one process lists its images and compares both annotations."""
    start = time.perf_counter()
    count = 0
    for sample in read_release(root).samples:
        boxes = sample.boxes((side, side)) if callable(sample.boxes) else None
        if boxes is None or boxes.differences:
            raise RuntimeError(f"{sample.image_id}: the two annotations should agree")
        count += len(boxes.boxes)
    return count, time.perf_counter() - start


def written_per_second(folder: Path, work: Path) -> float:
    """Rows that are written to Parquet in a second, images inside, when they are there already."""
    shards = row_shards(folder)
    tables = {shard: pq.read_table(shard) for shard in shards}
    features = Features.from_arrow_schema(pq.read_schema(shards[0]))
    start = time.perf_counter()
    for number, (shard, table) in enumerate(tables.items()):
        with ShardWriter(work / str(number), shard.stem, features, {"default": View()}) as writer:
            writer.write(table)
    return sum(map(len, tables.values())) / (time.perf_counter() - start)


def decoded_per_second(root: Path) -> float:
    """Images that one process decodes in a second: what no build can do without."""
    files = sorted((root / "Images" / "train").iterdir())
    start = time.perf_counter()
    for path in files:
        Image.open(io.BytesIO(path.read_bytes())).load()
    return len(files) / (time.perf_counter() - start)


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[2000, 8000], help="images (default: %(default)s)")
    parser.add_argument("--side", type=int, nargs="+", default=[256, 640], help="pixels (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes of the builds (default: %(default)s)")
    options = parser.parse_args()
    lines = []
    for side in options.side:
        for count in options.n:
            with tempfile.TemporaryDirectory() as temporary:
                work = Path(temporary)
                write_release(work / "release", count, side)
                boxes, seconds = read_boxes(work / "release", side)
                decoded = decoded_per_second(work / "release")
                with PeakMemory() as memory:
                    start = time.perf_counter()
                    build_mmio(read_release(work / "release"), work / "mmio", workers=options.workers)
                    built = time.perf_counter() - start
                written = written_per_second(work / "mmio", work / "again")
            speeds = (boxes / seconds, count / seconds, written, decoded, count / built, boxes / built)
            shown = " | ".join(f"{speed:,.0f}" for speed in speeds)
            lines.append(f"| {side} | {count:,} | {shown} | {memory.megabytes:,.0f} MB |")
    columns = ["side, px", "images", "annotations: boxes/s", "images/s", "writing alone, images/s"]
    columns += ["decoding alone, images/s", "whole build: images/s", "boxes/s", "memory of the main process"]
    print("\n".join([f"| {' | '.join(columns)} |", f"|{' ---: |' * len(columns)}", *lines]))


if __name__ == "__main__":
    main()
