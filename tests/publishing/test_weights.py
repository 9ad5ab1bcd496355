"""Weights are published as they are, split where they are too large, and refused where they do not fit."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.publishing.weights import check_weights, find_weights, shard_weights

INDEX = "model.safetensors.index.json"


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path):
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


@pytest.fixture
def sharded(checkpoint):
    """The same in several files, as transformers writes it."""
    AutoModel.from_pretrained(checkpoint).save_pretrained(checkpoint, max_shard_size="500KB")
    (checkpoint / "model.safetensors").unlink()
    assert len(list(checkpoint.glob("model-*.safetensors"))) > 2
    return checkpoint


def rewrite(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_files_of_fitting_size_are_published_from_where_they_are(sharded, tmp_path):
    published = shard_weights(sharded, tmp_path / "staging", 5_000_000_000)
    assert published == {path.name: path for path in (*sharded.glob("model-*.safetensors"), sharded / INDEX)}
    assert not (tmp_path / "staging").exists()


@pytest.mark.parametrize("source", ["checkpoint", "sharded"])
def test_smaller_files_hold_equal_tensors(request, tiny_checkpoint, tmp_path, source):
    folder = request.getfixturevalue(source)
    rewritten = tmp_path / "staging"
    files = shard_weights(folder, rewritten, 200_000)
    index = json.loads(files[INDEX])
    shards = set(files) - {INDEX}
    assert {path.name for path in rewritten.iterdir()} == shards == set(index["weight_map"].values())
    assert len(shards) > 4
    found = {}
    for name in shards:
        tensors = load_file(files[name])
        assert sum(tensor.nbytes for tensor in tensors.values()) <= 200_000 or len(tensors) == 1
        with safe_open(files[name], "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
        assert {index["weight_map"][key] for key in tensors} == {name}
        found |= tensors
    expected = load_file(tiny_checkpoint / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(
        torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in expected.items()
    )
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in expected.values())


def test_split_weights_load(checkpoint, tmp_path):
    expected = AutoModel.from_pretrained(checkpoint).bfloat16()
    expected.save_pretrained(checkpoint)
    files = shard_weights(checkpoint, tmp_path / "staging", 300_000)
    (checkpoint / "model.safetensors").unlink()
    for name, content in files.items():
        (checkpoint / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    check_weights(checkpoint)
    loaded = AutoModel.from_pretrained(checkpoint)
    assert loaded.dtype == torch.bfloat16
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_pickles_alone_are_refused(checkpoint):
    torch.save(load_file(checkpoint / "model.safetensors"), checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"only pytorch_model\.bin, which are never published.*save_pretrained"):
        find_weights(checkpoint)
    (checkpoint / "pytorch_model.bin").unlink()
    with pytest.raises(DataError, match="checkpoint: weights: there are none"):
        find_weights(checkpoint)


def drop_shard(folder):
    next(folder.glob("model-*.safetensors")).unlink()


def swap_shard(folder):
    save_file({"alien": torch.zeros(1)}, next(folder.glob("model-*.safetensors")))


def edit_index(**changes):
    def spoil(folder):
        index = json.loads((folder / INDEX).read_text())
        (folder / INDEX).write_text(json.dumps(index | changes))

    return spoil


def add_whole(folder):
    save_file({"alien": torch.zeros(1)}, folder / "model.safetensors")


def cut_shard(folder):
    next(folder.glob("model-*.safetensors")).write_bytes(b"\xff" * 100)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop_shard, "weight_map: 1 shards are missing: model-"),
        (swap_shard, "weight_map: does not agree with the shards on alien, "),
        (edit_index(weight_map={}), "weight_map: is missing or empty"),
        (edit_index(weight_map={"x": "../other.safetensors"}), "names '../other.safetensors', no safetensors file"),
        (edit_index(weight_map={"x": "model.bin"}), "names 'model.bin', no safetensors file"),
        (add_whole, "model.safetensors: weights: lies beside"),
        (cut_shard, "weights: no readable safetensors file"),
    ],
)
def test_index_and_shards_must_agree(sharded, spoil, message):
    spoil(sharded)
    with pytest.raises(DataError, match=message):
        find_weights(sharded)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_must_be_finite(checkpoint, value, dtype):
    def spoil(weights):
        name = "model.detection_head.conv_in.weight"
        weights[name] = weights[name].to(dtype)
        weights[name].view(-1)[7] = value

    check_weights(checkpoint)
    rewrite(checkpoint, spoil)
    with pytest.raises(DataError, match=r"1 tensors hold NaN or Inf: model\.detection_head\.conv_in\.weight"):
        check_weights(checkpoint)


def test_names_and_shapes_must_be_those_of_the_model(checkpoint):
    def spoil(weights):
        for name in [name for name in weights if name.startswith("model.adapter.")]:
            del weights[name]
        weights["alien"] = torch.zeros(1)
        weights["lm_head.weight"] = torch.zeros(3, 2)

    rewrite(checkpoint, spoil)
    with pytest.raises(DataError) as raised:
        check_weights(checkpoint)
    message = str(raised.value)
    assert "9 missing: model.adapter.cls_projection.bias, model.adapter.cls_projection.weight" in message
    assert "model.adapter.map_projection.bias and 4 more" in message
    assert "1 unknown: alien" in message
    assert "1 of another shape: lm_head.weight ([3, 2] instead of [" in message


def test_tied_weights_are_stored_once(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True
    (checkpoint / "config.json").write_text(json.dumps(config))
    AutoModel.from_pretrained(checkpoint).save_pretrained(checkpoint)
    assert "lm_head.weight" not in find_weights(checkpoint)
    check_weights(checkpoint)
