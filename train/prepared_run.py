"""A run before its first step: everything on its device, split among the processes, restored from a checkpoint."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, IterableDataset

from defect_hub.train.checkpoints import Checkpoints, LoopState, checkpoints, model_signature, remove
from defect_hub.train.dry_run import STEPS as DRY_RUN_STEPS
from defect_hub.train.loop_config import LoopConfig
from defect_hub.train.moving_average import MovingAverage
from defect_hub.train.progress import Progress
from defect_hub.train.sharding import (
    check_supported,
    check_trained_are_sharded,
    empty_copy,
    is_sharded,
    prepare_deepspeed,
)
from defect_hub.train.signals import StopSignal, ignore_in_worker
from defect_hub.train.together import failing_together

Evaluate = Callable[[torch.nn.Module], dict[str, float]]


@dataclass
class Run:
    """What the functions of one run share: prepared objects, settings, and where it stands.

    Attributes:
        empty: copy without weights, for those that are sharded; None: they are not.
        loss_counts: the model's method of this name; None: its losses are means over each batch.
        total_steps: to do; a dry run stops before `planned_steps`.
        usable: batches of an epoch, per process, that fill whole steps.
        mark: clock at the end of the last step.
        seconds: that the last step took.
        waiting: seconds of those until its data were there.
    """

    model: Any
    empty: torch.nn.Module | None
    optimizer: Any
    loader: Any
    accelerator: Accelerator
    config: LoopConfig
    total_steps: int
    planned_steps: int
    usable: float
    loss_counts: Callable[[dict[str, Any]], dict[str, torch.Tensor]] | None
    evaluate: Evaluate | None
    average: MovingAverage | None
    checkpoints: Checkpoints
    state: LoopState
    progress: Progress
    stop: StopSignal
    mark: float
    seconds: float = 0.0
    waiting: float = 0.0


def prepare(
    model: torch.nn.Module,
    dataset: Any,
    collate: Callable[[list[Any]], dict[str, Any]],
    config: LoopConfig,
    accelerator: Accelerator,
    recipe: Mapping[str, Any],
    evaluate: Evaluate | None,
) -> Run:
    """Everything on its device, restored from the newest checkpoint if there is one."""
    check_supported(accelerator, config.ema_decay, bool(config.eval_steps or config.eval_epochs))
    signature = model_signature(model)
    empty = empty_copy(model) if is_sharded(accelerator) else None
    loader = build_loader(dataset, collate, config, accelerator)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=config.learning_rate, weight_decay=config.weight_decay)
    usable, planned = plan(dataset, loader, config, accelerator)
    prepare_deepspeed(accelerator, model, config.max_grad_norm, config.batch_size)
    if isinstance(dataset, IterableDataset):  # already this process's part
        model, optimizer = accelerator.prepare(model, optimizer)
    else:
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    check_trained_are_sharded(accelerator, model)
    unwrapped = accelerator.unwrap_model(model)
    average = MovingAverage(unwrapped, config.ema_decay) if config.ema_decay else None
    if average is not None:
        accelerator.register_for_checkpointing(average)
    output_dir = Path(config.output_dir)
    if not config.resume and not config.dry_run:
        with failing_together(accelerator):
            if accelerator.is_main_process:
                remove(checkpoints(output_dir))
    fixed = {"ema_decay": config.ema_decay, **recipe}
    kept = Checkpoints(accelerator, output_dir, config.keep_checkpoints, fixed, signature)
    state = kept.load_newest() if config.resume and not config.dry_run else LoopState()
    total_steps = min(planned, DRY_RUN_STEPS) if config.dry_run else planned
    return Run(
        model=model,
        empty=empty,
        optimizer=optimizer,
        loader=loader,
        accelerator=accelerator,
        config=config,
        total_steps=total_steps,
        planned_steps=planned,
        usable=usable,
        loss_counts=getattr(unwrapped, "loss_counts", None),
        evaluate=evaluate,
        average=average,
        checkpoints=kept,
        state=state,
        progress=Progress(accelerator, output_dir, state.step, state.evaluated, total_steps, recipe, config.dry_run),
        stop=StopSignal(),
        mark=time.perf_counter(),
    )


def build_loader(dataset: Any, collate: Any, config: LoopConfig, accelerator: Accelerator) -> Any:
    """Batches of this process; accelerate splits those of a map-style data set among the processes."""
    return DataLoader(
        dataset,
        batch_size=config.batch_size,
        shuffle=None if isinstance(dataset, IterableDataset) else True,
        generator=torch.Generator().manual_seed(config.seed),  # else each iterator takes a number of the global one
        drop_last=True,
        collate_fn=collate,
        num_workers=config.num_workers,
        worker_init_fn=ignore_in_worker,
        pin_memory=accelerator.device.type == "cuda",
    )


def plan(dataset: Any, loader: Any, config: LoopConfig, accelerator: Accelerator) -> tuple[float, int]:
    """Batches of an epoch that fill whole steps, and steps of the run.

    Raises:
        ValueError: if the images do not fill one step, or a stream has no end.
    """
    if isinstance(dataset, IterableDataset):
        if not config.max_steps:
            raise ValueError("max_steps=0: a stream has no epochs. Set the number of steps")
        if config.eval_epochs:
            raise ValueError(f"eval_epochs={config.eval_epochs}: a stream has no epochs. Set eval_steps")
        return math.inf, config.max_steps
    steps = len(loader) // accelerator.num_processes // config.gradient_accumulation_steps
    if steps == 0:
        raise ValueError(
            f"{len(dataset)} training images do not fill one step of {config.batch_size} x "
            f"{config.gradient_accumulation_steps} x {accelerator.num_processes}; lower --batch_size"
        )
    return steps * config.gradient_accumulation_steps, config.max_steps or config.epochs * steps
