"""Enhanced VV-CLIP: CLIP's image encoder with a parallel V-V attention branch for local features (Section III-A)."""

import torch
from torch.nn.functional import normalize, scaled_dot_product_attention
from transformers import CLIPModel
from transformers.models.clip.modeling_clip import CLIPEncoderLayer


def block_with_local_branch(
    layer: CLIPEncoderLayer, hidden: torch.Tensor, mode: str, cls_only: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """One block of the image encoder in both branches, which share its norm and its values.

    Args:
        layer: block of the image encoder.
        hidden: (B, 1 + N, C), input of the block in the original branch.
        mode: `enhanced_vv` (Eq. 3: Z = Proj(Attn(V, V, V))), `vv` (Eq. 2: plus the block's input), `maskclip`
            (Z = Proj(V)) or `clip` (Z = the block's own output).
        cls_only: whether only CLS of the original branch is read, as of the last block.

    Returns:
        Output of the original branch (B, 1 + N, C), of `cls_only` (B, 1, C), and local features (B, N, C).
    """
    attention = layer.self_attn
    normed = layer.layer_norm1(hidden)
    key, value = attention.k_proj(normed), attention.v_proj(normed)
    cls_only = cls_only and mode != "clip"
    stream, normed = (hidden[:, :1], normed[:, :1]) if cls_only else (hidden, normed)
    stream = stream + attention.out_proj(attend(attention.q_proj(normed), key, value, attention.num_heads))
    stream = stream + layer.mlp(layer.layer_norm2(stream))
    if mode == "clip":
        return stream, stream[:, 1:]
    local = value[:, 1:] if mode == "maskclip" else attend(value[:, 1:], value, value, attention.num_heads)
    local = attention.out_proj(local)
    return stream, local + hidden[:, 1:] if mode == "vv" else local


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Multi-head attention of projected (B, Q, C), (B, T, C), (B, T, C) -> (B, Q, C), scaled by the head's size."""
    heads = (x.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (query, key, value))
    return scaled_dot_product_attention(*heads).transpose(1, 2).flatten(-2)


def encode_image(
    clip: CLIPModel, pixel_values: torch.Tensor, blocks: list[int], mode: str
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Both branches in one pass.

    Local maps cost extra attention only at the blocks that are read, and the last block computes of the original
    branch what is read of it, which is CLS; so both branches together are no dearer than CLIP's encoder alone.

    Args:
        clip: both towers.
        pixel_values: (B, 3, H, W), normalised.
        blocks: block numbers, counted from 1; the last one is the tower's last.
        mode: see [`SpgddGptConfig.vv_mode`].

    Returns:
        The CLS embedding (B, D) of the original branch, equal to CLIP's own image embedding, and a local map
        (B, N, C) per block; the last one went through CLIP's norm and projection, so its C is D.
    """
    vision = clip.vision_model
    hidden = vision.pre_layrnorm(vision.embeddings(pixel_values))  # (B, 1 + N, C)
    maps = []
    for number, layer in enumerate(vision.encoder.layers, start=1):
        if number in blocks:
            hidden, local = block_with_local_branch(layer, hidden, mode, cls_only=number == blocks[-1])
            maps.append(local)
        else:
            hidden = layer(hidden, attention_mask=None)
    cls = clip.visual_projection(vision.post_layernorm(hidden[:, 0]))
    maps[-1] = clip.visual_projection(vision.post_layernorm(maps[-1]))
    return cls, maps


def encode_prompts(clip: CLIPModel, prompt_input_ids: torch.Tensor) -> torch.Tensor:
    """Prompt-ensembled text embeddings: the normalised mean of the normalised embeddings of all prompts.

    Each distinct row is encoded once, however many images of a batch share it.

    Args:
        clip: both towers.
        prompt_input_ids: (B, 2, P, L) token ids, index 0 the normal and 1 the abnormal prompts.

    Returns:
        (B, 2, D), unit length.
    """
    distinct, inverse = torch.unique(prompt_input_ids, dim=0, return_inverse=True)
    count, states, prompts, length = distinct.shape
    pooled = clip.text_model(input_ids=distinct.reshape(-1, length)).pooler_output
    embeds = normalize(clip.text_projection(pooled), dim=-1).view(count, states, prompts, -1)
    return normalize(embeds.mean(dim=2), dim=-1)[inverse]
