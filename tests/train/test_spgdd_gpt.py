import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor

from defect_hub.train.data import load_split
from defect_hub.train.evaluation import data_fingerprint
from defect_hub.train.loop import INTERRUPTED_EXIT_CODE
from defect_hub.train.spgdd_gpt import (
    SpgddGptRecipe,
    build_model,
    check_apart,
    freeze,
    main,
    parse_recipe,
    split_rows,
)

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


def test_defaults_then_file_then_command_line(recipe_file):
    recipe = parse_recipe(["--config", str(recipe_file), "--max_steps", "3", "--flip", "false"])
    assert recipe.max_steps == 3
    assert recipe.flip is False
    assert recipe.batch_size == 4
    assert recipe.learning_rate == 1e-3  # YAML reads "1e-3" as text
    assert recipe.reference_counts == [0, 2]
    assert json.loads(recipe.model_config) == {"num_prompt_tokens": 3}
    assert recipe.weight_decay == SpgddGptRecipe().weight_decay


def test_unknown_field_in_the_file_is_named(recipe_file):
    recipe_file.write_text("batch_size: 4\nlearnig_rate: 0.1\n")
    with pytest.raises(ValueError, match=r"recipe\.yaml: learnig_rate: no such field\. Fields are: .*learning_rate"):
        parse_recipe([f"--config={recipe_file}"])


def test_unknown_argument_is_refused(recipe_file):
    with pytest.raises(ValueError, match="--learnig_rate"):
        parse_recipe(["--config", str(recipe_file), "--learnig_rate", "0.1"])


@pytest.mark.parametrize("path", sorted((ROOT / "train/configs").glob("spgdd_gpt*.yaml")), ids=lambda path: path.stem)
def test_committed_recipes_are_valid(path):
    assert parse_recipe(["--config", str(path)]).output_dir.startswith("runs/")


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


def test_freezing_leaves_the_new_parts(rows, tiny_checkpoint):
    model, _ = build_model(SpgddGptRecipe(model=str(tiny_checkpoint)), rows)
    freeze(model, "all")
    assert all(parameter.requires_grad for parameter in model.parameters())
    freeze(model, "adapter")
    trained = {name.split(".")[1] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"text_adapter", "focuser", "detection_head", "adapter"}
    with pytest.raises(ValueError, match="trainable='some': choose 'all' or 'adapter'"):
        freeze(model, "some")


# Runs


def test_adapter_training_leaves_the_towers_alone(tmp_path, recipe_file, tiny_checkpoint):
    settings = {"model": tiny_checkpoint, "trainable": "adapter", "max_steps": 1, "eval_split": ""}
    options = [f"--{name}={value}" for name, value in settings.items()]
    main([f"--config={recipe_file}", *options, f"--output_dir={tmp_path / 'run'}"])
    before, after = load_file(tiny_checkpoint / "model.safetensors"), weights(tmp_path / "run")
    changed = {name.split(".")[1] for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"text_adapter", "focuser", "detection_head", "adapter"}
    assert "Not evaluated." in (tmp_path / "run/model/README.md").read_text()


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
    _, held_out = split_rows(parse_recipe(arguments))
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
