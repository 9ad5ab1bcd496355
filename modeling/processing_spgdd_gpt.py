"""Processor of SPGDD-GPT: everything between a user's images and words and the model's tensors, both ways."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate, pad
from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .diagnosis_record import diagnosis_record
from .inspection_images import to_rgb
from .outputs import DefectDiagnosisOutput
from .template_sentences import DIAGNOSIS_QUESTION
from .text_prompts import ABNORMAL_STATES, NORMAL_STATES, TEMPLATES, prompt_ensemble

MAX_CACHED_OBJECTS = 256
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
        tokenizer: of the language model; must know `image_token`. CLIP's again for a detector without one.
        clip_tokenizer: of CLIP's text encoder.
        num_image_tokens: placeholders per image (`config.num_image_tokens`); 0 for a detector.
        max_prompt_length: tokens that CLIP's text encoder reads.
        max_text_length: tokens that the language model reads, image, question and answer together; None for any.
        object_name: what the images show where a call does not say.
        system_prompt: sentence before the conversation; empty for none.
        calibration: thresholds by protocol, `{"zero_shot": {"image": {...}, "pixel": {...}}, "few_shot": ...}`; each
            leaf is `{"method", "value", "n_normal", "n_anomalous", "data_fingerprint"}`. Written by the trainer.
        chat_template: turn format, Vicuna v1.5's by default.
        normal_states: of [`text_prompts.prompt_ensemble`]; own words adapt the detection to a kind of object.
        abnormal_states: as many as `normal_states`.
        templates: sentences around the states.

    Raises:
        ValueError: if `clip_tokenizer` is not CLIP's, or the prompts' words do not fit each other.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        clip_tokenizer: Any = None,
        num_image_tokens: int = 16,
        max_prompt_length: int = 77,
        max_text_length: int | None = None,
        object_name: str = "object",
        system_prompt: str = "",
        calibration: dict[str, Any] | None = None,
        chat_template: str | None = None,
        normal_states: Sequence[str] = NORMAL_STATES,
        abnormal_states: Sequence[str] = ABNORMAL_STATES,
        templates: Sequence[str] = TEMPLATES,
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
        self.max_text_length = max_text_length
        self.object_name = object_name
        self.system_prompt = system_prompt
        self.calibration = calibration
        self.normal_states, self.abnormal_states = list(normal_states), list(abnormal_states)
        self.templates = list(templates)
        prompt_ensemble(object_name, normal_states, abnormal_states, templates)  # says what is wrong with them
        self._prompt_ids: dict[tuple, torch.Tensor] = {}
        self.image_token = "<image>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        if tokenizer is clip_tokenizer:
            tokenizer = deepcopy(clip_tokenizer)  # transformers cannot save one object in two places
        super().__init__(image_processor, tokenizer, clip_tokenizer, chat_template=chat_template or CHAT_TEMPLATE)

    def pixel_values(self, images: list[Image.Image]) -> torch.Tensor:
        """(B, 3, H, W), resized to the model's input and normalised; each image by `to_rgb` first."""
        return self.image_processor([to_rgb(image) for image in images], return_tensors="pt")["pixel_values"]

    def reference_pixel_values(self, reference_images: list[Image.Image]) -> torch.Tensor:
        """(1, K, 3, H, W) of K normal images of the same object, for a whole batch.

        Raises:
            ValueError: for an empty list.
        """
        if not reference_images:
            raise ValueError(
                "reference_images: an empty list; give normal images, or None to diagnose without (zero-shot)"
            )
        return self.pixel_values(reference_images).unsqueeze(0)

    def prompt_input_ids(self, object_names: list[str]) -> torch.Tensor:
        """CLIP token ids of the normal and abnormal prompts of each object.

        Padded to the longest prompt of the call: CLIP's text encoder is causal and reads the embedding at the end
        token, so what follows it costs time and changes nothing.

        Args:
            object_names: B names.

        Returns:
            (B, 2, P, L).

        Raises:
            ValueError: if a name is so long that CLIP's text encoder would not see the whole prompt.
        """
        rows = [self._prompts_of(name) for name in object_names]
        length = max(row.shape[-1] for row in rows)
        pad_id = self.clip_tokenizer.pad_token_id
        return torch.stack([pad(row, (0, length - row.shape[-1]), value=pad_id) for row in rows])

    def _prompts_of(self, object_name: str) -> torch.Tensor:
        """(2, P, L) token ids, padded to the longest prompt; tokenised once while the name is among the last used."""
        words = (self.normal_states, self.abnormal_states, self.templates)
        key = (object_name, *(tuple(phrases) for phrases in words))
        ids = self._prompt_ids.pop(key, None)
        if ids is None:
            ensembles = prompt_ensemble(object_name, *words)
            prompts = [prompt for ensemble in ensembles for prompt in ensemble]
            ids = self.clip_tokenizer(prompts, padding="longest", padding_side="right", return_tensors="pt")[
                "input_ids"
            ]
            if ids.shape[-1] > self.max_prompt_length:
                raise ValueError(
                    f"object_names: {object_name!r} makes prompts of {ids.shape[-1]} tokens, CLIP's text encoder "
                    f"reads {self.max_prompt_length} (max_prompt_length); give a shorter name"
                )
            ids = ids.unflatten(0, (2, -1))
            if len(self._prompt_ids) >= MAX_CACHED_OBJECTS:
                del self._prompt_ids[next(iter(self._prompt_ids))]
        self._prompt_ids[key] = ids
        return ids

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

        Raises:
            ValueError: if a conversation is longer than the language model reads (`max_text_length`).
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
        lengths = [len(prompt) + len(answer) for prompt, answer in zip(prompt_ids, answer_ids, strict=True)]
        length = max(lengths)
        if self.max_text_length is not None and length > self.max_text_length:
            index = lengths.index(length)
            raise ValueError(
                f"{'text' if answers is None else 'answers'}[{index}]: {length} tokens with the image's and the "
                f"question's, the language model reads {self.max_text_length} (max_text_length); shorten it"
            )
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
                complete prompt. None asks whether there is a defect, which is all that a detector answers.
            reference_images: K normal images of the same object, shared by the batch; None is zero-shot.
            object_names: one name for all or B names; None takes the processor's.
            answers: B answers to learn from.
            kwargs: `return_tensors` may only be "pt".

        Returns:
            `pixel_values` (B, 3, H, W), `input_ids` and `attention_mask` (B, T; not for a detector),
            `prompt_input_ids` (B, 2, P, L), and where given `reference_pixel_values` (1, K, 3, H, W) and `labels`
            (B, T).

        Raises:
            ValueError: if an image is too small or of an unusable type, the numbers do not fit, the list of
                references is empty, a text is too long, or a detector is given a question or answers.
        """
        if kwargs.get("return_tensors", "pt") != "pt":
            raise ValueError(f"return_tensors={kwargs['return_tensors']!r}: only 'pt' is supported")
        images = images if isinstance(images, list | tuple) else [images]
        questions = _per_image(text or DIAGNOSIS_QUESTION, len(images), "text")
        names = _per_image(object_names or self.object_name, len(images), "object_names")
        data = {"pixel_values": self.pixel_values(images), "prompt_input_ids": self.prompt_input_ids(names)}
        if self.num_image_tokens:
            data |= self.tokenize(questions, answers)
        elif answers is not None or set(questions) != {DIAGNOSIS_QUESTION}:
            name = "text" if answers is None else "answers"
            raise ValueError(
                f"{name}: this checkpoint is a detector without a language model (num_image_tokens is 0); leave "
                f"{name} out or load a complete checkpoint"
            )
        if reference_images is not None:
            data["reference_pixel_values"] = self.reference_pixel_values(reference_images)
        return BatchFeature(data)

    def _threshold(self, outputs: DefectDiagnosisOutput, level: str, given: float | None) -> float:
        if given is not None:
            if not 0 <= given <= 1:
                raise ValueError(f"{level} threshold {given}: is outside 0 to 1; leave it out for the calibrated one")
            return given
        protocol = "few_shot" if outputs.num_references else "zero_shot"
        if not self.calibration or protocol not in self.calibration:
            raise ValueError(
                f"this processor carries no {protocol} calibration, so there is no {level} threshold; run "
                "`defect-hub calibrate`, or pass threshold= and pixel_threshold="
            )
        calibrated = self.calibration[protocol][level]
        mode = calibrated.get("image_score")
        if level == "image" and mode and outputs.image_score not in (None, mode):
            raise ValueError(
                f"processor_config.json: the image threshold was calibrated for image_score {mode!r}, the model gives "
                f"{outputs.image_score!r}; run `defect-hub calibrate`, or pass threshold="
            )
        return calibrated["value"]

    def post_process_diagnosis(
        self,
        outputs: DefectDiagnosisOutput,
        target_sizes: list[tuple[int, int]] | None = None,
        threshold: float | None = None,
        pixel_threshold: float | None = None,
        images: list[Any] | None = None,
        object_names: str | list[str] | None = None,
    ) -> list[dict[str, Any]]:
        """Records of a batch, at the images' own sizes.

        Args:
            outputs: of `diagnose` or `forward`.
            target_sizes: (height, width) per image, px; None takes the images', without them the model's input size.
            threshold: image-level threshold, 0-1; None takes the calibrated one.
            pixel_threshold: pixel-level threshold, 0-1; None takes the calibrated one.
            images: the B images, as given to the call; they tell how the defect contrasts with its surroundings.
            object_names: as given to the call, for the template sentence.

        Returns:
            One dict per image:

            - "score" (0-1), "is_defective", "threshold";
            - "reference_scores", the score with each of K >= 2 references in the place of the best one, in the units
              of all of them, and "score_std", their standard deviation (with K - 1); else None;
            - "anomaly_map" (float32, 0-1), "mask" (uint8, 0 or 255; empty for a normal image), both (height, width);
            - "regions", its connected regions, largest first: "box" [x, y, w, h] and "area_px" in px, "position",
              "score" (0-1);
            - "attributes" of the mask, None where it is empty: "number" of regions, "position" [[cell, share], ...],
              "scale", "scale_ratio" (share of the image), "shape", "direction", "distribution", and with `images`
              "polarity", "saliency" and "contrast" (mean gray level of the mask less that of the rest, -255 to 255);
              words as in [`mask_attributes`];
            - "description", the language model's text, or the template sentence where there is none; "text_source"
              says which ("language model" or "template"); "template_sentence", composed from the attributes;
            - "unsupported_claims", words of the language model's text that the map does not support.

        Raises:
            ValueError: if the outputs hold no maps, a threshold is neither calibrated nor given, or numbers or sizes
                do not fit.
        """
        if outputs.anomaly_maps is None or outputs.image_scores is None:
            raise ValueError("outputs hold no maps and scores; take them from `diagnose` or a pass with pixel_values")
        threshold = self._threshold(outputs, "image", threshold)
        pixel_threshold = self._threshold(outputs, "pixel", pixel_threshold)
        maps = outputs.anomaly_maps.float().cpu()
        grays = None if images is None else [np.asarray(to_rgb(image).convert("L")) for image in images]
        sizes = _sizes(maps, target_sizes, grays)
        names = _per_image(object_names or self.object_name, len(maps), "object_names")
        texts = [""] * len(maps)
        if outputs.sequences is not None:
            texts = self.tokenizer.batch_decode(outputs.sequences, skip_special_tokens=True)
        references = None if outputs.reference_scores is None else outputs.reference_scores.float().tolist()
        return [
            diagnosis_record(
                interpolate(maps[None, index, None], size=size, mode="bilinear")[0, 0].numpy(),
                float(outputs.image_scores[index]),
                threshold=threshold,
                pixel_threshold=pixel_threshold,
                object_name=names[index],
                text=texts[index].strip(),
                gray=None if grays is None else grays[index],
                reference_scores=None if references is None else references[index],
            )
            for index, size in enumerate(sizes)
        ]


def _sizes(
    maps: torch.Tensor, target_sizes: list[tuple[int, int]] | None, grays: list[np.ndarray] | None
) -> list[tuple[int, ...]]:
    """(height, width) of each record."""
    sizes = None if target_sizes is None else [tuple(map(int, size)) for size in target_sizes]
    own = None if grays is None else [gray.shape for gray in grays]
    for name, given in (("target_sizes", sizes), ("images", own)):
        if given is not None and len(given) != len(maps):
            raise ValueError(f"{name}: {len(given)} given for {len(maps)} maps; give one each")
    if sizes is not None and own is not None and sizes != own:
        index = next(index for index in range(len(own)) if sizes[index] != own[index])
        raise ValueError(
            f"target_sizes[{index}]: {sizes[index]}, but the image is {own[index]} (height, width); leave it out"
        )
    return own or sizes or [tuple(maps.shape[1:])] * len(maps)


def _per_image(value: str | list[str], count: int, name: str) -> list[str]:
    values = [value] * count if isinstance(value, str) else list(value)
    if len(values) != count:
        raise ValueError(f"{name}: {len(values)} given for {count} images; give one for all or one each")
    return values


__all__ = ["SpgddGptProcessor"]
