import dataclasses
import json
import pickle
import shutil
import threading
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from defect_hub.train import feature_cache
from defect_hub.train.feature_cache import (
    IMAGES_PER_SHARD,
    CacheKey,
    FeatureCache,
    build_feature_cache,
    encoder_digest,
    images_digest,
    missing_shards,
)

COUNT = 2 * IMAGES_PER_SHARD + 5
IMAGES = list(torch.randn(COUNT, 3, 4, 4, generator=torch.Generator().manual_seed(0)))
KEY = CacheKey(images_digest(IMAGES), COUNT, "encoder", {"size": 4}, variants=2)


def variants(index):
    return torch.stack([IMAGES[index], IMAGES[index].flip(-1)])


class Encoder:
    """Two features of an image; counts the images it is given.

    Args:
        fails_after: number of images after which it fails.
    """

    def __init__(self, fails_after=10**9):
        self.count = 0
        self.fails_after = fails_after

    def __call__(self, images):
        self.count += len(images)
        if self.count > self.fails_after:
            raise KeyboardInterrupt
        return {"mean": images.mean(dim=(2, 3)), "first": images[:, 0]}


def build(root, key=KEY, encode=None, accelerator=None):
    return build_feature_cache(root, key, variants, encode or Encoder(), accelerator or Accelerator())


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("cache")
    return root, build(root)


# Reading


def test_features_are_those_of_the_encoder_in_bfloat16(built):
    _, cache = built
    for index in (0, IMAGES_PER_SHARD - 1, IMAGES_PER_SHARD, COUNT - 1):
        for variant in range(2):
            expected = Encoder()(variants(index)[variant : variant + 1])
            found = cache.read(index, variant)
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                assert torch.equal(found[name], value[0].bfloat16())


def test_data_loading_processes_read_it_too(built):
    _, cache = built
    cache.read(3)
    assert torch.equal(pickle.loads(pickle.dumps(cache)).read(3)["mean"], cache.read(3)["mean"])


def test_a_complete_cache_is_not_built_again(built):
    root, cache = built
    encode = Encoder()
    assert torch.equal(build(root, encode=encode).read(7)["first"], cache.read(7)["first"])
    assert encode.count == 0


def test_manifest_says_what_it_was_made_from(built):
    root, cache = built
    about = json.loads((root / KEY.name / "manifest.json").read_text())
    assert {name: about[name] for name in dataclasses.asdict(KEY)} == dataclasses.asdict(KEY)
    assert [path.name for path in cache.folder.iterdir() if path.suffix == ".tmp"] == []


# Keys


@pytest.mark.parametrize(
    "changed",
    [
        {"images": images_digest(IMAGES[::-1])},
        {"images": images_digest([IMAGES[0] + 1e-6, *IMAGES[1:]])},
        {"count": COUNT - 1},
        {"encoder": "other"},
        {"transform": {"size": 5}},
        {"variants": 1},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_other_data_encoder_or_transform_is_another_cache(changed):
    assert dataclasses.replace(KEY, **changed).name != KEY.name


def test_encoder_digest_sees_weights_buffers_names_and_settings():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    reference = encoder_digest({"vision": network}, {"blocks": [1, 2]})
    assert encoder_digest({"vision": network}, {"blocks": [1, 2]}) == reference
    assert encoder_digest({"vision": network}, {"blocks": [1, 3]}) != reference
    assert encoder_digest({"text": network}, {"blocks": [1, 2]}) != reference
    assert encoder_digest({"vision": network.double()}, {"blocks": [1, 2]}) != reference
    network.float()
    for tensor in (network[0].weight, network[1].running_mean):
        before = tensor.detach().clone()
        with torch.no_grad():
            tensor.view(-1)[0] += 1e-3
        assert encoder_digest({"vision": network}, {"blocks": [1, 2]}) != reference
        with torch.no_grad():
            tensor.copy_(before)
    assert encoder_digest({"vision": network}, {"blocks": [1, 2]}) == reference


# Building


def test_interrupted_building_goes_on(tmp_path, built):
    encode = Encoder(fails_after=2 * IMAGES_PER_SHARD + 10)  # two variants: one shard, and a bit
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, encode=encode)
    folder = tmp_path / KEY.name
    assert missing_shards(folder, KEY) == [1, 2]
    assert sorted(path.name for path in folder.iterdir()) == ["features-00000.safetensors", "manifest.json"]
    with pytest.raises(ValueError, match="2 of 3 shards are missing"):
        FeatureCache(folder, KEY)
    encode = Encoder()
    cache = build(tmp_path, encode=encode)
    # The first image is encoded once more, to measure the room.
    assert encode.count == 2 + 2 * (COUNT - IMAGES_PER_SHARD)
    for index in (0, 40, COUNT - 1):
        assert torch.equal(cache.read(index)["mean"], built[1].read(index)["mean"])


def test_processes_build_disjoint_shards(tmp_path, built):
    barrier = threading.Barrier(2)
    encoders, caches = [Encoder(), Encoder()], {}

    def process(rank):
        accelerator = SimpleNamespace(
            process_index=rank, num_processes=2, is_main_process=rank == 0, wait_for_everyone=barrier.wait
        )
        caches[rank] = build(tmp_path, encode=encoders[rank], accelerator=accelerator)

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    # Shards 0 and 2 (32 and 5 images), and shard 1; two variants, and one image to measure the room.
    assert [encode.count for encode in encoders] == [2 + 2 * 37, 2 + 2 * 32]
    for cache in caches.values():
        assert torch.equal(cache.read(COUNT - 1, 1)["first"], built[1].read(COUNT - 1, 1)["first"])


def test_size_is_said_and_a_full_disk_is_refused(tmp_path, monkeypatch, capsys):
    build(tmp_path / "a")
    assert f"features of {COUNT} images in 2 variants take 0.00 GB of" in capsys.readouterr().err
    # Two features of 3 and 16 numbers, two bytes each, two variants.
    needed = COUNT * 2 * 2 * (3 + 16)
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 1))
    with pytest.raises(
        OSError, match=r"take 0\.00 GB of 0\.00 GB free\. Choose another folder, or have fewer variants"
    ):
        build(tmp_path / "b")
    assert missing_shards(tmp_path / "b" / KEY.name, KEY) == [0, 1, 2]
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=needed))
    build(tmp_path / "b")


def test_features_must_be_finite(tmp_path):
    with pytest.raises(ValueError, match=r"mean: the encoder gives values that are not finite\. Check its weights"):
        build(tmp_path, encode=lambda images: {"mean": torch.full((len(images), 2), float("nan"))})


# Foreign and damaged


def test_a_folder_of_another_key_is_refused(tmp_path):
    other = dataclasses.replace(KEY, encoder="other")
    build(tmp_path, key=other)
    (tmp_path / other.name).rename(tmp_path / KEY.name)
    with pytest.raises(ValueError, match=r"manifest\.json: written for other images, weights or settings"):
        build(tmp_path)


def test_shards_of_another_cache_or_place_are_refused(tmp_path, built):
    folder = shutil.copytree(built[0] / KEY.name, tmp_path / KEY.name)
    other = build(tmp_path, key=dataclasses.replace(KEY, encoder="other"))
    shutil.copy(other.folder / "features-00000.safetensors", folder)
    shutil.copy(folder / "features-00002.safetensors", folder / "features-00001.safetensors")
    cache = FeatureCache(folder, KEY)
    for index in (0, IMAGES_PER_SHARD):
        with pytest.raises(ValueError, match=r"not a part of this cache\. Remove it; the next run builds it again"):
            cache.read(index)
    assert cache.read(COUNT - 1)


def test_a_damaged_shard_is_named(tmp_path, built):
    folder = shutil.copytree(built[0] / KEY.name, tmp_path / KEY.name)
    path = folder / "features-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"features-00001\.safetensors: damaged .* Remove it"):
        FeatureCache(folder, KEY).read(IMAGES_PER_SHARD)
    path.unlink()
    assert build(tmp_path).read(IMAGES_PER_SHARD)
