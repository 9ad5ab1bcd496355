"""Adapter Module (Section III-D): from defect-focused maps to a detection, and into the language model's width."""

import torch
from torch import nn

DIRECT_SLOPE = 5.0
RARE_CLASS_LOGIT = -2.0


class MeanMapConv(nn.Conv2d):
    """1x1 convolution whose logits start as the mean of the maps, with the bias of a rare class."""


class ZeroConv(nn.Conv2d):
    """Convolution that starts at zero, so that what it adds to is the start."""


class DetectionHead(nn.Module):
    """Two-class logits from the fused defect-focused maps F_out, at the patch grid.

    A direct 1x1 path beside the convolutions: before any training the logits are the mean map itself (zero-shot CLIP),
    and the many normal pixels do not have to be learned first.
    """

    def __init__(self, *, in_channels: int, hidden: int) -> None:
        super().__init__()
        self.direct = MeanMapConv(in_channels, 2, kernel_size=1)
        self.conv_in = nn.Conv2d(in_channels, hidden, kernel_size=3, padding=1)
        self.conv_out = ZeroConv(hidden, 2, kernel_size=3, padding=1)

    def forward(self, fused: torch.Tensor) -> torch.Tensor:
        """(B, S, g, g) -> (B, 2, g, g)."""
        return self.direct(fused) + self.conv_out(nn.functional.gelu(self.conv_in(fused)))


class MeanMapHead(nn.Module):
    """What [`DetectionHead`] is before any training, and stays: nothing to learn (Table VI, "w/o Adapter")."""

    def forward(self, fused: torch.Tensor) -> torch.Tensor:
        """(B, S, g, g) -> (B, 2, g, g)."""
        defective = DIRECT_SLOPE * fused.mean(dim=1) + RARE_CLASS_LOGIT
        return torch.stack([-defective, defective], dim=1)


class DiagnosisAdapter(nn.Module):
    """Linear maps into the language model's width, and learnable prompts."""

    def __init__(self, *, num_patches: int, text_dim: int, hidden_size: int, num_prompts: int) -> None:
        super().__init__()
        self.map_projection = nn.Linear(num_patches, hidden_size)
        self.detection_projection = nn.Linear(num_patches, hidden_size)
        self.cls_projection = nn.Linear(text_dim, hidden_size)
        self.text_projection = nn.Linear(text_dim, hidden_size)
        # An embedding, not a bare parameter: peft's modules_to_save ignores bare parameters.
        self.prompts = nn.Embedding(num_prompts, hidden_size)

    def forward(
        self, fused: torch.Tensor, detection: torch.Tensor, cls: torch.Tensor, text: torch.Tensor
    ) -> torch.Tensor:
        """Concatenate what the language model is told about the image.

        Args:
            fused: (B, S, N) F_out.
            detection: (B, N) defective-minus-normal logits at the patch grid.
            cls: (B, D) CLS embedding, unit length.
            text: (B, 2, D) text embeddings, unit length.

        Returns:
            (B, S + 4 + num_prompts, hidden).
        """
        prompts = self.prompts.weight.expand(len(fused), -1, -1)
        return torch.cat(
            [
                self.map_projection(fused),
                self.detection_projection(detection).unsqueeze(1),
                self.cls_projection(cls).unsqueeze(1),
                self.text_projection(text),
                prompts.to(fused.dtype),
            ],
            dim=1,
        )
