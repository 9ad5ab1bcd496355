"""The loop on one process and on two: equal weights, true logs, and no process that waits for ever."""

import json
import math
import os
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from defect_hub.train.loop import INTERRUPTED_EXIT_CODE
from tests.train.judged_run import MODELS, TIMEOUT, collate, finish, item, launch, start

STEPS = 20
SETTINGS = {"max_steps": 6, "save_steps": 2, "trace": False}
PEAK = 0.003
LAYOUTS = {  # the same 8 rows a step
    "one": (1, {"batch_size": 8}),
    "one-accumulating": (1, {"batch_size": 2, "gradient_accumulation_steps": 4}),
    "two": (2, {"batch_size": 4}),
    "two-accumulating": (2, {"batch_size": 2, "gradient_accumulation_steps": 2}),
}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def traced(folder: Path, accumulation: int) -> list[list[dict]]:
    """The passes of each step, of all processes."""
    passes = [lines(path) for path in sorted(folder.glob("trace-*.jsonl"))]
    steps = range(len(passes[0]) // accumulation)
    return [list(chain(*(own[s * accumulation : (s + 1) * accumulation] for own in passes))) for s in steps]


def weights(folder: Path, rank: int = 0) -> dict[str, torch.Tensor]:
    return {name: value for name, value in torch.load(folder / f"final-{rank}.pt").items() if name != "passes"}


def largest_difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    assert found.keys() == expected.keys()
    return max((found[name] - value).abs().max().item() for name, value in expected.items())


def step_losses(passes: list[dict], counted: bool) -> dict[str, float]:
    """Means over all rows of a step, or means of the means of its passes."""
    losses = {}
    for name in ("square", "masked"):
        sums = [one["sums"][name] for one in passes]
        counts = [one["counts"][name] for one in passes]
        if counted:
            losses[name] = sum(sums) / max(sum(counts), 1)
        else:
            losses[name] = sum(s / max(c, 1) for s, c in zip(sums, counts, strict=True)) / len(passes)
    return losses


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """Folders of the four runs for models with and without `loss_counts`."""
    folder = tmp_path_factory.mktemp("layouts")
    for model in ("plain", "counted"):
        for name, (processes, settings) in LAYOUTS.items():
            codes = launch(folder / model / name, processes, model=model, max_steps=STEPS, **settings)
            assert codes == [0] * processes, (folder / model / name / "output-0.txt").read_text()
    return folder


@pytest.mark.parametrize("layout", list(LAYOUTS)[1:])
def test_equal_weights_at_equal_global_batch(layouts, layout):
    """Also where the masked loss is a mean over unequal numbers of rows."""
    assert largest_difference(weights(layouts / "counted" / layout), weights(layouts / "counted" / "one")) < 1e-6
    uncounted = largest_difference(weights(layouts / "plain" / layout), weights(layouts / "plain" / "one"))
    assert uncounted > 1e-4, "the rows are too even to show what loss_counts is for"


@pytest.mark.parametrize("model", ["plain", "counted"])
def test_processes_have_equal_weights_and_disjoint_rows(layouts, model):
    for layout in ("two", "two-accumulating"):
        folder = layouts / model / layout
        assert largest_difference(weights(folder, 1), weights(folder, 0)) == 0
        for passes in traced(folder, LAYOUTS[layout][1].get("gradient_accumulation_steps", 1)):
            rows = list(chain(*(one["index"] for one in passes)))
            assert len(rows) == len(set(rows)) == 8


@pytest.mark.parametrize("model", ["plain", "counted"])
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_loop_equals_a_plain_one_in_torch(layouts, model, layout):
    """Losses, gradient norms, learning rates and weights, from the rows of each step alone."""
    folder, (_, settings) = layouts / model / layout, LAYOUTS[layout]
    logged = lines(folder / "run" / "log.jsonl")
    steps = traced(folder, settings.get("gradient_accumulation_steps", 1))
    assert len(logged) == len(steps) == STEPS
    assert [line["step"] for line in logged] == list(range(1, STEPS + 1))
    reference = MODELS["plain"]()
    trainable = [parameter for parameter in reference.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, weight_decay=0.0)
    for number, (line, passes) in enumerate(zip(logged, steps, strict=True)):
        expected = step_losses(passes, model == "counted")
        assert {name: line[name] for name in expected} == pytest.approx(expected, rel=1e-5)
        assert line["loss"] == pytest.approx(expected["square"] + 0.5 * expected["masked"], rel=1e-5)
        # One step of warm-up (a twentieth of 20), then a cosine to zero.
        rate = PEAK * (0.5 * (1 + math.cos(math.pi * (number - 1) / (STEPS - 1))) if number else 1)
        assert line["learning_rate"] == pytest.approx(rate)
        epoch = line["epoch"]
        batches = [collate([item(index, epoch) for index in one["index"]]) for one in passes]
        totals = {name: sum(one["counts"][name] for one in passes) for name in ("square", "masked")}
        counts = {name: torch.tensor(total) for name, total in totals.items()} if model == "counted" else None
        optimizer.zero_grad()
        for batch in batches:
            del batch["ids"]
            loss = reference(**batch, loss_counts=counts).loss
            (loss if model == "counted" else loss / len(batches)).backward()
        norm = torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        assert line["gradient_norm"] == pytest.approx(norm.item(), rel=1e-4)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    found = weights(folder)
    assert largest_difference({name: reference.state_dict()[name] for name in found}, found) < 1e-6


def test_moving_average_is_what_the_run_returns(tmp_path):
    """The share of the old average rises from 0.1 to `ema_decay`."""
    assert launch(tmp_path / "none", max_steps=STEPS, save_steps=1, keep_checkpoints=STEPS) == [0]
    assert launch(tmp_path / "average", max_steps=STEPS, ema_decay=0.5) == [0]
    average = MODELS["plain"]().head.weight.detach().clone()
    for step in range(STEPS):
        state = load_file(tmp_path / f"none/run/checkpoints/step-{step + 1}/model.safetensors")
        kept = min(0.5, (1 + step) / (10 + step))
        average = kept * average + (1 - kept) * state["head.weight"]
    torch.testing.assert_close(weights(tmp_path / "average")["head.weight"], average, rtol=1e-5, atol=1e-7)


# Evaluation


@pytest.mark.parametrize("processes", [1, 2])
def test_evaluations_are_logged_and_leave_training_untouched(tmp_path, processes):
    """The callable shares 7 rows between the processes, draws random numbers and switches dropout off."""
    keywords = {"build": {"dropout": 0.5}, "max_steps": 12}
    assert launch(tmp_path / "without", processes, **keywords) == [0] * processes
    assert launch(tmp_path / "with", processes, evaluate=True, eval_steps=3, **keywords) == [0] * processes
    assert largest_difference(weights(tmp_path / "with"), weights(tmp_path / "without")) == 0
    evaluations = lines(tmp_path / "with/run/evaluations.jsonl")
    assert [line["step"] for line in evaluations] == [3, 6, 9, 12]
    assert all(one["training"] for one in lines(tmp_path / "with/trace-0.jsonl"))
    assert (tmp_path / "with/run/log.jsonl").read_text() == (tmp_path / "without/run/log.jsonl").read_text()


def test_evaluation_by_epoch(tmp_path):
    """27 rows in steps of 8 are 3 steps an epoch; evaluated after every second."""
    assert launch(tmp_path, evaluate=True, epochs=4, batch_size=8, eval_epochs=2) == [0]
    assert [line["step"] for line in lines(tmp_path / "run/evaluations.jsonl")] == [6, 12]


# Nothing hangs


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Run of two processes that nothing befell."""
    folder = tmp_path_factory.mktemp("whole")
    assert launch(folder, 2, **SETTINGS) == [0, 0]
    return folder


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_signal_to_one_process_stops_both_at_the_same_step(tmp_path, name):
    troubles = [{"rank": 1, "at": 4, "action": name}]
    codes = launch(tmp_path, 2, max_steps=10, gradient_accumulation_steps=2, troubles=troubles)
    assert codes == [INTERRUPTED_EXIT_CODE] * 2
    assert [folder.name for folder in (tmp_path / "run/checkpoints").iterdir()] == ["step-2"]


@pytest.mark.parametrize("action", ["nan", "infinite_gradient"])
@pytest.mark.parametrize("at", [5, 6])
def test_bad_loss_of_one_process_ends_both(tmp_path, action, at):
    """In either of the two passes of the third step."""
    troubles = [{"rank": 1, "at": at, "action": action}]
    settings = {"max_steps": 10, "save_steps": 1, "gradient_accumulation_steps": 2}
    assert launch(tmp_path, 2, troubles=troubles, **settings) == [1, 1]
    assert sorted(folder.name for folder in (tmp_path / "run/checkpoints").iterdir()) == ["step-1", "step-2"]
    rows = lines(tmp_path / "trace-1.jsonl")[at - 1]["index"]
    for rank in (0, 1):
        error = (tmp_path / f"error-{rank}.txt").read_text()
        assert error.startswith("ValueError: ")
        assert len(error.splitlines()) == 1
        assert "step 3" in error
        if rank == 1:
            assert all(f"image-{row}.png" in error for row in rows)
    assert [line["step"] for line in lines(tmp_path / "run/log.jsonl")] == [1, 2]


@pytest.mark.parametrize("rank", [0, 1])
def test_process_that_cannot_write_its_part_ends_both(tmp_path, whole, rank):
    """Random states, a few kilobytes, are all that process 1 writes."""
    troubles = [{"rank": rank, "at": 3, "action": "file_size", "value": 2000}]
    assert launch(tmp_path, 2, troubles=troubles, **SETTINGS) == [1, 1]
    checkpoints = tmp_path / "run/checkpoints"
    assert [folder.name for folder in checkpoints.iterdir()] == ["step-2"]
    for number in (0, 1):
        error = (tmp_path / f"error-{number}.txt").read_text()
        assert error.startswith("OSError: "), error
        assert len(error.splitlines()) == 1
    assert launch(tmp_path, 2, **SETTINGS) == [0, 0]
    assert largest_difference(weights(tmp_path), weights(whole)) == 0


@pytest.mark.parametrize("action", ["SIGKILL", "error"])
@pytest.mark.parametrize("rank", [0, 1])
def test_death_of_one_process_ends_the_other(tmp_path, whole, action, rank):
    started = time.monotonic()
    codes = launch(tmp_path, 2, troubles=[{"rank": rank, "at": 5, "action": action}], **SETTINGS)
    assert codes[rank] == (-9 if action == "SIGKILL" else 1)
    assert codes[1 - rank] not in (0, None, INTERRUPTED_EXIT_CODE)
    assert time.monotonic() - started < TIMEOUT / 2
    assert launch(tmp_path, 2, **SETTINGS) == [0, 0]
    assert largest_difference(weights(tmp_path), weights(whole)) == 0


def test_late_process_is_waited_for(tmp_path):
    troubles = [{"rank": 1, "at": 2, "action": "sleep", "value": 1.0}]
    assert finish(start(tmp_path, 2, max_steps=3, troubles=troubles)) == [0, 0]


@pytest.mark.slow
def test_torchrun_ends_when_a_process_is_killed(tmp_path, whole):
    """The launcher of the documentation; the number of processes is asserted inside."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    keywords = SETTINGS | {"processes": 2, "trace": True, "troubles": [{"rank": 1, "at": 5, "action": "SIGKILL"}]}
    done = subprocess.run(
        [*torchrun, "--module", "tests.train.judged_run", str(tmp_path), json.dumps(keywords)],
        env=os.environ | {"ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=2 * TIMEOUT,
    )
    assert done.returncode != 0
    assert [len(lines(tmp_path / f"trace-{rank}.jsonl")) for rank in (0, 1)] == [5, 5], done.stderr
    assert launch(tmp_path, 2, **SETTINGS) == [0, 0]
    assert largest_difference(weights(tmp_path), weights(whole)) == 0
