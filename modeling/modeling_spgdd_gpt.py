"""SPGDD-GPT: self-prompted generic defect diagnosis (An & Dong 2026), re-implemented from the paper."""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate, normalize
from transformers import AutoModel, CLIPModel, GenerationMixin
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput

from .base_weights import ModelWithBases
from .configuration_spgdd_gpt import SpgddGptConfig
from .diagnosis_adapter import (
    DIRECT_SLOPE,
    RARE_CLASS_LOGIT,
    DetectionHead,
    DiagnosisAdapter,
    MeanMapConv,
    MeanMapHead,
    ZeroConv,
)
from .input_checks import check_generate_options, check_shape, default_length, why_not_finite
from .losses import detection_losses, loss_counts, total_loss
from .memory_bank import MemoryBank, MultiScaleMemory, fuse
from .outputs import DefectDiagnosisOutput, SpgddGptDetection, detection_fields, image_scores
from .text_cache import TextFeatureCache
from .text_driven_defect_focuser import TextAdapter, TextDrivenDefectFocuser
from .vv_clip import encode_image

# Inputs of an image and of its references; they enter with the prompt, later decoding steps read the cache.
FIRST_STEP_INPUTS = (
    "pixel_values",
    "cls_features",
    "local_features",
    "prompt_input_ids",
    "text_features",
    "reference_pixel_values",
    "reference_features",
    "has_references",
    "memory_bank",
)
SHARED_INPUTS = ("reference_pixel_values", "reference_features")


class SpgddGptPreTrainedModel(ModelWithBases):
    """Conventions shared by the models below."""

    config: SpgddGptConfig
    base_model_prefix = "model"
    base_parts = {  # noqa: RUF012
        "clip": {"": "model.clip."},
        "language_model": {"model.": "model.language_model.", "lm_head.": "lm_head."},
    }
    input_modalities = ("image", "text")
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    supports_gradient_checkpointing = True
    # Quantisation passes them by, so it is the language model alone that loses bits.
    _keep_in_fp32_modules = [  # noqa: RUF012
        f"model.{part}" for part in ("clip", "text_adapter", "focuser", "detection_head", "adapter")
    ]
    _language_parts = (r"^model\.language_model\.", r"^model\.adapter\.", r"^lm_head\.")

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Branches name modules that own parameters: transformers skips custom containers that own none.
        super()._init_weights(module)
        if isinstance(module, TextAdapter):
            init.zeros_(module.weight)
            init.zeros_(module.state_offset)
        elif isinstance(module, ZeroConv):
            init.zeros_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, MeanMapConv):
            signs = torch.tensor([-1.0, 1.0])
            slope = DIRECT_SLOPE / module.in_channels * signs.view(2, 1, 1, 1)
            init.copy_(module.weight, slope.expand_as(module.weight))
            init.copy_(module.bias, RARE_CLASS_LOGIT * signs)
        elif isinstance(module, MemoryBank):
            init.zeros_(module.features)
            module.fill_count.zero_()  # even if loaded: a bank that had to be made anew holds nothing


class SpgddGptModel(SpgddGptPreTrainedModel):
    """Visual half, adapter and language model without head."""

    def __init__(self, config: SpgddGptConfig) -> None:
        super().__init__(config)
        vision_dim = config.clip_config.vision_config.hidden_size
        text_dim = config.clip_config.projection_dim
        num_blocks = len(config.feature_blocks)
        num_patches = config.grid_size**2
        self.clip = CLIPModel._from_config(config.clip_config)
        self.text_adapter = TextAdapter(text_dim)
        self.focuser = TextDrivenDefectFocuser(
            vision_dim=vision_dim, text_dim=text_dim, num_blocks=num_blocks, metric=config.focuser
        )
        self.memory = MultiScaleMemory(
            dims=[vision_dim] * (num_blocks - 1) + [text_dim],
            num_patches=num_patches,
            banks=config.memory_banks,
            capacity=config.memory_capacity,
            matching=config.memory_matching,
        )
        self.detection_head = (
            MeanMapHead()
            if config.detection_head == "mean"
            else DetectionHead(in_channels=num_blocks, hidden=config.detection_hidden_size)
        )
        self.adapter: Any = None
        self.language_model: Any = None
        if config.has_language_model:
            self.adapter = DiagnosisAdapter(
                num_patches=num_patches,
                text_dim=text_dim,
                hidden_size=config.text_config.hidden_size,
                num_prompts=config.num_prompt_tokens,
            )
            self.language_model = AutoModel.from_config(config.text_config)
        else:
            self._keys_to_ignore_on_load_unexpected = list(self._language_parts)
        self.text_cache = TextFeatureCache()
        self.post_init()

    def get_input_embeddings(self) -> Any:
        return self.language_model.get_input_embeddings() if self.language_model else None

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def encode_images(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both branches of Enhanced VV-CLIP.

        Args:
            pixel_values: (B, 3, H, W), normalised by the processor.

        Returns:
            CLS embeddings (B, D), not normalised, and local features (B, N, C) of all `feature_blocks` side by side.

        Raises:
            ValueError: for another size than the configuration's.
        """
        check_shape("pixel_values", pixel_values, None, 3, None, None)
        side = self.config.clip_config.vision_config.image_size
        if pixel_values.shape[-2:] != (side, side):
            height, width = pixel_values.shape[-2:]
            raise ValueError(
                f"pixel values are {height}x{width} px, this model reads {side}x{side} px; let its processor resize"
            )
        cls, maps = encode_image(self.clip, pixel_values, self.config.feature_blocks, self.config.vv_mode)
        return cls, torch.cat(maps, dim=-1)

    def encode_references(self, reference_pixel_values: torch.Tensor) -> torch.Tensor:
        """Local features of references, and of their rotated copies where the configuration asks for them.

        Args:
            reference_pixel_values: (B or 1, K, 3, H, W).

        Returns:
            (B or 1, K, N, C), with K times one more than `reference_rotations`.

        Raises:
            ValueError: if there is no reference.
        """
        check_shape("reference_pixel_values", reference_pixel_values, None, None, 3, None, None)
        turns = [degrees // 90 for degrees in self.config.reference_rotations]
        turned = [torch.rot90(reference_pixel_values, turn, dims=(-2, -1)) for turn in turns]
        references = torch.cat([reference_pixel_values, *turned], dim=1)
        batch, count = references.shape[:2]
        if not count:
            raise ValueError("reference_pixel_values hold no image; give at least one, or None for zero-shot")
        return self.encode_images(references.flatten(0, 1))[1].unflatten(0, (batch, count))

    def encode_texts(self, prompt_input_ids: torch.Tensor) -> torch.Tensor:
        """Prompt-ensembled text features, computed once per distinct row while the text encoder stays as it is.

        Args:
            prompt_input_ids: (B, 2, P, L), normal and abnormal prompts.

        Returns:
            (B, 2, D), unit length.
        """
        return self.text_cache(self.clip, prompt_input_ids)

    def _reference_features(
        self, pixel_values: torch.Tensor | None, features: torch.Tensor | None, memory_bank: str | None, batch: int
    ) -> torch.Tensor | None:
        """(B or 1, K, N, C) of the references given with the call, or of the named bank; None without."""
        if sum(given is not None for given in (pixel_values, features, memory_bank)) > 1:
            raise ValueError("give one of reference_pixel_values, reference_features and memory_bank")
        if pixel_values is not None:
            features = self.encode_references(pixel_values)
        elif memory_bank is not None:
            features = self.memory.recall(memory_bank)
        if features is not None:
            check_shape("reference_features", features, None, None, self.config.grid_size**2, sum(self.memory.dims))
            images, count = features.shape[:2]
            if images not in (1, batch) or not count:
                raise ValueError(
                    f"references for {images} images, {count} each: give (B or 1, K, ...) with B={batch} and K from 1"
                )
        return features

    def detect(
        self,
        pixel_values: torch.Tensor | None = None,
        prompt_input_ids: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
        reference_pixel_values: torch.Tensor | None = None,
        cls_features: torch.Tensor | None = None,
        local_features: torch.Tensor | None = None,
        reference_features: torch.Tensor | None = None,
        has_references: torch.Tensor | None = None,
        memory_bank: str | None = None,
    ) -> SpgddGptDetection:
        """Zero-shot (no references) or few-shot detection.

        Args:
            pixel_values: (B, 3, H, W), normalised by the processor.
            prompt_input_ids: (B or 1, 2, P, L), normal and abnormal prompts.
            text_features: (B or 1, 2, D) from `encode_texts`, instead of `prompt_input_ids`.
            reference_pixel_values: (B or 1, K, 3, H, W), normal images of the same object.
            cls_features: (B, D) from `encode_images`, with `local_features` instead of `pixel_values`.
            local_features: (B, N, C) from `encode_images`.
            reference_features: (B or 1, K, N, C) from `encode_references`, instead of `reference_pixel_values`.
            has_references: (B,) bool, which images the given references are meant for; None: all. The others are
                zero-shot, so that a batch of different objects can be trained though some have no normal images.
            memory_bank: name of the bank to compare with instead.

        Raises:
            ValueError: if one thing is given twice or never, or sizes do not fit.
        """
        if prompt_input_ids is not None and text_features is None:
            text_features = self.encode_texts(prompt_input_ids)
        elif prompt_input_ids is not None or text_features is None:
            raise ValueError("give exactly one of prompt_input_ids and text_features")
        if pixel_values is not None and cls_features is None and local_features is None:
            cls_features, local_features = self.encode_images(pixel_values)
        elif pixel_values is not None or cls_features is None or local_features is None:
            raise ValueError("give either pixel_values, or cls_features and local_features")
        batch, dim = local_features.shape[0], self.config.clip_config.projection_dim
        check_shape("local_features", local_features, None, self.config.grid_size**2, sum(self.memory.dims))
        check_shape("cls_features", cls_features, batch, dim)
        check_shape("text_features", text_features, 1 if text_features.shape[0] == 1 else batch, 2, dim)
        text = self.text_adapter(text_features.to(self.dtype)).expand(batch, -1, -1)
        cls = normalize(cls_features.to(self.dtype), dim=-1)
        references = self._reference_features(reference_pixel_values, reference_features, memory_bank, batch)
        d_normal, d_abnormal = self.focuser(self.memory.split(local_features.to(self.dtype)), text)
        fused = focused = d_normal - d_abnormal  # (B, S, N), Eq. 6; in [-2, 2]
        peaks = None
        if references is not None:
            attention, best = self.memory(local_features, references)
            if has_references is not None:
                attention = torch.where(has_references.view(-1, 1, 1, 1), attention, 1.0)
            fused = fuse(focused, attention[torch.arange(batch, device=best.device), best])
            if attention.shape[1] > 1 and not self.training:
                each = self._head(fuse(focused.unsqueeze(1), attention).flatten(0, 1))
                peaks = self._upsampled(each[:, 1:] - each[:, :1]).amax(dim=(1, 2, 3)).sigmoid()
                peaks = peaks.unflatten(0, attention.shape[:2])
        logits = self._head(fused)  # (B, 2, g, g)
        prompts = None
        if self.adapter is not None:
            margin = (logits[:, 1] - logits[:, 0]).flatten(1)
            prompts = self.adapter(fused.to(self.dtype), margin, cls, text)
        return SpgddGptDetection(
            mask_logits=self._upsampled(logits),
            cls_logits=self.clip.logit_scale.float().exp() * torch.einsum("bd,btd->bt", cls.float(), text.float()),
            d_normal=d_normal,
            d_abnormal=d_abnormal,
            text_embeds=text,
            prompt_embeds=prompts,
            num_references=0 if references is None else references.shape[1],
            reference_peaks=peaks,
        )

    def _head(self, fused: torch.Tensor) -> torch.Tensor:
        """(B, S, N) -> logits (B, 2, g, g)."""
        grid = self.config.grid_size
        return self.detection_head(fused.unflatten(-1, (grid, grid)).to(self.dtype))

    def _upsampled(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, c, g, g) -> (B, c, H, W) in float32, bilinear."""
        return interpolate(maps.float(), size=self.config.clip_config.vision_config.image_size, mode="bilinear")

    def merge_prompts(self, input_ids: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        """Input embeddings with every image placeholder replaced by the adapter's embeddings.

        Args:
            input_ids: (B, T).
            prompt_embeds: (B, num_image_tokens, hidden).

        Raises:
            ValueError: if the placeholders do not number `config.num_image_tokens` per image.
        """
        embeds = self.get_input_embeddings()(input_ids)
        placeholders = input_ids == self.config.image_token_id
        count, expected = int(placeholders.sum()), prompt_embeds.shape[0] * prompt_embeds.shape[1]
        if count != expected:
            raise ValueError(
                f"input_ids hold {count} image tokens (id {self.config.image_token_id}), the images give {expected}; "
                "let the processor of this checkpoint build input_ids"
            )
        return embeds.masked_scatter(placeholders.unsqueeze(-1), prompt_embeds.to(embeds.dtype))

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        images: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> tuple[ModelOutput | None, SpgddGptDetection | None]:
        """The language model's output, and the detection where images are given.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T).
            position_ids: (B, T).
            past_key_values: the language model's cache.
            inputs_embeds: (B, T, hidden), instead of `input_ids`; without images.
            images: arguments of `detect`.
            kwargs: for the language model.

        Raises:
            ValueError: if text is given twice or never.
        """
        if self.language_model is None:
            return None, self.detect(**images) if images else None
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        detection = None
        if images:
            if input_ids is None:
                raise ValueError("images need input_ids, whose image tokens they replace")
            detection = self.detect(**images)
            inputs_embeds = self.merge_prompts(input_ids, detection.prompt_embeds)
        elif inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )
        return outputs, detection


class SpgddGptForConditionalGeneration(SpgddGptPreTrainedModel, GenerationMixin):
    """The complete model: detects, and describes what it detected; without language model it only detects."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: SpgddGptConfig) -> None:
        super().__init__(config)
        self.model = SpgddGptModel(config)
        self.lm_head: Any = None
        if config.has_language_model:
            self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
            self.generation_config.suppress_tokens = [config.image_token_id]  # stands for an image, no answer
        else:
            self._tied_weights_keys = {}
            self._keys_to_ignore_on_load_unexpected = list(self._language_parts)
        self.post_init()

    def get_input_embeddings(self) -> Any:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        return self.lm_head

    def encode_images(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See [`SpgddGptModel.encode_images`]."""
        return self.model.encode_images(pixel_values)

    def encode_references(self, reference_pixel_values: torch.Tensor) -> torch.Tensor:
        """See [`SpgddGptModel.encode_references`]."""
        return self.model.encode_references(reference_pixel_values)

    def encode_texts(self, prompt_input_ids: torch.Tensor) -> torch.Tensor:
        """See [`SpgddGptModel.encode_texts`]."""
        return self.model.encode_texts(prompt_input_ids)

    def image_scores(self, peaks: torch.Tensor, cls_logits: torch.Tensor) -> torch.Tensor:
        """See [`image_scores`], by the configuration."""
        return image_scores(peaks, cls_logits, self.config.image_score)

    def loss_counts(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """See [`loss_counts`]; `forward` takes their sum over parts of a split batch with the same targets."""
        return loss_counts(batch, self.config)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        prompt_input_ids: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
        reference_pixel_values: torch.Tensor | None = None,
        cls_features: torch.Tensor | None = None,
        local_features: torch.Tensor | None = None,
        reference_features: torch.Tensor | None = None,
        has_references: torch.Tensor | None = None,
        memory_bank: str | None = None,
        labels: torch.Tensor | None = None,
        masks: torch.Tensor | None = None,
        is_defective: torch.Tensor | None = None,
        loss_counts: dict[str, torch.Tensor] | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> DefectDiagnosisOutput:
        """One pass with teacher forcing, or one decoding step.

        Args:
            input_ids: (B, T), with `config.num_image_tokens` placeholders per image.
            attention_mask: (B, T).
            position_ids: (B, T).
            past_key_values: the language model's cache.
            inputs_embeds: (B, T, hidden), instead of `input_ids`; without images.
            pixel_values: (B, 3, H, W); this and the next eight as in [`SpgddGptModel.detect`].
            prompt_input_ids: (B, 2, P, L).
            text_features: (B, 2, D).
            reference_pixel_values: (B or 1, K, 3, H, W).
            cls_features: (B, D).
            local_features: (B, N, C).
            reference_features: (B or 1, K, N, C).
            has_references: (B,).
            memory_bank: name of a bank.
            labels: (B, T), -100 where no token is to be predicted.
            masks: (B, H, W), 0 or 1, or -100 throughout an image without pixel annotation.
            is_defective: (B,), 0 or 1.
            loss_counts: the method's, summed over the parts of a split batch; losses are then this part's shares.
            logits_to_keep: last positions whose logits are computed; 0 for all.
            kwargs: for the language model.
        """
        images = {
            "pixel_values": pixel_values,
            "prompt_input_ids": prompt_input_ids,
            "text_features": text_features,
            "reference_pixel_values": reference_pixel_values,
            "cls_features": cls_features,
            "local_features": local_features,
            "reference_features": reference_features,
            "has_references": has_references,
            "memory_bank": memory_bank,
        }
        given = pixel_values is not None or local_features is not None
        text = (input_ids, attention_mask, position_ids, past_key_values, inputs_embeds)
        outputs, detection = self.model(*text, images=images if given else None, **kwargs)
        losses, fields = {}, {}
        if detection is not None:
            scale = self.model.clip.logit_scale.exp()
            losses = detection_losses(detection, self.config, scale, masks, is_defective, loss_counts)
            fields = detection_fields(detection, self.config.image_score)
        if outputs is not None:
            keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.lm_head(outputs.last_hidden_state[:, keep])
            fields["logits"] = logits
            fields |= {name: outputs.get(name) for name in ("past_key_values", "hidden_states", "attentions")}
            if labels is not None:
                tokens = None if loss_counts is None else loss_counts["tokens"].clamp_min(1)
                losses["text"] = self.loss_function(logits, labels, logits.shape[-1], num_items_in_batch=tokens)
        return DefectDiagnosisOutput(loss=total_loss(losses, self.config), losses=losses or None, **fields)

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        inputs_embeds: torch.Tensor | None = None,
        is_first_iteration: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Images and what belongs to them enter once; later steps read the cache."""
        inputs = super().prepare_inputs_for_generation(
            input_ids, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )
        if not is_first_iteration and kwargs.get("use_cache", True):
            inputs |= dict.fromkeys(FIRST_STEP_INPUTS)
        return inputs

    def _expand_inputs_for_generation(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        """References shared by the batch stay shared by all beams."""
        shared = {
            name: kwargs.pop(name) for name in SHARED_INPUTS if kwargs.get(name) is not None and len(kwargs[name]) == 1
        }
        input_ids, expanded = super()._expand_inputs_for_generation(*args, **kwargs)
        return input_ids, expanded | shared

    @torch.no_grad()
    def remember(self, reference_pixel_values: torch.Tensor, name: str = "default", coreset: bool = False) -> None:
        """Fill a memory bank, which is saved with the model.

        Args:
            reference_pixel_values: (K, 3, H, W), normal images.
            name: of the bank, one of `config.memory_banks`.
            coreset: whether to keep the most different images where they exceed `config.memory_capacity`.

        Raises:
            ValueError: if there is no such bank, or the images (with their rotated copies) exceed the capacity and
                `coreset` is not set.
        """
        features = self.model.encode_references(reference_pixel_values.unsqueeze(0))[0]
        self.model.memory.store(features, name, coreset)

    def bank_size(self, name: str = "default") -> int:
        """Reference images that a memory bank holds.

        Raises:
            ValueError: if there is no such bank.
        """
        return self.model.memory.size(name)

    @torch.no_grad()
    def diagnose(
        self,
        pixel_values: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        prompt_input_ids: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
        reference_pixel_values: torch.Tensor | None = None,
        cls_features: torch.Tensor | None = None,
        local_features: torch.Tensor | None = None,
        reference_features: torch.Tensor | None = None,
        memory_bank: str | None = None,
        describe: bool = True,
        **generate_kwargs: Any,
    ) -> DefectDiagnosisOutput:
        """Detect, then describe; the images are encoded once.

        Args:
            pixel_values: this and all that is not described here: see [`SpgddGptModel.detect`].
            input_ids: (B, T), left-padded, from the processor.
            attention_mask: (B, T).
            describe: whether to generate text; without it, or without a language model, only maps and scores are
                computed.
            generate_kwargs: for `generate` (`max_new_tokens`, 128 by default, `do_sample`, `streamer`, ...).

        Raises:
            ValueError: if inputs do not fit, or the maps are not finite.
        """
        check_generate_options(generate_kwargs)
        generate_kwargs = default_length(generate_kwargs, self.generation_config)
        detection = self.model.detect(
            pixel_values=pixel_values,
            prompt_input_ids=prompt_input_ids,
            text_features=text_features,
            reference_pixel_values=reference_pixel_values,
            cls_features=cls_features,
            local_features=local_features,
            reference_features=reference_features,
            memory_bank=memory_bank,
        )
        if not torch.isfinite(detection.mask_logits).all() or not torch.isfinite(detection.cls_logits).all():
            images = pixel_values if local_features is None else local_features
            references = reference_pixel_values if reference_features is None else reference_features
            raise ValueError(why_not_finite(self, images=images, references=references, texts=text_features))
        sequences = None
        if describe and self.model.language_model is not None:
            if input_ids is None:
                raise ValueError("input_ids: are needed to describe; take them from the processor, or describe=False")
            embeds = self.model.merge_prompts(input_ids, detection.prompt_embeds)
            sequences = self.generate(inputs_embeds=embeds, attention_mask=attention_mask, **generate_kwargs)
        return DefectDiagnosisOutput(**detection_fields(detection, self.config.image_score), sequences=sequences)


__all__ = ["SpgddGptForConditionalGeneration", "SpgddGptModel", "SpgddGptPreTrainedModel"]
