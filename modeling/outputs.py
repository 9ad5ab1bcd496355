"""The one output type of all diagnosing models."""

from dataclasses import dataclass

import torch
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput


@dataclass
class DefectDiagnosisOutput(ModelOutput):
    """What a diagnosing model returns.

    Args:
        loss: weighted sum of `losses`; None without targets.
        losses: unweighted losses by name; None without targets.
        image_scores: (B,), 0-1, higher is more defective.
        anomaly_maps: (B, H, W) at the model's input size, 0-1, higher is more defective.
        mask_logits: (B, 2, H, W), channel 0 normal, channel 1 defective. Their difference ranks pixels without
            the saturation of the probabilities.
        cls_logits: (B, 2), CLS-to-text logits, normal and defective.
        logits: (B, T, V) of the language model; None when only detecting.
        past_key_values: the language model's cache.
        hidden_states: of the language model, when asked for.
        attentions: of the language model, when asked for.
        sequences: (B, new tokens) generated ids; only from `diagnose`.
        num_references: normal references the maps were compared with; 0 is zero-shot.
    """

    loss: torch.Tensor | None = None
    losses: dict[str, torch.Tensor] | None = None
    image_scores: torch.Tensor | None = None
    anomaly_maps: torch.Tensor | None = None
    mask_logits: torch.Tensor | None = None
    cls_logits: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    sequences: torch.Tensor | None = None
    num_references: int | None = None


__all__ = ["DefectDiagnosisOutput"]
