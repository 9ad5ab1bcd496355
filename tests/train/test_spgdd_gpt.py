import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor

from defect_hub.train.data import DiagnosisCollator, DiagnosisDataset, load_split
from defect_hub.train.evaluation import data_fingerprint
from defect_hub.train.recipe import parse_recipe
from defect_hub.train.signals import INTERRUPTED_EXIT_CODE
from defect_hub.train.spgdd_gpt import SpgddGptRecipe, build_model, cache_features, check_apart, main, split_rows

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "train/spgdd_gpt.py"


@pytest.fixture
def recipe_file(tmp_path, steelsynth):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"data: {steelsynth}\nmodel: tiny\nbatch_size: 4\nmax_steps: 9\nlearning_rate: 1e-3\n"
        "calibration_fraction: 0.3\nreference_counts: [0, 2]\nmodel_config:\n  num_prompt_tokens: 3\n"
    )
    return path


def weights(output_dir):
    return load_file(output_dir / "model/model.safetensors")


# Recipe


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reference_counts": -1}, "reference_counts=[-1]: give numbers from 0, e.g. 0 2"),
        ({"simulated_defects": -0.5}, "simulated_defects=-0.5: give a share from 0 to 1"),
        ({"simulated_defects": 1.5}, "simulated_defects=1.5: give a share from 0 to 1"),
        (
            {"best_metric": "image_auc", "eval_steps": 2},
            "best_metric='image_auc': choose one of aupro_0.3, image_ap, image_auroc, ",
        ),
        ({"feature_cache": "c"}, "feature_cache: trainable='all' changes the image encoder"),
        (
            {"feature_cache": "c", "trainable": "adapter", "simulated_defects": 0.5},
            "feature_cache: simulated_defects draws new images in each epoch",
        ),
        (
            {"feature_cache": "c", "trainable": "adapter", "brightness": 0.5},
            "feature_cache: brightness draws new images in each epoch",
        ),
    ],
)
def test_settings_that_do_not_fit_are_named(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_recipe(SpgddGptRecipe, [f"--{name}={value}" for name, value in settings.items()])


@pytest.mark.parametrize("counts", ["[]", "2", "[1, -1]"])
def test_reference_counts_of_the_file_are_checked(recipe_file, counts):
    recipe_file.write_text(f"reference_counts: {counts}\n")
    with pytest.raises(ValueError, match=rf"reference_counts={re.escape(counts)}: give numbers from 0"):
        parse_recipe(SpgddGptRecipe, [f"--config={recipe_file}"])


@pytest.mark.parametrize("path", sorted((ROOT / "train/configs").glob("spgdd_gpt*.yaml")), ids=lambda path: path.stem)
def test_committed_recipes_are_valid(path):
    assert parse_recipe(SpgddGptRecipe, ["--config", str(path)]).output_dir.startswith("runs/")


# Parts


def test_calibration_images_are_not_trained_on(steelsynth):
    train, calibration = split_rows(SpgddGptRecipe(data=str(steelsynth), calibration_fraction=0.25))
    assert len(calibration) == 7
    assert len(train) == 21
    assert set(train["sha256"]).isdisjoint(calibration["sha256"])
    train, calibration = split_rows(SpgddGptRecipe(data=str(steelsynth), calibration_split="val"))
    assert (len(train), len(calibration)) == (28, 12)


def test_one_split_under_two_names_cannot_calibrate_and_report(rows):
    recipe = SpgddGptRecipe(calibration_split="val", eval_split="test")
    with pytest.raises(ValueError, match="calibration_split 'val' and eval_split 'test' are the same images"):
        check_apart(recipe, rows, rows)
    check_apart(recipe, rows.select(range(4)), rows)


def test_a_variant_of_the_ablations_starts_from_a_checkpoint(rows, tiny_checkpoint):
    without_adapter = '{"detection_head": "mean", "num_prompt_tokens": 0}'
    model, processor = build_model(SpgddGptRecipe(model=str(tiny_checkpoint), model_config=without_adapter), rows)
    assert processor.num_image_tokens == model.config.num_image_tokens
    assert model.config.num_prompt_tokens == 0
    dataset = DiagnosisDataset(rows, processor, seed=0)
    assert torch.isfinite(model(**DiagnosisCollator(dataset, [1])([dataset[0], dataset[1]])).loss)


def test_another_size_of_the_bases_is_refused(rows, tiny_checkpoint):
    config = json.loads((tiny_checkpoint / "config.json").read_text())["clip_config"]
    config["vision_config"]["intermediate_size"] = 100
    recipe = SpgddGptRecipe(model=str(tiny_checkpoint), model_config=json.dumps({"clip_config": config}))
    with pytest.raises(ValueError, match=r"model_config: model\.clip\..*has another size in .*Leave out what changes"):
        build_model(recipe, rows)


def test_a_detector_trains_without_text(rows, tiny_checkpoint):
    recipe = SpgddGptRecipe(model=str(tiny_checkpoint), model_config='{"has_language_model": false}')
    model, processor = build_model(recipe, rows)
    dataset = DiagnosisDataset(rows, processor, seed=0)
    batch = DiagnosisCollator(dataset, [1])([dataset[0], dataset[1]])
    assert not batch.keys() & {"input_ids", "attention_mask", "labels"}
    losses = model(**batch).losses
    assert losses.keys() >= {"pixel", "tddf", "sep"}
    assert "text" not in losses


# Feature cache


def losses(model, dataset):
    """Of one batch with references, without dropout."""
    collate = DiagnosisCollator(dataset, [2])
    with torch.no_grad():
        return model(**collate([dataset[index] for index in (0, 3, 1)])).losses


@pytest.fixture
def fresh(tiny_checkpoint):
    return AutoModel.from_pretrained(tiny_checkpoint).eval()


def cached(fresh, rows, processor, root, flip=True):
    dataset = DiagnosisDataset(rows, processor, seed=7, flip=flip)
    cache_features(fresh, dataset, DiagnosisCollator(dataset, [0]), root, Accelerator(cpu=True))
    return dataset


@pytest.mark.parametrize("flip", [False, True])
def test_cached_features_give_the_same_losses(fresh, rows, processor, tmp_path, flip):
    """bfloat16 keeps 8 bits of a feature, so a loss may differ by some of its thousandths."""
    plain, dataset = (
        DiagnosisDataset(rows, processor, seed=7, flip=flip),
        cached(fresh, rows, processor, tmp_path, flip),
    )
    for epoch in range(2):
        plain.set_epoch(epoch)
        dataset.set_epoch(epoch)
        expected, found = losses(fresh, plain), losses(fresh, dataset)
        assert found.keys() == expected.keys() >= {"text", "pixel", "tddf", "sep"}
        for name, value in expected.items():
            assert float(found[name]) == pytest.approx(float(value), rel=5e-3, abs=1e-3), name
    first = dataset.features.read(0)
    cls, local = fresh.encode_images(processor.pixel_values([rows[0]["image"]]))
    torch.testing.assert_close(first["local_features"].float(), local[0], atol=0.05, rtol=0.02)
    torch.testing.assert_close(first["cls_features"].float(), cls[0], atol=0.05, rtol=0.02)


def test_each_encoder_and_transform_has_a_cache_of_its_own(fresh, rows, processor, tmp_path):
    folders = [cached(fresh, rows, processor, tmp_path).features.folder]
    with torch.no_grad():
        fresh.model.focuser.projections[0].weight.add_(1)  # no part of the encoder
    assert cached(fresh, rows, processor, tmp_path).features.folder == folders[0]
    with torch.no_grad():
        fresh.model.clip.visual_projection.weight[0, 0] += 0.5
    folders.append(cached(fresh, rows, processor, tmp_path).features.folder)
    fresh.config.vv_mode = "vv"
    folders.append(cached(fresh, rows, processor, tmp_path).features.folder)
    folders.append(cached(fresh, rows, processor, tmp_path, flip=False).features.folder)
    folders.append(cached(fresh, rows.select(range(5)), processor, tmp_path).features.folder)
    assert len(set(folders)) == 5
    fresh.config.reference_rotations = [90]
    with pytest.raises(ValueError, match=r"feature_cache: reference_rotations=\[90\] need the images"):
        cached(fresh, rows, processor, tmp_path)


# Runs


def test_adapter_training_leaves_the_towers_alone(tmp_path, recipe_file, tiny_checkpoint):
    settings = {"model": tiny_checkpoint, "trainable": "adapter", "max_steps": 1, "eval_split": ""}
    options = [f"--{name}={value}" for name, value in settings.items()]
    main([f"--config={recipe_file}", *options, f"--output_dir={tmp_path / 'run'}"])
    before, after = load_file(tiny_checkpoint / "model.safetensors"), weights(tmp_path / "run")
    changed = {name.split(".")[1] for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"text_adapter", "focuser", "detection_head", "adapter"}
    assert "Not evaluated." in (tmp_path / "run/model/README.md").read_text()


def test_the_card_says_who_chose_the_weights(tmp_path, recipe_file, tiny_checkpoint, capsys):
    settings = {"model": tiny_checkpoint, "trainable": "adapter", "max_steps": 2, "eval_steps": 1, "ema_decay": 0.9}
    options = [f"--{name}={value}" for name, value in settings.items()]
    main([f"--config={recipe_file}", *options, "--best_metric=image_auroc", f"--output_dir={tmp_path / 'run'}"])
    card = (tmp_path / "run/model/README.md").read_text()
    assert "The split `val` chose these weights, the best of the run by `image_auroc`" in card
    assert "averages over the steps of the run (decay 0.9)" in card
    assert len((tmp_path / "run/evaluations.jsonl").read_text().splitlines()) == 2


def test_training_the_encoder_empties_the_memory_banks(tmp_path, recipe_file, tiny_checkpoint, capsys):
    model = AutoModel.from_pretrained(tiny_checkpoint, memory_capacity=2, memory_banks=["default", "tiles"])
    model.remember(torch.randn(1, 3, 240, 240), name="tiles")
    for part in (model, AutoProcessor.from_pretrained(tiny_checkpoint)):
        part.save_pretrained(tmp_path / "filled")
    banks = {}
    for trainable in ("all", "adapter"):
        settings = {"model": tmp_path / "filled", "trainable": trainable, "max_steps": 1, "eval_split": ""}
        options = [f"--{name}={value}" for name, value in settings.items()]
        main([f"--config={recipe_file}", *options, f"--output_dir={tmp_path / trainable}"])
        said = "emptied the memory banks tiles: training changes the image encoder" in capsys.readouterr().out
        banks[trainable] = said, AutoModel.from_pretrained(tmp_path / trainable / "model").bank_size("tiles")
    assert banks == {"all": (True, 0), "adapter": (False, 1)}


@pytest.mark.slow
def test_launched_end_to_end(tmp_path, recipe_file, steelsynth):
    output_dir = tmp_path / "run"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", str(SCRIPT)]
    arguments = ["--config", str(recipe_file), "--max_steps", "2", "--output_dir", str(output_dir)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["step"] for line in (output_dir / "log.jsonl").read_text().splitlines()] == [1, 2]
    metrics = json.loads((output_dir / "metrics.json").read_text())
    assert metrics.keys() >= {"image_auroc", "pixel_auroc", "image_f1_max", "description_accuracy"}
    assert json.dumps(metrics, indent=2) in done.stdout
    card = (output_dir / "model/README.md").read_text()
    assert f"| pixel_auroc | {metrics['pixel_auroc']:.4f} |" in card
    assert str(tmp_path) not in card

    processor = AutoProcessor.from_pretrained(output_dir / "model")
    model = AutoModel.from_pretrained(output_dir / "model")
    assert model.config.num_prompt_tokens == 3
    assert processor.object_name == "steel surface"
    _, held_out = split_rows(parse_recipe(SpgddGptRecipe, arguments))
    for protocol in ("zero_shot", "few_shot"):
        for level in ("image", "pixel"):
            leaf = processor.calibration[protocol][level]
            assert 0 <= leaf["value"] <= 1
            assert leaf["n_normal"] + leaf["n_anomalous"] == len(held_out)
            assert leaf["data_fingerprint"] == data_fingerprint(held_out)
    image = load_split(str(steelsynth), "val")[0]["image"]
    outputs = model.diagnose(**processor(images=[image]), max_new_tokens=4)
    report = processor.post_process_diagnosis(outputs, target_sizes=[image.size[::-1]])[0]
    assert Image.fromarray(report["mask"]).size == image.size

    refused = subprocess.run(
        [*command, *arguments, "--learning_rate", "0.5"], capture_output=True, text=True, cwd=tmp_path
    )
    assert refused.returncode != 0
    assert "step-2: learning_rate: changed since this checkpoint was written" in refused.stderr


@pytest.mark.slow
def test_interrupted_real_run_resumes_bit_for_bit(tmp_path, recipe_file):
    """Another process goes on: what it builds anew (tokenizers, data, model) must be the same."""
    common = ["--config", str(recipe_file), "--eval_split", "", "--max_steps", "8"]
    main([*common, "--output_dir", str(tmp_path / "whole")])
    stopped = tmp_path / "stopped"
    process = subprocess.Popen([sys.executable, str(SCRIPT), *common, "--output_dir", str(stopped)], cwd=tmp_path)
    log = stopped / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and len(log.read_text().splitlines()) >= 2):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) == INTERRUPTED_EXIT_CODE
    assert 2 <= len(log.read_text().splitlines()) < 8
    main([*common, "--output_dir", str(stopped)])
    assert log.read_text() == (tmp_path / "whole/log.jsonl").read_text()
    expected, found = weights(tmp_path / "whole"), weights(stopped)
    assert found.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []


class Interrupting:
    """A collator that sends the process SIGTERM with some of its batches.

    Args:
        batches: number of batches from one signal to the next; 0 for none.
    """

    def __init__(self, batches):
        self.batches = batches
        self.count = 0
        self.collate = DiagnosisCollator.__call__

    def __get__(self, collator, owner):
        return lambda items: self.call(collator, items)

    def call(self, collator, items):
        self.count += 1
        if self.batches and self.count % self.batches == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.collate(collator, items)


@pytest.mark.slow
def test_lora_on_cached_features_resumes_bit_for_bit(tmp_path, recipe_file, tiny_checkpoint, monkeypatch):
    """Interrupted twice. The adapter on its base, and the complete model, give the same."""
    settings = {"model": tiny_checkpoint, "trainable": "lora", "lora_rank": 4, "max_steps": 5, "eval_split": ""}
    options = [f"--config={recipe_file}", *(f"--{name}={value}" for name, value in settings.items())]
    main([*options, f"--output_dir={tmp_path / 'whole'}", f"--feature_cache={tmp_path / 'cache'}"])
    stopped = [*options, f"--output_dir={tmp_path / 'stopped'}", f"--feature_cache={tmp_path / 'elsewhere'}"]
    for _ in range(2):
        with monkeypatch.context() as patched, pytest.raises(SystemExit) as left:
            patched.setattr(DiagnosisCollator, "__call__", Interrupting(2))
            main(stopped)
        assert left.value.code == INTERRUPTED_EXIT_CODE
    assert 2 <= len((tmp_path / "stopped/log.jsonl").read_text().splitlines()) < 5
    main(stopped)
    assert (tmp_path / "stopped/log.jsonl").read_text() == (tmp_path / "whole/log.jsonl").read_text()
    for file in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        expected, found = load_file(tmp_path / "whole" / file), load_file(tmp_path / "stopped" / file)
        assert found.keys() == expected.keys()
        assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []

    adapted = PeftModel.from_pretrained(AutoModel.from_pretrained(tiny_checkpoint), tmp_path / "whole/adapter")
    merged = adapted.merge_and_unload().state_dict()
    for name, value in AutoModel.from_pretrained(tmp_path / "whole/model").state_dict().items():
        assert torch.equal(merged[name], value), name
    record = json.loads((tmp_path / "whole/model/run.json").read_text())
    assert record["recipe"]["feature_cache"] == "cache"
    assert str(tmp_path) not in json.dumps(record)


@pytest.mark.slow
def test_a_set_of_normal_images_trains_with_simulated_defects(tmp_path, steelsynth, tiny_checkpoint, capsys):
    train = load_split(str(steelsynth), "train")
    train = train.filter(lambda defective: defective is False, input_columns="is_defective")
    (tmp_path / "normal").mkdir()
    train.to_parquet(tmp_path / "normal/train.parquet")
    settings = {"data": tmp_path / "normal", "model": tiny_checkpoint, "eval_split": "", "simulated_defects": 0.5}
    settings |= {"max_steps": 3, "batch_size": 4, "calibration_fraction": 0.3, "output_dir": tmp_path / "run"}
    main([f"--{name}={value}" for name, value in settings.items()])
    before, after = load_file(tiny_checkpoint / "model.safetensors"), weights(tmp_path / "run")
    changed = {name.split(".")[1] for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed >= {"focuser", "detection_head", "clip"}
    steps = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert all(step["tddf"] > 0 and step["pixel"] > 0 for step in steps)
    assert AutoProcessor.from_pretrained(tmp_path / "run/model").calibration is None
    assert "not calibrated: no normal or no defective images" in capsys.readouterr().out


@pytest.mark.slow
def test_bad_data_is_one_line_and_a_failure(tmp_path):
    missing = tmp_path / "nothing"
    script = Path(__file__).parents[2] / "train" / "spgdd_gpt.py"
    command = [sys.executable, str(script), "--data", str(missing), "--output_dir", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "error:" in done.stderr
    assert str(missing) in done.stderr.splitlines()[-1]
