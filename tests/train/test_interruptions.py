"""The loop interrupted, killed, starved of disk and fed bad losses: it goes on bit for bit, or says what is wrong."""

import itertools
import json
import math
import random
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from defect_hub.train.loop import INTERRUPTED_EXIT_CODE, LoopConfig, build_accelerator, fit
from tests.train.judged_run import TIMEOUT, MapDataset, Model, collate, finish, launch, run, start

# 27 rows in batches of 2: 13 batches an epoch, which neither two processes nor two-fold accumulation divide.
RANDOM = {"dropout": 0.5, "norm": True}
EVALUATED = {"evaluate": True, "eval_steps": 3, "best_metric": "score"}
RUNS = {
    "plain": (1, {"build": RANDOM}),
    "accumulation": (1, {"build": RANDOM, "gradient_accumulation_steps": 2}),
    "workers": (1, {"build": RANDOM, "num_workers": 2}),
    "bf16": (1, {"build": RANDOM, "mixed_precision": "bf16"}),
    "average-evaluated": (1, {"build": RANDOM, "ema_decay": 0.8, **EVALUATED}),
    "stream": (1, {"build": RANDOM, "stream": True}),
    "stream-workers-accumulation": (
        1,
        {"build": RANDOM, "stream": True, "num_workers": 2, "gradient_accumulation_steps": 2},
    ),
    "two": (2, {"build": RANDOM, "model": "counted"}),
    "two-workers-accumulation": (2, {"build": RANDOM, "num_workers": 2, "gradient_accumulation_steps": 2}),
    "two-stream-evaluated": (2, {"build": RANDOM, "stream": True, "ema_decay": 0.8, **EVALUATED}),
}
LOGS = ("log.jsonl", "evaluations.jsonl")


def strict_lines(path: Path) -> list[dict]:
    """Lines of a log; "NaN" is no JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{path}: {constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "run/checkpoints").iterdir())


def error(folder: Path, rank: int = 0) -> str:
    return (folder / f"error-{rank}.txt").read_text()


def assert_same_run(found: Path, expected: Path, processes: int = 1) -> None:
    """Final weights, logs and checkpoints are equal bit for bit, and nothing partial is left."""
    for rank in range(processes):
        ours, theirs = (torch.load(folder / f"final-{rank}.pt") for folder in (found, expected))
        assert [name for name, value in theirs.items() if not torch.equal(ours[name], value)] == []
    for log in LOGS:
        if (expected / "run" / log).exists():
            assert (found / "run" / log).read_text() == (expected / "run" / log).read_text()
            strict_lines(found / "run" / log)
    assert names(found) == names(expected)
    for name in names(expected):
        assert sorted(path.name for path in (found / "run/checkpoints" / name).iterdir()) == sorted(
            path.name for path in (expected / "run/checkpoints" / name).iterdir()
        )
    assert list(found.rglob("*.tmp*")) == []


def completed(folder: Path, processes: int = 1, **keywords: object) -> Path:
    codes = launch(folder, processes, **keywords)
    assert codes == [0] * processes, (folder / "output-0.txt").read_text()
    return folder


# Exact resumption


@pytest.mark.parametrize("name", list(RUNS))
def test_interrupted_twice_equals_uninterrupted(tmp_path, name):
    processes, keywords = RUNS[name]
    keywords = keywords | {"max_steps": 15, "save_steps": 4}
    whole = completed(tmp_path / "whole", processes, **keywords)
    parts = tmp_path / "parts"
    for at in (5, 4):  # of the passes of each life
        troubles = [{"rank": processes - 1, "at": at, "action": "SIGTERM"}]
        assert launch(parts, processes, troubles=troubles, **keywords) == [INTERRUPTED_EXIT_CODE] * processes
    completed(parts, processes, **keywords)
    shutil.rmtree(whole / "run/checkpoints/step-12")  # the interruptions have their own places among the last two
    for folder in (parts / "run/checkpoints").iterdir():
        if folder.name not in names(whole):
            shutil.rmtree(folder)
    assert_same_run(parts, whole, processes)
    for decoded in (path.read_text().split() for path in parts.glob("decoded-*.txt")):
        rows = len(set(decoded)) + 4 * 2 * 2 * 2  # at most what the loader had fetched ahead, twice
        assert len(decoded) <= rows, "rows of earlier lives were decoded again"


@pytest.mark.parametrize("at", [1, 4, 5, 6, 7, 8])
def test_decisions_on_the_best_weights_survive_interruptions(tmp_path, at):
    """The best of the evaluations after every second step is the second; the fourth is the second without gain."""
    scores = {"evaluate": True, "scores": [1.0, 3.0, 3.0, 2.5, 9.0, 9.0], "score_passes": 2}
    keywords = {"max_steps": 12, "eval_steps": 2, "best_metric": "score", "patience": 2, "save_steps": 1, **scores}
    troubles = [{"at": at, "action": "SIGINT"}]
    assert launch(tmp_path, troubles=troubles, **keywords)[0] in (0, INTERRUPTED_EXIT_CODE)
    for _ in range(2):  # the second time there is nothing left to do
        completed(tmp_path, **keywords)
        assert [line["score"] for line in strict_lines(tmp_path / "run/evaluations.jsonl")] == [1.0, 3.0, 3.0, 2.5]
        assert [line["step"] for line in strict_lines(tmp_path / "run/log.jsonl")] == list(range(1, 9))
        assert names(tmp_path) == ["step-4", "step-7", "step-8"]
        best = load_file(tmp_path / "run/checkpoints/step-4/model.safetensors")
        final = torch.load(tmp_path / "final-0.pt")
        assert torch.equal(final["head.weight"], best["head.weight"])
        assert int(final["passes"]) == 4


def test_frozen_weights_are_left_out_of_checkpoints(tmp_path):
    completed(tmp_path, max_steps=2, build={"width": 1000, "norm": True})
    folder = tmp_path / "run/checkpoints/step-2"
    saved = load_file(folder / "model.safetensors")
    assert "head.weight" in saved
    assert "norm.running_mean" in saved
    assert [name for name in saved if name.startswith("base.")] == []
    head_and_norm = 4 * (2 * 1000 + 2 + 4 * 1000)
    assert head_and_norm < (folder / "model.safetensors").stat().st_size < head_and_norm + 2000


# Killed


KILLED = {"max_steps": 12, "save_steps": 2, "build": {"width": 100_000, "dropout": 0.5}, **EVALUATED}


def killed_and_completed(folder: Path, whole: Path, kills: int, kill: object, processes: int = 1) -> None:
    """Kill lives of runs until enough were killed; each run is completed and compared.

    Args:
        folder: of the runs.
        whole: run to compare with.
        kills: number of lives to kill.
        kill: takes the folder of a run, starts a life and returns whether it was killed in time.
        processes: of the run.
    """
    for number in itertools.count():
        run, killed = folder / str(number), 0
        while killed < min(5, kills) and kill(run):
            killed += 1
        kills -= killed
        completed(run, processes, **KILLED)
        assert_same_run(run, whole, processes)
        if not kills:
            return


def test_killed_at_accesses_to_its_files(tmp_path):
    """SIGKILL before an access drawn from all: checkpoints, rotation, logs."""
    whole = completed(tmp_path / "whole", **KILLED)
    accesses, draw = int((whole / "accesses-0.txt").read_text()), random.Random(0)
    assert accesses > 50
    partial = []

    def kill(run: Path) -> bool:
        [code] = finish(start(run, kill_at_write=draw.randint(1, accesses * 2 // 3), **KILLED))
        assert code in (0, -9)
        partial.extend((run / "run/checkpoints").glob("*.tmp"))
        return code == -9

    killed_and_completed(tmp_path, whole, 12, kill)
    assert len(partial) >= 3, "kills should come while checkpoints are written"


@pytest.mark.parametrize(("processes", "kills"), [(1, 8), (2, 3)])
def test_killed_at_random_times(tmp_path, processes, kills):
    """SIGKILL to one process, at a time from its start to its usual end."""
    completed(tmp_path / "first", processes, **KILLED)  # waits until the server has imported everything
    begin = time.monotonic()
    whole = completed(tmp_path / "whole", processes, **KILLED)
    duration, draw = time.monotonic() - begin, random.Random(1)

    def kill(run: Path) -> bool:
        started = start(run, processes, **KILLED)
        victim = draw.choice(started)
        victim.join(draw.uniform(0, duration))
        # Before all have met, the others wait for the dead one, as for a late machine; a launcher ends them.
        met = all((run / f"joined-{rank}").exists() for rank in range(processes))
        victim.kill()
        codes = finish(started, TIMEOUT if met else 1)
        assert not met or None not in codes
        return set(codes) != {0}

    killed_and_completed(tmp_path, whole, kills, kill, processes)


def test_torn_line_at_the_end_of_a_log_is_cut_off(tmp_path):
    keywords = {"max_steps": 9, **EVALUATED}
    whole = completed(tmp_path / "whole", **keywords)
    parts = tmp_path / "parts"
    launch(parts, troubles=[{"at": 4, "action": "SIGTERM"}], **keywords)
    for log in LOGS:
        with (parts / "run" / log).open("a") as file:
            file.write('{"step": 5, "epo')
    completed(parts, **keywords)
    shutil.rmtree(parts / "run/checkpoints")
    shutil.copytree(whole / "run/checkpoints", parts / "run/checkpoints")
    assert_same_run(parts, whole)


# Bad losses


@pytest.mark.parametrize("action", ["nan", "infinite_gradient"])
def test_bad_step_is_not_taken_and_the_last_checkpoint_goes_on(tmp_path, action):
    keywords = {"max_steps": 10, "save_steps": 2, "keep_checkpoints": 9, "gradient_accumulation_steps": 2}
    whole = completed(tmp_path / "whole", **keywords)
    parts = tmp_path / "parts"
    assert launch(parts, troubles=[{"at": 9, "action": action}], **keywords) == [1]
    assert names(parts) == ["step-2", "step-4"]
    last = parts / "run/checkpoints/step-4/model.safetensors"
    assert last.read_bytes() == (whole / "run/checkpoints/step-4/model.safetensors").read_bytes()
    message = error(parts)
    assert message.startswith("ValueError: ")
    assert len(message.splitlines()) == 1
    assert "step 5" in message
    passes = strict_lines(parts / "trace-0.jsonl")[8:]
    assert sorted(re.findall(r"image-\d+\.png", message)) == sorted(
        f"image-{row}.png" for one in passes for row in one["index"]
    )
    if action == "nan":
        assert "square" in message
        assert "masked" not in message
    else:
        assert "gradient" in message
    completed(parts, **keywords)
    assert_same_run(parts, whole)


# Disk full


@pytest.mark.parametrize("size", [300, 1000, 20_000, 60_000])
def test_full_disk_leaves_the_last_checkpoint(tmp_path, size):
    """The log, the small files, the model (40 kB) or the optimiser (80 kB) cannot be written."""
    keywords = {"max_steps": 6, "save_steps": 2, "build": {"width": 5000}, "trace": False}
    whole = completed(tmp_path / "whole", **keywords)
    parts = tmp_path / "parts"
    assert launch(parts, troubles=[{"at": 3, "action": "file_size", "value": size}], **keywords) == [1]
    assert names(parts) == ["step-2"]
    message = error(parts)
    assert message.startswith("OSError: ")
    assert len(message.splitlines()) == 1
    assert "room" in message or "large" in message
    completed(parts, **keywords)
    assert_same_run(parts, whole)


def test_full_disk_of_the_logs_ends_both_processes(tmp_path):
    troubles = [{"at": 3, "action": "file_size", "value": 300}]
    keywords = {"max_steps": 6, "save_steps": 2, "trace": False}
    assert launch(tmp_path, 2, troubles=troubles, **keywords) == [1, 1]
    completed(tmp_path, 2, **keywords)
    assert [line["step"] for line in strict_lines(tmp_path / "run/log.jsonl")] == list(range(1, 7))


# Refused


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return completed(folder, max_steps=2, recipe={"data": "steelsynth", "flip": True})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"recipe": {"data": "tadd", "flip": True}}, "data"),
        ({"recipe": {"data": "steelsynth"}}, "flip"),
        ({"recipe": {"data": "steelsynth", "flip": True, "size": 3}}, "size"),
        ({"build": {"width": 17}}, "model"),
        ({"build": {"norm": True}}, "model"),
        ({"build": {"base_seed": 5}}, "frozen"),
        ({"model": "other"}, "model"),
        ({"ema_decay": 0.9}, "ema_decay"),
    ],
)
def test_checkpoint_of_another_run_is_refused(finished, change, words):
    before = {path: path.stat().st_mtime_ns for path in (finished / "run").rglob("*")}
    keywords = {"recipe": {"data": "steelsynth", "flip": True}, "max_steps": 4} | change
    assert launch(finished, **keywords) == [1], (finished / "output-0.txt").read_text()
    assert error(finished).startswith("ValueError: ")
    assert len(error(finished).splitlines()) == 1
    assert words in error(finished)
    assert {path: path.stat().st_mtime_ns for path in (finished / "run").rglob("*")} == before


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])
def test_checkpoint_of_another_number_of_processes_is_refused(tmp_path, first, second):
    completed(tmp_path, first, max_steps=2)
    assert launch(tmp_path, second, max_steps=4) == [1] * second
    for rank in range(second):
        assert error(tmp_path, rank).startswith("ValueError: ")
        assert len(error(tmp_path, rank).splitlines()) == 1
        assert "processes" in error(tmp_path, rank)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"epochs": 0}, "epochs"),
        ({"max_steps": -1}, "max_steps"),
        ({"keep_checkpoints": 0}, "keep_checkpoints"),
        ({"save_steps": 0}, "save_steps"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps"),
        ({"num_workers": -1}, "num_workers"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"weight_decay": float("nan")}, "weight_decay"),
        ({"warmup_fraction": 1.5}, "warmup_fraction"),
        ({"max_grad_norm": -1.0}, "max_grad_norm"),
        ({"mixed_precision": "fp32"}, "mixed_precision"),
        ({"schedule": "step"}, "schedule"),
        ({"ema_decay": 1.5}, "ema_decay"),
        ({"ema_decay": float("nan")}, "ema_decay"),
        ({"eval_steps": -2}, "eval_steps"),
        ({"seed": 2**32}, "[Ss]eed"),
        ({"best_metric": "score"}, "best_metric"),
        ({"eval_steps": 2, "patience": 2}, "patience"),
        ({"trackers": ["mlflow"]}, "mlflow"),
        ({"trackers": ["wandb"]}, "wandb"),
        # What only a run can know.
        ({"eval_steps": 2}, "eval_steps"),
        ({"stream": True, "max_steps": 0}, "max_steps"),
        ({"evaluate": True, "eval_steps": 1, "best_metric": "scores"}, "scores"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, monkeypatch, settings, field):
    monkeypatch.setitem(sys.modules, "wandb", None)  # not installed
    with pytest.raises(ValueError, match=field) as refused:
        run(tmp_path, **({"max_steps": 2} | settings))
    assert len(str(refused.value).splitlines()) == 1


def test_handlers_of_signals_are_given_back(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    config = LoopConfig(output_dir=str(tmp_path), max_steps=1, batch_size=2)
    fit(Model(), MapDataset(), collate, config, build_accelerator(config))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before


# What is kept and told


def test_best_and_newest_checkpoints_are_kept(tmp_path):
    """Also where killed runs left partial ones."""
    scores = {"evaluate": True, "scores": [1.0, 5.0, 2.0, 4.0, 3.0, 2.0], "score_passes": 2}
    partial = tmp_path / "run/checkpoints/step-3.tmp"
    partial.mkdir(parents=True)
    (partial / "model.safetensors").write_bytes(b"torn")
    completed(tmp_path, max_steps=12, eval_steps=2, best_metric="score", save_steps=2, keep_checkpoints=2, **scores)
    assert names(tmp_path) == ["step-10", "step-12", "step-4"]


def test_tensorboard_gets_the_values_of_the_logs(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    keywords = {"max_steps": 9, "trackers": ["tensorboard"], "save_steps": 3, **EVALUATED}
    assert launch(tmp_path, troubles=[{"at": 5, "action": "SIGTERM"}], **keywords) == [INTERRUPTED_EXIT_CODE]
    completed(tmp_path, **keywords)
    found: dict[tuple[str, int], float] = {}
    for folder in {path.parent for path in tmp_path.rglob("events.out.tfevents.*")}:
        events = EventAccumulator(str(folder)).Reload()
        for tag in events.Tags()["scalars"]:
            found |= {(tag, event.step): event.value for event in events.Scalars(tag)}
    for prefix, log in (("", "log.jsonl"), ("eval/", "evaluations.jsonl")):
        for line in strict_lines(tmp_path / "run" / log):
            for name in line.keys() - {"step", "epoch"}:
                assert found[prefix + name, line["step"]] == pytest.approx(line[name], rel=1e-5), name


@pytest.mark.parametrize("processes", [1, 2])
def test_dry_run_writes_nothing_and_estimates_what_a_run_takes(tmp_path, processes):
    """Two passes a step, each of at least 0.1 s."""
    passes = itertools.product(range(processes), range(1, 9))
    keywords = {
        "troubles": [{"rank": rank, "at": at, "action": "sleep", "value": 0.1} for rank, at in passes],
        "trace": False,
        "build": {"width": 50_000},
        "gradient_accumulation_steps": 2,
        "trackers": ["tensorboard"],
        **EVALUATED,
    }
    dry = completed(tmp_path / "dry", processes, dry_run=True, max_steps=3600, **keywords)
    ours = re.compile("(output|final|accesses|joined)-")
    assert [path for path in dry.rglob("*") if not ours.match(path.name)] == []
    told = (dry / "output-0.txt").read_text()
    [step] = re.findall(r"one step: ([\d.]+) s", told)
    assert 0.2 < float(step) < 0.6
    [(hours, minutes)] = re.findall(r"3,?600 steps: (\d+) h (\d+) min", told)
    assert 60 * int(hours) + int(minutes) == pytest.approx(60 * float(step), abs=1)
    [memory] = re.findall(r"peak memory of this process: ([\d.]+) GB", told)
    assert 0.2 < float(memory) < 2  # torch alone takes a third
    completed(tmp_path / "real", processes, max_steps=2, **keywords)
    size = sum(path.stat().st_size for path in (tmp_path / "real/run/checkpoints/step-2").iterdir())
    [megabytes] = re.findall(r"one checkpoint: ([\d.]+) MB", told)
    assert float(megabytes) == pytest.approx(size / 1e6, rel=0.1)


def test_evaluation_without_a_score_is_no_best_one(tmp_path):
    """NaN, as of a metric without defects to find, is neither best nor unbeatable, and no JSON."""
    scores = {"evaluate": True, "scores": [math.nan, 1.0, math.nan, 0.5, 3.0, 3.0], "score_passes": 2}
    completed(tmp_path, max_steps=12, eval_steps=2, best_metric="score", patience=2, save_steps=2, **scores)
    assert [line["score"] for line in strict_lines(tmp_path / "run/evaluations.jsonl")] == [None, 1.0, None, 0.5]
    assert int(torch.load(tmp_path / "final-0.pt")["passes"]) == 4


def test_killed_while_an_old_checkpoint_is_removed(tmp_path):
    """No checkpoint keeps its name with a part of its files, and none too many stays behind."""
    keywords = {"max_steps": 6, "save_steps": 2, "keep_checkpoints": 1}
    whole = completed(tmp_path / "whole", **keywords)
    accesses, files = (
        int((whole / "accesses-0.txt").read_text()),
        len(list((whole / "run/checkpoints/step-6").iterdir())),
    )
    for number, at in enumerate(range(accesses - 7, accesses + 1)):
        folder = tmp_path / str(number)
        assert finish(start(folder, kill_at_write=at, **keywords)) == [-9]
        for name in names(folder):
            assert name.endswith(".tmp") or len(list((folder / "run/checkpoints" / name).iterdir())) == files
        assert_same_run(completed(folder, **keywords), whole)
