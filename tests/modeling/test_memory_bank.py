import numpy as np
import pytest
import torch

from defect_hub.modeling.memory_bank import MultiScaleMemory, distance_maps

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
    return MultiScaleMemory(dims=DIMS, num_patches=PATCHES, capacity=capacity, matching=matching)


@pytest.mark.parametrize("matching", ["aligned", "nearest"])
def test_distances_equal_brute_force(matching):
    query, reference = features(0, 2, PATCHES, 6), features(1, 2, 3, PATCHES, 6)
    found = distance_maps(query, reference, matching)
    for index in range(2):
        expected = brute_force(query[index].double().numpy(), reference[index].double().numpy(), matching)
        np.testing.assert_allclose(found[index].numpy(), expected, rtol=1e-5)


def test_near_identical_patches_keep_their_distance():
    """At this scale ||q||^2 - 2qm + ||m||^2 is pure rounding in float32."""
    reference = 100 * features(0, 1, 1, PATCHES, 512)
    query = reference[:, 0].flip(1) + 1e-3 * features(1, 1, PATCHES, 512)
    expected = brute_force(query[0].double().numpy(), reference[0].double().numpy(), "nearest")
    assert expected.max() < 0.03
    np.testing.assert_allclose(distance_maps(query, reference, "nearest")[0].numpy(), expected, rtol=0.01)


@pytest.mark.parametrize("matching", ["aligned", "nearest"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_attention_map_equals_brute_force(matching, shared):
    queries, references = maps(0, 2), maps(10, 1 if shared else 2, 3)
    found = bank(matching=matching)(queries, references)
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
    queries, references = ([features(seed, 2, *extra, 400, 64)] for seed, extra in ((0, ()), (1, (3,))))
    memory = MultiScaleMemory(dims=[64], num_patches=400, capacity=0, matching="aligned")
    assert memory(queries, references).mean().item() == pytest.approx(1, abs=0.02)


def test_the_reference_with_the_least_summed_distance_wins_for_every_image_alone():
    references = maps(0, 1, 3)
    queries = [torch.stack([z[0, 2], z[0, 0]]) for z in references]  # image 0 is reference 2, image 1 reference 0
    assert bank()(queries, references).abs().max() < 1e-5


def test_a_clean_image_stays_dark_beside_a_defective_one():
    references = maps(0, 1, 2)
    clean = [z[0, :1] + 0.01 for z in references]
    alone = bank()(clean, references)
    defective = [z.clone() for z in clean]
    for z in defective:
        z[:, 4] += 5
    together = bank()([torch.cat(pair) for pair in zip(clean, defective, strict=True)], references)
    torch.testing.assert_close(together[:1], alone)
    assert together[1, :, 4].min() > 1
    assert alone.max() < 0.1


def test_store_and_recall():
    memory = bank()
    assert memory.recall() is None
    memory.store(maps(0, 3))
    memory.store(maps(5, 2))  # replaces
    recalled = memory.recall()
    for stored, found in zip(maps(5, 2), recalled, strict=True):
        assert torch.equal(stored[None], found)


def test_store_beyond_capacity_is_refused_and_changes_nothing():
    memory = bank(capacity=2)
    memory.store(maps(0, 1))
    with pytest.raises(ValueError, match="3 references exceed the bank's memory_capacity of 2"):
        memory.store(maps(5, 3))
    assert torch.equal(memory.recall()[0][0], maps(0, 1)[0])
