"""The one training loop: one CPU or many GPUs, interruptible, resumed exactly."""

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import (
    DataLoaderConfiguration,
    DistributedDataParallelKwargs,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    broadcast,
    gather_object,
    send_to_device,
    set_seed,
)
from torch.utils.data import Dataset, IterableDataset

from defect_hub.train.dry_run import estimate
from defect_hub.train.loop_config import LoopConfig
from defect_hub.train.prepared_run import Evaluate, Run, prepare
from defect_hub.train.sharding import fsdp_plugin, gathered_model
from defect_hub.train.signals import INTERRUPTED_EXIT_CODE
from defect_hub.train.step import train_step


def build_accelerator(config: LoopConfig) -> Accelerator:
    """The accelerator of a run; `accelerate launch` decides devices and processes."""
    set_seed(config.seed)
    return Accelerator(
        # Steps are put together here, so the end of the data must not cut one short.
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=config.gradient_accumulation_steps, sync_with_dataloader=False
        ),
        mixed_precision=config.mixed_precision,
        log_with=config.trackers or None,
        project_dir=config.output_dir,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True),
        fsdp_plugin=fsdp_plugin(),
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True),
            # The main process alone writes checkpoints, of 84 GB at most; NCCL's ten minutes may be too short.
            InitProcessGroupKwargs(timeout=timedelta(hours=1)),
        ],
    )


def fit(
    model: torch.nn.Module,
    dataset: Dataset,
    collate: Callable[[list[Any]], dict[str, Any]],
    config: LoopConfig,
    accelerator: Accelerator,
    recipe: dict[str, Any] | None = None,
    evaluate: Evaluate | None = None,
) -> torch.nn.Module:
    """Train; returns the unwrapped model.

    Args:
        model: its forward returns an output with `loss` and `losses`. If those are means over items of which batches
            have different numbers, `loss_counts(batch)` gives the numbers, and forward takes their totals as
            `loss_counts`; the loss of a step is then the mean over all its batches, on however many processes.
        dataset: map-style, with `set_epoch(epoch)`; `dataset[i]` depends on seed, epoch and i alone. Or an endless
            `IterableDataset`, this process's part, with `skip_batches`: so many of its first batches are not used.
        collate: list of items to keyword arguments of the model, and "ids", names of the images, for messages.
        config: settings.
        accelerator: from [`build_accelerator`].
        recipe: settings that must not change between a checkpoint and its resumption.
        evaluate: model to metrics; called on all processes, with equal results.

    Raises:
        SystemExit: with code 75 after SIGINT, SIGTERM or SIGUSR1, once a checkpoint is written.
        ValueError: if settings do not fit each other, the checkpoint to resume from belongs to another run, or a loss
            or gradient is not finite.
        OSError: if a checkpoint cannot be written.
    """
    if evaluate is None and (config.eval_steps or config.eval_epochs):
        raise ValueError("eval_steps, eval_epochs: this run has nothing to evaluate with. Leave them 0")
    run = prepare(model, dataset, collate, config, accelerator, recipe or {}, evaluate)
    run.model.train()
    if run.state.step:
        done = "nothing is left of" if is_finished(run) else "going on with"
        accelerator.print(f"{config.output_dir}: step {run.state.step} is done; {done} {run.total_steps} steps")
    try:
        if evaluate_if_due(run):  # what a stop left out
            run.checkpoints.save(run.state)
        while not is_finished(run):
            train_epoch(run)
        if config.dry_run:
            trained = accelerator.unwrap_model(run.model)
            seconds = run.seconds, run.waiting
            accelerator.print(estimate(*seconds, run.planned_steps, trained, run.optimizer, accelerator.device))
        else:
            run.checkpoints.save(run.state)
            if any(gather_object([run.stop.received])):  # behind the last step
                raise SystemExit(INTERRUPTED_EXIT_CODE)
    finally:
        run.progress.close()
        run.stop.restore()
    return final_model(run)


def is_finished(run: Run) -> bool:
    """Whether all steps are done, or the evaluations have brought no gain for too long."""
    patience = run.config.patience
    return run.state.step >= run.total_steps or 0 < patience <= run.state.evaluations_since_best


def train_epoch(run: Run) -> None:
    """The rest of one epoch, from `run.state.batch` on.

    Raises:
        ValueError: if there is no batch.
    """
    state, config, first = run.state, run.config, run.state.step
    for batches in step_batches(run):
        waiting = time.perf_counter() - run.mark
        values, stopping = train_step(run, batches)
        state.step += 1
        state.batch += len(batches)
        run.progress.step(state.step, state.epoch, values)
        if state.batch >= run.usable:
            state.epoch, state.batch = state.epoch + 1, 0
        if not stopping:
            evaluate_if_due(run)
        if not config.dry_run and (stopping or state.step % config.save_steps == 0 or state.best_step == state.step):
            run.checkpoints.save(state)
        if stopping:
            run.accelerator.print(
                f"{config.output_dir}: told to stop behind step {state.step}; a checkpoint is there, the same command "
                "goes on"
            )
            raise SystemExit(INTERRUPTED_EXIT_CODE)
        run.seconds, run.waiting, run.mark = time.perf_counter() - run.mark, waiting, time.perf_counter()
        if state.batch == 0 or is_finished(run):
            break
    if state.step == first:
        raise ValueError(f"step {first + 1}: the data are at an end. A stream must begin anew by itself")


def step_batches(run: Run) -> Iterator[list[dict[str, Any]]]:
    """The batches of each remaining step of an epoch."""
    done, accelerator = run.state.batch, run.accelerator
    dataset: Any = run.loader.dataset
    batches: Any
    if isinstance(dataset, IterableDataset):
        run.loader.dataset.skip_batches = done
        to_device = partial(send_to_device, device=accelerator.device, non_blocking=True)
        batches = map(to_device, islice(run.loader, done, None))
    else:
        run.loader.set_epoch(run.state.epoch)
        dataset.set_epoch(run.state.epoch)
        batches = iter(accelerator.skip_first_batches(run.loader, done) if done else run.loader)
    size = run.config.gradient_accumulation_steps
    while len(group := list(islice(batches, size))) == size:
        yield group


def evaluation_is_due(run: Run) -> bool:
    """Whether the run is to be evaluated where it stands."""
    config, state = run.config, run.state
    if run.evaluate is None or config.dry_run or state.evaluated == state.step:
        return False
    by_step = config.eval_steps and state.step % config.eval_steps == 0
    by_epoch = config.eval_epochs and state.batch == 0 and state.epoch % config.eval_epochs == 0
    return bool(by_step or by_epoch)


def evaluate_if_due(run: Run) -> bool:
    """Evaluate, and remember whether this is the best so far; returns whether it was due.

    Raises:
        ValueError: if `best_metric` is none of the metrics.
    """
    if not evaluation_is_due(run):
        return False
    model, name, state = run.accelerator.unwrap_model(run.model), run.config.best_metric, run.state
    states = random.getstate(), np.random.get_state()
    run.model.eval()
    if run.accelerator.num_processes > 1:
        for buffer in model.buffers():  # as DDP does before the next pass; a resumed run has those of the main process
            broadcast(buffer)
    devices = [run.accelerator.device] if run.accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices), run.average.swapped_in() if run.average else nullcontext():
        values = run.evaluate(model) if run.evaluate else {}
    run.model.train()
    random.setstate(states[0])
    np.random.set_state(states[1])
    state.evaluated = state.step
    run.progress.evaluation(state.step, state.epoch - (state.batch == 0), values)
    if not name:
        return True
    if name not in values:
        raise ValueError(f"best_metric={name!r}: the evaluation gives {', '.join(sorted(values))}. Name one of them")
    best = -math.inf if state.best_value is None else state.best_value
    if math.isfinite(values[name]) and values[name] > best:
        state.best_step, state.best_value, state.evaluations_since_best = state.step, values[name], 0
    else:
        state.evaluations_since_best += 1
    return True


def final_model(run: Run) -> torch.nn.Module:
    """The unwrapped model with the weights to keep: the best or the last, averaged if asked for.

    Of sharded weights, the main process alone gets the whole.
    """
    if run.empty is not None and not run.config.dry_run:
        return gathered_model(run.accelerator, run.model, run.empty)
    if run.state.best_step and run.state.best_step != run.state.step:
        run.checkpoints.load_best(run.state)
    if run.average is not None:
        run.average.copy_to_model()
    return run.accelerator.unwrap_model(run.model)
