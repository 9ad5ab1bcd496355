"""Text-Driven Defect Focuser: where a patch is nearer to the abnormal than to the normal text (Eq. 4-6)."""

import torch
from torch import nn
from torch.linalg import vector_norm
from torch.nn.functional import normalize


class TextAdapter(nn.Module):
    """Residual map behind the frozen text encoder, zero at the start; gives L_Sep (Eq. 5) its gradient.

    A linear map shared by both texts, and a learnable offset of each state (normal, abnormal).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim, dim))
        self.state_offset = nn.Parameter(torch.zeros(2, dim))

    def forward(self, text_embeds: torch.Tensor) -> torch.Tensor:
        """(B, 2, D) -> (B, 2, D), unit length."""
        return normalize(text_embeds + text_embeds @ self.weight.T + self.state_offset, dim=-1)


class TextDrivenDefectFocuser(nn.Module):
    """Distances between local image features and the two text embeddings, per block.

    Blocks before the last have a learnable linear map into the text space; the last is already there.

    Args:
        vision_dim: channels of the blocks before the last.
        text_dim: channels of the text space.
        num_blocks: blocks that are read.
        metric: `tddf`, Euclidean distance, or `cosine`, 1 - cosine (Table IV, "w/o TDDF").
    """

    def __init__(self, *, vision_dim: int, text_dim: int, num_blocks: int, metric: str) -> None:
        super().__init__()
        self.metric = metric
        self.projections = nn.ModuleList(nn.Linear(vision_dim, text_dim) for _ in range(num_blocks - 1))

    def forward(self, local_maps: list[torch.Tensor], text_embeds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Distances of every patch to the normal and the abnormal text on the unit sphere.

        Args:
            local_maps: S maps (B, N, C); the last one has C = D.
            text_embeds: (B, 2, D), unit length, normal then abnormal.

        Returns:
            d_n and d_a, each (B, S, N) in float32, in [0, 2]. The defect-focused feature maps are d_n - d_a (Eq. 6).
        """
        projected = [project(z) for project, z in zip(self.projections, local_maps[:-1], strict=True)]
        z = torch.stack([*projected, local_maps[-1]], dim=1).float()  # (B, S, N, D)
        with torch.autocast(z.device.type, enabled=False):  # the two distances differ by less than bfloat16 resolves
            # Two texts are fewer than D channels: the length divides the products, not the patches.
            length = vector_norm(z, dim=-1).clamp_min(1e-12).unsqueeze(1)
            cosine = torch.einsum("bsnd,btd->btsn", z, text_embeds.float()) / length
        if self.metric == "cosine":
            return 1 - cosine[:, 0], 1 - cosine[:, 1]
        # On the unit sphere ||z - e||^2 = 2 - 2 cos. The floor keeps the root's gradient finite.
        distance = (2 - 2 * cosine).clamp_min(1e-6).sqrt()
        return distance[:, 0], distance[:, 1]
