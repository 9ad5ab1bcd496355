"""Processor of SPGDD-GPT: everything between a user's images and words and the model's tensors, both ways."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch.nn.functional import interpolate
from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .claims import box_cell, unsupported_claims
from .inspection_images import to_rgb
from .outputs import DefectDiagnosisOutput
from .text_prompts import prompt_ensemble

DIAGNOSIS_QUESTION = "Is there any defect in this image?"
CLIP_EOS = "<|endoftext|>"
# Vicuna v1.5's turn format; the image stands before the question.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }} "
    "{% elif message['role'] == 'user' %}USER: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %} "
    "{% else %}ASSISTANT: {{ message['content'][0]['text'] }}</s>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


class SpgddGptProcessor(ProcessorMixin):
    r"""Image processor, two tokenizers, prompts, calibration and post-processing in one object.

    Args:
        image_processor: resizes to the model's square input and normalises.
        tokenizer: of the language model; must know `image_token`.
        clip_tokenizer: of CLIP's text encoder.
        num_image_tokens: placeholders per image (`config.num_image_tokens`).
        max_prompt_length: length L of CLIP's text input, tokens.
        object_name: what the images show where a call does not say.
        system_prompt: sentence before the conversation; empty for none.
        calibration: thresholds by protocol, `{"zero_shot": {"image": {...}, "pixel": {...}}, "few_shot": ...}`; each
            leaf is `{"method", "value", "n_normal", "n_anomalous", "data_fingerprint"}`. Written by the trainer.
        chat_template: turn format, Vicuna v1.5's by default.

    Raises:
        ValueError: if `clip_tokenizer` is not CLIP's.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        clip_tokenizer: Any = None,
        num_image_tokens: int = 16,
        max_prompt_length: int = 77,
        object_name: str = "object",
        system_prompt: str = "",
        calibration: dict[str, Any] | None = None,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        if getattr(clip_tokenizer, "eos_token", None) != CLIP_EOS:
            # transformers silently takes the other tokenizer where the sub-folder is missing.
            raise ValueError(
                f"clip_tokenizer: no CLIP tokenizer (end token {CLIP_EOS}); is the folder clip_tokenizer/ of the "
                "checkpoint missing? Save the processor again with processor.save_pretrained"
            )
        self.num_image_tokens = num_image_tokens
        self.max_prompt_length = max_prompt_length
        self.object_name = object_name
        self.system_prompt = system_prompt
        self.calibration = calibration
        self.image_token = "<image>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        super().__init__(image_processor, tokenizer, clip_tokenizer, chat_template=chat_template or CHAT_TEMPLATE)

    def pixel_values(self, images: list[Image.Image]) -> torch.Tensor:
        """(B, 3, H, W), resized to the model's input and normalised; each image by `to_rgb` first."""
        return self.image_processor([to_rgb(image) for image in images], return_tensors="pt")["pixel_values"]

    def prompt_input_ids(self, object_names: list[str]) -> torch.Tensor:
        """(B, 2, P, L) CLIP token ids of the normal and abnormal prompts of each object."""
        distinct = {name: prompt_ensemble(name) for name in dict.fromkeys(object_names)}
        encoded = {
            name: torch.stack([self._clip_ids(prompts) for prompts in ensembles])
            for name, ensembles in distinct.items()
        }
        return torch.stack([encoded[name] for name in object_names])

    def _clip_ids(self, prompts: list[str]) -> torch.Tensor:
        return self.clip_tokenizer(
            prompts, padding="max_length", truncation=True, max_length=self.max_prompt_length, return_tensors="pt"
        )["input_ids"]

    def build_prompt(self, question: str) -> str:
        """The conversation up to the point where the model answers."""
        if self.image_token in question:  # already a complete prompt, e.g. from `apply_chat_template`
            return question
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
        ]
        if self.system_prompt:
            messages.insert(0, {"role": "system", "content": self.system_prompt})
        return self.apply_chat_template(messages, add_generation_prompt=True)

    def tokenize(self, questions: list[str], answers: list[str] | None = None) -> dict[str, torch.Tensor]:
        """Token ids of prompts, with their answers where given.

        Args:
            questions: B questions or complete prompts.
            answers: B answers; then `labels` are returned and the padding is on the right, else on the left.

        Returns:
            `input_ids` and `attention_mask` (B, T), and `labels` (B, T) with -100 outside the answers.
        """
        prompts = [
            self.build_prompt(question).replace(self.image_token, self.image_token * self.num_image_tokens)
            for question in questions
        ]
        prompt_ids = [self.tokenizer(prompt)["input_ids"] for prompt in prompts]
        answer_ids: list[list[int]] = [[] for _ in prompts]
        if answers is not None:
            eos = self.tokenizer.eos_token_id
            answer_ids = [
                [*self.tokenizer(f" {answer}", add_special_tokens=False)["input_ids"], eos] for answer in answers
            ]
        length = max(len(prompt) + len(answer) for prompt, answer in zip(prompt_ids, answer_ids, strict=True))
        rows: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
        for prompt, answer in zip(prompt_ids, answer_ids, strict=True):
            padding = length - len(prompt) - len(answer)
            right = padding if answers is not None else 0
            left = padding - right
            pad_id = self.tokenizer.pad_token_id
            rows["input_ids"].append([pad_id] * left + prompt + answer + [pad_id] * right)
            rows["attention_mask"].append([0] * left + [1] * (length - padding) + [0] * right)
            rows["labels"].append([-100] * (left + len(prompt)) + answer + [-100] * right)
        if answers is None:
            del rows["labels"]
        return {name: torch.tensor(values) for name, values in rows.items()}

    def __call__(
        self,
        images: Any,
        text: str | list[str] | None = None,
        reference_images: list[Image.Image] | None = None,
        object_names: str | list[str] | None = None,
        answers: list[str] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Tensors for the model.

        Args:
            images: one image or B images (PIL or uint8 arrays), any size.
            text: one question for all or B questions; a question that already holds `<image>` is taken as a
                complete prompt. None asks whether there is a defect.
            reference_images: K normal images of the same object, shared by the batch.
            object_names: one name for all or B names; None takes the processor's.
            answers: B answers to learn from.
            kwargs: `return_tensors` may only be "pt".

        Returns:
            `pixel_values` (B, 3, H, W), `input_ids` and `attention_mask` (B, T), `prompt_input_ids` (B, 2, P, L), and
            where given `reference_pixel_values` (1, K, 3, H, W) and `labels` (B, T).

        Raises:
            ValueError: if an image is too small or of an unusable type, or the numbers do not fit.
        """
        if kwargs.get("return_tensors", "pt") != "pt":
            raise ValueError(f"return_tensors={kwargs['return_tensors']!r}: only 'pt' is supported")
        images = images if isinstance(images, list | tuple) else [images]
        questions = _per_image(text or DIAGNOSIS_QUESTION, len(images), "text")
        names = _per_image(object_names or self.object_name, len(images), "object_names")
        data = {
            "pixel_values": self.pixel_values(images),
            **self.tokenize(questions, answers),
            "prompt_input_ids": self.prompt_input_ids(names),
        }
        if reference_images:
            data["reference_pixel_values"] = self.pixel_values(reference_images).unsqueeze(0)
        return BatchFeature(data)

    def _threshold(self, num_references: int | None, level: str, given: float | None) -> float:
        if given is not None:
            return given
        protocol = "few_shot" if num_references else "zero_shot"
        if not self.calibration or protocol not in self.calibration:
            raise ValueError(
                f"this processor carries no {protocol} calibration, so there is no {level} threshold; train with "
                "calibration data or pass threshold= and pixel_threshold="
            )
        return self.calibration[protocol][level]["value"]

    def post_process_diagnosis(
        self,
        outputs: DefectDiagnosisOutput,
        target_sizes: list[tuple[int, int]] | None = None,
        threshold: float | None = None,
        pixel_threshold: float | None = None,
    ) -> list[dict[str, Any]]:
        """One record per image.

        Args:
            outputs: of `diagnose`.
            target_sizes: B pairs (height, width), px; None keeps the model's size.
            threshold: image-level, 0-1; None takes the calibrated one.
            pixel_threshold: 0-1; None takes the calibrated one.

        Returns:
            Dicts with "score" (0-1), "is_defective", "threshold", "anomaly_map" (H, W) float32 0-1, "mask" (H, W)
            uint8 0/255 (empty where the image is not defective), "regions" (largest first; "box" [x, y, w, h] px,
            "area_px", "position", "score"), "description" and "unsupported_claims".

        Raises:
            ValueError: without calibration and without thresholds, or if the outputs hold no maps.
        """
        if outputs.anomaly_maps is None or outputs.image_scores is None:
            raise ValueError("outputs hold no maps and scores; take them from `diagnose` or a pass with pixel_values")
        threshold = self._threshold(outputs.num_references, "image", threshold)
        pixel_threshold = self._threshold(outputs.num_references, "pixel", pixel_threshold)
        maps = outputs.anomaly_maps.float().cpu()
        texts = [""] * len(maps)
        if outputs.sequences is not None:
            texts = self.tokenizer.batch_decode(outputs.sequences, skip_special_tokens=True)
        records = []
        for index, (anomaly_map, text) in enumerate(zip(maps, texts, strict=True)):
            height, width = target_sizes[index] if target_sizes else anomaly_map.shape
            resized = interpolate(anomaly_map[None, None], size=(height, width), mode="bilinear")[0, 0].numpy()
            score = float(outputs.image_scores[index])
            is_defective = score >= threshold
            mask = (resized >= pixel_threshold) & is_defective
            regions = mask_regions(mask, resized)
            description = text.strip()
            records.append(
                {
                    "score": score,
                    "is_defective": is_defective,
                    "threshold": threshold,
                    "anomaly_map": resized,
                    "mask": mask.astype(np.uint8) * 255,
                    "regions": regions,
                    "description": description,
                    "unsupported_claims": unsupported_claims(description, regions, is_defective, height, width)
                    if description
                    else [],
                }
            )
        return records


def mask_regions(mask: np.ndarray, anomaly_map: np.ndarray) -> list[dict[str, Any]]:
    """Connected regions (8-neighbourhood) of a mask, largest first.

    Args:
        mask: (H, W), bool.
        anomaly_map: (H, W), 0-1; a region's score is its maximum.
    """
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    scores = ndimage.maximum(anomaly_map, labels, index=range(1, count + 1))
    regions = []
    for (rows, columns), area, score in zip(ndimage.find_objects(labels), areas, scores, strict=True):
        box = [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]
        position = box_cell(box, *mask.shape)
        regions.append({"box": box, "area_px": int(area), "position": position, "score": float(score)})
    return sorted(regions, key=lambda region: -region["area_px"])


def _per_image(value: str | list[str], count: int, name: str) -> list[str]:
    values = [value] * count if isinstance(value, str) else list(value)
    if len(values) != count:
        raise ValueError(f"{name}: {len(values)} given for {count} images; give one for all or one each")
    return values


__all__ = ["SpgddGptProcessor"]
