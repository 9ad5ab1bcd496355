import json

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from transformers import AutoModel

import defect_hub  # noqa: F401 (registers the Auto classes)
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.publishing.adapters import write_adapters
from tests.modeling.base_repos import EXTRA_ROWS, clip_of, llama_of, save_to_cache

BASES = {"clip": "org/clip", "language_model": "org/llama"}
EMBEDDINGS = "model.language_model.embed_tokens.weight"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def bases(cache, tiny_checkpoint):
    """Commits of the bases."""
    model = AutoModel.from_pretrained(tiny_checkpoint)
    return {
        "clip": save_to_cache(cache, "org/clip", clip_of(model)),
        "language_model": save_to_cache(cache, "org/llama", llama_of(model), max_shard_size="100KB"),
    }


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_only_our_own_weights_remain(tiny_checkpoint, tmp_path, bases):
    write_adapters(tiny_checkpoint, tmp_path / "out", BASES)
    whole, kept = (load_file(folder / "model.safetensors") for folder in (tiny_checkpoint, tmp_path / "out"))
    own = {name for name in whole if not name.startswith(("model.clip.", "model.language_model.", "lm_head."))}
    assert own and kept.keys() == own | {f"{EMBEDDINGS}.extra_rows"}
    assert all(torch.equal(kept[name], whole[name]) for name in own)
    assert torch.equal(kept[f"{EMBEDDINGS}.extra_rows"], whole[EMBEDDINGS][-EXTRA_ROWS:])


def test_everything_else_is_copied_and_the_bases_are_named(tiny_checkpoint, tmp_path, bases):
    write_adapters(tiny_checkpoint, tmp_path / "out", BASES)
    before, after = contents(tiny_checkpoint), contents(tmp_path / "out")
    whole, config = (
        json.loads((folder / "config.json").read_text()) for folder in (tiny_checkpoint, tmp_path / "out")
    )
    assert config.pop("base_models") == {
        part: {"repo_id": BASES[part], "revision": commit} for part, commit in bases.items()
    }
    assert whole.pop("base_models") is None
    assert config == whole
    assert before.keys() == after.keys()
    assert {str(path) for path in before if before[path] != after[path]} == {"config.json", "model.safetensors"}


def test_the_same_input_gives_the_same_bytes(tiny_checkpoint, tmp_path, bases):
    for _ in range(2):  # the second replaces the first
        write_adapters(tiny_checkpoint, tmp_path / "out", BASES)
    write_adapters(tiny_checkpoint, tmp_path / "other", BASES)
    assert contents(tmp_path / "out") == contents(tmp_path / "other")
    assert {path.name for path in tmp_path.iterdir()} == {"hub", "out", "other"}


def test_shards_and_a_base_that_is_not_left_out(tiny_checkpoint, tmp_path, bases):
    write_adapters(tiny_checkpoint, tmp_path / "out", {"language_model": "org/llama@main"}, max_shard_bytes=500_000)
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) > 2 and files == {path.name for path in (tmp_path / "out").glob("*.safetensors")}
    loaded = AutoModel.from_pretrained(tmp_path / "out").state_dict()
    expected = AutoModel.from_pretrained(tiny_checkpoint).state_dict()
    assert [name for name, tensor in expected.items() if not torch.equal(loaded[name], tensor)] == []


def test_a_trained_base_is_refused(tiny_checkpoint, tmp_path, cache):
    llama = llama_of(AutoModel.from_pretrained(tiny_checkpoint))
    with torch.no_grad():
        llama.model.layers[1].mlp.up_proj.weight[0, 0] += 0.5
    save_to_cache(cache, "org/llama", llama)
    with pytest.raises(
        DataError, match=r"layers\.1\.mlp\.up_proj\.weight: differs .* by up to 0\.5: .* trained"
    ) as error:
        write_adapters(tiny_checkpoint, tmp_path / "out", {"language_model": "org/llama"})
    assert "trainable=adapter" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


@pytest.mark.parametrize(
    ("bases", "message"),
    [
        ({"tower": "org/clip"}, "no part 'tower'. Choose from clip, language_model"),
        ({"clip": "org/llama"}, "the base has no such tensor"),
        ({"clip": "org/none"}, "org/none@main cannot be fetched"),
        ({"clip": "org/clip@v9"}, "org/clip@v9 cannot be fetched"),
        ({"clip": "org/pickled"}, "no model.safetensors; only complete safetensors weights are read"),
        ({"language_model": "org/long"}, "(512, 96) here and (514, 96) in the base"),
    ],
)
@pytest.mark.usefixtures("bases_of_many_kinds")
def test_what_is_no_base_of_the_checkpoint_is_refused(tiny_checkpoint, tmp_path, bases, message):
    with pytest.raises(DataError) as error:
        write_adapters(tiny_checkpoint, tmp_path / "out", bases)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def bases_of_many_kinds(cache, tiny_checkpoint):
    model = AutoModel.from_pretrained(tiny_checkpoint)
    save_to_cache(cache, "org/clip", clip_of(model))
    save_to_cache(cache, "org/llama", llama_of(model))
    commit = save_to_cache(cache, "org/pickled", clip_of(model))
    snapshot = cache / "models--org--pickled/snapshots" / commit
    (snapshot / "model.safetensors").rename(snapshot / "pytorch_model.bin")
    longer = llama_of(model)
    longer.resize_token_embeddings(514)
    save_to_cache(cache, "org/long", longer)


def test_local_folders_are_no_base_to_publish(tiny_checkpoint, tmp_path):
    with pytest.raises(DataError, match="is a local path"):
        write_adapters(tiny_checkpoint, tmp_path / "out", {"clip": str(tiny_checkpoint)})


def test_a_folder_that_is_not_ours_is_kept(tiny_checkpoint, tmp_path, bases):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("")
    with pytest.raises(DataError, match="no checkpoint without base weights"):
        write_adapters(tiny_checkpoint, tmp_path / "out", BASES)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_adapters_have_no_adapters(tiny_checkpoint, tmp_path, bases):
    write_adapters(tiny_checkpoint, tmp_path / "out", BASES)
    with pytest.raises(DataError, match="base weights are left out"):
        write_adapters(tmp_path / "out", tmp_path / "again", BASES)
