"""CLIP models of transformers and open_clip with one interface: vectors of images and of texts.

Cosines of an image and a text that fit rarely exceed 0.35, because CLIP keeps images and texts in separate regions
(the modality gap); compare them with each other, not with 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModel, AutoProcessor

OPEN_CLIP = "open_clip:"
SCHEMAS = ("hf-hub:", "local-dir:")
"""Of names that open_clip resolves itself, weights included."""


class TransformersEncoder:
    """A CLIP or SigLIP model of transformers.

    Args:
        model: A model with `get_image_features`, `get_text_features` and `logit_scale`.
        processor: Its processor.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model.eval(), processor
        self.logit_scale = math.exp(model.logit_scale.item())
        # SigLIP was trained on texts padded to a fixed length; CLIP does not see the padding.
        self.length = model.config.text_config.max_position_embeddings

    @torch.inference_mode()
    def images(self, images: list[Image.Image]) -> NDArray[np.float32]:
        """Vectors (N, D) of RGB images."""
        inputs = self.processor(images=images, return_tensors="pt").to(self.model.device)
        return _array(self.model.get_image_features(**inputs).pooler_output)

    @torch.inference_mode()
    def texts(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors (M, D) of texts; those too long for the model are cut off."""
        fixed = {"padding": "max_length", "max_length": self.length, "truncation": True}
        inputs = self.processor(text=texts, return_tensors="pt", **fixed).to(self.model.device)
        return _array(self.model.get_text_features(**inputs).pooler_output)


class OpenClipEncoder:
    """A model of open_clip.

    Args:
        model: The model.
        preprocess: Makes the input of an image.
        tokenizer: Makes the inputs (M, L) of texts.
    """

    def __init__(
        self,
        model: Any,
        preprocess: Callable[[Image.Image], torch.Tensor],
        tokenizer: Callable[[list[str]], torch.Tensor],
    ) -> None:
        self.model, self.preprocess, self.tokenizer = model.eval(), preprocess, tokenizer
        self.logit_scale = math.exp(model.logit_scale.item())
        self.device = model.logit_scale.device

    @torch.inference_mode()
    def images(self, images: list[Image.Image]) -> NDArray[np.float32]:
        """Vectors (N, D) of RGB images."""
        return _array(self.model.encode_image(torch.stack([*map(self.preprocess, images)]).to(self.device)))

    @torch.inference_mode()
    def texts(self, texts: list[str]) -> NDArray[np.float32]:
        """Vectors (M, D) of texts; those too long for the model are cut off."""
        return _array(self.model.encode_text(self.tokenizer(texts).to(self.device)))


def load_encoder(name: str) -> TransformersEncoder | OpenClipEncoder:
    """Load a model, onto the GPU where there is one.

    Args:
        name: Folder or Hub id of a model of transformers (`openai/clip-vit-base-patch32`), or a name of open_clip:
            `open_clip:NAME/WEIGHTS` with a tag or file of weights (`open_clip:ViT-B-32/openai`), `hf-hub:ID` or
            `local-dir:FOLDER`.

    Raises:
        ValueError: There is no such model or it is no CLIP model.
        OSError: Its files are missing.
        ImportError: open_clip is not installed.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith((OPEN_CLIP, *SCHEMAS)):
        return _load_open_clip(name.removeprefix(OPEN_CLIP), device)
    try:
        model = AutoModel.from_pretrained(name)
    except OSError as error:
        raise OSError(
            f"{name}: neither a folder with a model of transformers nor a Hub id at hand ({error})"
        ) from error
    if not hasattr(model, "get_text_features") or not hasattr(model, "logit_scale"):
        raise ValueError(f"{name}: {type(model).__name__} does not compare images and texts; name a CLIP model")
    return TransformersEncoder(model.to(device), AutoProcessor.from_pretrained(name))


def _load_open_clip(name: str, device: str) -> OpenClipEncoder:
    try:
        import open_clip
    except ImportError as error:
        raise ImportError(f"{name} needs open_clip: pip install open_clip_torch") from error
    weights = None
    if not name.startswith(SCHEMAS):
        name, _, weights = name.partition("/")
        if not weights:
            raise ValueError(f"{name}: no weights named; write {OPEN_CLIP}{name}/TAG, with a tag or file of weights")
    try:
        model, preprocess = open_clip.create_model_from_pretrained(name, weights, device=device)
    except RuntimeError as error:
        raise ValueError(f"{name}: cannot be loaded by open_clip ({error})") from error
    return OpenClipEncoder(model, preprocess, open_clip.get_tokenizer(name))


def _array(vectors: torch.Tensor) -> NDArray[np.float32]:
    return vectors.float().cpu().numpy()
