"""Enhanced VV-CLIP: CLIP's image encoder with a parallel V-V attention branch for local features (Section III-A)."""

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import CLIPModel
from transformers.models.clip.modeling_clip import CLIPEncoderLayer


def local_branch(layer: CLIPEncoderLayer, hidden: torch.Tensor, mode: str) -> torch.Tensor:
    """Local features of one block, read from the ORIGINAL branch's input to that block.

    Args:
        layer: block of the image encoder.
        hidden: (B, 1 + N, C) input of the block.
        mode: `enhanced_vv` (Eq. 3: Z = Proj(Attn(V, V, V))), `vv` (Eq. 2: plus the block's input) or `maskclip`
            (Z = Proj(V)).

    Returns:
        (B, 1 + N, C).
    """
    attention = layer.self_attn
    value = attention.v_proj(layer.layer_norm1(hidden))
    if mode != "maskclip":
        heads = value.view(*value.shape[:-1], attention.num_heads, attention.head_dim).transpose(1, 2)  # (B, h, T, d)
        heads = scaled_dot_product_attention(heads, heads, heads)
        value = heads.transpose(1, 2).reshape(value.shape)
    local = attention.out_proj(value)
    return local + hidden if mode == "vv" else local


def encode_image(
    clip: CLIPModel, pixel_values: torch.Tensor, blocks: list[int], mode: str
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Both branches in one pass: local maps cost extra attention only at the blocks that are read.

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
        block_input = hidden
        hidden = layer(hidden, attention_mask=None)
        if number in blocks:
            local = hidden if mode == "clip" else local_branch(layer, block_input, mode)
            maps.append(local[:, 1:])
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
    embeds = nn.functional.normalize(clip.text_projection(pooled), dim=-1).view(count, states, prompts, -1)
    return nn.functional.normalize(embeds.mean(dim=2), dim=-1)[inverse]
