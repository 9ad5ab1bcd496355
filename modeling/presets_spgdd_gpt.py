"""Ready configurations: the paper's size, and a tiny one that starts from scratch on two CPU cores."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import CLIPImageProcessor, PreTrainedTokenizerFast

from .configuration_spgdd_gpt import SpgddGptConfig
from .modeling_spgdd_gpt import SpgddGptForConditionalGeneration
from .processing_spgdd_gpt import SpgddGptProcessor
from .text_prompts import prompt_ensemble

TINY_VOCAB_SIZE = 512
VALUE_GAIN = 4.0
STATE_OFFSET = 3.0


def paper_config(**overrides: Any) -> SpgddGptConfig:
    """ViT-B-16-plus-240 and Vicuna-7B v1.5, blocks 3, 8 and 12 (Section V-D)."""
    return SpgddGptConfig(**overrides)


def tiny_config(**overrides: Any) -> SpgddGptConfig:
    """About one million parameters; the same classes and code paths as the paper's size.

    The towers have no pretrained weights, so alignment with the texts is trained too (`alignment_weight`).
    """
    clip_text = {
        "vocab_size": TINY_VOCAB_SIZE,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 40,
        "hidden_act": "gelu",
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 3,
    }
    clip_vision = {
        "hidden_size": 96,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": 240,
        "patch_size": 16,
        "hidden_act": "gelu",
    }
    language = {
        "model_type": "llama",
        "vocab_size": TINY_VOCAB_SIZE,
        "hidden_size": 96,
        "intermediate_size": 224,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    defaults = {
        "clip_config": {"projection_dim": 64, "vision_config": clip_vision, "text_config": clip_text},
        "text_config": language,
        "feature_blocks": [2, 3, 4],
        "num_prompt_tokens": 4,
        "detection_hidden_size": 32,
        "pixel_positive_weight": 5.0,
        "alignment_weight": 1.0,
        "alpha": 0.1,  # the language model learns as fast (Adam), and disturbs the young vision tower less
        "lambda_sep": 0.1,
        "image_token_id": 3,
        "tie_word_embeddings": True,
    }
    return SpgddGptConfig(**{**defaults, **overrides})


def _byte_pair_tokenizer(corpus: Iterable[str], special_tokens: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TINY_VOCAB_SIZE,
        special_tokens=special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def tiny_tokenizers(corpus: list[str], object_names: list[str]) -> tuple[Any, Any]:
    """Byte-level BPE tokenizers of the tiny preset: the language model's, and CLIP's.

    Args:
        corpus: questions and answers.
        object_names: what the prompts speak of.
    """
    language = _byte_pair_tokenizer([*corpus, "USER: ASSISTANT:"], ["<pad>", "<s>", "</s>", "<image>"])
    language.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    prompts = [prompt for name in object_names for prompts in prompt_ensemble(name) for prompt in prompts]
    clip = _byte_pair_tokenizer(prompts, ["<pad>", "<|startoftext|>", "<unused>", "<|endoftext|>"])
    clip.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>", special_tokens=[("<|startoftext|>", 1), ("<|endoftext|>", 3)]
    )
    return (
        PreTrainedTokenizerFast(
            tokenizer_object=language, bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side="left"
        ),
        PreTrainedTokenizerFast(
            tokenizer_object=clip, bos_token="<|startoftext|>", eos_token="<|endoftext|>", pad_token="<pad>"
        ),
    )


def build_processor(config: SpgddGptConfig, tokenizer: Any, clip_tokenizer: Any, **kwargs: Any) -> SpgddGptProcessor:
    """The processor that fits a configuration; the whole image is resized, so maps keep their place.

    Args:
        config: of the model.
        tokenizer: of the language model; without one, CLIP's.
        clip_tokenizer: of CLIP's text encoder.
        kwargs: other arguments of the processor.
    """
    side = config.clip_config.vision_config.image_size
    text_config = config.text_config
    return SpgddGptProcessor(
        image_processor=CLIPImageProcessor(size={"height": side, "width": side}, do_center_crop=False),
        tokenizer=tokenizer,
        clip_tokenizer=clip_tokenizer,
        num_image_tokens=config.num_image_tokens,
        max_prompt_length=config.clip_config.text_config.max_position_embeddings,
        max_text_length=text_config.max_position_embeddings if text_config else None,
        **kwargs,
    )


def build_tiny(
    corpus: list[str], object_names: list[str], **overrides: Any
) -> tuple[SpgddGptForConditionalGeneration, SpgddGptProcessor]:
    """Model with fresh weights, and its processor with tokenizers trained on the corpus."""
    config = tiny_config(**overrides)
    processor = build_processor(config, *tiny_tokenizers(corpus, object_names), object_name=object_names[0])
    model = SpgddGptForConditionalGeneration(config)
    init_from_scratch(model)
    return model, processor


def dct_basis(size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` lowest-frequency 2-D DCT-II basis images.

    Returns:
        Orthonormal images (count, size, size), and their frequencies u + v (count,).
    """
    position, frequency = np.arange(size), np.arange(size)[:, None]
    basis = np.sqrt(2 / size) * np.cos(np.pi * (position + 0.5) * frequency / size)  # (frequency, position)
    basis[0] /= np.sqrt(2)
    order = sorted(((u, v) for u in range(size) for v in range(size)), key=lambda uv: (uv[0] + uv[1], uv))[:count]
    return np.stack([np.outer(basis[u], basis[v]) for u, v in order]), np.array([u + v for u, v in order])


def sinusoid_grid(grid_size: int, dim: int) -> np.ndarray:
    """2-D sinusoidal position table, a quarter of the channels each for sine and cosine of row and column.

    Returns:
        (grid_size ** 2, dim), in [-1, 1].
    """
    frequencies = np.pi / grid_size * 2.0 ** np.linspace(-1, np.log2(grid_size), dim // 4)
    angles = np.arange(grid_size)[:, None] * frequencies
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)  # (grid, dim / 2)
    rows = np.repeat(table, grid_size, axis=0)
    columns = np.tile(table, (grid_size, 1))
    return np.concatenate([rows, columns], axis=1)


@torch.no_grad()
def init_from_scratch(model: SpgddGptForConditionalGeneration) -> None:
    """A start from which towers without pretrained weights learn within minutes on a CPU.

    Patch embedding: a DCT of the gray patch, whitened by the 1/f spectrum of natural images. Positions: a sinusoid of
    amplitude 2; the norm behind the embeddings would erase a patch's contrast if nothing in the sum had a fixed size.
    V-V attention: values large enough that a patch attends to itself first; small random values would average the
    whole image (Eq. 3 has no residual). The out-projection shrinks by the same factor. Texts: a random encoder maps
    the normal and the abnormal prompts to almost the same point, so random offsets set them apart.
    """
    vision = model.model.clip.vision_model
    weight = vision.embeddings.patch_embedding.weight  # (C, 3, p, p)
    basis, frequency = dct_basis(weight.shape[-1], weight.shape[0])
    whitened = basis * np.where(frequency == 0, 0.1, 1.5 * frequency)[:, None, None]
    weight.copy_(torch.from_numpy(whitened).to(weight).unsqueeze(1).expand_as(weight) / weight.shape[1])
    positions = vision.embeddings.position_embedding.weight  # (1 + N, C)
    positions[1:] = 2 * torch.from_numpy(sinusoid_grid(model.config.grid_size, positions.shape[1])).to(positions)
    for layer in vision.encoder.layers:
        layer.self_attn.v_proj.weight.mul_(VALUE_GAIN)
        layer.self_attn.out_proj.weight.div_(VALUE_GAIN)
    offset = model.model.text_adapter.state_offset
    offset.copy_(torch.nn.functional.normalize(torch.randn_like(offset), dim=-1) * STATE_OFFSET)
