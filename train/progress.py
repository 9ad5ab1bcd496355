"""What a run shows while it goes on: progress bar, log files and trackers, all on the main process alone."""

import json
import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tqdm.auto import tqdm

from defect_hub.train.whole_file import write_whole

LOG_FILE = "log.jsonl"
EVALUATIONS_FILE = "evaluations.jsonl"
TRACKERS = ("tensorboard", "trackio", "wandb")
_PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX")}
"""Where a tracker's package is not called like the tracker."""


def check_trackers(names: list[str]) -> None:
    """accelerate leaves out without a word what is not installed.

    Raises:
        ValueError: for a tracker that is unknown or not installed.
    """
    if not isinstance(names, list):
        raise ValueError(f"trackers={names!r}: give a list, such as [tensorboard]")
    if len(set(names)) < len(names):
        raise ValueError(f"trackers: {', '.join(names)}: named twice. Name each once")
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"trackers: {name!r} is none of {', '.join(TRACKERS)}. Name one of them, or leave it out")
        if not any(find_spec(package) for package in _PACKAGES.get(name, (name,))):
            raise ValueError(f"trackers: {name} is not installed. Run `pip install {name}`, or leave it out")


class Progress:
    """Bar, `log.jsonl`, `evaluations.jsonl`, and the trackers of the run.

    Args:
        accelerator: of the run; made with the trackers' names.
        output_dir: of the run.
        step: done already; lines of later steps, left by a killed run, are cut off.
        evaluated: step of the last evaluation; lines of later ones are cut off.
        total_steps: of the whole run.
        settings: for the trackers' pages.
        quiet: writes no files and tells no tracker.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        output_dir: Path,
        step: int,
        evaluated: int,
        total_steps: int,
        settings: Mapping[str, Any],
        quiet: bool = False,
    ) -> None:
        self.accelerator = accelerator
        self.output_dir = output_dir
        self.writes = accelerator.is_main_process and not quiet
        self.trackers = bool(accelerator.log_with) and not quiet
        if self.writes:
            output_dir.mkdir(parents=True, exist_ok=True)
            cut_back(output_dir / LOG_FILE, step)
            cut_back(output_dir / EVALUATIONS_FILE, evaluated)
        if self.trackers:
            plain = {
                name: value if isinstance(value, int | float | str) else str(value) for name, value in settings.items()
            }
            accelerator.init_trackers(output_dir.name, config=plain)
        self.bar = tqdm(
            total=total_steps, initial=step, desc="train", unit="step", disable=not accelerator.is_main_process
        )

    def step(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """One optimiser step is done."""
        self.bar.update()
        self.bar.set_postfix(values, refresh=False)
        self._write(LOG_FILE, {"step": step, "epoch": epoch, **values})

    def evaluation(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """One evaluation is done."""
        if self.writes:
            tqdm.write(f"step {step}: {', '.join(f'{name} {value:.4f}' for name, value in values.items())}")
        self._write(EVALUATIONS_FILE, {"step": step, "epoch": epoch, **values}, prefix="eval/")

    def _write(self, name: str, values: Mapping[str, Any], prefix: str = "") -> None:
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        if self.writes:
            with (self.output_dir / name).open("a", encoding="utf-8") as log:
                log.write(json.dumps(finite) + "\n")
        if self.trackers:
            measured = {
                f"{prefix}{key}": value for key, value in finite.items() if key != "step" and value is not None
            }
            self.accelerator.log(measured, step=values["step"])

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.close()


def cut_back(path: Path, step: int) -> None:
    """Keep the lines up to a step; a killed run may have written more, the last one in half."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    write_whole(path, "".join(kept))
