import json

import pytest
from accelerate import Accelerator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from defect_hub.train.progress import Progress, check_trackers, cut_back


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("rest", ["", '{"step": 5, "lo', '{"step": 4}\n{"step": 5}\n'])
def test_lines_of_steps_that_are_done_again_go(tmp_path, rest):
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1}\n{"step": 3}\n' + rest)
    cut_back(log, 3)
    assert lines(log) == [{"step": 1}, {"step": 3}]
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_log_that_is_not_there_stays_away(tmp_path):
    cut_back(tmp_path / "log.jsonl", 0)
    assert not any(tmp_path.iterdir())


def test_trackers_get_what_the_files_get(tmp_path):
    accelerator = Accelerator(cpu=True, log_with=["tensorboard"], project_dir=tmp_path)
    progress = Progress(accelerator, tmp_path, 0, 0, 2, {"counts": [0, 1], "learning_rate": 0.1})
    progress.step(1, 0, {"loss": 0.5, "gradient_norm": float("nan")})
    progress.evaluation(1, 0, {"image_auroc": 0.75})
    progress.step(2, 1, {"loss": 0.25, "gradient_norm": 2.0})
    progress.close()
    accelerator.end_training()
    first = {"step": 1, "epoch": 0, "loss": 0.5, "gradient_norm": None}
    assert lines(tmp_path / "log.jsonl") == [first, {"step": 2, "epoch": 1, "loss": 0.25, "gradient_norm": 2.0}]
    assert lines(tmp_path / "evaluations.jsonl") == [{"step": 1, "epoch": 0, "image_auroc": 0.75}]
    (folder,) = {path.parent for path in tmp_path.rglob("events.out*") if path.parent.name == tmp_path.name}
    events = EventAccumulator(str(folder)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5), (2, 0.25)]
    assert [event.value for event in events.Scalars("eval/image_auroc")] == [0.75]
    assert [event.step for event in events.Scalars("gradient_norm")] == [2]


def test_a_quiet_run_writes_nothing(tmp_path):
    progress = Progress(Accelerator(cpu=True), tmp_path / "run", 0, 0, 2, {}, quiet=True)
    progress.step(1, 0, {"loss": 0.5})
    progress.evaluation(1, 0, {"image_auroc": 0.75})
    assert not (tmp_path / "run").exists()


def test_unknown_and_missing_trackers_are_named(monkeypatch):
    with pytest.raises(ValueError, match="trackers: 'tensorbord' is none of tensorboard, trackio, wandb"):
        check_trackers(["tensorbord"])
    monkeypatch.setattr("defect_hub.train.progress.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"trackers: wandb is not installed\. Run `pip install wandb`"):
        check_trackers(["wandb"])
