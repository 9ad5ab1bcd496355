"""A small training run as a script, so that tests can interrupt and kill whole processes."""

import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from defect_hub.train.loop import build_accelerator, fit
from defect_hub.train.loop_config import LoopConfig

ITEMS = 22


@dataclass
class ToyOutput:
    loss: torch.Tensor
    losses: dict[str, torch.Tensor]


class ToyModel(nn.Module):
    """Regression with dropout, so that the state of the random numbers matters.

    Args:
        dropout: probability.
        stop_after: forward pass during which the process gets SIGTERM; 0 for none.
    """

    def __init__(self, dropout: float = 0.5, stop_after: int = 0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 1))
        self.stop_after = stop_after
        self.passes = 0

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> ToyOutput:
        self.passes += 1
        if self.passes == self.stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        loss = (self.layers(x).squeeze(-1) - y).square().mean()
        return ToyOutput(loss, {"square": loss})


class ToyDataset(Dataset):
    """Items that differ from epoch to epoch."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        x = torch.randn(4, generator=torch.Generator().manual_seed(1000 * self.epoch + index))
        return {"x": x, "y": x.sum()}


class KilledWhileSaved:
    """State that is saved behind model and optimiser; the process is killed at the given save.

    Args:
        at: number of the save, from 1; 0 for none.
    """

    def __init__(self, at: int) -> None:
        self.at = at
        self.saves = 0

    def state_dict(self) -> dict:
        self.saves += 1
        if self.saves == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Nothing to restore."""


def collate(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([item[name] for item in items]) for name in ("x", "y")}


def run(
    output_dir: Path,
    recipe: dict | None = None,
    dropout: float = 0.5,
    stop_after: int = 0,
    kill_at_save: int = 0,
    **settings: object,
) -> ToyModel:
    """Train the toy; `settings` are those of `LoopConfig`."""
    config = LoopConfig(output_dir=str(output_dir), **{"batch_size": 2, "learning_rate": 0.01, **settings})
    accelerator = build_accelerator(config)
    accelerator.register_for_checkpointing(KilledWhileSaved(kill_at_save))
    return fit(ToyModel(dropout, stop_after), ToyDataset(), collate, config, accelerator, recipe)


def main(output_dir: str, arguments: str) -> None:
    """Command line: folder and the keywords of `run` as JSON; `stop_rank` names the only process that is stopped."""
    keywords = json.loads(arguments)
    rank = int(os.environ.get("RANK", "0"))
    if keywords.pop("stop_rank", rank) != rank:
        del keywords["stop_after"]
    model = run(Path(output_dir), **keywords)
    torch.save(model.state_dict(), Path(output_dir) / f"final-{rank}-of-{os.environ.get('WORLD_SIZE', '1')}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
