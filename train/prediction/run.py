"""A prediction from the request to the finished folder; all processes run it."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list
from PIL import Image
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import Pipeline, pipeline
from transformers.utils import logging

from defect_hub.modeling.outputs import DefectDiagnosisOutput
from defect_hub.train.prediction.loading import PreparedBatch, PreparedBatches, decode_image
from defect_hub.train.prediction.record import prediction_features, prediction_row
from defect_hub.train.prediction.request import RESULT_FILE, PredictionRequest, open_source, prepare
from defect_hub.train.prediction.result import publish, result_line
from defect_hub.train.prediction.shards import (
    ChunkWriters,
    chunks_of,
    explained_disk_errors,
    merge_file,
    plan_merge,
    remaining_jobs,
)
from defect_hub.train.recording import hardware
from defect_hub.train.signals import INTERRUPTED_EXIT_CODE, SIGNALS, StopSignal

GPU_WORKERS = 4
# The fastest process waits for the slowest one, and nobody knows how long a run takes.
_PATIENCE = timedelta(days=30)


def predict(request: PredictionRequest) -> str:
    """Diagnose all images and put the predictions in place; goes on where an earlier run of the same request stopped.

    Returns:
        A line about the result; empty on all processes but the main one.

    Raises:
        ValueError: something of the request is unusable, or `out` holds predictions of another one.
        OSError: the disk is full.
        SystemExit: after a signal; what was done is kept.
    """
    state = _joined_processes()
    record = _on_main(state, lambda: prepare(request))
    if not _on_main(state, lambda: (request.out / RESULT_FILE).exists()):
        _diagnose_own_parts(request, record, state)
        state.wait_for_everyone()  # Nobody merges before all chunks are there.
        _merge_own_files(request, state)
        state.wait_for_everyone()
        facts = {"processes": state.num_processes, "hardware": hardware(state.device, state.num_processes)}
        _on_main(state, lambda: publish(request, record, {"batch_size": request.batch_size, **facts}))
    return result_line(request.out) if state.is_main_process else ""


def _joined_processes() -> Accelerator:
    """The processes of this run; `accelerate launch` or `torchrun` decides how many.

    Raises:
        ValueError: if they would not know of each other.
    """
    state = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)])
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != launched:
        raise ValueError(
            f"{launched} processes were launched, {state.num_processes} found. Without GPUs, set "
            "ACCELERATE_USE_CPU=true"
        )
    return state


def _on_main(state: Accelerator, work: Callable[[], Any]) -> Any:
    """What `work` gives on the main process, on all of them; if it raises there, the others leave in silence."""
    outcome: list[Any] = [None, None]
    if state.is_main_process:
        try:
            outcome = [work(), None]
        except (OSError, ValueError) as error:
            outcome = [None, error]
    result, problem = broadcast_object_list(outcome)
    if problem is not None:
        raise problem if state.is_main_process else SystemExit(2)
    return result


@contextmanager
def _stopping() -> Iterator[StopSignal]:
    """Signals are remembered inside; outside, where processes wait for each other, they end the process at once."""
    stop = StopSignal()
    try:
        yield stop
    finally:
        stop.restore()


def _diagnose_own_parts(request: PredictionRequest, record: dict[str, Any], state: Accelerator) -> None:
    """Write the chunks that are missing of this process's share of the parts."""
    source = open_source(request, record)
    parts = range(state.process_index, source.num_parts, state.num_processes)
    chunks = chunks_of(request.chunks)
    jobs = remaining_jobs(chunks, parts)
    if not jobs:
        return
    pipe = _load_pipeline(request, record, state.device)
    diagnose = _diagnosis(request, pipe)
    object_name = request.object_name or pipe.processor.object_name
    batches = PreparedBatches(source, jobs, pipe.processor, object_name, pipe.model.dtype, request.batch_size)
    done = sum(chunks[part][-1].stop for part in parts if part in chunks)
    total = None if source.num_rows is None else round(source.num_rows * len(parts) / source.num_parts)
    features = prediction_features(request.maps)
    del features["row"]  # of the whole input; known when all parts are there
    with (
        _stopping() as stop,
        tqdm(desc="diagnose", unit="image", initial=done, total=total, disable=not state.is_main_process) as bar,
        ChunkWriters(request.chunks, features.arrow_schema) as writers,
    ):
        for batch in _loader(batches, request.num_workers, state.device):
            rows = diagnose(batch)
            with explained_disk_errors(request.out):
                writers.write(batch.job, rows, batch.last)
            bar.update(len(rows))
            if stop.received:
                break
    if stop.received:
        raise SystemExit(INTERRUPTED_EXIT_CODE)


def _load_pipeline(request: PredictionRequest, record: dict[str, Any], device: torch.device) -> Pipeline:
    logging.disable_progress_bar()
    on_hub = not Path(request.model).is_dir()
    dtype = request.dtype if request.dtype == "auto" else getattr(torch, request.dtype)
    try:
        return pipeline(
            "defect-diagnosis",
            model=request.model,
            revision=record["model_version"] if on_hub else None,
            device=device,
            dtype=dtype,
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]  # The rest are whole tracebacks.
        raise ValueError(f"{request.model}: --model: cannot be loaded ({reason}). Check its files") from error


def _encoded_references(request: PredictionRequest, pipe: Pipeline) -> torch.Tensor | None:
    images = []
    for path in request.reference_files():
        try:
            images.append(decode_image(path.read_bytes()))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return pipe.encode_references(images) if images else None


def _diagnosis(request: PredictionRequest, pipe: Pipeline) -> Callable[[PreparedBatch], list[dict[str, Any]]]:
    """The function from batches to rows of the result.

    Raises:
        ValueError: if model, references and thresholds do not fit each other.
    """
    options = {
        "reference_features": _encoded_references(request, pipe),
        "memory_bank": request.memory_bank,
        "describe": request.describe,
    }
    blank = Image.new("RGB", (64, 64))  # the way of a user, once
    pipe(blank, object_name=request.object_name, threshold=request.threshold, **(options | {"describe": False}))

    def diagnose(batch: PreparedBatch) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = []
        if batch.features is not None:
            try:
                outputs = pipe.forward({**batch.features, "image": batch.grays}, **options)["outputs"]
            except torch.OutOfMemoryError as error:
                raise ValueError(
                    f"--batch-size {request.batch_size}: is too much for the device's memory. Take fewer; the same "
                    "command then goes on"
                ) from error
            records = pipe.processor.post_process_diagnosis(
                DefectDiagnosisOutput(**outputs),
                images=batch.grays,
                threshold=request.threshold,
                object_names=[row["object_name"] for row in batch.usable()],
            )
        found = iter(records)
        return [
            row | (prediction_row(next(found), request.maps) if row["error"] is None else {}) for row in batch.rows
        ]

    return diagnose


def _loader(batches: PreparedBatches, num_workers: int | None, device: torch.device) -> DataLoader:
    wanted = (GPU_WORKERS if device.type == "cuda" else 0) if num_workers is None else num_workers
    workers = min(wanted, len(batches.jobs))
    return DataLoader(batches, batch_size=None, num_workers=workers, worker_init_fn=_leave_signals)


def _leave_signals(worker: int) -> None:
    """Signals that reach the whole process group are for the process that writes."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _merge_own_files(request: PredictionRequest, state: Accelerator) -> None:
    """Write this process's share of the files of the result."""
    places = (request.merged, request.out / "data")
    plan = _on_main(state, lambda: plan_merge(request.chunks, request.split))
    schema = prediction_features(request.maps).arrow_schema
    with _stopping() as stop, explained_disk_errors(request.out):
        own = plan[state.process_index :: state.num_processes]
        for file in tqdm(own, desc="merge", unit="file", disable=not state.is_main_process):
            if not any((place / file.name).exists() for place in places):
                merge_file(file, request.chunks, request.merged, schema)
            if stop.received:
                raise SystemExit(INTERRUPTED_EXIT_CODE)
