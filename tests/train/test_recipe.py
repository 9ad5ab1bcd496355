import dataclasses
import json
import re

import pytest

from defect_hub.train.loop_config import LoopConfig
from defect_hub.train.recipe import Recipe, documented_fields, parse_recipe

CONFIG = "batch_size: 4\nmax_steps: 9\nlearning_rate: 1e-3\ntrackers: [tensorboard]\nmodel_config:\n  alpha: 3\n"


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(CONFIG)
    return path


def test_defaults_then_file_then_command_line(recipe_file):
    recipe = parse_recipe(Recipe, ["--config", str(recipe_file), "--max_steps", "3", "--flip", "false"])
    assert recipe.max_steps == 3
    assert recipe.flip is False
    assert recipe.batch_size == 4
    assert recipe.learning_rate == 1e-3  # YAML reads "1e-3" as text
    assert recipe.trackers == ["tensorboard"]
    assert json.loads(recipe.model_config) == {"alpha": 3}
    assert recipe.weight_decay == Recipe().weight_decay


def test_lists_of_the_command_line():
    assert parse_recipe(Recipe, ["--trackers", "tensorboard", "trackio"]).trackers == ["tensorboard", "trackio"]


def test_unknown_field_in_the_file_is_named(recipe_file):
    recipe_file.write_text("batch_size: 4\nlearnig_rate: 0.1\n")
    with pytest.raises(ValueError, match=r"recipe\.yaml: learnig_rate: no such field\. Fields are: .*learning_rate"):
        parse_recipe(Recipe, [f"--config={recipe_file}"])


def test_help_explains_every_field(capsys):
    with pytest.raises(SystemExit):
        parse_recipe(Recipe, ["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "peak, after warm-up. (default: 0.0001)" in told
    assert "build folder or Hub id. (default: steelsynth)" in told
    assert documented_fields(Recipe).keys() - {""} == {field.name for field in dataclasses.fields(Recipe)}


def test_unknown_argument_is_refused(recipe_file):
    with pytest.raises(ValueError, match="--learnig_rate"):
        parse_recipe(Recipe, ["--config", str(recipe_file), "--learnig_rate", "0.1"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read (.*No such file"),
        ("a: [", "cannot be read (while parsing"),
        ("- batch_size\n", "holds no fields. Write lines such as"),
    ],
)
def test_unusable_file_is_one_line(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{path}: ") + message.replace("(", r"\(", 1)) as error:
        parse_recipe(Recipe, ["--config", str(path)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trainable": "some"}, "trainable='some': choose one of all, adapter, lora"),
        ({"trainable": "lora"}, "trainable='lora': model='tiny' has fresh weights. Name a checkpoint to adapt"),
        ({"frozen_dtype": "bfloat16"}, "frozen_dtype: trainable='all' freezes nothing"),
        (
            {"frozen_dtype": "bfloat16", "trainable": "adapter", "mixed_precision": "fp16"},
            "frozen_dtype='bfloat16': mixed_precision='fp16' has another range",
        ),
        ({"calibration_fraction": 1.0}, "calibration_fraction=1.0: give a share between 0 and 1"),
        ({"lora_rank": 0}, "lora_rank=0: give a number from 1"),
        ({"lora_dropout": 1.0}, "lora_dropout=1.0: give a share from 0 to below 1"),
        ({"brightness": 1.0}, "brightness=1.0: give a share from 0 to below 1"),
        ({"contrast": -0.1}, "contrast=-0.1: give a share from 0 to below 1"),
        ({"model_config": "{'a': 1}"}, "model_config=\"{'a': 1}\": give a JSON object such as"),
        ({"model_config": "[1]"}, "model_config='[1]': give a JSON object such as"),
        ({"push_to_hub": "name"}, "push_to_hub='name': give a repository such as org/name"),
        ({"eval_steps": 1, "eval_split": ""}, "eval_split: empty, so there is nothing to evaluate on during training"),
        ({"streaming": True}, "streaming: a stream has no epochs. Set max_steps"),
        ({"streaming": True, "max_steps": 1}, "streaming: nothing can be held out of a stream"),
        (
            {"streaming": True, "max_steps": 1, "calibration_split": "val"},
            "streaming: model='tiny' takes its vocabulary from all texts",
        ),
    ],
)
def test_settings_that_do_not_fit_are_named(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_recipe(Recipe, [f"--{name}={value}" for name, value in settings.items()])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: give a number from 1"),
        ({"max_steps": -1}, "max_steps=-1: give a number from 0"),
        ({"keep_checkpoints": 0}, "keep_checkpoints=0: give a number from 1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: give a number above 0"),
        ({"max_grad_norm": float("nan")}, "max_grad_norm=nan: give a number above 0"),
        ({"ema_decay": 1.0}, "ema_decay=1.0: give a share from 0 to below 1"),
        ({"warmup_fraction": 1.5}, "warmup_fraction=1.5: give a share from 0 to 1"),
        ({"schedule": "cosin"}, "schedule='cosin': choose one of cosine, linear, constant"),
        ({"mixed_precision": "fp32"}, "mixed_precision='fp32': choose one of no, bf16, fp16"),
        ({"best_metric": "image_auroc"}, "best_metric: nothing is evaluated during training"),
        ({"patience": 2, "eval_steps": 1}, "patience: without best_metric there is no gain to wait for"),
        ({"trackers": ["tensorbord"]}, "trackers: 'tensorbord' is none of tensorboard, trackio, wandb"),
    ],
)
def test_loop_settings_that_do_not_fit_are_named(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        LoopConfig(**settings)


def test_what_a_resumption_must_share():
    recipe, other = Recipe(), Recipe(output_dir="elsewhere", num_workers=2, save_steps=1, decode_once=False)
    assert recipe.fixed() == other.fixed() == Recipe(eval_split="").fixed()
    assert Recipe(eval_steps=1).fixed() != Recipe(eval_steps=1, eval_split="test").fixed()
    for changed in (Recipe(seed=1), Recipe(gradient_accumulation_steps=2), Recipe(best_metric="a", eval_steps=1)):
        assert recipe.fixed() != changed.fixed()
