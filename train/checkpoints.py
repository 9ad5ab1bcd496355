"""Checkpoints of a run: complete or not there, rotated, and refused where they do not belong."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from accelerate import Accelerator, DistributedType
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException

from defect_hub.train.together import failing_together
from defect_hub.train.whole_file import write_whole

STATE_FILE = "loop_state.json"
_SAMPLES = 1024
"""Values of each frozen weight that its digest is made of."""


@dataclass
class LoopState:
    """Where a run stands.

    Attributes:
        step: optimiser steps done.
        epoch: of the next batch.
        batch: batches, per process, done in that epoch.
        best_step: of the best evaluation; 0 before the first.
        best_value: of the metric that decides.
        evaluations_since_best: that brought no gain.
        evaluated: step of the last evaluation.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_step: int = 0
    best_value: float | None = None
    evaluations_since_best: int = 0
    evaluated: int = 0


def checkpoints(output_dir: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted((output_dir / "checkpoints").glob("step-*[0-9]"), key=lambda path: int(path.name.split("-")[1]))


def model_signature(model: nn.Module) -> dict[str, Any]:
    """What a checkpoint must have in common with the model that goes on from it.

    Args:
        model: unwrapped, not sharded.

    Returns:
        "class", "weights" (shape of every trained parameter and every buffer by name), and "frozen", a digest of
        names, shapes and some values of the weights that checkpoints leave out.
    """
    digest, shapes = hashlib.sha256(), {name: list(buffer.shape) for name, buffer in model.named_buffers()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            shapes[name] = list(parameter.shape)
            continue
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        if not parameter.is_meta:
            values = parameter.detach().flatten()
            digest.update(values[:: max(1, len(values) // _SAMPLES)].float().cpu().numpy().tobytes())
    return {"class": type(model).__name__, "weights": shapes, "frozen": digest.hexdigest()}


def _drop_frozen(models: list[nn.Module], weights: list[dict[str, Any]], output_dir: str) -> None:
    """Leaves frozen weights out of what is saved: those of the base model never change."""
    for model, state in zip(models, weights, strict=False):  # with FSDP2 and DeepSpeed there are no weights here
        own = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        for name, _ in model.named_parameters(remove_duplicate=False):
            if name not in own:  # frozen, or another name of a tied one
                state.pop(name, None)


def remove(folders: Iterable[Path]) -> None:
    """Remove checkpoints; a name means complete, also when this is the moment of a kill."""
    for folder in folders:
        gone = folder.with_suffix(".tmp")
        if folder != gone:
            folder.rename(gone)
        shutil.rmtree(gone)


class Checkpoints:
    """The checkpoints of one run; every method is called on all processes together.

    Args:
        accelerator: of the run.
        output_dir: of the run, on a file system that all processes share.
        keep: newest checkpoints that stay, besides the best.
        recipe: settings that must not change between a checkpoint and its resumption.
        signature: of the model, see `model_signature`.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        output_dir: Path,
        keep: int,
        recipe: Mapping[str, Any],
        signature: dict[str, Any],
    ) -> None:
        self.accelerator = accelerator
        self.output_dir = output_dir
        self.keep = keep
        self.facts = {"recipe": dict(recipe), "processes": accelerator.num_processes, "model": signature}
        self.last = LoopState()  # of the newest checkpoint
        accelerator.register_save_state_pre_hook(_drop_frozen)

    def save(self, state: LoopState) -> None:
        """Write everything needed to go on; complete once it bears its name. Of the same step, the state alone.

        Raises:
            OSError: if some process could not write its part. Nothing of it stays; earlier checkpoints do.
        """
        if state == self.last:
            return
        if state.step == self.last.step:
            with failing_together(self.accelerator):
                if self.accelerator.is_main_process:
                    self._write_state(self._folder(state.step), state)
            self.last = dataclasses.replace(state)
            return
        folder = self._folder(state.step)
        partial, main = folder.with_suffix(".tmp"), self.accelerator.is_main_process
        if main:
            shutil.rmtree(partial, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        problem = self._write(partial, state)
        # Together: a process that went on alone would wait for the others for ever.
        if problems := [text for text in gather_object([problem]) if text]:
            if main:
                shutil.rmtree(partial, ignore_errors=True)
            last = f"{self._folder(self.last.step)} is intact" if self.last.step else "there is no earlier one"
            raise OSError(
                f"{folder}: checkpoint: could not be written ({'; '.join(problems)}); {last}. Make room, "
                "or mend the cause, and run the same command again"
            )
        with failing_together(self.accelerator):
            if main:
                partial.rename(folder)
                self._rotate(state)
        self.last = dataclasses.replace(state)

    def _write(self, partial: Path, state: LoopState) -> str:
        """This process's part; returns what went wrong."""
        sharded = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        try:
            self.accelerator.save_state(str(partial), **({"exclude_frozen_parameters": True} if sharded else {}))
            if self.accelerator.is_main_process:
                self._write_state(partial, state)
        except (OSError, RuntimeError, SafetensorError, CheckpointException) as error:  # a full disk, by library
            return f"process {self.accelerator.process_index}: {' '.join(str(error).split())}"
        return ""

    def _write_state(self, folder: Path, state: LoopState) -> None:
        write_whole(folder / STATE_FILE, json.dumps({"state": dataclasses.asdict(state), **self.facts}))

    def _rotate(self, state: LoopState) -> None:
        best = self._folder(state.best_step)
        remove(folder for folder in checkpoints(self.output_dir)[: -self.keep] if folder != best)
        remove((self.output_dir / "checkpoints").glob("step-*.tmp"))  # of a killed process

    def load_newest(self) -> LoopState:
        """Restore the newest checkpoint; a clean beginning where there is none.

        Raises:
            ValueError: if it was written by another version, under other settings, by another number of processes, or
                of another model.
        """
        newest = [path.name for path in checkpoints(self.output_dir)[-1:]]
        broadcast_object_list(found := [newest], from_process=0)  # a shared folder may show others less
        if not found[0]:
            return LoopState()
        state = self._load(self.output_dir / "checkpoints" / found[0][0])
        self.last = dataclasses.replace(state)
        with failing_together(self.accelerator):
            if self.accelerator.is_main_process:
                self._rotate(state)
        return state

    def load_best(self, state: LoopState) -> None:
        """Restore the checkpoint of the best evaluation, for its weights."""
        self._load(self._folder(state.best_step))

    def _load(self, folder: Path) -> LoopState:
        path = folder / STATE_FILE
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            state = LoopState(**saved["state"])
            written = {key: saved[key] for key in self.facts}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: damaged, or written by another version of the loop ({error!r}). Start over with "
                "--resume false, or give another --output_dir"
            ) from error
        _check_recipe(folder, written["recipe"], self.facts["recipe"])
        if written["processes"] != self.facts["processes"]:
            raise ValueError(
                f"{folder}: written by {written['processes']} processes, and this run has {self.facts['processes']}. "
                f"Launch it with {written['processes']}, or start over with --resume false"
            )
        _check_model(folder, written["model"], self.facts["model"])
        kind = self.accelerator.distributed_type
        if kind == DistributedType.DEEPSPEED:
            lenient = {"load_module_strict": False}
        else:
            lenient = {} if kind == DistributedType.FSDP else {"strict": False}
        random_states = folder / f"random_states_{self.accelerator.process_index}.pkl"
        if not random_states.exists():  # accelerate would go on without
            raise ValueError(f"{random_states}: missing. Remove {folder.name}, to go on from the one before")
        try:
            self.accelerator.load_state(str(folder), **lenient)  # lenient: the frozen weights are not in it
        except (OSError, RuntimeError, EOFError, UnpicklingError, SafetensorError, CheckpointException) as error:
            raise ValueError(
                f"{folder}: damaged ({' '.join(str(error).split())}). Remove it, to go on from the one before"
            ) from error
        return state

    def _folder(self, step: int) -> Path:
        return self.output_dir / "checkpoints" / f"step-{step}"


def _check_recipe(folder: Path, written: Mapping[str, Any], recipe: Mapping[str, Any]) -> None:
    if changed := sorted(key for key in written.keys() | recipe if written.get(key) != recipe.get(key)):
        raise ValueError(
            f"{folder}: {', '.join(changed)}: changed since this checkpoint was written. Restore the setting, or give "
            "another --output_dir, or start over with --resume false"
        )


def _check_model(folder: Path, written: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    remedy = "Give the model it was written with, or another --output_dir, or start over with --resume false"
    if written["class"] != present["class"]:
        raise ValueError(f"{folder}: of a {written['class']}, and this model is a {present['class']}. {remedy}")
    shapes, own = written["weights"], present["weights"]
    for name in sorted(shapes.keys() | own):
        if shapes.get(name) != own.get(name):
            raise ValueError(
                f"{folder}: a checkpoint of another model: {name} is {shapes.get(name, 'not trained')} there and "
                f"{own.get(name, 'not trained')} here. {remedy}"
            )
    if written["frozen"] != present["frozen"]:
        raise ValueError(f"{folder}: written with other frozen weights than this model has. {remedy}")
