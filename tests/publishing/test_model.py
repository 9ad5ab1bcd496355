"""A checkpoint becomes a repository that holds what is needed and nothing else, and that loads anywhere."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoProcessor

from defect_hub import EMBEDDED_CHECKPOINT, __version__
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.modeling import handler
from defect_hub.publishing.model import stage_model
from defect_hub.publishing.staged import Staged
from defect_hub.train.cards import GENERATED
from tests.modeling.test_remote_code import WITHOUT_PACKAGE, assert_same, run_fresh

NEEDED = {
    *("README.md", "chat_template.jinja", "config.json", "generation_config.json", "processor_config.json"),
    *("model.safetensors", "requirements.txt", "tokenizer.json", "tokenizer_config.json"),
    *("clip_tokenizer/tokenizer.json", "clip_tokenizer/tokenizer_config.json"),
}


def write_staged(staged: Staged, folder: Path) -> Path:
    """The repository as a snapshot on disk."""
    for name, content in staged.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    return folder


def content(staged: Staged) -> dict[str, bytes]:
    return {name: data if isinstance(data, bytes) else data.read_bytes() for name, data in staged.files.items()}


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path):
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def test_embedded_checkpoint_is_published_with_code_card_and_endpoint(tmp_path):
    staged = stage_model(EMBEDDED_CHECKPOINT, "org/tiny", tmp_path)
    code = {name for name in staged.files if name.endswith(".py")}
    assert staged.files.keys() >= NEEDED
    assert staged.files.keys() - NEEDED - code <= {"run.json"}
    assert staged.files["model.safetensors"] == EMBEDDED_CHECKPOINT / "model.safetensors"
    assert staged.files["handler.py"] == Path(handler.__file__)
    assert b"org/tiny" in staged.files["README.md"]
    assert (staged.repo_type, staged.notes) == ("model", ())
    assert __version__ in staged.message
    assert list(tmp_path.iterdir()) == []


def test_settings_lead_to_the_code_and_keep_everything_else(checkpoint, tmp_path):
    stale = {"AutoModel": "gone.Model"}
    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        settings = json.loads((checkpoint / name).read_text())
        settings |= {"auto_map": stale, "_name_or_path": "runs/mine", "kept": {"name_or_path": "runs/mine", "x": [1]}}
        (checkpoint / name).write_text(json.dumps(settings | {"custom_pipelines": {"t": {"impl": "gone.P"}}}))
    staged = stage_model(checkpoint, "org/tiny", tmp_path / "staging")
    found = {name: json.loads(data) for name, data in content(staged).items() if name.endswith("config.json")}
    maps = [found[name].pop("auto_map", None) for name in ("config.json", "processor_config.json")]
    model = "modeling_spgdd_gpt.SpgddGptForConditionalGeneration"
    assert maps == [
        {
            "AutoConfig": "configuration_spgdd_gpt.SpgddGptConfig",
            "AutoModel": model,
            "AutoModelForImageTextToText": model,
        },
        {"AutoProcessor": "processing_spgdd_gpt.SpgddGptProcessor"},
    ]
    assert all(b"runs/mine" not in data and b"gone." not in data for data in content(staged).values())
    gone = {"auto_map", "custom_pipelines", "_name_or_path", "name_or_path", "is_local", "local_files_only"}
    for name, settings in found.items():
        before = (checkpoint / name).read_text()
        assert settings == json.loads(before, object_hook=lambda item: {k: item[k] for k in item.keys() - gone})


def test_same_folder_gives_the_same_bytes(checkpoint, tmp_path):
    first = content(stage_model(checkpoint, "org/tiny", tmp_path / "a", max_shard_bytes=300_000))
    moved = checkpoint.rename(tmp_path / "moved")
    again = tmp_path / "b"
    stage_model(moved, "org/tiny", again, max_shard_bytes=200_000)  # an earlier attempt's result lies there
    assert content(stage_model(moved, "org/tiny", again, max_shard_bytes=300_000)) == first
    assert list(first) == sorted(first)


def test_a_card_of_ones_own_is_published_as_it_is(checkpoint, tmp_path):
    generated = stage_model(checkpoint, "org/tiny", tmp_path).files["README.md"].decode()
    (checkpoint / "README.md").write_text(generated)
    assert stage_model(checkpoint, "org/other", tmp_path).files["README.md"].decode() != generated
    own = generated.replace(GENERATED, "").replace("# SPGDD-GPT", "# A corrected title of SPGDD-GPT")
    (checkpoint / "README.md").write_text(own)
    staged = stage_model(checkpoint, "org/tiny", tmp_path)
    assert staged.files["README.md"] == checkpoint / "README.md"
    assert any("published as you wrote it" in note for note in staged.notes)


def test_code_is_the_installed_one(checkpoint, tmp_path):
    for path in checkpoint.glob("*.py"):
        path.write_text("raise RuntimeError\n")
    (checkpoint / "stray.py").write_text("raise RuntimeError\n")
    staged = stage_model(checkpoint, "org/tiny", tmp_path / "staging")
    code = {name: path for name, path in staged.files.items() if name.endswith(".py")}
    assert {path.parent for path in code.values()} == {Path(handler.__file__).parent}
    assert "stray.py" not in code


def test_what_no_loader_needs_stays_here_and_is_named(checkpoint, tmp_path):
    (checkpoint / "clip_tokenizer/cache.txt").write_text("x")
    for name in ("training_args.bin", "model.pt", "notes.txt", ".secret"):
        (checkpoint / name).write_text("x")
    save_file({}, checkpoint / "adapter_model.safetensors")
    (checkpoint / "optimizer").mkdir()
    (checkpoint / "optimizer/state.bin").write_text("x")
    staged = stage_model(checkpoint, "org/tiny", tmp_path / "staging")
    assert {name for name in staged.files if not name.endswith(".py")} == NEEDED
    assert staged.notes == (
        "left out, because loading it may run code: model.pt, training_args.bin",
        "left out, because no model needs it: .secret, adapter_model.safetensors, clip_tokenizer/cache.txt, "
        "notes.txt, optimizer/",
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json: JSON: cannot be read"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "llama"}'),
            "config.json: model_type: is 'llama', which is no model of ours",
        ),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": ["x"]}'),
            r"model_type: is \['x'\], which is no model of ours",
        ),
        (lambda folder: (folder / "processor_config.json").unlink(), "checkpoint: processor: cannot be loaded"),
        (lambda folder: shutil.rmtree(folder / "clip_tokenizer"), "checkpoint: processor: cannot be loaded"),
        (
            lambda folder: (
                (folder / "config.json").replace(folder.parent / "config.json")
                and (folder / "config.json").symlink_to(folder.parent / "config.json")
            ),
            "config.json: link: leads out of the folder. Publish a copy .* cp -rL",
        ),
        (
            lambda folder: (folder / "of_another.safetensors").symlink_to(EMBEDDED_CHECKPOINT / "model.safetensors"),
            "of_another.safetensors: link: leads out of the folder",
        ),
    ],
    ids=["no config", "foreign", "no text", "no processor", "no second tokenizer", "link", "linked weights"],
)
def test_incomplete_folder_is_refused_in_one_line(checkpoint, tmp_path, spoil, message):
    spoil(checkpoint)
    with pytest.raises(DataError, match=message) as raised:
        stage_model(checkpoint, "org/tiny", tmp_path / "staging")
    assert "\n" not in str(raised.value)


def test_base_weights_are_left_out_on_request(checkpoint, tmp_path, monkeypatch):
    calls = []

    def write_adapters(folder, out, bases):
        calls.append((folder, bases))
        shutil.copytree(folder, out)
        (out / "config.json").write_text((out / "config.json").read_text().replace("{", '{"base_models": {},', 1))

    monkeypatch.setattr("defect_hub.publishing.model.write_adapters", write_adapters)
    staged = stage_model(checkpoint, "org/tiny", tmp_path / "staging", bases={"clip": "laion/clip"})
    assert calls == [(checkpoint, {"clip": "laion/clip"})]
    assert staged.files["model.safetensors"] == tmp_path / "staging/adapters/model.safetensors"
    assert "base_models" in json.loads(staged.files["config.json"])
    assert staged.notes == ("weights of clip left out: loaders take them from laion/clip",)


@pytest.mark.slow
def test_split_repository_gives_the_same_outputs_without_the_package(tiny_checkpoint, tmp_path):
    """The end-to-end tests do this with the package too, and with weights in one file."""
    staged = stage_model(tiny_checkpoint, "org/tiny", tmp_path / "staging", max_shard_bytes=500_000)
    assert "model.safetensors" not in staged.files
    write_staged(staged, tmp_path / "fresh" / "checkpoint")
    gradient = torch.linspace(0, 255, 80).to(torch.uint8).expand(60, 80).numpy()
    Image.fromarray(gradient).save(tmp_path / "fresh" / "image.png")
    assert run_fresh(WITHOUT_PACKAGE, tmp_path / "fresh").startswith("transformers_modules.")

    model = AutoModel.from_pretrained(tiny_checkpoint).eval()
    inputs = dict(
        AutoProcessor.from_pretrained(tiny_checkpoint)(images=[Image.open(tmp_path / "fresh" / "image.png")])
    )
    result = model.diagnose(**inputs, min_new_tokens=4, max_new_tokens=4)
    expected = {
        **{f"inputs.{name}": value for name, value in inputs.items()},
        **{name: result[name] for name in ("anomaly_maps", "image_scores", "sequences")},
        **{f"weights.{name}": value for name, value in model.state_dict().items()},
    }
    assert_same(load_file(tmp_path / "fresh" / "outputs.safetensors"), expected)
