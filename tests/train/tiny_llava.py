"""A second model with base models and a language model: transformers' LLaVA, tiny, its projector the new part."""

from typing import ClassVar

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration


class TinyLlava(LlavaForConditionalGeneration):
    """LLaVA as our models are: it states its parts."""

    base_parts: ClassVar[dict[str, dict[str, str]]] = {
        "vision_tower": {"": "model.vision_tower."},
        "language_model": {"model.": "model.language_model.", "lm_head.": "lm_head."},
    }


def tiny_llava() -> TinyLlava:
    """Fresh weights from the global random state."""
    shared = {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32}
    vision = {"model_type": "clip_vision_model", "image_size": 32, "patch_size": 16, **shared}
    text = {"model_type": "llama", "vocab_size": 64, "max_position_embeddings": 32, **shared}
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=3, image_seq_length=4, vision_feature_layer=-1
    )
    return TinyLlava(config)


def llava_batch() -> dict[str, torch.Tensor]:
    """Two images of four tokens each, and the text after them."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(4, 64, (2, 6), generator=generator)
    input_ids = torch.cat([torch.full((2, 4), 3), text], dim=1)
    return {
        "pixel_values": torch.randn(2, 3, 32, 32, generator=generator),
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "labels": input_ids.masked_fill(input_ids == 3, -100),
    }
