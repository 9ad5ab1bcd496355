"""Training runs whose processes tests can starve, signal and kill; they fork from one that has imported torch already.

The model logs what it was given, so that tests can redo each step without the loop.
"""

import dataclasses
import json
import math
import multiprocessing
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import datasets  # noqa: F401 (with the next, what accelerate imports in each process otherwise, which takes seconds)
import torch
import torch._dynamo
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from defect_hub.train.loop import LoopConfig, build_accelerator, fit
from tests.fork_server import forked

ITEMS = 27
FEATURES = 4
EVALUATED_ROWS = 7  # two processes cannot share them evenly
TIMEOUT = 60.0  # seconds; a run takes about one


@dataclasses.dataclass
class Output:
    loss: torch.Tensor
    losses: dict[str, torch.Tensor]


@dataclasses.dataclass
class Trouble:
    """What happens to one process.

    Args:
        at: training pass of the process, from 1.
        action: name of a signal; "nan", "infinite_gradient", "error", "sleep" or "file_size".
        rank: process.
        value: seconds to sleep, or the largest file in bytes that may be written from then on.
    """

    at: int
    action: str
    rank: int = 0
    value: float = 0


class _Infinite(torch.autograd.Function):
    """Passes a value on and makes its gradient infinite."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * math.inf


class Model(nn.Module):
    """Two regressions on a frozen base; the second is a mean over the masked rows alone.

    Args:
        width: of the base.
        dropout: probability.
        norm: whether features are normalised by running statistics.
        base_seed: of the frozen base.
        troubles: of this process.
        trace: file that gets a line a training pass.
    """

    def __init__(
        self,
        width: int = 16,
        dropout: float = 0.0,
        norm: bool = False,
        base_seed: int = 0,
        troubles: list[Trouble] | None = None,
        trace: Path | None = None,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(base_seed)
            self.base = nn.Linear(FEATURES, width).requires_grad_(False)
            torch.manual_seed(1)
            self.norm = nn.BatchNorm1d(width) if norm else nn.Identity()
            self.dropout = nn.Dropout(dropout)
            self.head = nn.Linear(width, 2)
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))
        self.troubles = troubles or []
        self.trace = trace
        self.own_passes = 0

    def sums(self, x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        out = self.head(self.dropout(torch.tanh(self.norm(self.base(x)))))
        return {
            "square": (out[:, 0] - y).square().sum(),
            "masked": ((out[:, 1] - 2 * y).abs() * mask).sum(),
        }

    def counts(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"square": torch.tensor(float(len(batch["y"]))), "masked": batch["mask"].sum()}

    def forward(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        mask: torch.Tensor,
        index: torch.Tensor,
        loss_counts: dict[str, torch.Tensor] | None = None,
    ) -> Output:
        sums = self.sums(x, y, mask)
        own = self.counts({"y": y, "mask": mask})
        losses = {name: value / (loss_counts or own)[name].clamp(min=1) for name, value in sums.items()}
        loss = losses["square"] + 0.5 * losses["masked"]
        self.own_passes += 1
        self.passes += 1
        if self.trace:
            line = {
                "index": index.tolist(),
                "training": self.training,
                "sums": {name: value.item() for name, value in sums.items()},
                "counts": {name: value.item() for name, value in own.items()},
            }
            with self.trace.open("a") as file:
                file.write(json.dumps(line) + "\n")
        for trouble in self.troubles:
            if trouble.at == self.own_passes:
                loss = self.suffer(trouble, loss)
        return Output(loss, losses | ({"square": losses["square"] * math.nan} if loss.isnan() else {}))

    def suffer(self, trouble: Trouble, loss: torch.Tensor) -> torch.Tensor:
        if trouble.action == "nan":
            return loss * math.nan
        if trouble.action == "infinite_gradient":
            return _Infinite.apply(loss)
        if trouble.action == "error":
            raise RuntimeError("broken process")
        if trouble.action == "sleep":
            time.sleep(trouble.value)
        elif trouble.action == "file_size":
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(trouble.value), resource.RLIM_INFINITY))
        else:
            os.kill(os.getpid(), signal.Signals[trouble.action])
        return loss


class CountedModel(Model):
    """Says how many rows each loss is a mean over."""

    def loss_counts(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return self.counts(batch)


class OtherModel(Model):
    """Parameters of the same names and shapes, another class."""


MODELS = {"plain": Model, "counted": CountedModel, "other": OtherModel}


def item(index: int, epoch: int) -> dict[str, Any]:
    """Row that depends on its number and the epoch alone; every third is masked out, and by chance more."""
    x = torch.randn(FEATURES, generator=torch.Generator().manual_seed(1000 * epoch + index))
    mask = torch.tensor(float(index % 3 > 0 and bool(x[0] > -0.5)))
    return {"x": x, "y": x.sum(), "mask": mask, "index": torch.tensor(index), "ids": f"image-{index}.png"}


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    batch: dict[str, Any] = {name: torch.stack([row[name] for row in items]) for name in items[0] if name != "ids"}
    return batch | {"ids": [row["ids"] for row in items]}


class MapDataset(Dataset):
    """Items that differ from epoch to epoch."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> dict[str, Any]:
        return item(index, self.epoch)


class Stream(IterableDataset):
    """Never ends; batch b of this process is the rows `(b * processes + rank) * size` and on.

    Args:
        size: rows of a batch.
        rank: of the process.
        processes: number of them.
        decoded: file that gets the number of every row that is not passed over.
    """

    skip_batches = 0

    def __init__(self, size: int, rank: int, processes: int, decoded: Path) -> None:
        self.size = size
        self.rank = rank
        self.processes = processes
        self.decoded = decoded

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        batch, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        while True:
            first = (batch * self.processes + self.rank) * self.size
            for index in range(first, first + self.size):
                if batch < self.skip_batches:
                    yield item(0, 0) | {"ids": "placeholder"}
                else:
                    with self.decoded.open("a") as file:
                        file.write(f"{index}\n")
                    yield item(index, 0)
            batch += stride


class Evaluation:
    """Scores rows that the processes share, and disturbs all random numbers.

    Args:
        scores: score after each evaluation, by the training passes seen; empty for one that follows the weights.
        passes: training passes between evaluations.
    """

    def __init__(self, scores: list[float], passes: int) -> None:
        self.scores = scores
        self.passes = passes

    def __call__(self, model: nn.Module) -> dict[str, float]:
        rank, processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        torch.manual_seed(time.time_ns())
        rows = list(range(rank, EVALUATED_ROWS, processes))
        batch = collate([item(index, 999) for index in rows])
        model.eval()
        with torch.no_grad():
            errors = (model.head(torch.tanh(model.norm(model.base(batch["x"]))))[:, 0] - batch["y"]).tolist()
        found = dict(gather_object(list(zip(rows, errors, strict=True))))
        assert sorted(found) == list(range(EVALUATED_ROWS))
        mean_error = sum(abs(error) for error in found.values()) / EVALUATED_ROWS
        weights = sum(value.double().sum().item() for value in model.head.state_dict().values())
        score = self.scores[int(model.passes) // self.passes - 1] if self.scores else 1000 * weights % 1
        return {"score": score, "mean_error": mean_error}


def run(
    folder: Path,
    model: str = "plain",
    build: dict[str, Any] | None = None,
    stream: bool = False,
    evaluate: bool = False,
    scores: list[float] | None = None,
    score_passes: int = 1,
    troubles: list[dict[str, Any]] | None = None,
    trace: bool = True,
    recipe: dict[str, Any] | None = None,
    processes: int = 1,
    **settings: Any,
) -> Model:
    """Train in `folder / "run"`.

    Args:
        folder: of the run and of what the tests look at.
        model: which of `MODELS`.
        build: arguments of the model.
        stream: train on [`Stream`].
        evaluate: with [`Evaluation`].
        scores: see there.
        score_passes: see there.
        troubles: arguments of [`Trouble`].
        trace: whether passes are written to `folder / "trace-RANK.jsonl"`.
        recipe: see `fit`.
        processes: asserted.
        settings: of `LoopConfig`.
    """
    config = LoopConfig(output_dir=str(folder / "run"), **({"batch_size": 2, "learning_rate": 0.003} | settings))
    accelerator = build_accelerator(config)
    assert accelerator.num_processes == processes
    rank = accelerator.process_index
    (folder / f"joined-{rank}").touch()
    mine = [trouble for trouble in (Trouble(**arguments) for arguments in troubles or []) if trouble.rank == rank]
    built = MODELS[model](**(build or {}), troubles=mine, trace=folder / f"trace-{rank}.jsonl" if trace else None)
    dataset: Any = MapDataset()
    if stream:
        dataset = Stream(config.batch_size, rank, processes, folder / f"decoded-{rank}.txt")
    evaluation = Evaluation(scores or [], score_passes) if evaluate else None
    return fit(built, dataset, collate, config, accelerator, recipe, evaluation)


# Processes


class KillAtWrite:
    """Audit hook that kills its process at one of the accesses to files of the run.

    Args:
        folder: of the run.
        at: number of the access, from 1; 0 for none.
    """

    EVENTS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"})

    def __init__(self, folder: Path, at: int) -> None:
        self.folder = str(folder)
        self.at = at
        self.count = 0

    def __call__(self, event: str, arguments: tuple) -> None:
        if event not in self.EVENTS or isinstance(arguments[0], int):
            return
        path = os.fspath(arguments[0])
        relative_to_descriptor = event != "open" and any(isinstance(value, int) and value > 2 for value in arguments)
        if relative_to_descriptor or self.folder in (os.fsdecode(path) if path else ""):
            self.count += 1
            if self.count == self.at:
                os.kill(os.getpid(), signal.SIGKILL)


def work(folder: Path, rank: int, processes: int, port: int, kill_at_write: int, keywords: dict[str, Any]) -> None:
    """Body of one process: output goes to a file, final weights to `final-RANK.pt`, errors become exit code 1."""
    output = os.open(folder / f"output-{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ["ACCELERATE_USE_CPU"] = "true"
    if processes > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    multiprocessing.set_start_method("fork", force=True)  # of the loader's workers, as in a run of its own
    torch.set_num_threads(1)
    watch = KillAtWrite(folder / "run", kill_at_write)
    sys.addaudithook(watch)
    code = 0
    try:
        trained = run(folder, processes=processes, **keywords)
        torch.save(trained.state_dict(), folder / f"final-{rank}.pt")
        (folder / f"accesses-{rank}.txt").write_text(str(watch.count))
    except SystemExit as left:
        code = int(left.code or 0)
    except BaseException as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        traceback.print_exc()
        (folder / f"error-{rank}.txt").write_text(f"{type(error).__name__}: {error}")
        code = 1
    sys.stdout.flush()
    if torch.distributed.is_initialized() and code == 0:
        torch.distributed.destroy_process_group()
    os._exit(code)


def start(folder: Path, processes: int = 1, kill_at_write: int = 0, **keywords: Any) -> list[BaseProcess]:
    """Start a run; the keywords are those of [`run`]."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for stale in (*folder.glob("error-*.txt"), *folder.glob("final-*.pt"), *folder.glob("joined-*")):
        stale.unlink()
    started = []
    for rank in range(processes):
        process = forked(work, folder, rank, processes, port, kill_at_write, keywords)
        process.start()
        started.append(process)
    return started


def finish(started: list[BaseProcess], timeout: float = TIMEOUT) -> list[int | None]:
    """Exit codes, negative for signals; None for a process that hung and was killed."""
    end = time.monotonic() + timeout
    codes: list[int | None] = []
    for process in started:
        process.join(max(0.0, end - time.monotonic()))
        codes.append(process.exitcode)
    for process in started:
        process.kill()
        process.join()
    return codes


def launch(folder: Path, processes: int = 1, timeout: float = TIMEOUT, **keywords: Any) -> list[int | None]:
    """Start a run and wait for it."""
    return finish(start(folder, processes, **keywords), timeout)


def main(folder: str, keywords: str) -> None:
    """Command line, for launchers: folder and the keywords of [`run`] as JSON."""
    torch.set_num_threads(1)
    run(Path(folder), **json.loads(keywords))


if __name__ == "__main__":
    main(*sys.argv[1:])
