"""What a model consists of, and the memory that training it takes: the table at the start of every run."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.modeling_utils import PreTrainedModel


@dataclass(frozen=True)
class Part:
    """Parameters of one part of a model, and the bytes that training them with AdamW takes.

    Attributes:
        name: of the part.
        parameters: their number, shared ones once.
        trainable: how many of them are trained.
        dtypes: of the weights.
        weights: bytes.
        gradients: bytes; none of frozen parameters.
        optimizer: bytes of AdamW's two moments, and of a moving average if there is one.
    """

    name: str
    parameters: int
    trainable: int
    dtypes: tuple[str, ...]
    weights: int
    gradients: int
    optimizer: int

    @classmethod
    def of(cls, name: str, parameters: Iterable[nn.Parameter], ema: bool = False) -> "Part":
        """Count parameters, on any device ("meta" too); `ema`: whether a moving average of them is kept."""
        held = list(parameters)
        trained = [parameter for parameter in held if parameter.requires_grad]
        gradients = sum(parameter.nbytes for parameter in trained)
        return cls(
            name=name,
            parameters=sum(parameter.numel() for parameter in held),
            trainable=sum(parameter.numel() for parameter in trained),
            dtypes=tuple(sorted({str(parameter.dtype).removeprefix("torch.") for parameter in held})),
            weights=sum(parameter.nbytes for parameter in held),
            gradients=gradients,
            optimizer=(3 if ema else 2) * gradients,
        )

    @property
    def memory(self) -> int:
        """Bytes in all."""
        return self.weights + self.gradients + self.optimizer


def parameters_under(model: nn.Module, prefixes: tuple[str, ...]) -> list[nn.Parameter]:
    """Parameters whose names begin so, shared ones once."""
    return [parameter for name, parameter in model.named_parameters() if name.startswith(prefixes)]


def model_parts(model: Any, ema: bool = False) -> list[Part]:
    """The parts of a model: the towers of its base models, by `base_parts`, and every other child module.

    Args:
        model: any module, or a `PeftModel`, as it is before `accelerator.prepare`.
        ema: whether a moving average of the trained weights is kept.

    Returns:
        In the order of the model's parameters; together they hold each of them once.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    towers = _towers(inner)
    held: dict[str, list[nn.Parameter]] = {}
    for name, parameter in inner.named_parameters():
        prefix = max((prefix for prefix in towers if name.startswith(prefix)), key=len, default=None)
        own = name.removeprefix(f"{getattr(inner, 'base_model_prefix', '')}.").partition(".")[0]
        held.setdefault(own if prefix is None else towers[prefix], []).append(parameter)
    return [Part.of(name, parameters, ema) for name, parameters in held.items()]


def _towers(model: Any) -> dict[str, str]:
    """How parameters of base models begin, and the name of their part: "clip.text_model", or "clip" for the rest."""
    modules, found = dict(model.named_modules()), {}
    for part, prefixes in getattr(model, "base_parts", {}).items():
        for prefix in prefixes.values():
            found[prefix] = part
            base = modules.get(prefix.rstrip("."))
            for name, module in base.named_children() if base is not None else ():
                if isinstance(module, PreTrainedModel):
                    found[f"{prefix}{name}."] = f"{part}.{name}"
    return found


def parts_table(model: Any, ema: bool = False) -> str:
    """The memory table in plain text; arguments as of `model_parts`."""
    parts = model_parts(model, ema)
    total = Part.of("total", model.parameters(), ema)
    scale, unit = (1e9, "GB") if total.memory >= 1e9 else (1e6, "MB")
    heads = ("part", "parameters", "trained", "frozen", "dtype", "weights", "gradients", "optimizer", f"{unit} in all")
    rows: list[tuple[str, ...]] = [heads]
    for part in (*parts, total):
        counts = (part.parameters, part.trainable, part.parameters - part.trainable)
        sizes = (part.weights, part.gradients, part.optimizer, part.memory)
        rows.append(
            (
                part.name,
                *(f"{count:,}" for count in counts),
                "+".join(part.dtypes),
                *(f"{size / scale:,.2f}" for size in sizes),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(_padded, row, widths, range(len(row)))).rstrip() for row in rows]
    kept = "AdamW's moments and the moving average" if ema else "AdamW's moments"
    return "\n".join(
        [*lines, f"optimizer: {kept}. Activations come on top; sharded training divides it among the processes."]
    )


def _padded(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column in (0, 4) else text.rjust(width)
