"""Multi-scale Self-Prompted Memory Module: how far a query lies from its best normal reference (Eq. 7-11)."""

import torch
from torch import nn


def nearest_patches(query: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Index of each query patch's nearest reference patch, by squared L2 distance.

    Args:
        query: (B, N, C).
        reference: (B, K, M, C).

    Returns:
        (B, K, N) indices into M.
    """
    # ||q||^2 is the same for all candidates, so the argmin needs only ||m||^2 - 2 q.m.
    scores = reference.square().sum(-1).unsqueeze(2) - 2 * torch.einsum("bnc,bkmc->bknm", query, reference)
    return scores.argmin(dim=-1)


def distance_maps(query: torch.Tensor, reference: torch.Tensor, matching: str) -> torch.Tensor:
    """Distance of each query patch to each reference image (Eq. 9).

    The matrix form picks the nearest patch; its distance is then taken from the difference, because the matrix form
    loses near-identical patches to rounding.

    Args:
        query: (B, N, C).
        reference: (B, K, N, C).
        matching: `aligned` (same position) or `nearest` (nearest patch of that reference).

    Returns:
        (B, K, N), L2 distances.
    """
    if matching == "nearest":
        index = nearest_patches(query, reference).unsqueeze(-1).expand(-1, -1, -1, reference.shape[-1])
        reference = reference.gather(2, index)
    return (query.unsqueeze(1) - reference).square().sum(-1).clamp_min(1e-12).sqrt()


class MultiScaleMemory(nn.Module):
    """Bank of multi-scale reference features, and the attention map of a query against it.

    Args:
        dims: channels of each block's features.
        num_patches: patches of an image.
        capacity: reference images the bank saved with the model can hold.
        matching: see [`distance_maps`].
    """

    def __init__(self, *, dims: list[int], num_patches: int, capacity: int, matching: str) -> None:
        super().__init__()
        self.dims = dims
        self.capacity = capacity
        self.matching = matching
        self.bank = nn.Buffer(torch.zeros(capacity, num_patches, sum(dims)))
        self.fill_count = nn.Buffer(torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def store(self, local_maps: list[torch.Tensor]) -> None:
        """Replace the bank's contents by the features of K reference images.

        Args:
            local_maps: S maps (K, N, C).

        Raises:
            ValueError: if K exceeds the capacity.
        """
        count = len(local_maps[0])
        if count > self.capacity:
            raise ValueError(
                f"{count} references exceed the bank's memory_capacity of {self.capacity}; load the model with "
                f"from_pretrained(..., memory_capacity={count}, ignore_mismatched_sizes=True)"
            )
        self.bank.zero_()
        self.bank[:count] = torch.cat(local_maps, dim=-1).to(self.bank.dtype)
        self.fill_count.fill_(count)

    def recall(self) -> list[torch.Tensor] | None:
        """The stored references as S maps (1, K, N, C), or None if the bank is empty."""
        if self.capacity == 0 or self.fill_count == 0:
            return None
        filled = self.bank[: int(self.fill_count)].unsqueeze(0)
        return list(filled.split(self.dims, dim=-1))

    def forward(self, queries: list[torch.Tensor], references: list[torch.Tensor]) -> torch.Tensor:
        """Attention map of each query: the distance maps of its best reference, in units of the bank's own spread.

        The scale is a constant of the references, not of the query, so that a clean image stays dark (per-image
        min-max scaling would stretch its noise to 1): sqrt(2) times the mean distance of their patches to their mean,
        which is how far two of them lie apart. The ratio r is bounded as 2 r / (1 + r), which keeps its order.

        Args:
            queries: S maps (B, N, C).
            references: S maps (B or 1, K, N, C).

        Returns:
            (B, S, N), in [0, 2), 1 where the query differs from its reference as the references' patches differ.
        """
        per_block = []
        for query, reference in zip(queries, references, strict=True):
            centre = reference.mean(dim=(1, 2), keepdim=True)
            spread = 2**0.5 * (reference - centre).square().sum(-1).sqrt().mean(dim=(1, 2))  # (B or 1,)
            expanded = reference.expand(len(query), -1, -1, -1)
            distances = distance_maps(query, expanded, self.matching)
            per_block.append(distances / spread.clamp_min(1e-6)[:, None, None])
        distances = torch.stack(per_block, dim=2)  # (B, K, S, N)
        best = distances.sum(dim=(2, 3)).argmin(dim=1)  # (B,): least summed distance (Eq. 10)
        ratio = distances[torch.arange(len(best), device=best.device), best]
        return 2 * ratio / (1 + ratio)
