"""Losses of SPGDD-GPT by name (An & Dong 2026, Eq. 4, 5, 13)."""

import torch
from torch.nn.functional import adaptive_max_pool2d, binary_cross_entropy_with_logits, cross_entropy

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


def tddf_loss(
    d_normal: torch.Tensor, d_abnormal: torch.Tensor, defective: torch.Tensor, normal_weight: float
) -> torch.Tensor:
    """Hinge of Eq. 4 with margin 0, as its paragraph reads: the printed formula would pull defective patches towards
    the normal text. Defective patches must lie nearer to the abnormal text; normal patches take the mirrored term.

    Args:
        d_normal: (B, S, N) distances to the normal text.
        d_abnormal: (B, S, N) distances to the abnormal text.
        defective: (B, N), bool.
        normal_weight: weight of the mirrored term.

    Returns:
        Scalar: mean over defective patches plus `normal_weight` times the mean over normal patches.
    """
    defective = defective.unsqueeze(1).expand_as(d_normal)
    normal = ~defective
    violation = d_abnormal - d_normal
    defective_term = (violation.clamp_min(0) * defective).sum() / defective.sum().clamp_min(1)
    normal_term = ((-violation).clamp_min(0) * normal).sum() / normal.sum().clamp_min(1)
    return defective_term + normal_weight * normal_term


def separation_loss(text_embeds: torch.Tensor) -> torch.Tensor:
    """L_Sep (Eq. 5) with the sign that grows the distance between the two texts: minus its square, in [-4, 0].

    Args:
        text_embeds: (B, 2, D), unit length.
    """
    return -(text_embeds[:, 0] - text_embeds[:, 1]).square().sum(-1).mean()


def pixel_loss(mask_logits: torch.Tensor, masks: torch.Tensor, positive_weight: float) -> torch.Tensor:
    """Pixel cross-entropy L_I (Eq. 13), averaged over pixels.

    Args:
        mask_logits: (B, 2, H, W).
        masks: (B, H, W), 0 or 1.
        positive_weight: weight of defective pixels; 1 is the printed form.
    """
    per_pixel = cross_entropy(mask_logits.float(), masks.long(), reduction="none")
    return (per_pixel * (1 + (positive_weight - 1) * masks)).mean()


def alignment_loss(
    cls_logits: torch.Tensor,
    d_normal: torch.Tensor,
    d_abnormal: torch.Tensor,
    is_defective: torch.Tensor,
    defective: torch.Tensor | None,
    scale: torch.Tensor,
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
    """
    loss = CLS_SHARE * cross_entropy(cls_logits.float(), is_defective.long())
    if defective is None:
        return loss
    margin = scale * (d_normal - d_abnormal)
    targets = defective.unsqueeze(1).expand_as(margin).float()
    return loss + binary_cross_entropy_with_logits(margin, targets)
