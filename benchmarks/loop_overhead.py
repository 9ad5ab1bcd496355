"""What the training loop costs besides forward pass, backward pass and update.

Run `python -m defect_hub.benchmarks.loop_overhead --data BUILT_SET --out results.json`; it prints a Markdown table.

`fit` and a bare loop of a few lines train twins of a model on the same batches, step by step in turn in one process:
other load on the machine then meets both. The bare loop does its step where `fit` asks for a batch. All batches are
made before. Two figures come out: the share of a step of `fit` outside of the calls that a clock inside it times, and
the bare loop's step. The clock counts processor time, which other jobs disturb little; `--clock wall` counts waiting
too, and is for an idle machine.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.data import Dataset
from transformers.utils import ModelOutput

from defect_hub.benchmarks.feature_cache_speed import build
from defect_hub.train.data import DiagnosisCollator, DiagnosisDataset, load_split
from defect_hub.train.loop import build_accelerator, fit
from defect_hub.train.loop_config import LoopConfig, learning_rate
from defect_hub.train.recording import hardware
from defect_hub.train.whole_file import write_whole

CALLS = ("forward", "backward", "clip", "update")
WARM_UP = 3
"""First steps, which are not counted."""

CLOCKS = {"processor": time.process_time, "wall": time.perf_counter}

Batch = dict[str, Any]
Clock = Callable[[], float]


class SmallNetwork(nn.Module):
    """A regression; where its step takes about a millisecond, what the loop costs shows in full.

    Args:
        width: of the hidden layers.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        hidden = nn.Linear(4, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()
        self.layers = nn.Sequential(*hidden, nn.Linear(width, 1))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> ModelOutput:
        """(B, 4) and (B,) -> `loss` and `losses`."""
        loss = (self.layers(x).squeeze(-1) - y).square().mean()
        return ModelOutput(loss=loss, losses={"square": loss})


def small_batches(count: int, size: int) -> list[Batch]:
    """Random batches of [`SmallNetwork`]."""
    inputs = torch.randn(count, size, 4, generator=torch.Generator().manual_seed(0))
    return [{"x": x, "y": x.sum(dim=-1)} for x in inputs]


def diagnosis_batches(rows: Any, processor: Any, count: int, size: int) -> list[Batch]:
    """Batches of SPGDD-GPT as the tiny preset's recipe draws them; `size` images each, from the first rows on."""
    dataset = DiagnosisDataset(rows, processor, seed=42)
    collate = DiagnosisCollator(dataset, [0, 0, 0, 1, 2, 4])
    starts = (number * size % (len(dataset) - size + 1) for number in range(count))
    return [collate([dataset[index] for index in range(start, start + size)]) for start in starts]


class Indices(Dataset):
    """Items that cost nothing."""

    def __init__(self, count: int) -> None:
        self.count = count

    def set_epoch(self, epoch: int) -> None:
        """Nothing changes."""

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


class BareLoop:
    """What a training loop cannot do without.

    Args:
        model: is trained.
        config: of the run that it is compared with.
        clock: in seconds.

    Attributes:
        seconds: of each step.
    """

    def __init__(self, model: nn.Module, config: LoopConfig, clock: Clock) -> None:
        self.model = model.train()
        self.config = config
        self.clock = clock
        self.parameters = list(model.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, config.learning_rate, weight_decay=config.weight_decay)
        self.seconds: list[float] = []

    def step(self, batch: Batch) -> None:
        """Train on one batch."""
        start = self.clock()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(len(self.seconds), self.config.max_steps, self.config)
        self.model(**batch).loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.seconds.append(self.clock() - start)


class TakingTurns:
    """The collate function of `fit`: gives a batch made before, once the bare loop has trained on it.

    Args:
        batches: to draw from.
        bare: the other loop.

    Attributes:
        asked: clock when a batch was asked for.
        given: clock when it was handed over.
    """

    def __init__(self, batches: list[Batch], bare: BareLoop) -> None:
        self.batches = batches
        self.bare = bare
        self.asked: list[float] = []
        self.given: list[float] = []

    def __call__(self, items: list[int]) -> Batch:
        self.asked.append(self.bare.clock())
        batch = {name: value for name, value in self.batches[items[0] % len(self.batches)].items() if name != "ids"}
        if len(self.bare.seconds) < self.bare.config.max_steps:  # the loader asks for one more than are trained on
            self.bare.step(batch)
        self.given.append(self.bare.clock())
        return {**batch, "ids": [f"image {item}" for item in items]}

    def seconds(self) -> list[float]:
        """Of each step of `fit`: from one batch handed over to the next one asked for, as it is loaded one ahead."""
        # The last batch handed over is followed by no request, so there is one time more of these.
        return [asked - given for asked, given in zip(self.asked[2:], self.given[1:], strict=False)]


@contextmanager
def timed_calls(model: nn.Module, accelerator: Accelerator, bare: BareLoop) -> Iterator[dict[str, list[float]]]:
    """Time the calls that `fit` makes.

    Args:
        model: that it trains.
        accelerator: that it uses.
        bare: the other loop, whose updates are not meant.

    Yields:
        A list of seconds by name of the call, see `CALLS`.
    """
    seconds: dict[str, list[float]] = defaultdict(list)
    started: dict[str, float] = {}

    def start(name: str) -> None:
        started[name] = bare.clock()

    def stop(name: str) -> None:
        seconds[name].append(bare.clock() - started[name])

    def around(name: str, call: Callable) -> Callable:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start(name)
            result = call(*args, **kwargs)
            stop(name)
            return result

        return timed

    handles = [
        model.register_forward_pre_hook(lambda *_: start("forward")),
        model.register_forward_hook(lambda *_: stop("forward")),
        register_optimizer_step_pre_hook(
            lambda optimizer, *_: None if optimizer is bare.optimizer else start("update")
        ),
        register_optimizer_step_post_hook(
            lambda optimizer, *_: None if optimizer is bare.optimizer else stop("update")
        ),
    ]
    accelerator.backward = around("backward", accelerator.backward)
    accelerator.clip_grad_norm_ = around("clip", accelerator.clip_grad_norm_)
    try:
        yield seconds
    finally:
        for handle in handles:
            handle.remove()


def measure(
    model: nn.Module, batches: list[Batch], steps: int, batch_size: int, folder: Path, clock: str = "processor"
) -> dict[str, Any]:
    """Train two copies of a model.

    Args:
        model: fresh; is trained by `fit`.
        batches: to draw from.
        steps: that are counted.
        batch_size: of the batches.
        folder: for what `fit` writes.
        clock: one of `CLOCKS`.

    Returns:
        "seconds", the median of a step of `fit`; "shares", medians of its parts as shares of the same step: the calls
        in `CALLS`, what lies "outside" of them, and the step of the "bare" loop on the same batch, which is no part of
        it; and how far the weights of the two lie apart at the end, at most.
    """
    total = WARM_UP + steps + 1  # behind the last one, no batch is asked for that would end it
    config = LoopConfig(
        output_dir=str(folder),
        max_steps=total,
        batch_size=batch_size,
        learning_rate=2e-3,
        weight_decay=0.01,
        save_steps=total,
    )
    accelerator = build_accelerator(config)
    bare = BareLoop(deepcopy(model), config, CLOCKS[clock])
    collate = TakingTurns(batches, bare)
    items = Indices((total + 2) * batch_size)  # one epoch
    with timed_calls(model, accelerator, bare) as calls:
        trained = fit(model, items, collate, config, accelerator)
    # Batches are loaded ahead, so the last steps have their calls timed but no whole time: not strict below.
    whole = collate.seconds()[WARM_UP:]
    parts = {name: calls[name][WARM_UP:] for name in CALLS}
    parts["outside"] = [step - sum(inside) for step, *inside in zip(whole, *parts.values(), strict=False)]
    parts["bare"] = bare.seconds[WARM_UP:]
    pairs = zip(trained.parameters(), bare.parameters, strict=True)
    return {
        "seconds": statistics.median(whole),
        "shares": {
            name: statistics.median(part / step for part, step in zip(seconds, whole, strict=False))
            for name, seconds in parts.items()
        },
        "weights_apart": max(float((own - other).detach().abs().max()) for own, other in pairs),
        "steps": len(whole),
        "batch_size": batch_size,
        "clock": clock,
        "hardware": hardware(torch.device("cpu"), 1),
    }


def as_markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of the documentation; parts of a step in percent of a step of `fit`."""
    heads = ["model", "a step of `fit`", "forward", "backward", "clipping", "update", "outside", "bare loop"]
    lines = [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 1)}"]
    for name, found in results.items():
        shares = " | ".join(f"{share:.1%}" for share in found["shares"].values())
        lines.append(f"| {name} | {1e3 * found['seconds']:.1f} ms | {shares} |")
    return "\n".join(lines)


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="built data set, folder or Hub id")
    parser.add_argument("--split", default="train", help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=60, help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="(default: %(default)s)")
    parser.add_argument("--clock", choices=CLOCKS, default="processor", help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, help="file for the results as JSON")
    options = parser.parse_args()
    torch.manual_seed(42)
    rows = load_split(options.data, options.split)
    if len(rows) < options.batch_size:
        parser.error(f"--batch-size {options.batch_size}: {options.data} has {len(rows)} images. Take fewer")
    model, processor = build(rows, paper_size=False)
    sides = {
        "tiny SPGDD-GPT": (model, diagnosis_batches(rows, processor, 8, options.batch_size), options.steps),
        "small network": (SmallNetwork(), small_batches(8, options.batch_size), 20 * options.steps),
    }
    results = {}
    for name, (trained, batches, steps) in sides.items():
        with tempfile.TemporaryDirectory() as folder:
            results[name] = measure(trained, batches, steps, options.batch_size, Path(folder), options.clock)
    if options.out:
        write_whole(options.out, json.dumps(results, indent=2) + "\n")
    print(as_markdown(results))


if __name__ == "__main__":
    main()
