"""`pipeline("defect-diagnosis")`: images in, records out."""

from pathlib import Path
from typing import Any

from PIL import Image
from transformers import Pipeline
from transformers.image_utils import load_image

from .outputs import DefectDiagnosisOutput


def open_image(source: Any) -> Image.Image:
    """A PIL image from itself, a file, or whatever else transformers loads (URL, base64).

    Files are opened as they are: transformers would clip 16-bit pixels on the way to RGB.
    """
    if isinstance(source, Image.Image):
        return source
    return Image.open(source) if Path(source).is_file() else load_image(source)


class DefectDiagnosisPipeline(Pipeline):
    """Diagnose images with any model that has `diagnose` and a processor with `post_process_diagnosis`.

    Call it with an image or a list of images (path, URL or PIL) and, as keywords, `reference_images` (normal images of
    the same object), `object_name`, `question`, `threshold`, `describe` and `generate_kwargs`.
    """

    _load_processor = True
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict, dict, dict]:
        preprocess = {k: kwargs[k] for k in ("reference_images", "object_name", "question") if k in kwargs}
        forward = dict(kwargs.get("generate_kwargs", {}))
        if "describe" in kwargs:
            forward["describe"] = kwargs["describe"]
        postprocess = {k: kwargs[k] for k in ("threshold", "pixel_threshold") if k in kwargs}
        return preprocess, forward, postprocess

    def preprocess(
        self,
        inputs: Any,
        reference_images: list[Any] | None = None,
        object_name: str | None = None,
        question: str | None = None,
    ) -> dict[str, Any]:
        """Tensors of one image, and its size for the way back."""
        image = open_image(inputs)
        references = [open_image(reference) for reference in reference_images or []]
        features = self.processor(
            images=image, text=question, reference_images=references, object_names=object_name, return_tensors="pt"
        )
        return {**features, "target_size": (image.height, image.width)}

    def _forward(self, inputs: dict[str, Any], max_new_tokens: int = 64, **kwargs: Any) -> dict[str, Any]:
        target_size = inputs.pop("target_size")
        outputs = self.model.diagnose(**inputs, max_new_tokens=max_new_tokens, **kwargs)
        return {"outputs": outputs, "target_size": target_size}

    def postprocess(self, model_outputs: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """The record described in `post_process_diagnosis`."""
        # On the way between devices the base class turns it into a plain ModelOutput without the empty fields.
        outputs = DefectDiagnosisOutput(**model_outputs["outputs"])
        return self.processor.post_process_diagnosis(outputs, target_sizes=[model_outputs["target_size"]], **kwargs)[0]
