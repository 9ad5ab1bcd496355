"""The one training loop: one CPU or many GPUs, interruptible, resumed exactly."""

import dataclasses
import json
import math
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs, set_seed
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

STATE_FILE = "loop_state.json"
INTERRUPTED_EXIT_CODE = 75  # EX_TEMPFAIL: run the same command again to go on


@dataclass
class LoopConfig:
    """What every training run sets.

    Args:
        output_dir: folder of checkpoints, log and the final model.
        epochs: passes over the training data.
        max_steps: stop after this many optimiser steps instead; 0 means by `epochs`.
        batch_size: images per process and forward pass.
        gradient_accumulation_steps: forward passes per optimiser step.
        learning_rate: peak, after warm-up.
        weight_decay: of AdamW.
        warmup_fraction: share of all steps with a linearly rising rate; a cosine to zero follows.
        max_grad_norm: gradient clipping.
        mixed_precision: `no`, `bf16` or `fp16`.
        num_workers: data loading processes; small images load faster without.
        seed: of everything random.
        save_steps: optimiser steps between checkpoints.
        keep_checkpoints: newest checkpoints that are kept.
        resume: go on from the newest checkpoint in `output_dir`; else an earlier run there is removed.
    """

    output_dir: str = "runs/train"
    epochs: int = 1
    max_steps: int = 0
    batch_size: int = 8
    gradient_accumulation_steps: int = 1
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    warmup_fraction: float = 0.05
    max_grad_norm: float = 1.0
    mixed_precision: str = "no"
    num_workers: int = 0
    seed: int = 42
    save_steps: int = 500
    keep_checkpoints: int = 2
    resume: bool = True


@dataclass
class LoopState:
    """Where a run stands: optimiser steps done, epoch, and batches (per process) done in it."""

    step: int = 0
    epoch: int = 0
    batch: int = 0


@dataclass
class Run:
    """What the functions of one run share: prepared objects, settings, and where it stands."""

    model: Any
    optimizer: Any
    loader: Any
    accelerator: Accelerator
    config: LoopConfig
    recipe: dict[str, Any]
    total_steps: int
    state: LoopState


def build_accelerator(config: LoopConfig) -> Accelerator:
    """The accelerator of a run; `accelerate launch` decides devices and processes."""
    set_seed(config.seed)
    return Accelerator(
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        mixed_precision=config.mixed_precision,
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def learning_rate(step: int, total_steps: int, config: LoopConfig) -> float:
    """Linear warm-up, then one cosine to zero; a function of the step alone, so resuming needs no state."""
    warmup = max(1, round(total_steps * config.warmup_fraction))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def checkpoints(output_dir: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted((output_dir / "checkpoints").glob("step-*[0-9]"), key=lambda path: int(path.name.split("-")[1]))


def save_checkpoint(accelerator: Accelerator, config: LoopConfig, state: LoopState, recipe: dict[str, Any]) -> None:
    """Write everything needed to go on, all processes together; complete once it bears its name."""
    folder = Path(config.output_dir) / "checkpoints" / f"step-{state.step}"
    partial = folder.with_suffix(".tmp")
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (partial / STATE_FILE).write_text(json.dumps({"state": dataclasses.asdict(state), "recipe": recipe}))
        if folder.exists():  # the same step once more: what stands is complete and equal
            shutil.rmtree(partial)
        else:
            partial.rename(folder)
        for old in checkpoints(Path(config.output_dir))[: -config.keep_checkpoints]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def load_checkpoint(accelerator: Accelerator, folder: Path, recipe: dict[str, Any]) -> LoopState:
    """Restore the newest checkpoint.

    Raises:
        ValueError: if it was written under other settings.
    """
    saved = json.loads((folder / STATE_FILE).read_text())
    changed = sorted(key for key in recipe if saved["recipe"].get(key) != recipe[key])
    if changed:
        raise ValueError(
            f"{folder}: {', '.join(changed)}: changed since this checkpoint was written. Restore the setting, or give "
            "another --output_dir, or start over with --resume false"
        )
    accelerator.load_state(str(folder))
    return LoopState(**saved["state"])


def start(accelerator: Accelerator, config: LoopConfig, recipe: dict[str, Any]) -> LoopState:
    """State of the newest checkpoint, or a clean beginning; the log then ends where the state stands."""
    output_dir = Path(config.output_dir)
    log = output_dir / "log.jsonl"
    if accelerator.is_main_process and not config.resume:
        shutil.rmtree(output_dir / "checkpoints", ignore_errors=True)
    accelerator.wait_for_everyone()
    found = checkpoints(output_dir)
    state = load_checkpoint(accelerator, found[-1], recipe) if found else LoopState()
    if accelerator.is_main_process:
        # A killed run logged steps that are now done again.
        steps = log.read_text().splitlines(keepends=True) if log.exists() else []
        output_dir.mkdir(parents=True, exist_ok=True)
        log.write_text("".join(steps[: state.step]))
    return state


class StopSignal:
    """Remembers SIGINT or SIGTERM until the current step is done."""

    def __init__(self) -> None:
        self.received = False
        self._previous = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}

    def _receive(self, number: int, frame: Any) -> None:
        self.received = True

    def restore(self) -> None:
        """Give the signals back to their former handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def agreed(self, accelerator: Accelerator) -> bool:
        """Whether any process was told to stop; all processes get the same answer."""
        if accelerator.num_processes == 1:
            return self.received
        flag = torch.tensor(float(self.received), device=accelerator.device)
        return bool(accelerator.reduce(flag, reduction="sum") > 0)


def fit(
    model: torch.nn.Module,
    dataset: Dataset,
    collate: Callable[[list[Any]], dict[str, Any]],
    config: LoopConfig,
    accelerator: Accelerator,
    recipe: dict[str, Any] | None = None,
) -> torch.nn.Module:
    """Train; returns the unwrapped model.

    Args:
        model: its forward returns an output with `loss` and `losses`.
        dataset: map-style, with `set_epoch(epoch)`; `dataset[i]` depends on seed, epoch and i alone.
        collate: list of items to keyword arguments of the model.
        config: settings.
        accelerator: from [`build_accelerator`].
        recipe: settings that must not change between a checkpoint and its resumption.

    Raises:
        SystemExit: with code 75 after SIGINT or SIGTERM, once a checkpoint is written.
        ValueError: if the checkpoint to resume from belongs to another recipe.
    """
    recipe = recipe or {}
    loader: Any = DataLoader(
        dataset,
        batch_size=config.batch_size,
        shuffle=True,
        drop_last=True,
        collate_fn=collate,
        num_workers=config.num_workers,
        generator=torch.Generator().manual_seed(config.seed),
    )
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=config.learning_rate, weight_decay=config.weight_decay)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    steps_per_epoch = len(loader) // config.gradient_accumulation_steps
    if steps_per_epoch == 0:
        raise ValueError(
            f"{len(dataset)} training images do not fill one step of {config.batch_size} x "  # type: ignore[arg-type]
            f"{config.gradient_accumulation_steps} x {accelerator.num_processes}; lower --batch_size"
        )
    run = Run(
        model=model,
        optimizer=optimizer,
        loader=loader,
        accelerator=accelerator,
        config=config,
        recipe=recipe,
        total_steps=config.max_steps or config.epochs * steps_per_epoch,
        state=start(accelerator, config, recipe),
    )
    stop = StopSignal()
    model.train()
    visible = accelerator.is_main_process
    bar = tqdm(total=run.total_steps, initial=run.state.step, desc="train", disable=not visible)
    try:
        while run.state.step < run.total_steps:
            train_epoch(run, bar, stop)
    finally:
        bar.close()
        stop.restore()
    save_checkpoint(accelerator, config, run.state, recipe)
    return accelerator.unwrap_model(model)


def train_epoch(run: Run, bar: tqdm, stop: StopSignal) -> None:
    """The rest of one epoch, from `run.state.batch` on."""
    state, config, accelerator = run.state, run.config, run.accelerator
    run.loader.set_epoch(state.epoch)
    run.loader.dataset.set_epoch(state.epoch)
    usable = len(run.loader) // config.gradient_accumulation_steps * config.gradient_accumulation_steps
    batches = accelerator.skip_first_batches(run.loader, state.batch) if state.batch else run.loader
    for batch in batches:
        if state.batch >= usable or state.step >= run.total_steps:
            break
        with accelerator.accumulate(run.model):
            output = run.model(**batch)
            accelerator.backward(output.loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(run.model.parameters(), config.max_grad_norm)
                for group in run.optimizer.param_groups:
                    group["lr"] = learning_rate(state.step, run.total_steps, config)
            run.optimizer.step()
            run.optimizer.zero_grad()
        state.batch += 1
        if not accelerator.sync_gradients:
            continue
        state.step += 1
        report(run, output, bar)
        stopping = stop.agreed(accelerator)
        if stopping or state.step % config.save_steps == 0:
            save_checkpoint(accelerator, config, state, run.recipe)
        if stopping:
            raise SystemExit(INTERRUPTED_EXIT_CODE)
    state.epoch, state.batch = state.epoch + 1, 0


def report(run: Run, output: Any, bar: tqdm) -> None:
    """Progress bar and one line of `log.jsonl` a step, from the main process's own batch."""
    if not run.accelerator.is_main_process:
        return
    values = {name: round(float(value.detach()), 5) for name, value in {"loss": output.loss, **output.losses}.items()}
    bar.update()
    bar.set_postfix(values, refresh=False)
    with (Path(run.config.output_dir) / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": run.state.step, "epoch": run.state.epoch, **values}) + "\n")
