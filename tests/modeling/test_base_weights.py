"""A checkpoint that names its bases loads as the complete one it was made from."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForImageTextToText, PreTrainedModel

from defect_hub.modeling.modeling_spgdd_gpt import SpgddGptForConditionalGeneration, SpgddGptModel
from defect_hub.publishing.adapters import write_adapters
from tests.modeling.base_repos import clip_of, llama_of, save_to_cache, write_checkpoint

BASES = {"clip": "org/clip", "language_model": "org/llama"}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def adapters(tiny_checkpoint, tmp_path, cache):
    """The tiny checkpoint without its bases, which lie in the cache."""
    model = AutoModel.from_pretrained(tiny_checkpoint)
    save_to_cache(cache, "org/clip", clip_of(model))
    save_to_cache(cache, "org/llama", llama_of(model), max_shard_size="100KB")
    write_adapters(tiny_checkpoint, tmp_path / "adapters", BASES)
    return tmp_path / "adapters"


def snapshot(cache, repo_id):
    return next((cache / f"models--{repo_id.replace('/', '--')}/snapshots").iterdir())


def differing(model, expected):
    """Names of parameters and buffers, also those that are not saved, that are not the same."""
    (found, wanted) = (dict([*m.named_parameters(), *m.named_buffers()]) for m in (model, expected))
    assert found.keys() == wanted.keys()
    return [n for n, w in wanted.items() if not torch.equal(found[n], w) or found[n].dtype != w.dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tied", "base_tied"), [(True, True), (True, False), (False, False)])
def test_every_tensor_and_output_is_equal(tiny_checkpoint, tmp_path, cache, inputs, tied, base_tied, dtype):
    whole = write_checkpoint(tiny_checkpoint, tmp_path / "whole", tied, dtype)
    exact = AutoModel.from_pretrained(whole, dtype=torch.float32)  # bases keep a higher precision than ours
    save_to_cache(cache, "org/clip", clip_of(exact))
    save_to_cache(cache, "org/llama", llama_of(exact, tied=base_tied))
    write_adapters(whole, tmp_path / "adapters", BASES)
    expected, model = (AutoModel.from_pretrained(folder) for folder in (whole, tmp_path / "adapters"))
    assert model.dtype == dtype
    assert (model.lm_head.weight is model.get_input_embeddings().weight) is tied
    assert differing(model, expected) == []
    inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
    found, wanted = (m.diagnose(**inputs, max_new_tokens=4) for m in (model, expected))
    assert all(torch.equal(found[k], wanted[k]) for k in ("anomaly_maps", "image_scores", "sequences"))


def test_an_untied_head_that_equals_the_embeddings_of_a_tied_base(tiny_checkpoint, tmp_path, cache):
    model = AutoModel.from_pretrained(tiny_checkpoint)
    save_to_cache(cache, "org/llama", llama_of(model))
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.all_tied_weights_keys.clear()
    model.save_pretrained(tmp_path / "whole")
    write_adapters(tmp_path / "whole", tmp_path / "adapters", {"language_model": "org/llama"})
    kept = load_file(tmp_path / "adapters/model.safetensors")
    assert "lm_head.weight.extra_rows" in kept and "lm_head.weight" not in kept
    assert differing(AutoModel.from_pretrained(tmp_path / "adapters"), model) == []


@pytest.mark.parametrize(
    "options",
    [{"device_map": "auto"}, {"device_map": {"": "cpu"}}, {"dtype": torch.bfloat16}, {"vv_mode": "vv"}],
    ids=str,
)
@pytest.mark.parametrize("loader", [AutoModelForImageTextToText, SpgddGptForConditionalGeneration, SpgddGptModel])
def test_options_of_loading(tiny_checkpoint, adapters, loader, options):
    model, info = loader.from_pretrained(adapters, output_loading_info=True, **options)
    expected, expected_info = loader.from_pretrained(tiny_checkpoint, output_loading_info=True, **options)
    assert differing(model, expected) == []
    assert info["missing_keys"] == expected_info["missing_keys"] == set()
    assert info["mismatched_keys"] == set()
    assert model.config.vv_mode == expected.config.vv_mode
    assert model.name_or_path == str(adapters)
    assert model.generation_config == expected.generation_config if hasattr(expected, "generation_config") else True


def test_adapters_in_a_cached_repository_and_in_a_subfolder(tiny_checkpoint, adapters, cache, tmp_path):
    folder = cache / "models--org--spgdd/snapshots" / ("a" * 40)
    shutil.copytree(adapters, folder / "small")
    (cache / "models--org--spgdd/refs").mkdir()
    (cache / "models--org--spgdd/refs/v1").write_text("a" * 40)
    expected = AutoModel.from_pretrained(tiny_checkpoint)
    model = AutoModel.from_pretrained("org/spgdd", revision="v1", subfolder="small")
    assert differing(model, expected) == []
    moved = cache.rename(tmp_path / "moved")
    model = AutoModel.from_pretrained("org/spgdd", revision="v1", subfolder="small", cache_dir=moved)
    assert differing(model, expected) == []


def test_a_loaded_model_saves_a_complete_checkpoint(tiny_checkpoint, adapters, cache, tmp_path):
    model = AutoModel.from_pretrained(adapters)
    assert model.config.base_models is None
    model.save_pretrained(tmp_path / "resaved")
    shutil.rmtree(cache)
    expected = AutoModel.from_pretrained(tiny_checkpoint)
    assert differing(AutoModel.from_pretrained(tmp_path / "resaved"), expected) == []


@pytest.mark.parametrize("loader", [AutoModel, SpgddGptForConditionalGeneration])
def test_a_local_folder_takes_the_place_of_one_base(tiny_checkpoint, adapters, cache, tmp_path, loader):
    snapshot(cache, "org/llama").rename(tmp_path / "llama")
    shutil.rmtree(cache / "models--org--llama")
    with pytest.raises(OSError, match=r"'language_model': org/llama@[0-9a-f]{40} cannot be fetched"):
        loader.from_pretrained(adapters)
    model = loader.from_pretrained(adapters, base_models={"language_model": str(tmp_path / "llama")})
    assert differing(model, AutoModel.from_pretrained(tiny_checkpoint)) == []
    assert model.config.base_models is None


def test_the_error_of_a_base_that_cannot_be_fetched_names_the_remedies(adapters, cache):
    shutil.rmtree(cache / "models--org--clip")
    with pytest.raises(OSError, match="'clip': org/clip@") as error:
        AutoModel.from_pretrained(adapters)
    assert all(words in str(error.value) for words in ("licence", "hf auth login", "base_models={"))


def test_bases_that_do_not_fit_are_refused(tiny_checkpoint, adapters, cache, tmp_path):
    llama_of(AutoModel.from_pretrained(tiny_checkpoint), extra_rows=9).save_pretrained(tmp_path / "short")
    for bases, message in (
        (
            {"language_model": str(tmp_path / "short")},
            r"short: .*embed_tokens.weight is \(508, 96\) .* \(512, 96\) by",
        ),
        ({"language_model": "org/clip"}, "'language_model': org/clip@main: no tensor for model.language_model"),
        ({"tower": "org/clip"}, "no part 'tower'; choose from clip, language_model"),
        ({"clip": str(tmp_path)}, "no model.safetensors; only complete safetensors"),
    ):
        with pytest.raises(ValueError, match=message):
            AutoModel.from_pretrained(adapters, base_models=bases)


def test_a_lost_shard_of_a_base_is_named(adapters, cache):
    lost = sorted(snapshot(cache, "org/llama").glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(ValueError, match=f"org/llama@.*: no {lost.name}"):
        AutoModel.from_pretrained(adapters)


def test_random_weights_never_pass_for_a_base(adapters, monkeypatch):
    method = staticmethod(PreTrainedModel._load_pretrained_model)
    monkeypatch.setattr(SpgddGptForConditionalGeneration, "_load_pretrained_model", method)
    with pytest.raises(RuntimeError, match="loads no base weights"):
        AutoModel.from_pretrained(adapters)


REMOTE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "defect_hub":
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocker())
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForImageTextToText

bases = {"clip": sys.argv[2]}
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True, base_models=bases)
save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, sys.argv[3])
model = AutoModelForImageTextToText.from_pretrained(sys.argv[1], trust_remote_code=True, base_models=bases)
model.save_pretrained(sys.argv[4])
print(type(model).__module__)
"""


@pytest.mark.slow
def test_remote_code_fetches_the_bases_too(tiny_checkpoint, adapters, cache, tmp_path):
    clip = snapshot(cache, "org/clip").rename(tmp_path / "clip")
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_CACHE": str(cache)}
    arguments = [adapters, clip, tmp_path / "state.safetensors", tmp_path / "resaved"]
    done = subprocess.run(
        [sys.executable, "-c", REMOTE, *map(str, arguments)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("transformers_modules.")
    expected = AutoModel.from_pretrained(tiny_checkpoint)
    state = load_file(tmp_path / "state.safetensors")
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.state_dict().items())
    assert json.loads((tmp_path / "resaved/config.json").read_text())["base_models"] is None
    assert (tmp_path / "resaved/base_weights.py").is_file()
    assert differing(AutoModel.from_pretrained(tmp_path / "resaved"), expected) == []
