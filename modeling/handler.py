"""Serves this repository's model on Hugging Face Inference Endpoints, which look for `EndpointHandler` in handler.py.

A request is JSON, `{"inputs": IMAGE, "parameters": {...}}`, or the bytes of an image file with its content type; the
endpoint turns the latter into 8-bit RGB, so send 16-bit images in JSON. An exception becomes status 400 with the body
`{"error": its text}`, so bad input raises ValueError. Images are taken as base64, bytes or PIL images alone: a server
that opened file names or fetched URLs for strangers would hand out its own files and network.
"""

import base64
import binascii
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import AutoModel, AutoProcessor

# Some of Pillow's other readers start programs (EPS) or follow structures that strangers should not choose.
FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
MAX_PIXELS = 50_000_000
MAX_REFERENCES = 16
MAX_NEW_TOKENS = 1024
MAX_TEXT = 2000


class EndpointHandler:
    """The model of a folder behind one call.

    Args:
        path: Folder of the repository; empty for the one that holds this file.
    """

    def __init__(self, path: str = "") -> None:
        folder = path or str(Path(__file__).parent)
        self.processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
        model = AutoModel.from_pretrained(folder, trust_remote_code=True)  # in the dtype it was saved in
        self.model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """Diagnose one image.

        Args:
            data: "inputs", the image: base64 text, bytes of a file or PIL; and "parameters", all optional:
                "reference_images" (1 to 16 normal images of the same object, as "inputs"), "object_name" and
                "question" (texts of up to 2,000 characters), "threshold" and "pixel_threshold" (0-1; else the
                calibrated ones), "describe" (false for the template sentence alone), "max_new_tokens" (1-1024).

        Returns:
            JSON-ready: the record of the processor's `post_process_diagnosis` ("score", "is_defective", "regions" with
            boxes [x, y, w, h] in px, "attributes", "description" with its "text_source", "unsupported_claims", ...),
            "width" and "height" of the image in px, turned upright where its file says so, and of that size
            "anomaly_map" and "mask" as base64 of an 8-bit gray PNG: a level of the map divided by 255 is the value
            0-1, the mask holds 0 and 255.

        Raises:
            ValueError: For an input that is no image, and for a parameter that is unknown or out of range.
        """
        if not isinstance(data, dict):
            raise ValueError('the request must be a JSON object: {"inputs": BASE64, "parameters": {...}}')
        parameters = checked_parameters(data.get("parameters"))
        image = read_image(data.get("inputs"), "inputs")
        given, object_name = parameters.get("reference_images"), parameters.get("object_name")
        references: list[Image.Image] = []
        for number, value in enumerate(given or []):
            taken = sum(each.width * each.height for each in (image, *references))
            references.append(read_image(value, f"reference_images[{number}]", MAX_PIXELS - taken))
        features = self.processor(
            images=image,
            text=parameters.get("question"),
            reference_images=None if given is None else references,
            object_names=object_name,
        )
        outputs = self.model.diagnose(
            **features.to(self.model.device, self.model.dtype),
            describe=parameters.get("describe", True),
            max_new_tokens=parameters.get("max_new_tokens", 64),
        )
        record = self.processor.post_process_diagnosis(
            outputs,
            threshold=parameters.get("threshold"),
            pixel_threshold=parameters.get("pixel_threshold"),
            images=[image],
            object_names=object_name,
        )[0]
        levels = (np.clip(record["anomaly_map"], 0, 1) * 255).round().astype(np.uint8)
        pictures = {"anomaly_map": png_base64(levels), "mask": png_base64(record["mask"])}
        return {**record, **pictures, "width": image.width, "height": image.height}


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT


_TEXT = f"text of at most {MAX_TEXT} characters"
_PARAMETERS = {
    "reference_images": (
        lambda value: isinstance(value, list) and len(value) <= MAX_REFERENCES,
        f"a list of at most {MAX_REFERENCES} images",
    ),
    "object_name": (_is_text, _TEXT),
    "question": (_is_text, _TEXT),
    "threshold": (lambda value: _is_number(value, 0, 1), "a number from 0 to 1"),
    "pixel_threshold": (lambda value: _is_number(value, 0, 1), "a number from 0 to 1"),
    "describe": (lambda value: isinstance(value, bool), "true or false"),
    "max_new_tokens": (
        lambda value: isinstance(value, int) and _is_number(value, 1, MAX_NEW_TOKENS),
        f"a whole number from 1 to {MAX_NEW_TOKENS}",
    ),
}


def checked_parameters(parameters: Any) -> dict[str, Any]:
    """The parameters of a request that are not null.

    Raises:
        ValueError: For one that is unknown or out of range.
    """
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise ValueError("parameters: must be a JSON object")
    given = {name: value for name, value in parameters.items() if value is not None}
    for name, value in given.items():
        if name not in _PARAMETERS:
            raise ValueError(f"parameters: unknown name {name!r}; known are {', '.join(_PARAMETERS)}")
        accepts, expected = _PARAMETERS[name]
        if not accepts(value):
            raise ValueError(f"{name}: must be {expected}")
    return given


def read_image(value: Any, name: str, room: int = MAX_PIXELS) -> Image.Image:
    """An image of a request, turned upright.

    Args:
        value: Base64 text, bytes of an image file, or PIL.
        name: What the request calls it, for errors.
        room: Pixels that it may have; the images of a request have 50 million together.

    Raises:
        ValueError: If it is anything else, broken, or larger than `room`.
    """
    if isinstance(value, str):
        try:
            value = base64.b64decode("".join(value.split()), validate=True)
        except binascii.Error:
            raise ValueError(f"{name}: no base64; file names and URLs are not opened") from None
    if isinstance(value, bytes | bytearray):
        try:
            value = Image.open(io.BytesIO(value), formats=FORMATS)
        except (OSError, Image.DecompressionBombError):
            raise ValueError(f"{name}: no image; send the base64 of a {', '.join(FORMATS)} file") from None
    if not isinstance(value, Image.Image):
        raise ValueError(f"{name}: must be the base64 of an image file, is {type(value).__name__}")
    if value.width * value.height > room:
        size = f"{value.width}x{value.height} px"
        raise ValueError(f"{name}: {size}; the images of a request may have {MAX_PIXELS} pixels together")
    try:
        return ImageOps.exif_transpose(value)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{name}: broken image file ({error})") from None


def png_base64(levels: np.ndarray) -> str:
    """Base64 of a gray PNG.

    Args:
        levels: (H, W), uint8.
    """
    file = io.BytesIO()
    Image.fromarray(levels).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
