"""Configuration of SPGDD-GPT (An & Dong 2026, "SPGDD-GPT: Image-Text-Driven Generic Defect Diagnosis")."""

from dataclasses import field, fields
from typing import Any, Literal, get_args, get_origin

from transformers import AutoConfig, CLIPConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

# open_clip `ViT-B-16-plus-240` in transformers' terms. LAION weights use the exact GELU.
VIT_B_16_PLUS_240 = {
    "projection_dim": 640,
    "vision_config": {
        "hidden_size": 896,
        "intermediate_size": 3584,
        "num_hidden_layers": 12,
        "num_attention_heads": 14,
        "image_size": 240,
        "patch_size": 16,
        "hidden_act": "gelu",
    },
    "text_config": {
        "hidden_size": 640,
        "intermediate_size": 2560,
        "num_hidden_layers": 12,
        "num_attention_heads": 10,
        "hidden_act": "gelu",
        "eos_token_id": 49407,
        "bos_token_id": 49406,
        "pad_token_id": 0,
    },
}
# Vicuna-7B v1.5, plus one row for the image placeholder token, padded to a multiple of 64.
VICUNA_7B = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 4096,
    "vocab_size": 32064,
}


class SpgddGptConfig(PreTrainedConfig):
    r"""Configuration of [`SpgddGptForConditionalGeneration`]; the defaults are the paper's sizes.

    Args:
        clip_config: CLIP towers (`CLIPConfig`, dict or None for ViT-B-16-plus-240).
        text_config: causal language model of the Llama family (config, dict or None for Vicuna-7B v1.5).
        feature_blocks: vision blocks, counted from 1, whose local maps are read (Section III-C: 3, 8, 12). The last
            must be the tower's last block: it goes through CLIP's own projection.
        vv_mode: local branch: `enhanced_vv` (Eq. 3), `vv` (Eq. 2), `maskclip` (value projection), `clip` (Table VII).
        memory_matching: `aligned` compares patch by patch (Eq. 9 as printed), `nearest` with the reference's
            nearest patch.
        memory_capacity: reference images that the bank saved with the model can hold; 0 saves no bank.
        num_prompt_tokens: learnable embeddings before the question (Section III-D).
        detection_hidden_size: channels of the detection head.
        image_score: `max` of the pixel map, `cls` text softmax, or their `mean`.
        alpha: weight of the text loss L_C (Eq. 14).
        beta: weight of the focuser losses (Eq. 14).
        gamma: weight of the pixel loss L_I (Eq. 14).
        lambda_sep: weight of L_Sep within the focuser losses (Eq. 5, 14).
        normal_weight: weight of the mirrored hinge on normal patches (Eq. 4 as its paragraph reads).
        pixel_positive_weight: weight of defective pixels in L_I; 1 is Eq. 13 as printed. Defects cover a few percent
            of the pixels, so towers without pretrained weights need more.
        alignment_weight: weight of the contrast of CLS and patches with the two texts. 0 in the paper, whose CLIP is
            pretrained; needed when the towers start from scratch.
        image_token_id: placeholder token that is replaced by the adapter's embeddings.
        tie_word_embeddings: whether the language model's head shares its input embeddings.
        base_models: part ("clip", "language_model") -> {"repo_id", "revision"} of the base whose weights this
            checkpoint leaves out; None for a complete checkpoint, and for every loaded model.
        auto_map: Auto classes that serve the remote code beside the registered ones, which saving adds.

    Raises:
        ValueError: for a value outside the choices, and for blocks that do not fit the tower.
    """

    model_type = "spgdd_gpt"
    sub_configs_defaults = {  # noqa: RUF012 (transformers' own spelling)
        "clip_config": SubConfigSpec(config_class=CLIPConfig, model_type="clip", init_kwargs=VIT_B_16_PLUS_240),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama", init_kwargs=VICUNA_7B),
    }

    clip_config: Any = None
    text_config: Any = None
    feature_blocks: list[int] = field(default_factory=lambda: [3, 8, 12])
    vv_mode: Literal["enhanced_vv", "vv", "maskclip", "clip"] = "enhanced_vv"
    memory_matching: Literal["aligned", "nearest"] = "aligned"
    memory_capacity: int = 0
    num_prompt_tokens: int = 9
    detection_hidden_size: int = 64
    image_score: Literal["max", "cls", "mean"] = "mean"
    alpha: float = 1.0
    beta: float = 1.0
    gamma: float = 1.0
    lambda_sep: float = 1.0
    normal_weight: float = 1.0
    pixel_positive_weight: float = 1.0
    alignment_weight: float = 0.0
    image_token_id: int = 32000
    tie_word_embeddings: bool = False
    base_models: dict[str, Any] | None = None
    auto_map: dict[str, str] = field(
        default_factory=lambda: {
            "AutoModelForImageTextToText": "modeling_spgdd_gpt.SpgddGptForConditionalGeneration",
        }
    )

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        for item in fields(self):
            value, choices = getattr(self, item.name), get_args(item.type)
            if get_origin(item.type) is Literal and value not in choices:
                raise ValueError(f"{item.name}={value!r}: choose one of {', '.join(choices)}")
        blocks, num_blocks = self.feature_blocks, self.clip_config.vision_config.num_hidden_layers
        if sorted(set(blocks)) != blocks or blocks[-1:] != [num_blocks] or blocks[0] < 1:
            raise ValueError(
                f"feature_blocks={blocks}: give rising block numbers, counted from 1, that end with the "
                f"tower's last block ({num_blocks})"
            )

    @property
    def grid_size(self) -> int:
        """Patches along one side of the image."""
        vision = self.clip_config.vision_config
        return vision.image_size // vision.patch_size

    @property
    def num_image_tokens(self) -> int:
        """Embeddings that stand for one image in the language model's input: one for each block's map, one for the
        detection map, one for CLS, two for the normal and abnormal text, and the learnable prompts."""
        return len(self.feature_blocks) + 4 + self.num_prompt_tokens


__all__ = ["SpgddGptConfig"]
