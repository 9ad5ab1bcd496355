"""The one output type of all diagnosing models, and what the visual half of SPGDD-GPT hands on."""

from dataclasses import dataclass
from typing import Any

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
        image_score: how `image_scores` came about, see `SpgddGptConfig.image_score`; thresholds belong to it.
        num_references: normal references the maps were compared with; 0 is zero-shot.
        reference_scores: (B, K), 0-1, the image score with each reference in the place of the best one; None below two
            references and in training. Their spread says how much the score depends on the choice of references.
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
    image_score: str | None = None
    num_references: int | None = None
    reference_scores: torch.Tensor | None = None


@dataclass
class SpgddGptDetection:
    """What the visual half finds, before the language model speaks.

    Args:
        mask_logits: (B, 2, H, W) float32, channel 0 normal, channel 1 defective.
        cls_logits: (B, 2) float32, scaled cosine of CLS with the normal and the abnormal text.
        d_normal: (B, S, N) patch distances to the normal text.
        d_abnormal: (B, S, N) patch distances to the abnormal text.
        text_embeds: (B, 2, D), unit length.
        prompt_embeds: (B, T, hidden) what the language model reads in place of the image tokens; None without one.
        num_references: normal references the query was compared with.
        reference_peaks: (B, K), 0-1, the largest anomaly with each reference in the place of the best one; None below
            two references, and in training.
    """

    mask_logits: torch.Tensor
    cls_logits: torch.Tensor
    d_normal: torch.Tensor
    d_abnormal: torch.Tensor
    text_embeds: torch.Tensor
    prompt_embeds: Any
    num_references: int
    reference_peaks: torch.Tensor | None


def anomaly_maps(mask_logits: torch.Tensor) -> torch.Tensor:
    """(B, 2, H, W) logits -> (B, H, W) probability of the defective class, float32."""
    return mask_logits.float().softmax(dim=1)[:, 1]


def image_scores(peaks: torch.Tensor, cls_logits: torch.Tensor, image_score: str) -> torch.Tensor:
    """Image scores by `SpgddGptConfig.image_score`.

    Args:
        peaks: (B,) or (B, K), the anomaly map's maximum, 0-1.
        cls_logits: (B, 2).
        image_score: `max`, `cls` or `mean`.

    Returns:
        Of the shape of `peaks`, 0-1.
    """
    cls = cls_logits.softmax(dim=-1)[:, 1].view(-1, *[1] * (peaks.dim() - 1)).expand_as(peaks)
    if image_score == "max":
        return peaks
    return cls if image_score == "cls" else (peaks + cls) / 2


def detection_fields(detection: SpgddGptDetection, image_score: str) -> dict[str, Any]:
    """What a [`DefectDiagnosisOutput`] says of a detection, with the image score of that kind."""
    maps = anomaly_maps(detection.mask_logits)
    peaks, each = maps.amax(dim=(1, 2)), detection.reference_peaks
    return {
        "image_scores": image_scores(peaks, detection.cls_logits, image_score),
        "anomaly_maps": maps,
        "mask_logits": detection.mask_logits,
        "cls_logits": detection.cls_logits,
        "image_score": image_score,
        "num_references": detection.num_references,
        "reference_scores": None if each is None else image_scores(each, detection.cls_logits, image_score),
    }


__all__ = ["DefectDiagnosisOutput", "SpgddGptDetection"]
