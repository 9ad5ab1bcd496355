import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import IterableDataset

from defect_hub.train.checkpoints import checkpoints
from defect_hub.train.loop import build_accelerator, fit
from defect_hub.train.loop_config import LoopConfig, learning_rate
from defect_hub.train.signals import INTERRUPTED_EXIT_CODE
from tests.train.toy_run import ITEMS, ToyDataset, ToyModel, collate, run

ROOT = Path(__file__).parents[2]
# 22 items in batches of 2: 11 batches an epoch, which two-fold accumulation does not divide.
SETTINGS = {
    "plain": {"epochs": 2},
    "accumulation": {"epochs": 3, "gradient_accumulation_steps": 2},
    "workers": {"epochs": 2, "num_workers": 2},
    "workers-accumulation": {"epochs": 2, "num_workers": 2, "gradient_accumulation_steps": 2},
}


def names(output_dir):
    return [folder.name for folder in checkpoints(output_dir)]


def log(output_dir):
    return [json.loads(line) for line in (output_dir / "log.jsonl").read_text().splitlines()]


def assert_same_weights(found, expected):
    assert found.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []


def interrupt(output_dir, stop_after, **settings):
    with pytest.raises(SystemExit) as stopped:
        run(output_dir, stop_after=stop_after, **settings)
    assert stopped.value.code == INTERRUPTED_EXIT_CODE


# Resuming


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Final weights and log of each setting."""
    results = {}
    for name, settings in SETTINGS.items():
        folder = tmp_path_factory.mktemp(name)
        results[name] = run(folder, **settings).state_dict(), log(folder)
    return results


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        *(("plain", passes) for passes in (1, 5, 10, 11, 12, 21, 22)),
        *(("accumulation", passes) for passes in (1, 2, 9, 10, 11, 23)),
        *(("workers", passes) for passes in (4, 11, 12)),
        ("workers-accumulation", 7),
    ],
)
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, uninterrupted, name, passes):
    expected_weights, expected_log = uninterrupted[name]
    interrupt(tmp_path, passes, **SETTINGS[name])
    done = log(tmp_path)
    assert 0 < len(done) <= len(expected_log)
    assert names(tmp_path) == [f"step-{len(done)}"]
    torch.manual_seed(999)  # a new process would not continue this one's random numbers
    assert_same_weights(run(tmp_path, **SETTINGS[name]).state_dict(), expected_weights)
    assert log(tmp_path) == expected_log


def test_interrupted_again_and_again(tmp_path, uninterrupted):
    for _ in range(5):
        interrupt(tmp_path, 3, **SETTINGS["plain"])
    assert len(log(tmp_path)) == 15
    assert_same_weights(run(tmp_path, **SETTINGS["plain"]).state_dict(), uninterrupted["plain"][0])


def test_epochs_differ_and_every_step_is_counted(uninterrupted):
    _, steps = uninterrupted["accumulation"]
    assert [step["step"] for step in steps] == list(range(1, 16))
    assert [step["epoch"] for step in steps] == [epoch for epoch in range(3) for _ in range(5)]
    assert len({step["loss"] for step in steps}) == 15


def test_finished_run_is_not_trained_further(tmp_path, uninterrupted):
    for _ in range(2):
        assert_same_weights(run(tmp_path, **SETTINGS["plain"]).state_dict(), uninterrupted["plain"][0])
    assert len(log(tmp_path)) == ITEMS


def test_changed_recipe_is_refused_with_the_name_of_the_field(tmp_path):
    recipe = {"learning_rate": 0.01, "seed": 42, "data": "steelsynth"}
    run(tmp_path, recipe, max_steps=2)
    changed = recipe | {"learning_rate": 0.02, "data": "tadd"}
    with pytest.raises(ValueError, match=r"step-2: data, learning_rate: changed since this checkpoint was written"):
        run(tmp_path, changed, max_steps=2)
    with pytest.raises(ValueError, match="flip: changed"):
        run(tmp_path, recipe | {"flip": True}, max_steps=2)


def test_starting_over_forgets_the_earlier_run(tmp_path):
    run(tmp_path, max_steps=9, save_steps=3)
    interrupt(tmp_path, 4, max_steps=9, save_steps=3, resume=False)
    assert names(tmp_path) == ["step-3", "step-4"]
    assert_same_weights(
        run(tmp_path, max_steps=9, save_steps=3).state_dict(), run(tmp_path / "fresh", max_steps=9).state_dict()
    )
    assert [step["step"] for step in log(tmp_path)] == list(range(1, 10))


# Checkpoints


def test_newest_checkpoints_are_kept(tmp_path):
    run(tmp_path, max_steps=11, save_steps=2, keep_checkpoints=3)
    assert names(tmp_path) == ["step-8", "step-10", "step-11"]


@pytest.mark.slow
def test_killed_while_writing_a_checkpoint(tmp_path, uninterrupted):
    keywords = {**SETTINGS["plain"], "save_steps": 4}
    killed = launch([sys.executable], tmp_path, keywords | {"kill_at_save": 2})
    assert killed.returncode == -9
    assert names(tmp_path) == ["step-4"]
    partial = tmp_path / "checkpoints" / "step-8.tmp"
    assert (partial / "model.safetensors").exists(), "the kill should come in the middle"
    assert launch([sys.executable], tmp_path, keywords).returncode == 0
    assert_same_weights(torch.load(tmp_path / "final-0-of-1.pt"), uninterrupted["plain"][0])
    assert not partial.exists()
    assert log(tmp_path) == uninterrupted["plain"][1]


def test_a_signal_behind_the_last_step_is_not_lost(tmp_path):
    config = LoopConfig(output_dir=str(tmp_path), max_steps=2, eval_steps=2, batch_size=2)

    def evaluate(model):
        os.kill(os.getpid(), signal.SIGUSR1)
        return {"score": 1.0}

    with pytest.raises(SystemExit) as stopped:
        fit(ToyModel(), ToyDataset(), collate, config, build_accelerator(config), {}, evaluate)
    assert stopped.value.code == INTERRUPTED_EXIT_CODE
    assert names(tmp_path) == ["step-2"]
    fit(ToyModel(), ToyDataset(), collate, config, build_accelerator(config), {}, lambda model: {"score": 2.0})
    assert (tmp_path / "evaluations.jsonl").read_text() == '{"step": 2, "epoch": 0, "score": 1.0}\n'


class EndingStream(IterableDataset):
    """Eight items, and no more."""

    skip_batches = 0

    def __iter__(self):
        return (ToyDataset()[index] for index in range(8))


def test_a_stream_that_ends_is_an_error(tmp_path):
    config = LoopConfig(output_dir=str(tmp_path), max_steps=9, save_steps=2, batch_size=2)
    with pytest.raises(ValueError, match=r"step 5: the data are at an end\. A stream must begin anew by itself"):
        fit(ToyModel(), EndingStream(), collate, config, build_accelerator(config))
    assert names(tmp_path) == ["step-2", "step-4"]


@pytest.mark.slow
def test_a_signal_to_the_whole_group_spares_the_workers(tmp_path):
    """As of a container, a scheduler or a terminal: it reaches the data loading processes too."""
    keywords = json.dumps({"epochs": 100_000, "num_workers": 2})
    command = [sys.executable, str(ROOT / "tests/train/toy_run.py"), str(tmp_path), keywords]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not ((tmp_path / "log.jsonl").exists() and len(log(tmp_path)) >= 3):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) == INTERRUPTED_EXIT_CODE, process.stderr.read()
    assert names(tmp_path) == [f"step-{len(log(tmp_path))}"]


def test_too_few_images_for_one_step(tmp_path):
    with pytest.raises(ValueError, match="22 training images do not fill one step of 16 x 2 x 1; lower --batch_size"):
        run(tmp_path, batch_size=16, gradient_accumulation_steps=2)


# Steps


def test_learning_rate_rises_linearly_and_falls_as_a_cosine():
    config = LoopConfig(learning_rate=2.0, warmup_fraction=0.1)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert rates[10] == 2
    assert rates[55] == pytest.approx(1)
    assert rates[40] == pytest.approx(1 + math.cos(math.pi / 3))
    assert rates[99] < 0.001
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_accumulated_steps_equal_larger_batches(tmp_path):
    """Without dropout, two passes of 2 images are one of 4; drop_last leaves 20 of 22 in both."""
    small = run(tmp_path / "small", dropout=0, batch_size=2, gradient_accumulation_steps=2, epochs=1)
    large = run(tmp_path / "large", dropout=0, batch_size=4, epochs=1)
    for name, value in large.state_dict().items():
        torch.testing.assert_close(small.state_dict()[name], value)


def launch(command, output_dir, keywords):
    return subprocess.run(
        [*command, str(ROOT / "tests/train/toy_run.py"), str(output_dir), json.dumps(keywords)],
        env=os.environ | {"ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        cwd=output_dir,
    )


@pytest.mark.slow
def test_two_processes(tmp_path):
    """Two processes of 2 images step as one of 4, and resume bit for bit after one of them was told to stop."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    keywords = {"dropout": 0, "epochs": 2}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
    done = launch(torchrun, whole, keywords)
    assert done.returncode == 0, done.stderr
    weights = [torch.load(whole / f"final-{rank}-of-2.pt") for rank in (0, 1)]
    assert_same_weights(weights[1], weights[0])
    single = run(tmp_path / "single", dropout=0, epochs=2, batch_size=4).state_dict()
    for name, value in single.items():
        torch.testing.assert_close(weights[0][name], value)

    assert launch(torchrun, stopped, keywords | {"stop_after": 3, "stop_rank": 1}).returncode != 0
    assert names(stopped) == ["step-3"]
    done = launch(torchrun, stopped, keywords)
    assert done.returncode == 0, done.stderr
    assert_same_weights(torch.load(stopped / "final-0-of-2.pt"), weights[0])
