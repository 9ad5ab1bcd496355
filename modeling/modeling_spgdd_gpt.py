"""SPGDD-GPT: self-prompted generic defect diagnosis (An & Dong 2026), re-implemented from the paper."""

from dataclasses import dataclass
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
from .losses import alignment_loss, patch_targets, pixel_loss, separation_loss, tddf_loss
from .memory_bank import MultiScaleMemory
from .outputs import DefectDiagnosisOutput
from .text_driven_defect_focuser import TextAdapter, TextDrivenDefectFocuser
from .vv_clip import encode_image, encode_prompts

DIRECT_SLOPE = 5.0
RARE_CLASS_LOGIT = -2.0


@dataclass
class SpgddGptDetection:
    """What the visual half finds, before the language model speaks.

    Args:
        mask_logits: (B, 2, H, W), channel 0 normal, channel 1 defective.
        cls_logits: (B, 2), scaled cosine of CLS with the normal and the abnormal text.
        d_normal: (B, S, N) patch distances to the normal text.
        d_abnormal: (B, S, N) patch distances to the abnormal text.
        text_embeds: (B, 2, D), unit length.
        prompt_embeds: (B, T, hidden) what the language model reads in place of the image tokens.
        num_references: normal references the query was compared with.
    """

    mask_logits: torch.Tensor
    cls_logits: torch.Tensor
    d_normal: torch.Tensor
    d_abnormal: torch.Tensor
    text_embeds: torch.Tensor
    prompt_embeds: torch.Tensor
    num_references: int


class MeanMapConv(nn.Conv2d):
    """1x1 convolution whose logits start as the mean of the maps, with the bias of a rare class."""


class ZeroConv(nn.Conv2d):
    """Convolution that starts at zero, so that what it adds to is the start."""


class DetectionHead(nn.Module):
    """Two-class logits from the fused defect-focused maps F_out, at the patch grid.

    A direct 1x1 path beside the convolutions: before any training the logits are the mean map itself (zero-shot CLIP),
    and the many normal pixels do not have to be learned first.
    """

    def __init__(self, *, in_channels: int, hidden: int) -> None:
        super().__init__()
        self.direct = MeanMapConv(in_channels, 2, kernel_size=1)
        self.conv_in = nn.Conv2d(in_channels, hidden, kernel_size=3, padding=1)
        self.conv_out = ZeroConv(hidden, 2, kernel_size=3, padding=1)

    def forward(self, fused: torch.Tensor) -> torch.Tensor:
        """(B, S, g, g) -> (B, 2, g, g)."""
        return self.direct(fused) + self.conv_out(nn.functional.gelu(self.conv_in(fused)))


class DiagnosisAdapter(nn.Module):
    """Adapter Module (Section III-D): linear maps into the language model's width, and learnable prompts."""

    def __init__(self, *, num_patches: int, text_dim: int, hidden_size: int, num_prompts: int) -> None:
        super().__init__()
        self.map_projection = nn.Linear(num_patches, hidden_size)
        self.detection_projection = nn.Linear(num_patches, hidden_size)
        self.cls_projection = nn.Linear(text_dim, hidden_size)
        self.text_projection = nn.Linear(text_dim, hidden_size)
        # An embedding, not a bare parameter: peft's modules_to_save ignores bare parameters.
        self.prompts = nn.Embedding(num_prompts, hidden_size)

    def forward(
        self, fused: torch.Tensor, detection: torch.Tensor, cls: torch.Tensor, text: torch.Tensor
    ) -> torch.Tensor:
        """Concatenate what the language model is told about the image.

        Args:
            fused: (B, S, N) F_out.
            detection: (B, N) defective-minus-normal logits at the patch grid.
            cls: (B, D) CLS embedding, unit length.
            text: (B, 2, D) text embeddings, unit length.

        Returns:
            (B, S + 4 + num_prompts, hidden).
        """
        prompts = self.prompts.weight.expand(len(fused), -1, -1)
        return torch.cat(
            [
                self.map_projection(fused),
                self.detection_projection(detection).unsqueeze(1),
                self.cls_projection(cls).unsqueeze(1),
                self.text_projection(text),
                prompts.to(fused.dtype),
            ],
            dim=1,
        )


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
        elif isinstance(module, MultiScaleMemory):
            init.zeros_(module.bank)
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
        self.focuser = TextDrivenDefectFocuser(vision_dim=vision_dim, text_dim=text_dim, num_blocks=num_blocks)
        self.memory = MultiScaleMemory(
            dims=[vision_dim] * (num_blocks - 1) + [text_dim],
            num_patches=num_patches,
            capacity=config.memory_capacity,
            matching=config.memory_matching,
        )
        self.detection_head = DetectionHead(in_channels=num_blocks, hidden=config.detection_hidden_size)
        self.adapter = DiagnosisAdapter(
            num_patches=num_patches,
            text_dim=text_dim,
            hidden_size=config.text_config.hidden_size,
            num_prompts=config.num_prompt_tokens,
        )
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def _reference_maps(self, reference_pixel_values: torch.Tensor | None) -> list[torch.Tensor] | None:
        """S maps (B or 1, K, N, C) of the references given with the call, else of the bank, else None."""
        if reference_pixel_values is None:
            return self.memory.recall()
        batch, count = reference_pixel_values.shape[:2]
        _, maps = encode_image(
            self.clip, reference_pixel_values.flatten(0, 1), self.config.feature_blocks, self.config.vv_mode
        )
        return [z.unflatten(0, (batch, count)) for z in maps]

    def _text_features(
        self, prompt_input_ids: torch.Tensor | None, text_features: torch.Tensor | None
    ) -> torch.Tensor:
        if prompt_input_ids is not None and text_features is None:
            return encode_prompts(self.clip, prompt_input_ids)
        if text_features is not None and prompt_input_ids is None:
            return text_features
        raise ValueError("give exactly one of prompt_input_ids and text_features")

    def detect(
        self,
        pixel_values: torch.Tensor,
        prompt_input_ids: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
        reference_pixel_values: torch.Tensor | None = None,
    ) -> SpgddGptDetection:
        """Zero-shot (no references) or few-shot detection.

        Args:
            pixel_values: (B, 3, H, W), normalised by the processor.
            prompt_input_ids: (B, 2, P, L), normal and abnormal prompts.
            text_features: (B, 2, D) from [`vv_clip.encode_prompts`], instead of `prompt_input_ids`.
            reference_pixel_values: (B or 1, K, 3, H, W), normal images of the same object.

        Raises:
            ValueError: if neither or both of the two text inputs are given.
        """
        text = self.text_adapter(self._text_features(prompt_input_ids, text_features))
        cls, maps = encode_image(self.clip, pixel_values, self.config.feature_blocks, self.config.vv_mode)
        d_normal, d_abnormal = self.focuser(maps, text)
        fused = d_normal - d_abnormal  # (B, S, N), Eq. 6; in [-2, 2]
        references = self._reference_maps(reference_pixel_values)
        if references is not None:
            # Eq. 11. The shift makes the factor non-negative, so the product keeps its order; zero-shot is AM = 1.
            fused = self.memory(maps, references) * (fused + 2) - 2
        grid = self.config.grid_size
        logits = self.detection_head(fused.unflatten(-1, (grid, grid)))  # (B, 2, g, g)
        cls = normalize(cls, dim=-1)
        return SpgddGptDetection(
            mask_logits=interpolate(logits, size=pixel_values.shape[-2:], mode="bilinear"),
            cls_logits=self.clip.logit_scale.exp() * torch.einsum("bd,btd->bt", cls, text),
            d_normal=d_normal,
            d_abnormal=d_abnormal,
            text_embeds=text,
            prompt_embeds=self.adapter(fused, (logits[:, 1] - logits[:, 0]).flatten(1), cls, text),
            num_references=0 if references is None else references[0].shape[1],
        )

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
        pixel_values: torch.Tensor | None = None,
        prompt_input_ids: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
        reference_pixel_values: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[ModelOutput, SpgddGptDetection | None]:
        """The language model's output, and the detection where `pixel_values` are given."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        detection = None
        if pixel_values is not None:
            if input_ids is None:
                raise ValueError("pixel_values need input_ids, whose image tokens they replace")
            detection = self.detect(pixel_values, prompt_input_ids, text_features, reference_pixel_values)
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
    """The complete model: detects, and describes what it detected."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: SpgddGptConfig) -> None:
        super().__init__(config)
        self.model = SpgddGptModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.generation_config.suppress_tokens = [config.image_token_id]  # stands for an image, is never an answer
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def image_scores(self, detection: SpgddGptDetection) -> torch.Tensor:
        """(B,), 0-1, by `config.image_score`."""
        pixel = anomaly_maps(detection.mask_logits).amax(dim=(1, 2))
        cls = detection.cls_logits.float().softmax(dim=-1)[:, 1]
        if self.config.image_score == "max":
            return pixel
        return cls if self.config.image_score == "cls" else (pixel + cls) / 2

    def named_losses(
        self,
        detection: SpgddGptDetection,
        masks: torch.Tensor | None,
        is_defective: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        """Unweighted losses of the visual half.

        Args:
            detection: of the batch.
            masks: (B, H, W), 0 or 1, or -100 throughout an image without pixel annotation.
            is_defective: (B,), 0 or 1.
        """
        losses, config = {}, self.config
        d_normal, d_abnormal, defective = detection.d_normal, detection.d_abnormal, None
        if masks is not None:
            losses["sep"] = separation_loss(detection.text_embeds)
            annotated = masks[:, 0, 0] >= 0
            masks, mask_logits = masks[annotated], detection.mask_logits[annotated]
            d_normal, d_abnormal = d_normal[annotated], d_abnormal[annotated]
            if len(masks):
                defective = patch_targets(masks, config.grid_size)
                losses["pixel"] = pixel_loss(mask_logits, masks, config.pixel_positive_weight)
                losses["tddf"] = tddf_loss(d_normal, d_abnormal, defective, config.normal_weight)
        if is_defective is not None and config.alignment_weight > 0:
            scale = self.model.clip.logit_scale.exp()
            losses["align"] = alignment_loss(
                detection.cls_logits, d_normal, d_abnormal, is_defective, defective, scale
            )
        return losses

    def total_loss(self, losses: dict[str, torch.Tensor]) -> torch.Tensor | None:
        """Weighted sum (Eq. 14), or None without targets."""
        if not losses:
            return None
        config = self.config
        weights = {
            "text": config.alpha,
            "tddf": config.beta,
            "sep": config.beta * config.lambda_sep,
            "pixel": config.gamma,
            "align": config.alignment_weight,
        }
        return torch.stack([weights[name] * value.float() for name, value in losses.items()]).sum()

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
        labels: torch.Tensor | None = None,
        masks: torch.Tensor | None = None,
        is_defective: torch.Tensor | None = None,
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
            pixel_values: (B, 3, H, W), normalised by the processor.
            prompt_input_ids: (B, 2, P, L), normal and abnormal prompts.
            text_features: (B, 2, D), instead of `prompt_input_ids` (prompt-then-detect).
            reference_pixel_values: (B or 1, K, 3, H, W), normal images of the same object.
            labels: (B, T), -100 where no token is to be predicted.
            masks: (B, H, W), 0 or 1, or -100 throughout an image without pixel annotation.
            is_defective: (B,), 0 or 1.
            logits_to_keep: last positions whose logits are computed; 0 for all.
        """
        outputs, detection = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            pixel_values=pixel_values,
            prompt_input_ids=prompt_input_ids,
            text_features=text_features,
            reference_pixel_values=reference_pixel_values,
            **kwargs,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, keep])
        losses = {} if detection is None else self.named_losses(detection, masks, is_defective)
        if labels is not None:
            losses["text"] = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size
            )
        return DefectDiagnosisOutput(
            loss=self.total_loss(losses),
            losses=losses or None,
            **({} if detection is None else self._detection_fields(detection)),
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _detection_fields(self, detection: SpgddGptDetection) -> dict[str, Any]:
        return {
            "image_scores": self.image_scores(detection),
            "anomaly_maps": anomaly_maps(detection.mask_logits),
            "mask_logits": detection.mask_logits,
            "cls_logits": detection.cls_logits,
            "num_references": detection.num_references,
        }

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        inputs_embeds: torch.Tensor | None = None,
        prompt_input_ids: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
        reference_pixel_values: torch.Tensor | None = None,
        is_first_iteration: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Images and what belongs to them enter once; later steps read the cache."""
        inputs = super().prepare_inputs_for_generation(
            input_ids, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )
        if is_first_iteration or not kwargs.get("use_cache", True):
            inputs["prompt_input_ids"] = prompt_input_ids
            inputs["text_features"] = text_features
            inputs["reference_pixel_values"] = reference_pixel_values
        return inputs

    @torch.no_grad()
    def remember(self, reference_pixel_values: torch.Tensor) -> None:
        """Fill the memory bank that is saved with the model; used where a call brings no references.

        Args:
            reference_pixel_values: (K, 3, H, W), normal images, K <= `config.memory_capacity`.

        Raises:
            ValueError: if K exceeds the capacity.
        """
        config = self.config
        _, maps = encode_image(self.model.clip, reference_pixel_values, config.feature_blocks, config.vv_mode)
        self.model.memory.store(maps)

    @torch.no_grad()
    def diagnose(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        prompt_input_ids: torch.Tensor | None = None,
        text_features: torch.Tensor | None = None,
        reference_pixel_values: torch.Tensor | None = None,
        describe: bool = True,
        **generate_kwargs: Any,
    ) -> DefectDiagnosisOutput:
        """Detect, then describe; the images are encoded once.

        Args:
            pixel_values: (B, 3, H, W), normalised by the processor.
            input_ids: (B, T), left-padded, from the processor.
            attention_mask: (B, T).
            prompt_input_ids: (B, 2, P, L), normal and abnormal prompts.
            text_features: (B, 2, D), instead of `prompt_input_ids`.
            reference_pixel_values: (B or 1, K, 3, H, W), normal images of the same object.
            describe: whether to generate text; without it only maps and scores are computed.
            generate_kwargs: for `generate` (`max_new_tokens`, `do_sample`, `streamer`, ...).
        """
        detection = self.model.detect(pixel_values, prompt_input_ids, text_features, reference_pixel_values)
        sequences = None
        if describe:
            embeds = self.model.merge_prompts(input_ids, detection.prompt_embeds)
            sequences = self.generate(inputs_embeds=embeds, attention_mask=attention_mask, **generate_kwargs)
        return DefectDiagnosisOutput(**self._detection_fields(detection), sequences=sequences)


def anomaly_maps(mask_logits: torch.Tensor) -> torch.Tensor:
    """(B, 2, H, W) logits -> (B, H, W) probability of the defective class, float32."""
    return mask_logits.float().softmax(dim=1)[:, 1]


__all__ = ["SpgddGptForConditionalGeneration", "SpgddGptModel", "SpgddGptPreTrainedModel"]
