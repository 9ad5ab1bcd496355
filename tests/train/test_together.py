import hashlib
import io
from contextlib import redirect_stderr

import datasets
import numpy as np
import pytest
import torch
from sklearn import metrics
from transformers import AutoModel, AutoProcessor

from defect_hub.embedded import EMBEDDED_CHECKPOINT
from defect_hub.train.calibration import calibrate_trained, references_by_object
from defect_hub.train.data import load_split
from defect_hub.train.evaluation import (
    Prediction,
    evaluate_diagnosis,
    evaluate_during_training,
    metrics_during_training,
    pixel_target,
    score_split,
)
from defect_hub.train.together import failing_together
from tests.train.processes import run_together

BATCH = 2
SIZES = (1, 2, 3, 7, 16)


@pytest.fixture(scope="module")
def train(steelsynth):
    return load_split(str(steelsynth), "train")


@pytest.fixture(scope="module")
def small(train):
    """16 rows with thumbnails."""
    size = (20, 24)

    def shrunk(row):
        pictures = {name: row[name] and row[name].resize(size) for name in ("image", "mask")}
        return pictures | {"width": size[0], "height": size[1]}

    return train.select(range(16)).map(shrunk)


def guess(batch):
    """Knows each image by its pixels alone."""
    digests = [hashlib.sha256(row["image"].tobytes()).digest() for row in batch]
    maps = torch.stack([torch.frombuffer(bytearray(digest), dtype=torch.uint8).view(4, 8) for digest in digests])
    maps = maps / 255
    return Prediction(
        maps.mean(dim=(1, 2)),
        maps,
        [digest.hex()[:5] for digest in digests],
        {"max": maps.amax(dim=(1, 2)).numpy()},
        maps.std(dim=(1, 2)).numpy(),
        len(digests[0]),
    )


def raw(scores):
    """All that a pass returns, to be compared bit for bit."""
    return {
        "image_scores": scores.image_scores.tobytes(),
        "is_defective": scores.is_defective.tolist(),
        "pixels": {name: value.tobytes() for name, value in scores.pixels.state_dict().items()},
        "descriptions": scores.descriptions,
        "by_mode": {mode: values.tobytes() for mode, values in scores.by_mode.items()},
        "score_stds": None if scores.score_stds is None else scores.score_stds.tobytes(),
        "num_references": scores.num_references,
        "metrics": scores.metrics(),
        "undefined": scores.undefined(),
    }


@pytest.mark.parametrize("processes", [2, 3])
def test_all_processes_get_the_scores_of_one_at_any_size(small, processes):
    def score(size, accelerator):
        own, bar = [], io.StringIO()
        with redirect_stderr(bar):
            rows = small.select(range(size))
            scores = score_split(guess, rows, BATCH, lambda row, *_: own.append(row["image_id"]), accelerator)
        return raw(scores), own, "evaluate" in bar.getvalue()

    results = run_together(processes, lambda accelerator: {size: score(size, accelerator) for size in SIZES})
    for size in SIZES:
        rows = small.select(range(size))
        expected = raw(score_split(guess, rows, BATCH))
        for rank, result in enumerate(results):
            scores, own, has_bar = result[size]
            assert scores == expected
            assert own == [name for at, name in enumerate(rows["image_id"]) if at // BATCH % processes == rank]
            assert has_bar is (rank == 0)


def test_gathered_metrics_equal_scikit_learn_on_all_rows(small):
    rows = small.select(range(7))
    found, other = run_together(2, lambda accelerator: score_split(guess, rows, BATCH, accelerator=accelerator))
    maps, targets = [], []
    whole = score_split(
        guess, rows, BATCH, lambda row, score, values, target: (maps.append(values), targets.append(target))
    )
    assert targets[0].shape == pixel_target(rows[0]).shape
    pixels, labels = np.concatenate([m.ravel() for m in maps]), np.concatenate([t.ravel() for t in targets])
    for scores in (found, other):
        values = scores.metrics()
        assert values["image_auroc"] == pytest.approx(metrics.roc_auc_score(rows["is_defective"], whole.image_scores))
        assert values["image_ap"] == pytest.approx(
            metrics.average_precision_score(rows["is_defective"], whole.image_scores)
        )
        assert values["pixel_auroc"] == pytest.approx(metrics.roc_auc_score(labels, pixels))
        assert values["pixel_ap"] == pytest.approx(metrics.average_precision_score(labels, pixels))
        assert scores.pixels.n_images == 7


def damaged(rows, index):
    """The rows with one image cut off."""
    plain = rows.cast_column("image", datasets.Image(decode=False))

    def cut(row, at):
        content = row["image"]["bytes"]
        if at == index:
            content = content[: len(content) // 2]
        return {"image": {"path": None, "bytes": content}}

    return plain.map(cut, with_indices=True).cast_column("image", datasets.Image())


@pytest.mark.parametrize("index", [0, 7])  # of the first round, and of the last, in which one process has a batch
def test_an_image_that_one_process_cannot_read_ends_all_with_its_name(small, index):
    rows = damaged(small.select(range(8)), index)
    name = rows["image_id"][index]
    errors = run_together(3, lambda accelerator: score_split(guess, rows, BATCH, accelerator=accelerator))
    assert [type(error) for error in errors] == [ValueError] * 3
    assert all(str(error).startswith(f"{name}: image or mask cannot be read") for error in errors)
    with pytest.raises(ValueError, match=f"{name}: image or mask cannot be read"):
        score_split(guess, rows, BATCH)


def test_a_failure_of_one_process_is_raised_by_all():
    def work(accelerator):
        with failing_together(accelerator):
            if accelerator.process_index == 1:
                raise OSError("scratch: no\nspace left")

    first, second, third = run_together(3, work)
    assert isinstance(second, OSError)
    assert (str(first), str(third)) == ("scratch: no space left",) * 2
    with pytest.raises(OSError, match="alone"), failing_together(None):
        raise OSError("alone")


def test_a_pass_that_one_process_leaves_out_is_noticed():
    """What the other tests rely on: who waits for ever is ended, and fails the test."""

    def work(accelerator):
        if accelerator.is_main_process:
            accelerator.wait_for_everyone()

    with pytest.raises(pytest.fail.Exception, match="process 0 of 2 hangs"):
        run_together(2, work, timeout=1)


def named(rows, names):
    return rows.remove_columns("object_name").add_column("object_name", names)


@pytest.mark.slow
def test_training_is_evaluated_and_calibrated_alike_in_all_processes(tiny_checkpoint, small, train):
    """Two objects, of which each process scores one; the model is left as it was."""
    model, processor = AutoModel.from_pretrained(tiny_checkpoint), AutoProcessor.from_pretrained(tiny_checkpoint)
    model.train()
    model.model.clip.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    rows, train = (
        named(part, ["steel surface" if number % 3 else "magnetic tile" for number in range(len(part))])
        for part in (small.select(range(8)), train)
    )

    def work(accelerator):
        found = evaluate_during_training(model, processor, rows, accelerator)
        assert {name: module.training for name, module in model.named_modules()} == modes
        assert not any(parameter.grad is not None for parameter in model.parameters())
        calibrate_trained(model, processor, rows, train, num_references=1, seed=0, accelerator=accelerator)
        return found, processor.calibration

    [(values, calibration)] = run_together(1, work)
    assert run_together(2, work) == [(values, calibration)] * 2
    assert sorted(values) == metrics_during_training()
    shown = evaluate_diagnosis(model, processor, rows, describe=False)
    expected = metrics.roc_auc_score(shown.is_defective, shown.image_scores)
    assert values["image_auroc"] == pytest.approx(expected)
    references = references_by_object(train, ["magnetic tile", "steel surface"], 1, seed=0)
    assert calibration["few_shot"]["image"]["references"] == [
        {name: [reference.id for reference in of] for name, of in references.items()}
    ]


def test_metrics_without_a_value_are_left_out(model, processor, small):
    bare = small.select(range(8)).map(lambda row: {"mask": None}, features=small.features)
    found = run_together(2, lambda accelerator: evaluate_during_training(model, processor, bare, accelerator))
    assert [values.keys() for values in found] == [{"image_auroc", "image_ap", "image_f1_max"}] * 2


@pytest.mark.slow
def test_two_processes_describe_and_detect_as_one_does(rows):
    """The checkpoint inside the package, bit for bit."""
    model = AutoModel.from_pretrained(EMBEDDED_CHECKPOINT).eval()
    processor = AutoProcessor.from_pretrained(EMBEDDED_CHECKPOINT)

    def work(accelerator):
        scores = evaluate_diagnosis(model, processor, rows, batch_size=5, max_new_tokens=12, accelerator=accelerator)
        return raw(scores)

    [expected] = run_together(1, work)
    assert len(set(expected["descriptions"])) > 1
    assert run_together(2, work) == [expected] * 2
