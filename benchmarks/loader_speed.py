"""How fast training images are loaded, beside an encoder of the paper's size that consumes them.

Run `python -m defect_hub.benchmarks.loader_speed --data BUILT_SET --out results.json`; it prints a Markdown table.
Every way of loading gives the same number of batches, first to a consumer that does nothing, then to the encoder.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers.trainer_utils import set_seed

from defect_hub.benchmarks.feature_cache_speed import build
from defect_hub.train.data import DiagnosisCollator, DiagnosisDataset, DiagnosisItems, load_split
from defect_hub.train.recording import hardware
from defect_hub.train.streaming import StreamedDiagnosisDataset
from defect_hub.train.whole_file import write_whole

REFERENCE_COUNTS = [0, 1, 2, 4]
SEED = 42

Batches = Iterator[dict[str, Any]]
Consume = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True)
class Way:
    """A way of loading.

    Attributes:
        name: of its row in the table.
        dataset: makes the data set.
        workers: data loading processes.
    """

    name: str
    dataset: Callable[[], DiagnosisItems]
    workers: int

    def batches(self, batch_size: int) -> Batches:
        """Batches without end; a map-style data set begins anew."""
        dataset: Any = self.dataset()
        collate = DiagnosisCollator(dataset, REFERENCE_COUNTS)
        loader = DataLoader(dataset, batch_size, drop_last=True, collate_fn=collate, num_workers=self.workers)
        while True:
            yield from loader


def ways(rows: Any, stream: Any, processor: Any, batch_size: int) -> list[Way]:
    """All ways of loading that are compared."""
    kept = partial(DiagnosisDataset, rows, processor, SEED)
    read = partial(DiagnosisDataset, rows, processor, SEED, decode_once=False)
    streamed = partial(StreamedDiagnosisDataset, stream, processor, SEED, batch_size)
    return [
        Way("decoded once, 0 workers", kept, 0),
        *(Way(f"decoded in each epoch, {workers} workers", read, workers) for workers in (0, 1, 2)),
        *(Way(f"streamed, {workers} workers", streamed, workers) for workers in (0, 1, 2)),
    ]


@dataclass
class Times:
    """Seconds that a consumer spent on some batches.

    Attributes:
        waiting: for them.
        processor: of this process in that time; other programs do not stretch it.
        consuming: them.
    """

    waiting: float = 0.0
    processor: float = 0.0
    consuming: float = 0.0


def consumed(batches: Batches, count: int, consume: Consume) -> Times:
    """Draw some batches and consume them."""
    times = Times()
    for _ in range(count):
        start, processor = time.perf_counter(), time.process_time()
        batch = next(batches)
        there = time.perf_counter()
        times.waiting += there - start
        times.processor += time.process_time() - processor
        consume(batch)
        times.consuming += time.perf_counter() - there
    return times


def measure(
    rows: Any, stream: Any, batch_size: int, count: int, encoded: int, paper_size: bool = True
) -> dict[str, Any]:
    """Every way of loading, one after the other.

    Args:
        rows: a split in the record schema.
        stream: the same as a stream.
        batch_size: images a batch.
        count: batches for the consumer that does nothing, after one that is not counted.
        encoded: batches for the encoder, after those.
        paper_size: encoder of the paper's size; else tiny.

    Returns:
        By way of loading: seconds to the first batch, images a second without and with the encoder, the share of the
        time that the encoder waits, and processor milliseconds an image (null where workers spend them).
    """
    set_seed(SEED)
    model, processor = build(rows, paper_size)
    model.eval()
    found = {}
    for way in tqdm(ways(rows, stream, processor, batch_size), desc="load", leave=False):
        batches = way.batches(batch_size)
        start = consumed(batches, 1, lambda batch: None)
        alone = consumed(batches, count, lambda batch: None)
        with torch.inference_mode():
            beside = consumed(batches, encoded, lambda batch: model.encode_images(batch["pixel_values"]))
        found[way.name] = {
            "seconds_to_first_batch": start.waiting,
            "images_per_second": count * batch_size / alone.waiting,
            "processor_ms_per_image": None if way.workers else 1000 * alone.processor / (count * batch_size),
            "encoded_images_per_second": encoded * batch_size / beside.consuming,
            "waiting_share": beside.waiting / (beside.waiting + beside.consuming),
        }
    return {
        "ways": found,
        "images": len(rows),
        "batch_size": batch_size,
        "batches": count,
        "encoded_batches": encoded,
        "hardware": hardware(torch.device("cpu"), 1),
    }


def as_markdown(results: dict[str, Any]) -> str:
    """The table of the documentation."""
    lines = [
        "| loading | first batch after | processor time | loader alone | encoder alone | ratio | encoder waits |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, found in results["ways"].items():
        alone, encoder = found["images_per_second"], found["encoded_images_per_second"]
        processor = found["processor_ms_per_image"]
        spent = "in the workers" if processor is None else f"{processor:.1f} ms an image"
        lines.append(
            f"| {name} | {found['seconds_to_first_batch']:.1f} s | {spent} | {alone:.0f} images/s | "
            f"{encoder:.2f} images/s | {alone / encoder:.0f} | {found['waiting_share']:.2%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="built data set, folder or Hub id")
    parser.add_argument("--split", default="train", help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--batches", type=int, default=40, help="for the loader alone (default: %(default)s)")
    parser.add_argument("--encoded", type=int, default=3, help="batches for the encoder (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="file for the results as JSON")
    options = parser.parse_args()
    rows, stream = (load_split(options.data, options.split, streaming=streaming) for streaming in (False, True))
    if len(rows) < options.batch_size:
        parser.error(f"--batch-size {options.batch_size}: {options.data} has {len(rows)} images. Take fewer")
    results = measure(rows, stream, options.batch_size, options.batches, options.encoded)
    if options.out:
        write_whole(options.out, json.dumps(results, indent=2) + "\n")
    print(as_markdown(results))


if __name__ == "__main__":
    main()
