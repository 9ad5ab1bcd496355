"""Text features computed once per distinct set of prompts, for as long as the text encoder stays as it is."""

import hashlib

import torch
from transformers import CLIPModel

from .vv_clip import encode_prompts

MAX_ENTRIES = 4096


class TextFeatureCache:
    """Prompt-ensembled text features by the token ids of the prompts.

    An object's prompts cost as much as several images, and are the same in every call. Entries are dropped when a
    weight of the text encoder changes in place (not through `.data`, which leaves no trace), or moves to another
    device or dtype. Nothing is kept where a gradient must reach the encoder, or where a compiler traces the call.
    """

    def __init__(self) -> None:
        self._features: dict[bytes, torch.Tensor] = {}
        self._state: tuple = ()

    def __call__(self, clip: CLIPModel, prompt_input_ids: torch.Tensor) -> torch.Tensor:
        """(B, 2, P, L) token ids -> (B, 2, D), unit length; see [`encode_prompts`]."""
        weights = [*clip.text_model.parameters(), clip.text_projection.weight]
        trained = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
        if trained or torch.compiler.is_compiling():
            return encode_prompts(clip, prompt_input_ids)
        state = tuple((weight.data_ptr(), _version(weight), weight.dtype) for weight in weights)
        if state != self._state or len(self._features) > MAX_ENTRIES:
            self._features, self._state = {}, state
        shape = str(tuple(prompt_input_ids.shape[1:])).encode()
        keys = [hashlib.sha256(shape + row.tobytes()).digest() for row in prompt_input_ids.cpu().numpy()]
        new = {key: index for index, key in enumerate(keys) if key not in self._features}
        if new:
            with torch.autocast(prompt_input_ids.device.type, enabled=False):  # they outlive a training's autocast
                features = encode_prompts(clip, prompt_input_ids[list(new.values())])
            self._features |= dict(zip(new, features, strict=True))
        return torch.stack([self._features[key] for key in keys])


def _version(weight: torch.Tensor) -> int:
    """Counts changes in place; tensors made in inference mode have no counter."""
    return -1 if weight.is_inference() else weight._version
