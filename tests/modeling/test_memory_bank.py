import numpy as np
import pytest
import torch

from defect_hub.modeling.memory_bank import MultiScaleMemory, distance_maps, most_different

DIMS = [6, 6, 4]
PATCHES = 9


def brute_force(query: np.ndarray, reference: np.ndarray, matching: str) -> np.ndarray:
    """(N, C) and (K, M, C) -> (K, N) in float64, by all pairs."""
    pairs = np.linalg.norm(query[None, :, None] - reference[:, None], axis=-1)  # (K, N, M)
    return pairs.min(axis=2) if matching == "nearest" else np.diagonal(pairs, axis1=1, axis2=2)


def features(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def maps(seed: int, *shape: int) -> list[torch.Tensor]:
    return [features(seed + block, *shape, PATCHES, dim) for block, dim in enumerate(DIMS)]


def bank(capacity: int = 4, matching: str = "aligned") -> MultiScaleMemory:
    banks = ["default", "tile"]
    return MultiScaleMemory(dims=DIMS, num_patches=PATCHES, banks=banks, capacity=capacity, matching=matching)


def best_map(memory: MultiScaleMemory, queries: list[torch.Tensor], references: list[torch.Tensor]) -> torch.Tensor:
    """(B, S, N), the attention map with each query's best reference."""
    attention, best = memory(torch.cat(queries, dim=-1), torch.cat(references, dim=-1))
    return attention[torch.arange(len(best)), best]


@pytest.mark.parametrize("matching", ["aligned", "nearest"])
def test_distances_equal_brute_force(matching):
    query, reference = features(0, 2, PATCHES, 6), features(1, 2, 3, PATCHES, 6)
    found = distance_maps(query, reference, matching)
    for index in range(2):
        expected = brute_force(query[index].double().numpy(), reference[index].double().numpy(), matching)
        np.testing.assert_allclose(found[index].numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("spread", [1e-1, 1e-2, 1e-3, 1e-4])
def test_smooth_surfaces_keep_their_distances(spread):
    """All patches share a large base, as those of a plain surface; ||q||^2 - 2qm + ||m||^2 is rounding then."""
    base = features(0, 512)
    reference = base + spread * features(1, 1, 2, PATCHES, 512)
    query = base + spread * features(2, 1, PATCHES, 512)
    expected = brute_force(query[0].double().numpy(), reference[0].double().numpy(), "nearest")
    np.testing.assert_allclose(distance_maps(query, reference, "nearest")[0].numpy(), expected, rtol=1e-3)


def test_distances_are_float32_under_autocast():
    query, reference = features(0, 2, PATCHES, 64), features(1, 1, 3, PATCHES, 64)
    for matching in ("aligned", "nearest"):
        expected = distance_maps(query, reference, matching)
        with torch.autocast("cpu", torch.bfloat16):
            found = distance_maps(query, reference, matching)
        assert found.dtype == torch.float32
        assert torch.equal(found, expected)


@pytest.mark.parametrize("matching", ["aligned", "nearest"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_attention_map_equals_brute_force(matching, shared):
    queries, references = maps(0, 2), maps(10, 1 if shared else 2, 3)
    found = best_map(bank(matching=matching), queries, references)
    for index in range(2):
        per_block = []
        for query, reference in zip(queries, references, strict=True):
            own = reference[0 if shared else index].double().numpy()
            spread = np.sqrt(2) * np.linalg.norm(own - own.mean(axis=(0, 1)), axis=-1).mean()
            per_block.append(brute_force(query[index].double().numpy(), own, matching) / spread)
        expected = np.stack(per_block, axis=1)  # (K, S, N)
        best = expected.sum(axis=(1, 2)).argmin()
        np.testing.assert_allclose(found[index].numpy(), 2 * expected[best] / (1 + expected[best]), rtol=1e-5)


def test_unrelated_patches_lie_around_one():
    query, references = features(0, 2, 400, 64), features(1, 2, 3, 400, 64)
    memory = MultiScaleMemory(dims=[64], num_patches=400, banks=[], capacity=0, matching="aligned")
    assert memory(query, references)[0].mean().item() == pytest.approx(1, abs=0.02)


def test_the_reference_with_the_least_summed_distance_wins_for_every_image_alone():
    references = maps(0, 1, 3)
    queries = [torch.stack([z[0, 2], z[0, 0]]) for z in references]  # image 0 is reference 2, image 1 reference 0
    assert best_map(bank(), queries, references).abs().max() < 1e-5


def test_a_clean_image_stays_dark_beside_a_defective_one():
    references = maps(0, 1, 2)
    clean = [z[0, :1] + 0.01 for z in references]
    alone = best_map(bank(), clean, references)
    defective = [z.clone() for z in clean]
    for z in defective:
        z[:, 4] += 5
    together = best_map(bank(), [torch.cat(pair) for pair in zip(clean, defective, strict=True)], references)
    torch.testing.assert_close(together[:1], alone)
    assert together[1, :, 4].min() > 1
    assert alone.max() < 0.1


def test_store_and_recall_by_name():
    memory = bank()
    stored = {"tile": features(0, 3, PATCHES, sum(DIMS)), "default": features(5, 2, PATCHES, sum(DIMS))}
    memory.store(features(9, 4, PATCHES, sum(DIMS)), "tile")
    for name, content in stored.items():
        memory.store(content, name)  # replaces
    assert (memory.size("tile"), memory.size("default")) == (3, 2)
    for name, content in stored.items():
        assert torch.equal(memory.recall(name), content[None])
    memory.clear()
    assert (memory.size("tile"), memory.size("default")) == (0, 0)


def test_banks_that_cannot_be_asked():
    with pytest.raises(ValueError, match="memory bank 'tile': is empty"):
        bank().recall("tile")
    with pytest.raises(ValueError, match="memory bank 'wood': this model has default, tile"):
        bank().recall("wood")
    with pytest.raises(ValueError, match="this model has none, as memory_capacity is 0"):
        bank(capacity=0).store(features(0, 1, PATCHES, sum(DIMS)), "default")


def test_store_beyond_capacity_is_refused_and_changes_nothing():
    memory = bank(capacity=2)
    one = features(0, 1, PATCHES, sum(DIMS))
    memory.store(one, "default")
    with pytest.raises(ValueError, match="3 references exceed the memory_capacity of 2 images; pass coreset=True"):
        memory.store(features(5, 3, PATCHES, sum(DIMS)), "default")
    assert torch.equal(memory.recall("default")[0], one)


def test_a_coreset_keeps_the_different_images():
    """Of three near copies and two others, the bank of three keeps one copy and both others."""
    centres = features(3, 3, PATCHES, sum(DIMS))
    images = centres[[0, 1, 0, 2, 0]] + 0.01 * features(4, 5, PATCHES, sum(DIMS))
    memory = bank(capacity=3)
    memory.store(images, "default", coreset=True)
    kept = memory.recall("default")[0]
    chosen = [int((images - image).abs().amax(dim=(1, 2)).argmin()) for image in kept]
    assert {1, 3} < set(chosen)
    assert len(set(chosen) & {0, 2, 4}) == 1
    assert most_different(memory.split(images), 5, "aligned")[:3] == chosen
