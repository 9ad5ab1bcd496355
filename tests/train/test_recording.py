"""Facts of a run: public names instead of places, sources as the rows state them, the chain of earlier stages."""

import json
from dataclasses import asdict
from pathlib import Path

import datasets
import pytest
import torch

from defect_hub.train.evaluation import data_fingerprint
from defect_hub.train.recording import (
    base_models,
    data_use,
    hardware,
    public_name,
    recipe_record,
    repeatable_command,
    versions,
)
from defect_hub.train.run_facts import BaseModel, RunFacts, SourceRows, write_run
from defect_hub.train.spgdd_gpt import SpgddGptRecipe


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("--max_steps", "--max_steps"),
        ("train/configs/tiny.yaml", "train/configs/tiny.yaml"),
        ("/home/somebody/tiny.yaml", "tiny.yaml"),
        ("--data=/home/somebody/set", "--data=set"),
        ("--data=org/set", "--data=org/set"),
        ("../../somebody/set", "set"),
        ('{"alpha": 1.0}', "'{\"alpha\": 1.0}'"),
        ("/home/somebody/two words", "'two words'"),
    ],
)
def test_command_repeats_the_run_elsewhere(argument, shown):
    expected = f"accelerate launch --multi_gpu --num_processes 2 train/spgdd_gpt.py {shown}"
    assert repeatable_command([argument], processes=2) == expected


def test_folders_go_by_their_last_part(tmp_path, monkeypatch):
    (tmp_path / "runs/tiny/model").mkdir(parents=True)
    assert public_name(str(tmp_path / "runs/tiny")) == "tiny"
    assert public_name(str(tmp_path / "runs/tiny/model")) == "tiny"
    assert public_name("org/name") == "org/name"
    monkeypatch.chdir(tmp_path / "runs")
    assert public_name(".") == "runs"


def test_recipe_is_one_that_a_file_may_hold(tmp_path):
    settings = asdict(SpgddGptRecipe(data=str(tmp_path), model_config='{"alpha": 1.0}', output_dir="runs/x"))
    record = recipe_record(settings)
    assert record.keys() == settings.keys() - {"output_dir"}
    assert (record["data"], record["model"], record["model_config"]) == (tmp_path.name, "tiny", {"alpha": 1.0})


def test_sources_are_those_of_the_rows():
    rows = datasets.Dataset.from_dict(
        {
            "source": ["MT", "MT", "AITEX", "MT", "own"],
            "license": ["any", "any", "not stated", "any", None],
            "redistributable": [True, True, False, True, None],
            "is_defective": [True, False, True, None, False],
            "sha256": ["a", "b", "c", "d", "e"],
        }
    )
    use = data_use("training", "train", rows)
    assert (use.use, use.split, use.rows, use.fingerprint) == ("training", "train", 4, data_fingerprint(rows))
    assert sorted(use.sources, key=lambda source: source.rows) == [
        SourceRows("AITEX", "not stated", False, 1),
        SourceRows("own", None, None, 1),
        SourceRows("MT", "any", True, 2),
    ]


def test_earlier_stages_are_kept(tmp_path):
    folder = tmp_path / "runs/first/model"
    folder.mkdir(parents=True)
    run = RunFacts("set", [], "command", {})
    write_run(folder, run)
    assert base_models(str(folder)) == [BaseModel("first", "apache-2.0", run)]
    assert base_models("tiny") == []


def test_a_base_without_record_has_the_licence_of_its_card(tmp_path):
    assert base_models(str(tmp_path)) == [BaseModel(tmp_path.name, None)]
    (tmp_path / "README.md").write_text("---\nlicense: llama2\n---\n# Base\n")
    assert base_models(str(tmp_path)) == [BaseModel(tmp_path.name, "llama2")]


def test_bases_that_a_checkpoint_leaves_out_are_bases_too(tmp_path):
    left_out = {part: {"repo_id": "org/base", "revision": "0" * 40} for part in ("clip", "language_model")}
    (tmp_path / "config.json").write_text(json.dumps({"base_models": left_out}))
    assert base_models(str(tmp_path)) == [
        BaseModel(tmp_path.name, None),
        BaseModel("org/base", None, version="0" * 40),
    ]


def test_origins_of_a_converted_checkpoint_are_bases_once(tmp_path):
    origins = {
        "clip": {"file": "weights.pt", "sha256": "1" * 64},
        "language_model": {"repo_id": "org/llama", "revision": "2" * 40},
    }
    config = json.dumps({"converted_from": origins})
    first, second = tmp_path / "converted", tmp_path / "trained"
    for folder in (first, second):
        folder.mkdir()
        (folder / "config.json").write_text(config)
    bases = base_models(str(first))
    assert bases == [
        BaseModel("converted", None),
        BaseModel("weights.pt", None, version="1" * 64),
        BaseModel("org/llama", None, version="2" * 40),
    ]
    write_run(second, RunFacts("set", [], "command", {}, base_models=bases))
    [trained] = base_models(str(second))
    assert trained.run.base_models == bases
    assert trained.license is None


def test_machine_has_no_name():
    described = hardware(torch.device("cpu"), processes=2)
    assert described.startswith("cpu, ")
    assert described.endswith("; processes: 2")
    hostname = Path("/proc/sys/kernel/hostname")
    assert not hostname.exists() or hostname.read_text().strip() not in described
    assert versions().keys() == {"defect-hub", "transformers", "torch"}
