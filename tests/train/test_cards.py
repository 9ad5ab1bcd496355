"""The card says what the folder's files say, in the Hub's own form, and its examples run."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from transformers import AutoModel, AutoProcessor

from defect_hub.embedded import EMBEDDED_CHECKPOINT
from defect_hub.train.cards import model_card
from defect_hub.train.run_facts import BaseModel, Cost, DataUse, Measurement, RunFacts, SourceRows, read_run, write_run

RUN = RunFacts(
    "org/tadd",
    [
        DataUse(
            "training", "train", [SourceRows("MT", "any | purpose", True, 1000), SourceRows("own", None, None, 1)]
        ),
        DataUse("calibration", "validation", [SourceRows("MT", "any | purpose", True, 5)], "0" * 16),
    ],
    "accelerate launch train/spgdd_gpt.py",
    {"calibration_split": "validation", "reference_counts": [0, 1]},
    metrics=[Measurement("org/tadd", "test", 7, "few_shot", {"image_auroc": 0.75, "pixel_auroc": 0.5}, "measure it")],
)


@pytest.fixture
def folder(tiny_checkpoint, tmp_path):
    copy = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, copy)
    return copy


def card_of(folder, run, model_id=None):
    write_run(folder, run)
    text = model_card(folder, model_id)
    card = ModelCard(text)
    assert str(card) == text  # the front matter is as the Hub's library would write it
    return card


def section(card, title):
    return re.search(rf"^## {title}\n\n(.*?)(?=^## |\Z)", card.text, re.DOTALL | re.MULTILINE)[1]


def test_metrics_are_read_by_the_hub(folder):
    card = card_of(folder, RUN, "org/model")
    results = {(result.task_type, result.metric_type): result for result in card.data.eval_results}
    assert results.keys() == {("image-classification", "image_auroc"), ("image-segmentation", "pixel_auroc")}
    result = results["image-classification", "image_auroc"]
    assert (result.dataset_type, result.dataset_split, result.metric_value) == ("org/tadd", "test", 0.75)
    assert card.data.model_name == "model"
    assert "| image_auroc | 0.7500 |" in section(card, "Metrics")
    assert "Few-shot, on the 7 images of the split `test`" in section(card, "Metrics")
    assert "`measure it`" in section(card, "Metrics")


def test_terms_of_the_data_are_inherited(folder):
    card = card_of(folder, RUN)
    assert (card.data.license, card.data.license_name) == ("other", "per-source")
    assert card.data.datasets == ["org/tadd"]
    data = section(card, "Training data")
    assert "| training (`train`) | MT | any / purpose | yes | 1,000 |" in data
    assert "| training (`train`) | own | not stated | not stated | 1 |" in data
    assert "license: other" in data


def test_bases_are_named_with_their_terms(folder):
    bases = [
        BaseModel("org/vicuna", "llama2"),
        BaseModel("first", "apache-2.0", replace(RUN, command="first command")),
    ]
    card = card_of(folder, replace(RUN, base_models=bases))
    assert card.data.base_model == ["org/vicuna"]
    assert card.data.base_model_relation == "finetune"
    assert "| this run | [org/vicuna](https://huggingface.co/org/vicuna) | llama2 |" in section(card, "Base models")
    assert "| this run | first | apache-2.0 |" in section(card, "Base models")
    assert section(card, "Training data").count("| first |") == 3
    assert "first command" in section(card, "Training")
    assert card_of(folder, RUN).data.base_model is None


def test_weights_that_are_not_here_are_named(folder):
    config = json.loads((folder / "config.json").read_text())
    config["base_models"] = {"clip": {"repo_id": "org/clip", "revision": "0123"}}
    (folder / "config.json").write_text(json.dumps(config))
    card = card_of(folder, RUN, "org/model")
    assert card.data.base_model == ["org/clip"]
    assert card.data.base_model_relation == "adapter"
    assert "| clip | [org/clip](https://huggingface.co/org/clip) | `0123` |" in section(card, "Base models")


def test_origins_of_converted_weights_are_named(folder):
    config = json.loads((folder / "config.json").read_text())
    config["converted_from"] = {
        "clip": {"file": "weights.pt", "sha256": "1" * 64},
        "language_model": {"repo_id": "org/llama", "revision": "0123"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    card = ModelCard(model_card(folder, "org/model"))
    assert card.data.base_model == ["org/llama"]
    assert f"| clip | weights.pt | `{'1' * 64}` |" in section(card, "Base models")
    link = "[org/llama](https://huggingface.co/org/llama)"
    assert f"| language_model | {link} | `0123` |" in section(card, "Base models")
    trained = card_of(folder, replace(RUN, base_models=[BaseModel("org/llama", None, version="0123")]))
    assert f"| this run | {link} at `0123` | not stated |" in section(trained, "Base models")


def test_only_what_was_measured_is_stated(folder):
    assert section(card_of(folder, RUN), "Cost") == "- Times: not recorded.\n\n"
    whole = Cost(training_seconds=12.5, first_step=0, last_step=40, evaluation_seconds=2.0, carbon_kg=0.1)
    cost = section(card_of(folder, replace(RUN, cost=whole, hardware="cpu")), "Cost")
    assert "12.5 s for the steps 0 to 40." in cost
    assert "Evaluation: 2.0 s." in cost
    assert "0.1 kg" in cost
    assert "Hardware: cpu." in cost
    assert "Energy" not in cost
    resumed = section(card_of(folder, replace(RUN, cost=replace(whole, first_step=30))), "Cost")
    assert "steps 30 to 40; earlier steps, before an interruption, were not timed" in resumed


def test_calibration_says_which_images(folder):
    calibration = section(card_of(folder, RUN), "Calibration")
    assert "| zero-shot | image | 0.2500 | f1_max | 2 | 3 |" in calibration
    assert "The images are the split `validation` of org/tadd." in calibration
    held_out = replace(RUN, recipe={"calibration_split": ""})
    assert "a part, held out of training, of the split" in section(card_of(folder, held_out), "Calibration")
    unknown = replace(RUN, uses=RUN.uses[:1])
    assert "Which images they are is not recorded." in section(card_of(folder, unknown), "Calibration")


def test_a_later_calibration_names_its_own_images(folder):
    path = folder / "processor_config.json"
    record = json.loads(path.read_text())
    later = {"method": "quantile", "quantile": 0.99, "data": "own tiles", "split": "train", "n_anomalous": 0}
    for levels in record["calibration"].values():
        for leaf in levels.values():
            leaf |= later
    path.write_text(json.dumps(record))
    calibration = section(card_of(folder, RUN), "Calibration")
    assert "| zero-shot | image | 0.2500 | quantile 0.99 | 2 | 0 |" in calibration
    assert "The images are the split `train` of own tiles." in calibration


def test_folder_without_record_claims_nothing(folder):
    card = ModelCard(model_card(folder, "org/model"))
    assert (card.data.license, card.data.license_name) == ("other", "not-stated")
    assert card.data.eval_results is None
    assert "No training run is recorded" in section(card, "Training")
    for title in ("Metrics", "Base models", "Cost"):
        assert section(card, title) == "Not recorded.\n\n"


def test_every_card_counts_its_weights(folder):
    with_f32 = model_card(folder)
    assert re.search(r"Weights in this folder: 98\d,\d{3} \(F32\)\.", with_f32)
    assert "Weights in this folder: 982,667 (F16)." in model_card(EMBEDDED_CHECKPOINT)


def test_published_card_is_about_the_repository(folder):
    local, published = card_of(folder, RUN), card_of(folder, RUN, "org/model")
    assert 'model="."' in local.text
    assert 'model="org/model"' in published.text
    assert "handler.py" not in local.text
    assert "handler.py" in published.text
    assert "sha256sum --check SHA256SUMS" in section(published, "Verify")
    assert model_card(folder, "org/model") == published.content


def test_terms_of_access_are_kept(folder):
    terms = {"extra_gated_prompt": "For research: only.", "extra_gated_fields": {"Institution": "text"}}
    (folder / "README.md").write_text(f"---\nlicense: mit\nextra: 1\n{yaml.safe_dump(terms)}---\n\n# Mine\n")
    about = card_of(folder, RUN, "org/model").data.to_dict()
    assert {name: about.get(name) for name in terms} == terms
    assert (about["license"], about.get("extra")) == ("other", None)
    (folder / "README.md").write_text("---\na: b: c\n---\n")
    with pytest.raises(ValueError, match=r"README\.md: front matter: "):
        model_card(folder)


def test_names_from_data_sets_stay_in_their_cells(folder):
    source = SourceRows("MT |\n\n# Free for all\n", None, None, 1)
    card = card_of(folder, replace(RUN, uses=[DataUse("training", "train", [source])]))
    assert "| MT / # Free for all | not stated |" in section(card, "Training data")


def test_the_packaged_card_is_that_of_its_files():
    run = read_run(EMBEDDED_CHECKPOINT)
    text = (EMBEDDED_CHECKPOINT / "README.md").read_text(encoding="utf-8")
    assert text == model_card(EMBEDDED_CHECKPOINT)
    assert ModelCard(text).data.license == "apache-2.0"
    assert all(limit in text for limit in run.limits)
    assert "trust_remote_code" not in text  # the package is its code


def python_blocks(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def images(folder):
    for number, name in enumerate(("image", "ok1", "ok2")):
        Image.radial_gradient("L").rotate(90 * number).resize((60, 50)).save(folder / f"{name}.jpg")


@pytest.mark.parametrize("calibrated", [True, False])
def test_examples_run(folder, images, monkeypatch, capsys, calibrated):
    if not calibrated:
        path = folder / "processor_config.json"
        path.write_text(path.read_text().replace('"calibration"', '"earlier"'))
    write_run(folder, RUN)
    blocks = python_blocks(model_card(folder))
    assert len(blocks) == 2  # with the package, and without
    monkeypatch.chdir(folder)
    reports = []
    for block in blocks:
        exec(block, {})
        reports.append(capsys.readouterr().out)
    assert reports[0] == reports[1]
    assert re.match(r"(True|False) 0\.\d+", reports[0])


@pytest.fixture
def detector(tiny_checkpoint, tmp_path):
    copy = tmp_path / "detector"
    model = AutoModel.from_pretrained(tiny_checkpoint, has_language_model=False)
    processor = AutoProcessor.from_pretrained(tiny_checkpoint)
    processor.num_image_tokens = model.config.num_image_tokens
    for part in (model, processor):
        part.save_pretrained(copy)
    return copy


def test_a_detector_claims_no_language_model(detector, monkeypatch, capsys):
    card = card_of(detector, RUN)
    assert card.data.pipeline_tag == "image-segmentation"
    assert ModelCard(model_card(EMBEDDED_CHECKPOINT)).data.pipeline_tag == "image-text-to-text"
    assert "max_new_tokens" not in card.text
    assert "unsupported_claims" not in card.text
    assert "without a language model" in card.text
    assert "generated text" not in card.text
    for name in ("image", "ok1", "ok2"):
        Image.radial_gradient("L").resize((60, 50)).save(detector / f"{name}.jpg")
    monkeypatch.chdir(detector)
    reports = []
    for block in python_blocks(card.text):
        exec(block, {})
        reports.append(capsys.readouterr().out)
    assert len(reports) == 2
    assert reports[0] == reports[1]
    assert "steel surface" in reports[0]


@pytest.mark.slow
def test_cards_are_made_without_loading_models():
    code = "import sys; import defect_hub.train.cards; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
