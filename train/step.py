"""One optimiser step: exact means over all processes, one decision for all, never with values not finite."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import DistributedType
from accelerate.utils import gather_object

from defect_hub.train.loop_config import learning_rate
from defect_hub.train.prepared_run import Run


def train_step(run: Run, batches: list[dict[str, Any]]) -> tuple[dict[str, float], bool]:
    """One optimiser step.

    Returns:
        The values for the log, of all processes together, and whether any process was told to stop.

    Raises:
        ValueError: if a loss or gradient is not finite; the weights are as before the step.
    """
    accelerator, rate = run.accelerator, learning_rate(run.state.step, run.total_steps, run.config)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    ids = [name for batch in batches for name in batch.pop("ids", [])]
    shares = len(batches) * accelerator.num_processes  # accelerate and DDP divide by these
    totals = loss_totals(run, batches)
    sums: dict[str, torch.Tensor] = {}
    for number, batch in enumerate(batches, start=1):
        with accelerator.accumulate(run.model):
            with accelerator.autocast():  # FSDP2's own wrapper has none
                output = run.model(**batch, **totals)
            for name, value in {"loss": output.loss, **output.losses}.items():
                sums[name] = sums.get(name, 0) + value.detach().float()
            if number == len(batches):  # before the gradients meet, so that no process waits for one that has left
                values, stopping = agree(run, sums, ids)
            accelerator.backward(output.loss * shares if totals else output.loss)
            if accelerator.sync_gradients:
                norm = gradient_norm(run, ids)
            run.optimizer.step()
            run.optimizer.zero_grad()
    if accelerator.scaler is not None and accelerator.scaler.get_scale() < 1:  # halved at each gradient left out
        raise ValueError(_not_finite(run, "gradient, time and again", gather_object([ids])))
    if run.average is not None and not accelerator.optimizer_step_was_skipped:
        run.average.update()
    if not totals:
        values = {name: value / shares for name, value in values.items()}
    rounded = {name: round(value, 5) for name, value in values.items()}
    return {**rounded, "learning_rate": rate, "gradient_norm": norm}, stopping


def loss_totals(run: Run, batches: list[dict[str, Any]]) -> dict[str, dict[str, torch.Tensor]]:
    """How many items each mean of the step's losses is over, on all processes; nothing if uncounted."""
    if run.loss_counts is None:
        return {}
    counts = [run.loss_counts(batch) for batch in batches]
    names = sorted(counts[0])
    sums = torch.stack([torch.stack([count[name] for name in names]) for count in counts]).sum(dim=0)
    totals = run.accelerator.reduce(sums, reduction="sum")
    return {"loss_counts": dict(zip(names, totals.unbind(), strict=True))}


def agree(run: Run, sums: Mapping[str, torch.Tensor], ids: list[str]) -> tuple[dict[str, float], bool]:
    """The losses of all processes summed, and whether any of them was told to stop.

    Raises:
        ValueError: on all processes alike, if the loss of any of them is not finite.
    """
    own = dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True))  # one wait for the device
    bad = sorted(name for name, value in own.items() if not math.isfinite(value))
    told = {"losses": own, "stop": run.stop.received, "bad": bad, "ids": ids if bad else []}
    everyone = gather_object([told])
    if any(other["bad"] for other in everyone):
        names = sorted({name for other in everyone for name in other["bad"]})
        raise ValueError(_not_finite(run, ", ".join(names), [other["ids"] for other in everyone]))
    totals: dict[str, float] = {}
    for other in everyone:
        for name, value in other["losses"].items():
            totals[name] = totals.get(name, 0.0) + value
    return totals, any(other["stop"] for other in everyone)


def gradient_norm(run: Run, ids: list[str]) -> float:
    """Clip, and the norm before.

    Raises:
        ValueError: on all processes alike, if it is not finite (with fp16, the scaler leaves out such steps).
    """
    norm = run.accelerator.clip_grad_norm_(run.model.parameters(), run.config.max_grad_norm)
    value = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm) if norm is not None else math.nan
    deepspeed = run.accelerator.distributed_type == DistributedType.DEEPSPEED  # has stepped already
    if not math.isfinite(value) and run.config.mixed_precision != "fp16" and not deepspeed:
        raise ValueError(_not_finite(run, "gradient", gather_object([ids])))
    return round(value, 5)


def _not_finite(run: Run, what: str, ids: list[list[str]]) -> str:
    found = "; ".join(f"process {number}: {', '.join(names)}" for number, names in enumerate(ids) if names)
    saved = run.checkpoints.last.step
    left = f"The checkpoint of step {saved} is intact" if saved else "No checkpoint was written yet"
    return (
        f"step {run.state.step + 1}: {what}: not finite. Images of the step: {found or 'not named'}. {left}. "
        "Check the images, or lower learning_rate"
    )
