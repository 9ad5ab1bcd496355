"""Which weights a run trains: all, the new parts alone (prompt tuning), or those and low-rank updates (LoRA).

For any model that states its `base_parts`, the part "language_model" among them.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from defect_hub.train.saving import put_in_place

TRAINABLE = ("all", "adapter", "lora")
FROZEN_DTYPES = ("", "bfloat16")
_LORA_TARGETS = r".*\.(q_proj|k_proj|v_proj|o_proj)"
_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
"""Have no forward pass of their own, so peft cannot wrap them."""


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank updates of the language model's attention.

    Attributes:
        rank: of the updates.
        alpha: their scale is alpha / rank.
        dropout: of their input, 0-1.
    """

    rank: int
    alpha: int
    dropout: float


def check_adaptation(trainable: str, frozen_dtype: str) -> None:
    """What `adapt` takes of a recipe.

    Raises:
        ValueError: for unknown values, or values that do not fit each other.
    """
    if trainable not in TRAINABLE:
        raise ValueError(f"trainable={trainable!r}: choose one of {', '.join(TRAINABLE)}")
    if frozen_dtype not in FROZEN_DTYPES:
        raise ValueError(f"frozen_dtype={frozen_dtype!r}: choose bfloat16, or leave it empty")
    if frozen_dtype and trainable == "all":
        raise ValueError("frozen_dtype: trainable='all' freezes nothing. Leave it empty")


def adapt(
    model: Any,
    trainable: str,
    base: str,
    lora: LoraSettings,
    gradient_checkpointing: bool = False,
    frozen_dtype: str = "",
) -> Any:
    """Make trainable what a run trains, in place.

    Args:
        model: complete, with `base_parts`.
        trainable: `all`; `adapter`, the parts that are of no base model (prompt tuning, as in the paper); or `lora`,
            those and low-rank updates of the language model's attention (Table VIII).
        base: name of the checkpoint that the result of `lora` is an adapter of.
        lora: settings of `lora`.
        gradient_checkpointing: keep no activations of the language model's layers, but compute them again in the
            backward pass: less memory, more time, same result.
        frozen_dtype: `bfloat16` keeps the frozen weights of the language model in half the memory, and it then
            computes in bfloat16; empty: as they are.

    Returns:
        The model; with `lora`, a `PeftModel` around the same modules.

    Raises:
        ValueError: if the settings do not fit each other or the model.
    """
    check_adaptation(trainable, frozen_dtype)
    layers: Any = language_model(model)
    wants = {
        "trainable='lora'": (trainable == "lora", "Choose trainable='adapter'"),
        "gradient_checkpointing": (gradient_checkpointing, "Leave it off"),
        "frozen_dtype": (bool(frozen_dtype), "Leave it empty"),
    }
    for setting, (wanted, remedy) in wants.items():
        if wanted and layers is None:
            raise ValueError(f"{setting}: this checkpoint has no language model. {remedy}")
    adapted = model
    if trainable == "lora":
        adapted = _add_lora(model, base, lora)
    elif trainable == "adapter":
        freeze_bases(model)
    if frozen_dtype:
        _cast_frozen(model, getattr(torch, frozen_dtype))
    if gradient_checkpointing:
        # Behind peft, which would otherwise ask for gradients of the image encoder's inputs too.
        layers.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    return adapted


def base_prefixes(model: Any) -> tuple[str, ...]:
    """How the names of the weights begin that belong to base models."""
    return tuple(prefix for names in model.base_parts.values() for prefix in names.values())


def language_model(model: Any) -> PreTrainedModel | None:
    """The language model's layers; None for a detector."""
    modules = dict(model.named_modules())
    named = (modules.get(prefix.rstrip(".")) for prefix in _language_prefixes(model))
    return next((module for module in named if isinstance(module, PreTrainedModel)), None)


def _language_prefixes(model: Any) -> tuple[str, ...]:
    return tuple(model.base_parts.get("language_model", {}).values())


def freeze_bases(model: Any) -> None:
    """Train the new parts alone, as the paper does."""
    bases = base_prefixes(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(bases))


def _add_lora(model: Any, base: str, lora: LoraSettings) -> Any:
    from peft import LoraConfig, get_peft_model  # here: the import takes seconds, which other runs need not wait for

    bases = base_prefixes(model)
    prefixes = "|".join(map(re.escape, _language_prefixes(model)))
    new = (name for name, _ in model.named_parameters() if not name.startswith(bases))
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=f"({prefixes}){_LORA_TARGETS}",  # other base models' attention is called the same
        modules_to_save=sorted({_new_part(model, name, bases) for name in new}),
    )
    wrapped = get_peft_model(model, config)
    wrapped.peft_config["default"].base_model_name_or_path = base  # else the path on this machine
    for name, parameter in model.named_parameters():
        # peft looks for modules whose names end like that of a new part.
        if parameter.requires_grad and name.startswith(bases) and ".lora_" not in name:
            raise ValueError(f"trainable='lora': {name} of a base model is named like a new part. Rename the new part")
    return wrapped


def _new_part(model: Any, name: str, bases: tuple[str, ...]) -> str:
    """The largest module around a new parameter that holds no base model and can be wrapped."""
    path = name.split(".")
    for depth in range(1, len(path)):
        part = ".".join(path[:depth])
        holds_base = any(base.startswith(f"{part}.") for base in bases)
        if not holds_base and not isinstance(model.get_submodule(part), _CONTAINERS):
            return part
    raise ValueError(f"trainable='lora': {name} lies beside base models. Give it a module of its own")


def _cast_frozen(model: Any, dtype: torch.dtype) -> None:
    """The language model's frozen weights, but not those that the model class keeps in float32."""
    prefixes = _language_prefixes(model)
    kept = {*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ())}
    keeps = re.compile("|".join(rf"(^|\.){module}\." for module in kept) or "$^")
    for name, parameter in model.named_parameters():
        if name.startswith(prefixes) and not parameter.requires_grad and not keeps.search(name):
            parameter.data = parameter.data.to(dtype)  # in place: tied weights stay tied


def save_lora(model: Any, folder: Path) -> None:
    """Write the updates and the new parts alone, for `PeftModel.from_pretrained(base, folder)`.

    Args:
        model: of `adapt` with `lora`, trained.
        folder: result; an earlier one is replaced.
    """
    partial = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial, save_embedding_layers=False)
    (partial / "README.md").unlink()  # a form without facts; the card of the complete model has them
    put_in_place(partial, folder)
