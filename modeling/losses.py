"""Losses of SPGDD-GPT by name, and their weighted sum (An & Dong 2026, Eq. 4, 5, 13, 14).

Each is a mean over items of its own kind, so the losses of a split batch do not average to those of the whole. Where a
function takes totals, what it returns is a sum over these items divided by the total of all parts: the parts' values
add up to the whole batch's mean.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import adaptive_max_pool2d, binary_cross_entropy_with_logits, cross_entropy

from .input_checks import check_shape
from .outputs import SpgddGptDetection

# The image-level signal is weak and noisy; at full weight it keeps the patches from learning at first.
CLS_SHARE = 0.1


def patch_targets(masks: torch.Tensor, grid_size: int) -> torch.Tensor:
    """A patch is defective if any of its pixels is.

    Args:
        masks: (B, H, W), 0 or 1.
        grid_size: patches along one side.

    Returns:
        (B, grid_size ** 2), bool.
    """
    return adaptive_max_pool2d(masks[:, None].float(), grid_size).flatten(1) > 0.5


def loss_counts(batch: dict[str, torch.Tensor], config: Any) -> dict[str, torch.Tensor]:
    """How many items each mean in the losses is over, from the targets alone.

    Args:
        batch: arguments of the model's `forward`, of which `labels`, `masks` and `is_defective` are read.
        config: of the model.

    Returns:
        int64 scalars, 0 without their target: `tokens` to predict, `images`; of the images with pixel annotation
        `pixels`, and `patches`, `defective_patches` and `normal_patches`, counted once in each block.
    """
    labels, masks, is_defective = (batch.get(name) for name in ("labels", "masks", "is_defective"))
    zero = torch.zeros((), dtype=torch.long, device=next(iter(batch.values())).device)
    tokens = annotated = defective = zero
    if labels is not None:
        tokens = (labels[:, 1:] != -100).sum()  # the first is predicted from nothing
    if masks is not None:
        annotated = (masks[:, 0, 0] >= 0).sum()
        defective = patch_targets(masks, config.grid_size).sum() * len(config.feature_blocks)
    patches = annotated * config.grid_size**2 * len(config.feature_blocks)
    images = next((target for target in (masks, is_defective) if target is not None), ())
    return {
        "tokens": tokens,
        "images": zero + len(images),
        "pixels": annotated * config.clip_config.vision_config.image_size**2,
        "patches": patches,
        "defective_patches": defective,
        "normal_patches": patches - defective,
    }


def mean_over(total: torch.Tensor | None, values: torch.Tensor) -> torch.Tensor:
    """What these values add to a mean over `total` of them; None: their own mean."""
    return values.mean() if total is None else values.sum() / total


def loss_over(total: torch.Tensor | None, loss: Callable[..., torch.Tensor], *args: torch.Tensor) -> torch.Tensor:
    """The same of one of PyTorch's losses, whose own mean rounds otherwise than the mean of its values."""
    return loss(*args) if total is None else loss(*args, reduction="sum") / total


def tddf_loss(
    d_normal: torch.Tensor,
    d_abnormal: torch.Tensor,
    defective: torch.Tensor,
    normal_weight: float,
    num_defective: torch.Tensor | None = None,
    num_normal: torch.Tensor | None = None,
) -> torch.Tensor:
    """Hinge of Eq. 4 with margin 0, as its paragraph reads: the printed formula would pull defective patches towards
    the normal text. Defective patches must lie nearer to the abnormal text; normal patches take the mirrored term.

    Args:
        d_normal: (B, S, N) distances to the normal text.
        d_abnormal: (B, S, N) distances to the abnormal text.
        defective: (B, N), bool.
        normal_weight: weight of the mirrored term.
        num_defective: total of defective patches in all parts, from 1.
        num_normal: total of normal patches in all parts, from 1.

    Returns:
        Scalar: mean over defective patches plus `normal_weight` times the mean over normal patches.
    """
    defective = defective.unsqueeze(1).expand_as(d_normal)
    normal = ~defective
    violation = d_abnormal - d_normal
    num_defective = defective.sum().clamp_min(1) if num_defective is None else num_defective
    num_normal = normal.sum().clamp_min(1) if num_normal is None else num_normal
    defective_term = (violation.clamp_min(0) * defective).sum() / num_defective
    normal_term = ((-violation).clamp_min(0) * normal).sum() / num_normal
    return defective_term + normal_weight * normal_term


def separation_loss(text_embeds: torch.Tensor, num_images: torch.Tensor | None = None) -> torch.Tensor:
    """L_Sep (Eq. 5) with the sign that grows the distance between the two texts: minus its square, in [-4, 0].

    Args:
        text_embeds: (B, 2, D), unit length.
        num_images: total of all parts, from 1.
    """
    return -mean_over(num_images, (text_embeds[:, 0] - text_embeds[:, 1]).square().sum(-1))


def pixel_loss(
    mask_logits: torch.Tensor, masks: torch.Tensor, positive_weight: float, num_pixels: torch.Tensor | None = None
) -> torch.Tensor:
    """Pixel cross-entropy L_I (Eq. 13), averaged over pixels.

    Args:
        mask_logits: (B, 2, H, W).
        masks: (B, H, W), 0 or 1.
        positive_weight: weight of defective pixels; 1 is the printed form.
        num_pixels: total of all parts, from 1.
    """
    per_pixel = cross_entropy(mask_logits.float(), masks.long(), reduction="none")
    return mean_over(num_pixels, per_pixel * (1 + (positive_weight - 1) * masks))


def patch_contrast_loss(
    d_normal: torch.Tensor,
    d_abnormal: torch.Tensor,
    defective: torch.Tensor,
    scale: torch.Tensor,
    num_patches: torch.Tensor | None = None,
) -> torch.Tensor:
    """CLIP's contrastive loss of every patch with the two texts, the cross-entropy over their scaled similarities.

    Args:
        d_normal: (B, S, N) patch distances to the normal text.
        d_abnormal: (B, S, N) patch distances to the abnormal text.
        defective: (B, N), bool.
        scale: of the distances, CLIP's logit scale.
        num_patches: total of all parts, from 1.
    """
    margin = scale * (d_normal - d_abnormal)
    targets = defective.unsqueeze(1).expand_as(margin).to(margin.dtype)
    return loss_over(num_patches, binary_cross_entropy_with_logits, margin, targets)


def alignment_loss(
    cls_logits: torch.Tensor,
    d_normal: torch.Tensor,
    d_abnormal: torch.Tensor,
    is_defective: torch.Tensor,
    defective: torch.Tensor | None,
    scale: torch.Tensor,
    num_images: torch.Tensor | None = None,
    num_patches: torch.Tensor | None = None,
) -> torch.Tensor:
    """Contrast with the two texts, of the whole image and of its patches: what CLIP's pretraining would have taught.

    Not a loss of the paper, whose towers are pretrained; towers from scratch need it.

    Args:
        cls_logits: (B, 2), normal and defective.
        d_normal: (A, S, N) patch distances to the normal text, of the A images with pixel annotation.
        d_abnormal: (A, S, N) patch distances to the abnormal text.
        is_defective: (B,), 0 or 1.
        defective: (A, N), bool; None without pixel annotation.
        scale: of the distances, CLIP's logit scale.
        num_images: total of all parts, from 1.
        num_patches: total of all parts, from 1.
    """
    loss = CLS_SHARE * loss_over(num_images, cross_entropy, cls_logits.float(), is_defective.long())
    if defective is None:
        return loss
    return loss + patch_contrast_loss(d_normal, d_abnormal, defective, scale, num_patches)


def detection_losses(
    detection: SpgddGptDetection,
    config: Any,
    scale: torch.Tensor,
    masks: torch.Tensor | None,
    is_defective: torch.Tensor | None,
    totals: dict[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """Unweighted losses of the visual half by name: those whose targets are given and whose weight is not 0.

    A batch without pixel annotation leaves out the losses of pixels and patches; with totals they are 0, so that all
    parts have gradients of the same parameters, as DDP asks.

    Args:
        detection: of the batch.
        config: of the model.
        scale: CLIP's logit scale.
        masks: (B, H, W), 0 or 1, or -100 throughout an image without pixel annotation.
        is_defective: (B,), 0 or 1.
        totals: [`loss_counts`] of all parts of the batch that this one is a part of.

    Raises:
        ValueError: for masks of another size or other values.
    """
    losses: dict[str, torch.Tensor] = {}
    d_normal, d_abnormal, defective = detection.d_normal, detection.d_abnormal, None
    totals = {name: total.clamp_min(1) for name, total in (totals or {}).items()}
    num_images, num_patches = totals.get("images"), totals.get("patches")
    if masks is not None:
        check_shape("masks", masks, detection.mask_logits.shape[0], *detection.mask_logits.shape[-2:])
        if masks.max() > 1:
            raise ValueError(
                f"masks hold {int(masks.max())}; give 0, 1, or -100 throughout an image without annotation"
            )
        if config.focuser == "tddf":
            losses["sep"] = separation_loss(detection.text_embeds, num_images)
        annotated = masks[:, 0, 0] >= 0
        masks, mask_logits = masks[annotated], detection.mask_logits[annotated]
        d_normal, d_abnormal = d_normal[annotated], d_abnormal[annotated]
        if len(masks) or totals:
            defective = patch_targets(masks, config.grid_size)
            losses["pixel"] = pixel_loss(mask_logits, masks, config.pixel_positive_weight, totals.get("pixels"))
            if config.focuser == "tddf":
                by_kind = totals.get("defective_patches"), totals.get("normal_patches")
                losses["tddf"] = tddf_loss(d_normal, d_abnormal, defective, config.normal_weight, *by_kind)
            else:
                losses["contrast"] = patch_contrast_loss(d_normal, d_abnormal, defective, scale, num_patches)
    if is_defective is not None and config.alignment_weight > 0:
        patches = (d_normal, d_abnormal, is_defective, defective, scale)
        losses["align"] = alignment_loss(detection.cls_logits, *patches, num_images, num_patches)
    return losses


def total_loss(losses: dict[str, torch.Tensor], config: Any) -> torch.Tensor | None:
    """Weighted sum (Eq. 14), or None without targets; the contrast stands in the focuser's place."""
    if not losses:
        return None
    weights = {
        "text": config.alpha,
        "tddf": config.beta,
        "contrast": config.beta,
        "sep": config.beta * config.lambda_sep,
        "pixel": config.gamma,
        "align": config.alignment_weight,
    }
    return torch.stack([weights[name] * value.float() for name, value in losses.items()]).sum()
