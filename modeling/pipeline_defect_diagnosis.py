"""`pipeline("defect-diagnosis")`: images in, records out."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import Pipeline
from transformers.image_utils import load_image

from .outputs import DefectDiagnosisOutput

PREPROCESS = ("object_name", "question")
FORWARD = ("describe", "reference_features", "memory_bank")
POSTPROCESS = ("threshold", "pixel_threshold", "object_name")


def open_image(source: Any) -> Image.Image:
    """A PIL image from itself, a file, or whatever else transformers loads (URL, base64).

    Files are opened as they are: transformers would clip 16-bit pixels on the way to RGB.
    """
    if isinstance(source, Image.Image):
        return source
    return Image.open(source) if Path(source).is_file() else load_image(source)


class DefectDiagnosisPipeline(Pipeline):
    """Diagnose images with any model that has `diagnose` and `encode_references`, and its processor.

    Call it with an image or a list of images (path, URL or PIL) and, as keywords, `reference_images` (normal images of
    the same object), or `reference_features` where the same references serve many calls, or `memory_bank`, the name of
    references saved with the model; and `object_name`, `question`, `threshold`, `pixel_threshold`, `describe` and
    `generate_kwargs`.
    """

    _load_processor = True
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __call__(self, inputs: Any, reference_images: Any = None, **kwargs: Any) -> Any:
        """Records of the images, see [`SpgddGptProcessor.post_process_diagnosis`]; references are encoded once.

        Raises:
            ValueError: where both `reference_images` and `reference_features` are given, and for an empty list.
        """
        if reference_images is not None:
            if kwargs.get("reference_features") is not None:
                raise ValueError("reference_images, reference_features: give one of the two")
            kwargs["reference_features"] = self.encode_references(reference_images)
        return super().__call__(inputs, **kwargs)

    @torch.no_grad()
    def encode_references(self, reference_images: Any) -> torch.Tensor:
        """Local features (1, K, N, C) of K normal images, for the `reference_features` of any number of calls.

        Args:
            reference_images: a list of them; one may come without.

        Raises:
            ValueError: for an empty list.
        """
        images = reference_images if isinstance(reference_images, list | tuple) else [reference_images]
        pixel_values = self.processor.reference_pixel_values([open_image(image) for image in images])
        return self.model.encode_references(pixel_values.to(self.model.device, self.model.dtype))

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict, dict, dict]:
        if unknown := sorted(kwargs.keys() - {"generate_kwargs", *PREPROCESS, *FORWARD, *POSTPROCESS}):
            raise ValueError(f"{', '.join(unknown)}: no argument of this pipeline; correct the name")
        preprocess, forward, postprocess = (
            {name: kwargs[name] for name in names if name in kwargs} for names in (PREPROCESS, FORWARD, POSTPROCESS)
        )
        forward |= kwargs.get("generate_kwargs", {})
        return preprocess, forward, postprocess

    def preprocess(self, inputs: Any, object_name: str | None = None, question: str | None = None) -> dict[str, Any]:
        """Tensors of one image, and itself for the way back."""
        image = open_image(inputs)
        features = self.processor(images=image, text=question, object_names=object_name, return_tensors="pt")
        return {**features.to(self.model.dtype), "image": image}

    def _forward(self, inputs: dict[str, Any], max_new_tokens: int = 64, **kwargs: Any) -> dict[str, Any]:
        image = inputs.pop("image")
        outputs = self.model.diagnose(**inputs, max_new_tokens=max_new_tokens, **kwargs)
        return {"outputs": outputs, "image": image}

    def postprocess(
        self, model_outputs: dict[str, Any], object_name: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The record described in `post_process_diagnosis`."""
        # On the way between devices the base class turns it into a plain ModelOutput without the empty fields.
        outputs = DefectDiagnosisOutput(**model_outputs["outputs"])
        image = model_outputs["image"]
        return self.processor.post_process_diagnosis(outputs, images=[image], object_names=object_name, **kwargs)[0]
