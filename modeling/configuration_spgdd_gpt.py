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
        has_language_model: False gives a light detector: no language model, no embeddings for one, and `text_config`
            stays None. A complete checkpoint loads as one too.
        feature_blocks: vision blocks, counted from 1, whose local maps are read (Section III-C: 3, 8, 12). The last
            must be the tower's last block: it goes through CLIP's own projection.
        vv_mode: local branch: `enhanced_vv` (Eq. 3), `vv` (Eq. 2), `maskclip` (value projection), `clip` (Table VII).
        memory_matching: `aligned` compares patch by patch (Eq. 9 as printed), `nearest` with the reference's
            nearest patch.
        reference_rotations: degrees (of 90, 180, 270) by which rotated copies of the references join them; not in the
            paper, but in the authors' code.
        memory_banks: names of the memory banks that are saved with the model; without dots.
        memory_capacity: reference images that each bank can hold; 0 saves no bank.
        focuser: `tddf` measures distances on the unit sphere (Eq. 4-6); `cosine` takes cosines and the contrastive
            loss of CLIP instead (Table IV, "w/o TDDF").
        num_prompt_tokens: learnable embeddings before the question (Section III-D).
        detection_head: `conv` learns the detection from F_out; `mean` takes the mean of its maps (with
            `num_prompt_tokens=0`: Table VI, "w/o Adapter").
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
        converted_from: part -> where its weights came from before any training, as `convert_spgdd_gpt.py` writes it:
            {"repo_id", "revision"}, or {"file" or "folder", "sha256"}.
        auto_map: Auto classes that serve the remote code beside the registered ones, which saving adds.

    Raises:
        ValueError: for a value outside the choices, and for parts that do not fit each other.
    """

    model_type = "spgdd_gpt"
    sub_configs_defaults = {  # noqa: RUF012 (transformers' own spelling)
        "clip_config": SubConfigSpec(config_class=CLIPConfig, model_type="clip", init_kwargs=VIT_B_16_PLUS_240),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama", init_kwargs=VICUNA_7B),
    }

    clip_config: Any = None
    text_config: Any = None
    has_language_model: bool = True
    feature_blocks: list[int] = field(default_factory=lambda: [3, 8, 12])
    vv_mode: Literal["enhanced_vv", "vv", "maskclip", "clip"] = "enhanced_vv"
    memory_matching: Literal["aligned", "nearest"] = "aligned"
    reference_rotations: list[int] = field(default_factory=list)
    memory_banks: list[str] = field(default_factory=lambda: ["default"])
    memory_capacity: int = 0
    focuser: Literal["tddf", "cosine"] = "tddf"
    detection_head: Literal["conv", "mean"] = "conv"
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
    converted_from: dict[str, Any] | None = None
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
        self._check_vision()
        if self.has_language_model:
            self._check_language()
        else:
            self.text_config, self.tie_word_embeddings = None, False

    def _check_vision(self) -> None:
        vision, blocks = self.clip_config.vision_config, self.feature_blocks
        if sorted(set(blocks)) != blocks or blocks[-1:] != [vision.num_hidden_layers] or blocks[0] < 1:
            raise ValueError(
                f"feature_blocks={blocks}: give rising block numbers, counted from 1, that end with the "
                f"tower's last block ({vision.num_hidden_layers})"
            )
        if vision.image_size % vision.patch_size:
            raise ValueError(
                f"clip_config.vision_config: image_size {vision.image_size} is no multiple of patch_size "
                f"{vision.patch_size}; give one that is"
            )
        rotations, banks = self.reference_rotations, self.memory_banks
        if not set(rotations) <= {90, 180, 270} or len(set(rotations)) != len(rotations):
            raise ValueError(f"reference_rotations={rotations}: give different degrees of 90, 180, 270")
        if not isinstance(banks, list) or len(set(banks)) != len(banks) or any("." in name for name in banks):
            raise ValueError(f"memory_banks={banks!r}: give a list of different names without dots")
        if wrong := [name for name in ("memory_capacity", "num_prompt_tokens") if getattr(self, name) < 0]:
            raise ValueError(f"{wrong[0]}={getattr(self, wrong[0])}: give a number from 0")

    def _check_language(self) -> None:
        text = self.text_config
        if not 0 <= self.image_token_id < text.vocab_size:
            raise ValueError(
                f"image_token_id={self.image_token_id}: text_config has a vocabulary of {text.vocab_size}; add the "
                "image token to the tokenizer and rows for it to the language model"
            )

    @property
    def grid_size(self) -> int:
        """Patches along one side of the image."""
        vision = self.clip_config.vision_config
        return vision.image_size // vision.patch_size

    @property
    def num_image_tokens(self) -> int:
        """Embeddings that stand for one image in the language model's input: one for each block's map, one for the
        detection map, one for CLS, two for the normal and abnormal text, and the learnable prompts; none without a
        language model."""
        return len(self.feature_blocks) + 4 + self.num_prompt_tokens if self.has_language_model else 0


__all__ = ["SpgddGptConfig"]
