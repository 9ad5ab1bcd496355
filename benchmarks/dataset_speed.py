"""How fast data sets are built and read: images a second, and reading against torchvision's ImageFolder.

Run `python -m defect_hub.benchmarks.dataset_speed --n 4000 [--sources RAW]`; it prints a Markdown table. The images of
the release layout are steelsynth's, written first. `--sources` also assembles SteelDefectX from the raw sets there.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from datasets import Dataset, load_dataset
from PIL import Image
from torchvision.datasets import ImageFolder
from tqdm import tqdm

from defect_hub.dataset_scripts.assemble import BuildReport
from defect_hub.dataset_scripts.steeldefectx.assembly import build_from_sources
from defect_hub.dataset_scripts.steeldefectx.build import build_steeldefectx
from defect_hub.dataset_scripts.steelsynth.release import write_release


def images_per_second(build: Callable[[], BuildReport]) -> float:
    """Images a second of a whole build: reading, rows, search for duplicates, shards and card."""
    start = time.perf_counter()
    report = build()
    seconds = time.perf_counter() - start
    return sum(counts.total() for counts in report.counts.values()) / seconds


def as_class_folders(rows: Dataset, root: Path) -> ImageFolder:
    """The same image files in the layout that ImageFolder reads."""
    names = rows.features["label"].names
    for name in names:
        (root / name).mkdir(parents=True)
    for image, label in zip(rows.with_format("arrow")["image"].to_pylist(), rows["label"], strict=True):
        (root / names[label] / image["path"]).write_bytes(image["bytes"])
    return ImageFolder(str(root), allow_empty=True)


def decode_only(release: Path) -> float:
    """Images a second if one process only decoded each image and its mask: what no build can do without."""
    files = [(path, release / "train_mask" / f"{path.stem}.png") for path in sorted((release / "train").iterdir())]
    start = time.perf_counter()
    for pair in files:
        for path in pair:
            Image.open(io.BytesIO(path.read_bytes())).load()
    return len(files) / (time.perf_counter() - start)


def read_rows(rows: Dataset, convert: bool) -> int:
    """Decode every image of a data set, perhaps to RGB; returns the pixels of their widths."""
    return sum((row["image"].convert("RGB") if convert else row["image"]).width for row in rows)


def read_folder(folder: ImageFolder) -> int:
    """Decode every image of a folder to RGB, as ImageFolder does; returns the pixels of their widths."""
    return sum(image.width for image, _ in folder)


def reading_ratios(rows: Dataset, folder: ImageFolder, repeats: int, convert: bool) -> list[float]:
    """Speed of the data set over that of ImageFolder, image and label each, in turn."""
    ratios = []
    for _ in tqdm(range(repeats), desc="reading"):
        start = time.perf_counter()
        ours = read_rows(rows, convert)
        middle = time.perf_counter()
        theirs = read_folder(folder)
        ratios.append((time.perf_counter() - middle) / (middle - start))
        if ours != theirs:
            raise RuntimeError("the two did not read the same images")
    return ratios


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=4000, help="images in the release layout (default: %(default)s)")
    parser.add_argument("--sources", type=Path, help="folder with the raw sets of SteelDefectX")
    parser.add_argument("--workers", type=int, default=2, help="processes of the builds (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="passes of each reader (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        release = work / "release"
        write_release(release, options.n * 7 // 10, options.n - options.n * 7 // 10, workers=options.workers)
        out = work / "steeldefectx"
        built = images_per_second(lambda: build_steeldefectx(release, out, workers=options.workers))
        lines = [
            f"| decoding images and masks alone, one process | {decode_only(release):.0f} images/s |",
            f"| build from the release layout, {options.n} images | {built:.0f} images/s |",
        ]
        if options.sources:
            assembled = images_per_second(
                lambda: build_from_sources(
                    options.sources, work / "assembled", skip_missing=True, workers=options.workers
                )
            )
            lines.append(f"| assembly from raw sets, resized to 256x256 | {assembled:.0f} images/s |")
        rows = load_dataset(str(out), "classification", split="train", cache_dir=str(work / "cache"))
        folder = as_class_folders(rows, work / "folders")
        for convert, name in ((False, "as each gives them"), (True, "both converted to RGB")):
            ratios = reading_ratios(rows, folder, options.repeats, convert)
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            lines.append(f"| reading over ImageFolder, {name} | {statistics.median(ratios):.2f} ({spread}) |")
    print("\n".join(["| what | measured |", "| --- | --- |", *lines]))


if __name__ == "__main__":
    main()
