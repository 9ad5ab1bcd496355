"""Multi-scale Self-Prompted Memory Module: how far a query lies from its best normal reference (Eq. 7-11)."""

from typing import Any

import torch
from torch import nn
from torch.linalg import vector_norm


def centred(query: torch.Tensor, reference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Both less the references' mean patch, in float32: no distance changes, and products of patches stay exact.

    Args:
        query: (B, N, C).
        reference: (B or 1, K, M, C).

    Returns:
        Query and reference, and the lengths (B or 1, K, M) of the reference's patches then.
    """
    reference = reference.float()
    centre = reference.mean(dim=(1, 2))  # (B or 1, C)
    reference = reference - centre[:, None, None]
    return query.float() - centre[:, None], reference, vector_norm(reference, dim=-1)


def nearest_patches(query: torch.Tensor, reference: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Index of each query patch's nearest reference patch, by squared L2 distance.

    Args:
        query: (B, N, C), centred.
        reference: (B or 1, K, M, C), centred; one set of references for all queries is multiplied once.
        lengths: (B or 1, K, M), of the reference's patches.

    Returns:
        (B, K, N) indices into M.
    """
    count = reference.shape[1]
    reference = reference.flatten(1, 2)  # (B or 1, K * M, C)
    # ||q||^2 is the same for all candidates, so the argmin needs only ||m||^2 / 2 - q.m.
    half_squares = lengths.flatten(1).square().unsqueeze(1) / 2
    # A second factor without batch folds all queries into one product.
    products = query @ (reference[0].T if reference.shape[0] == 1 else reference.transpose(1, 2))
    return (half_squares - products).unflatten(2, (count, -1)).argmin(dim=-1).transpose(1, 2)


def _distances(query: torch.Tensor, reference: torch.Tensor, lengths: torch.Tensor, matching: str) -> torch.Tensor:
    """[`distance_maps`] of centred features."""
    if matching == "aligned":
        return vector_norm(query.unsqueeze(1) - reference, dim=-1)
    index = nearest_patches(query, reference, lengths)
    # Row numbers in the flat references; one reference at a time stays in the processor's cache.
    own = reference.shape[2] * torch.arange(reference.shape[0], device=reference.device).unsqueeze(1)
    per_image = []
    for number in range(reference.shape[1]):
        rows = (own + index[:, number]).flatten()
        nearest = reference[:, number].flatten(0, 1).index_select(0, rows).view(query.shape)
        per_image.append(vector_norm(query - nearest, dim=-1))
    return torch.stack(per_image, dim=1)


def distance_maps(query: torch.Tensor, reference: torch.Tensor, matching: str) -> torch.Tensor:
    """Distance of each query patch to each reference image (Eq. 9).

    A matrix product picks the nearest patch; its distance is then taken from the difference, because the matrix form
    loses near-identical patches to rounding. Always in float32: bfloat16 is too coarse for either.

    Args:
        query: (B, N, C).
        reference: (B or 1, K, N, C).
        matching: `aligned` (same position) or `nearest` (nearest patch of that reference).

    Returns:
        (B, K, N), L2 distances.
    """
    with torch.autocast(query.device.type, enabled=False):
        return _distances(*centred(query, reference), matching)


def relative_distances(queries: list[torch.Tensor], references: list[torch.Tensor], matching: str) -> torch.Tensor:
    """Distance maps of all blocks in units of the references' own spread, so that blocks weigh alike.

    The spread is how far two patches of the references lie apart: sqrt(2) times their mean distance to their mean.

    Args:
        queries: S maps (B, N, C).
        references: S maps (B or 1, K, N, C).
        matching: see [`distance_maps`].

    Returns:
        (B, K, S, N), about 1 where query and reference differ as the references' patches differ.
    """
    per_block = []
    with torch.autocast(queries[0].device.type, enabled=False):
        for features in zip(queries, references, strict=True):
            query, reference, lengths = centred(*features)
            spread = 2**0.5 * lengths.mean(dim=(1, 2))
            distances = _distances(query, reference, lengths, matching)
            per_block.append(distances / spread.clamp_min(1e-6)[:, None, None])
    return torch.stack(per_block, dim=2)


def fuse(focused: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    """Product of attention and defect-focused maps (Eq. 11).

    The shift makes the second factor non-negative, so that the product keeps its order. Zero-shot is an attention of
    1.

    Args:
        focused: (..., S, N), in [-2, 2].
        attention: (..., S, N), in [0, 2).
    """
    return attention * (focused + 2) - 2


def most_different(local_maps: list[torch.Tensor], count: int, matching: str) -> list[int]:
    """Greedy k-center choice of reference images: each next one lies farthest from those chosen before.

    Two images lie as far apart as the sum of their relative distances, the measure of Eq. 10, both ways; the first one
    is that with the least sum of distances to all others.

    Args:
        local_maps: S maps (K, N, C).
        count: images to choose, at most K.
        matching: see [`distance_maps`].

    Returns:
        Indices of the images, in the order of the choice.
    """
    references = [z.unsqueeze(0) for z in local_maps]
    # One query at a time: K x K distance maps of all blocks at once would not fit.
    rows = [
        relative_distances([z[i : i + 1] for z in local_maps], references, matching).sum(dim=(2, 3))[0]
        for i in range(len(local_maps[0]))
    ]
    apart = torch.stack(rows)
    apart = apart + apart.T
    chosen = [int(apart.sum(dim=1).argmin())]
    while len(chosen) < count:
        remaining = apart[:, chosen].amin(dim=1)
        remaining[chosen] = -1
        chosen.append(int(remaining.argmax()))
    return chosen


class MemoryBank(nn.Module):
    """Features of up to `capacity` reference images, saved with the model.

    Args:
        capacity: images it can hold.
        num_patches: patches of an image.
        dim: channels of all blocks.
    """

    def __init__(self, *, capacity: int, num_patches: int, dim: int) -> None:
        super().__init__()
        self.features = nn.Buffer(torch.zeros(capacity, num_patches, dim))
        self.fill_count = nn.Buffer(torch.zeros((), dtype=torch.long))


class MultiScaleMemory(nn.Module):
    """Named banks of multi-scale reference features, and the attention maps of a query against references.

    Args:
        dims: channels of each block's features.
        num_patches: patches of an image.
        banks: names of the banks saved with the model.
        capacity: reference images that each bank can hold; 0 saves no bank.
        matching: see [`distance_maps`].
    """

    def __init__(self, *, dims: list[int], num_patches: int, banks: list[str], capacity: int, matching: str) -> None:
        super().__init__()
        self.dims = dims
        self.capacity = capacity
        self.matching = matching
        names = banks if capacity else []
        self.banks = nn.ModuleDict(
            {name: MemoryBank(capacity=capacity, num_patches=num_patches, dim=sum(dims)) for name in names}
        )

    def _bank(self, name: str) -> Any:
        if name not in self.banks:
            known = ", ".join(self.banks) or "none, as memory_capacity is 0"
            raise ValueError(
                f"memory bank {name!r}: this model has {known}. Load it with from_pretrained(..., memory_banks=[...], "
                "memory_capacity=K)"
            )
        return self.banks[name]

    def size(self, name: str) -> int:
        """Reference images that a bank holds.

        Raises:
            ValueError: if there is no such bank.
        """
        return int(self._bank(name).fill_count)

    @torch.no_grad()
    def store(self, local_features: torch.Tensor, name: str, coreset: bool = False) -> None:
        """Replace a bank's contents by the features of K reference images.

        Args:
            local_features: (K, N, C) of all blocks.
            name: of the bank.
            coreset: whether to keep the most different ones ([`most_different`]) where K exceeds the capacity.

        Raises:
            ValueError: if there is no such bank, or K exceeds the capacity and `coreset` is not set.
        """
        bank, count = self._bank(name), len(local_features)
        if count > self.capacity:
            if not coreset:
                raise ValueError(
                    f"{count} references exceed the memory_capacity of {self.capacity} images; pass coreset=True to "
                    f"keep the most different ones, or load the model with from_pretrained(..., "
                    f"memory_capacity={count}, ignore_mismatched_sizes=True)"
                )
            count = self.capacity
            local_features = local_features[most_different(self.split(local_features), count, self.matching)]
        bank.features.zero_()
        bank.features[:count] = local_features.to(bank.features.dtype)
        bank.fill_count.fill_(count)

    @torch.no_grad()
    def clear(self) -> None:
        """Empty all banks, as must be done where the image encoder changes."""
        for name in self.banks:
            bank = self._bank(name)
            bank.features.zero_()
            bank.fill_count.zero_()

    def recall(self, name: str) -> torch.Tensor:
        """A bank's contents as (1, K, N, C).

        Raises:
            ValueError: if the bank does not exist or is empty.
        """
        if not self.size(name):
            raise ValueError(f"memory bank {name!r}: is empty. Fill it with model.remember(pixel_values, {name!r})")
        return self._bank(name).features[: self.size(name)].unsqueeze(0)

    def split(self, local_features: torch.Tensor) -> list[torch.Tensor]:
        """(..., N, C) of all blocks -> S maps (..., N, C of the block)."""
        return list(local_features.split(self.dims, dim=-1))

    def forward(
        self, local_features: torch.Tensor, reference_features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention maps of each query against each reference, and which reference is its best (Eq. 9-10).

        Distances are measured in a constant of the references, not of the query, so that a clean image stays dark
        (per-image min-max scaling would stretch its noise to 1). The ratio r is bounded as 2 r / (1 + r), which keeps
        its order.

        Args:
            local_features: (B, N, C) of all blocks.
            reference_features: (B or 1, K, N, C).

        Returns:
            (B, K, S, N), in [0, 2), 1 where the query differs from the reference as the references' patches differ;
            and (B,), the reference with the least summed distance.
        """
        ratio = relative_distances(self.split(local_features), self.split(reference_features), self.matching)
        best = ratio.sum(dim=(2, 3)).argmin(dim=1)
        return 2 * ratio / (1 + ratio), best
