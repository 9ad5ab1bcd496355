"""Speed and memory of COCO AP: ours, pycocotools, and faster-coco-eval by its own front end, interleaved.

Run `python -m defect_hub.benchmarks.coco_speed`; it prints a Markdown table. All start from lists of arrays and end
with the twelve figures of COCO; ours also checks its input, and finds precision and recall at the best threshold.
"""

import argparse
import contextlib
import io
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import faster_coco_eval
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from defect_hub.evaluate_metrics.coco import CocoDetections

Item = dict[str, Any]
Data = tuple[list[Item], list[Item]]
CLASSES = 100
BATCH = 8
KEYS = [
    *("ap", "ap_50", "ap_75", "ap_small", "ap_medium", "ap_large"),
    *("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"),
]


def make_data(images: int, boxes: int, seed: int = 0) -> Data:
    """Return predictions (xyxy) and references (xywh): of each box a shifted detection of the same class."""
    random = np.random.default_rng(seed)
    predictions, references = [], []
    for number in range(images):
        objects = np.hstack([random.uniform(0, 500, (boxes, 2)), random.uniform(8, 130, (boxes, 2))])
        labels = random.integers(0, CLASSES, boxes)
        near = objects + 0.1 * random.normal(0, 1, (boxes, 4)) * objects[:, [2, 3, 2, 3]]
        near[:, 2:] = near[:, :2] + np.maximum(near[:, 2:], 1)
        predictions.append({"boxes": near, "scores": random.random(boxes), "labels": labels})
        area = objects[:, 2] * objects[:, 3]
        references.append({"image_id": number, "objects": {"bbox": objects, "category": labels, "area": area}})
    return predictions, references


def with_ours(data: Data) -> list[float]:
    """Return the figures, boxes added in batches of 8 images."""
    predictions, references = data
    state = CocoDetections([f"class {number}" for number in range(CLASSES)])
    for start in range(0, len(predictions), BATCH):
        state.update(predictions[start : start + BATCH], references[start : start + BATCH])
    result = state.compute()
    return [result.get(key, -1) for key in KEYS]


def with_pycocotools(data: Data) -> list[float]:
    """Return the figures of pycocotools."""
    truth = COCO()
    truth.dataset = coco_content(data)
    truth.createIndex()
    return _figures(COCOeval(truth, truth.loadRes(coco_results(data)), "bbox"))


def with_faster_coco_eval(data: Data) -> list[float]:
    """Return the figures of faster-coco-eval, used as its documentation says."""
    truth = faster_coco_eval.COCO(coco_content(data))
    return _figures(faster_coco_eval.COCOeval_faster(truth, truth.loadRes(coco_results(data)), "bbox"))


def _figures(evaluator: Any) -> list[float]:
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    return list(map(float, evaluator.stats))


def coco_content(data: Data) -> Item:
    """Return the references as the content of a COCO file."""
    annotations = [
        {"image_id": row["image_id"], "bbox": box, "category_id": label, "area": area, "iscrowd": 0}
        for row in data[1]
        for box, label, area in zip(
            *(row["objects"][key].tolist() for key in ("bbox", "category", "area")), strict=True
        )
    ]
    return {
        "images": [{"id": row["image_id"]} for row in data[1]],
        "categories": [{"id": number, "name": f"class {number}"} for number in range(CLASSES)],
        "annotations": [annotation | {"id": number} for number, annotation in enumerate(annotations, 1)],
    }


def coco_results(data: Data) -> list[Item]:
    """Return the predictions as COCO's results."""
    results = []
    for prediction, reference in zip(*data, strict=True):
        boxes = np.hstack([prediction["boxes"][:, :2], prediction["boxes"][:, 2:] - prediction["boxes"][:, :2]])
        columns = (boxes, prediction["scores"], prediction["labels"])
        results += [
            {"image_id": reference["image_id"], "bbox": box, "score": score, "category_id": label}
            for box, score, label in zip(*(column.tolist() for column in columns), strict=True)
        ]
    return results


METHODS: dict[str, Callable[[Data], list[float]]] = {
    "pycocotools": with_pycocotools,
    "faster-coco-eval": with_faster_coco_eval,
    "CocoDetections": with_ours,
}


def measure(data: Data, repeats: int) -> dict[str, tuple[float, list[float]]]:
    """Return the best seconds and the figures of every method, methods interleaved."""
    seconds = dict.fromkeys(METHODS, float("inf"))
    figures = {}
    for _ in range(repeats):
        for name, method in METHODS.items():
            start = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()):
                figures[name] = method(data)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return {name: (seconds[name], figures[name]) for name in METHODS}


def peak_megabytes(name: str, images: int, boxes: int) -> float:
    """Return the most memory that a method adds to this process, a fresh one."""
    data = make_data(images, boxes)
    with contextlib.redirect_stdout(io.StringIO()):
        # What is imported only when it is needed.
        METHODS[name](make_data(2, 2))
        before = _memory("VmRSS")
        METHODS[name](data)
    return _memory("VmHWM") - before


def _memory(kind: str) -> float:
    """Return the resident memory of this process, now (VmRSS) or at most so far (VmHWM), in MB."""
    return int(Path("/proc/self/status").read_text().partition(f"{kind}:")[2].split()[0]) / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--boxes", type=int, default=10, help="objects, and detections, in an image (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many runs counts (%(default)s)")
    options = parser.parse_args()
    results = measure(make_data(options.images, options.boxes), options.repeats)
    reference_seconds, reference = results["pycocotools"]
    print("| method | seconds | share of pycocotools' time | peak extra MB | AP | largest difference |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, (seconds, figures) in results.items():
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, context) as fresh:
            megabytes = fresh.submit(peak_megabytes, name, options.images, options.boxes).result()
        difference = max(abs(ours - theirs) for ours, theirs in zip(figures, reference, strict=True))
        share = seconds / reference_seconds
        print(f"| {name} | {seconds:.2f} | {share:.2f} | {megabytes:.0f} | {figures[0]:.4f} | {difference:.0e} |")


if __name__ == "__main__":
    main()
