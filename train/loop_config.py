"""Settings of every training run, and the learning rate that follows from them."""

import math
from dataclasses import dataclass, field

from defect_hub.train.progress import check_trackers

SCHEDULES = ("cosine", "linear", "constant")
PRECISIONS = ("no", "bf16", "fp16")


@dataclass
class LoopConfig:
    """What every training run sets.

    Args:
        output_dir: folder of checkpoints, logs and the final model; shared by all processes.
        epochs: passes over the training data.
        max_steps: stop after this many optimiser steps instead; 0 means by `epochs`.
        batch_size: images per process and forward pass.
        gradient_accumulation_steps: forward passes per optimiser step.
        learning_rate: peak, after warm-up.
        schedule: `cosine` or `linear` to zero, or `constant`, after the warm-up.
        weight_decay: of AdamW.
        warmup_fraction: share of all steps with a linearly rising rate.
        max_grad_norm: gradient clipping.
        mixed_precision: `no`, `bf16` or `fp16`.
        ema_decay: share of the old average that a step keeps, less in the first steps; evaluations and the final model
            then take the average of the trained weights. 0: none.
        num_workers: data loading processes; small images load faster without.
        seed: of everything random.
        save_steps: optimiser steps between checkpoints.
        keep_checkpoints: newest checkpoints that are kept, besides the best.
        eval_steps: optimiser steps between evaluations; 0: none.
        eval_epochs: epochs between evaluations; 0: none.
        best_metric: of the evaluations; its best weights (the highest value) become the final model. Empty: the last.
        patience: evaluations without gain after which the run ends; 0: it never ends early.
        trackers: of `tensorboard`, `trackio`, `wandb`, besides the log files.
        dry_run: two steps, then an estimate of time and memory; nothing is written.
        resume: go on from the newest checkpoint in `output_dir`; else an earlier run there is removed.

    Raises:
        ValueError: for values out of range, or that do not fit each other.
    """

    output_dir: str = "runs/train"
    epochs: int = 1
    max_steps: int = 0
    batch_size: int = 8
    gradient_accumulation_steps: int = 1
    learning_rate: float = 1e-4
    schedule: str = "cosine"
    weight_decay: float = 0.0
    warmup_fraction: float = 0.05
    max_grad_norm: float = 1.0
    mixed_precision: str = "no"
    ema_decay: float = 0.0
    num_workers: int = 0
    seed: int = 42
    save_steps: int = 500
    keep_checkpoints: int = 2
    eval_steps: int = 0
    eval_epochs: int = 0
    best_metric: str = ""
    patience: int = 0
    trackers: list[str] = field(default_factory=list)
    dry_run: bool = False
    resume: bool = True

    def __post_init__(self) -> None:
        if self.seed >= 2**32:
            raise ValueError(f"seed={self.seed}: give a number below 2**32")
        at_least = {"epochs": 1, "batch_size": 1, "gradient_accumulation_steps": 1, "save_steps": 1}
        at_least |= {"keep_checkpoints": 1}
        counts = ("max_steps", "num_workers", "eval_steps", "eval_epochs", "patience", "seed", "weight_decay")
        for name, least in (at_least | dict.fromkeys(counts, 0)).items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: give a number from {least}")
        for name in ("learning_rate", "max_grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)}: give a number above 0")
        for name, below in (("ema_decay", 1), ("warmup_fraction", math.nextafter(1, 2))):
            if not 0 <= getattr(self, name) < below:
                raise ValueError(f"{name}={getattr(self, name)}: give a share from 0 to {'below ' * (below == 1)}1")
        for name, choices in (("schedule", SCHEDULES), ("mixed_precision", PRECISIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r}: choose one of {', '.join(choices)}")
        if self.best_metric and not (self.eval_steps or self.eval_epochs):
            raise ValueError("best_metric: nothing is evaluated during training. Set eval_steps or eval_epochs")
        if self.patience and not self.best_metric:
            raise ValueError("patience: without best_metric there is no gain to wait for. Set best_metric")
        check_trackers(self.trackers)


def learning_rate(step: int, total_steps: int, config: LoopConfig) -> float:
    """Linear warm-up, then the schedule; a function of the step alone, so resuming needs no state."""
    warmup = max(1, round(total_steps * config.warmup_fraction))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    shares = {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "linear": 1 - progress, "constant": 1.0}
    return config.learning_rate * shares[config.schedule]
