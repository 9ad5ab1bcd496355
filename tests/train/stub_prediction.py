"""Runs of the command with a model that costs nothing, in processes that are forks of the test's."""

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from accelerate.state import AcceleratorState, PartialState
from PIL import Image
from transformers import BatchFeature

from defect_hub.modeling.diagnosis_record import diagnosis_record
from defect_hub.train.predict import main
from defect_hub.train.prediction import run


class StubProcessor:
    """Hands the mean gray level of each image through as its score."""

    object_name = "object"

    def prompt_input_ids(self, names):
        if any(len(name) > 50 for name in names):
            raise ValueError("object_names: too long")

    def __call__(self, images, object_names):
        means = [np.asarray(image.convert("L")).mean() / 255 for image in images]
        return BatchFeature({"pixel_values": torch.tensor(means)})

    def post_process_diagnosis(self, outputs, images, threshold, object_names):
        return [
            diagnosis_record(
                np.asarray(gray, dtype=np.float32) / 255,
                float(score),
                threshold=0.5 if threshold is None else threshold,
                pixel_threshold=0.5,
                object_name=name,
                gray=gray,
            )
            for gray, score, name in zip(images, outputs.image_scores, object_names, strict=True)
        ]


class StubPipeline:
    """As much of the pipeline as the command uses; `at_batch` is called with the number of each forward pass."""

    def __init__(self, at_batch: Callable[[int], None] = lambda number: None, log: Path | None = None):
        self.processor = StubProcessor()
        self.model = SimpleNamespace(dtype=torch.float32)
        self.at_batch = at_batch
        self.log = log
        self.batches = 0

    def __call__(self, image, **options):
        return {}

    def forward(self, inputs, **options):
        self.batches += 1
        if self.log is not None:
            with self.log.open("a") as log:
                log.write(f"{len(inputs['image'])}\n")
        self.at_batch(self.batches)
        return {"outputs": {"image_scores": inputs["pixel_values"]}}

    def diagnosed(self) -> int:
        """Images that all processes together have diagnosed."""
        return sum(map(int, self.log.read_text().split())) if self.log.exists() else 0


def die_at(batch: int, number: int = signal.SIGKILL) -> Callable[[int], None]:
    """Send a signal to the own process at a forward pass."""
    return lambda now: os.kill(os.getpid(), number) if now == batch else None


def launch(
    arguments: list[str], pipe: StubPipeline, processes: int = 1, limit: int = 0, timeout: float = 60
) -> list[int]:
    """Run the command in several processes that talk by gloo.

    Args:
        arguments: of the command.
        pipe: in the place of the model.
        processes: how many.
        limit: bytes that a file may have; 0: any number.
        timeout: seconds after which a process counts as hanging.

    Returns:
        Exit codes; below 0 for a signal.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    children = [
        context.Process(target=_child, args=(arguments, pipe, rank, processes, port, limit))
        for rank in range(processes)
    ]
    for child in children:
        child.start()
    try:
        for child in children:
            child.join(timeout)
            assert child.exitcode is not None, "a process hangs"
            if child.exitcode:  # as a launcher does
                for other in children:
                    other.terminate()
    finally:
        for child in children:
            child.kill()
    return [child.exitcode for child in children]


def _child(arguments, pipe, rank, processes, port, limit):
    import resource

    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ["ACCELERATE_USE_CPU"] = "true"
    if processes > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        os.environ.update({name: str(value) for name, value in place.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    run.pipeline = lambda *args, **kwargs: pipe
    status = main(arguments)
    assert PartialState().num_processes == processes
    os._exit(status)


def write_images(folder: Path, count: int, side: int = 16) -> None:
    """Gray PNGs of rising brightness, in two sub-folders."""
    for number in range(count):
        path = folder / f"line {number % 2}" / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (side, side), number % 256).save(path)
