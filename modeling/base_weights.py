"""Weights of base models that a repository names instead of carrying them: they have terms of their own."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from safetensors import safe_open
from transformers.modeling_utils import PreTrainedModel

EXTRA_ROWS = ".extra_rows"
"""Ends the name of the rows that follow the base's rows of a tensor: those of a longer vocabulary."""
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
WEIGHT_FILES = [WHOLE, INDEX, "model-*-of-*.safetensors"]
FETCH_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token")


class ModelWithBases(PreTrainedModel):
    """A model whose checkpoint may leave out the weights of the base models it was built from.

    Such a checkpoint records them in `config.base_models`: part -> {"repo_id", "revision"}. `from_pretrained` fetches
    them; its keyword `base_models={part: folder or "repo_id" or "repo_id@revision"}` replaces recorded ones. What was
    loaded is complete, and so is what it saves.
    """

    base_parts: ClassVar[dict[str, dict[str, str]]] = {}
    """Part -> how its tensors' names begin in the base's checkpoint -> how they begin in ours."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As in transformers.

        Raises:
            OSError: a base cannot be fetched.
            ValueError: a base lacks a tensor, or has other sizes than the configuration.
        """
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if getattr(model.config, "base_models", None):
            # The method below is not part of transformers' public interface; random weights must not pass for a base.
            raise RuntimeError("this version of transformers loads no base weights; 5.23 does")
        return loaded

    @staticmethod
    def _load_pretrained_model(
        model: "ModelWithBases",
        state_dict: dict[str, torch.Tensor] | None,
        checkpoint_files: list[str] | None,
        load_config: Any,
        **kwargs: Any,
    ) -> Any:
        # The one place where the model's sizes, the checkpoint's files and the options of the download are all known.
        if getattr(model.config, "base_models", None):
            tensors = read_tensors(checkpoint_files or []) if state_dict is None else dict(state_dict)
            state_dict, checkpoint_files = _with_base_weights(model, tensors, load_config), None
            model.config.base_models = None
        return PreTrainedModel._load_pretrained_model(model, state_dict, checkpoint_files, load_config, **kwargs)


def read_tensors(files: Iterable[str | Path]) -> dict[str, torch.Tensor]:
    """All tensors of some safetensors files, mapped into memory: what is not looked at is not read."""
    tensors = {}
    for path in files:
        with safe_open(path, framework="pt") as opened:
            tensors.update({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118 (no dict)
    return tensors


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint folder.

    Raises:
        ValueError: there are none, or not all that the index names.
    """
    files = [folder / WHOLE]
    if not files[0].is_file() and (folder / INDEX).is_file():
        weight_map = json.loads((folder / INDEX).read_text("utf-8"))["weight_map"]
        files = [folder / name for name in sorted(set(weight_map.values()))]
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise ValueError(f"no {missing[0]}; only complete safetensors weights are read, never .bin files")
    return files


def source_of(base: str | Mapping[str, str]) -> tuple[str, str | None]:
    """A repository of the Hub and its revision, or a local folder and None.

    Args:
        base: {"repo_id", "revision"}, a local folder, "repo_id" or "repo_id@revision".
    """
    if isinstance(base, Mapping):
        return base["repo_id"], base["revision"]
    if Path(base).is_dir():
        return str(base), None
    repo_id, _, revision = str(base).partition("@")
    return repo_id, revision or "main"


def fetch_base(part: str, base: str | Mapping[str, str], **options: Any) -> Path:
    """The folder with a base model's safetensors, fetched from the Hub where it is not a local one.

    Args:
        part: of our model.
        base: see `source_of`.
        options: of the download, see `FETCH_OPTIONS`.

    Returns:
        The local folder; for a repository, it has the commit's name.

    Raises:
        OSError: the repository cannot be fetched.
    """
    source, revision = source_of(base)
    if revision is None:
        return Path(source)
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=WEIGHT_FILES, **options))
    except (OSError, HFValidationError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise OSError(
            f"base weights of {part!r}: {source}@{revision} cannot be fetched ({type(error).__name__}: {reason}). "
            "If it is gated, accept its licence on its page and log in with `hf auth login`; to load from a copy, "
            f'pass base_models={{"{part}": "<local folder>"}} to from_pretrained'
        ) from error


def base_tensors(folder: Path, prefixes: Mapping[str, str], tied: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """A base model's tensors by their names in our model, mapped into memory.

    Args:
        folder: of the base's checkpoint.
        prefixes: the part's entry of `base_parts`.
        tied: our names, of which a base that ties its weights has only one.
    """
    found = {}
    for name, tensor in read_tensors(weight_files(folder)).items():
        for theirs, ours in prefixes.items():
            if name.startswith(theirs):
                found[ours + name.removeprefix(theirs)] = tensor
    for pair in tied.items():
        for name, other in (pair, pair[::-1]):
            if other in found:
                found.setdefault(name, found[other])
    return found


def _with_base_weights(
    model: ModelWithBases, tensors: dict[str, torch.Tensor], load_config: Any
) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors, and from the bases those that it leaves out."""
    options = dict(load_config.download_kwargs or {})
    bases = dict(model.config.base_models)
    if load_config.pretrained_model_name_or_path is not None:
        # A caller's `base_models` took the place of all that was recorded, also of the parts it does not name.
        recorded, _ = type(model.config).get_config_dict(load_config.pretrained_model_name_or_path, **options)
        bases = {**(recorded.get("base_models") or {}), **bases}
    unknown = sorted(bases.keys() - model.base_parts.keys())
    if unknown:
        raise ValueError(f"base_models: no part {unknown[0]!r}; choose from {', '.join(model.base_parts)}")
    # A model without head knows its tensors without the prefix.
    prefix = f"{model.base_model_prefix}." if model.base_model is model else ""
    sizes = {prefix + name: tensor.shape for name, tensor in model.state_dict().items()}
    options = {name: options[name] for name in FETCH_OPTIONS if name in options}
    extras = {name: tensors.pop(name) for name in list(tensors) if name.endswith(EXTRA_ROWS)}
    for part, base in bases.items():
        prefixes = model.base_parts[part]
        absent = {
            name: size
            for name, size in sizes.items()
            if name.startswith(tuple(prefixes.values()))
            and name not in tensors
            and name not in model.all_tied_weights_keys
        }
        if absent:
            folder = fetch_base(part, base, **options)
            try:
                found = base_tensors(folder, prefixes, model._tied_weights_keys or {})
                if load_config.is_quantized:  # a quantizer adds tensors and packs others, which no base knows
                    absent = {name: None for name in absent if name in found}
                tensors.update({name: _completed(name, found, extras, size) for name, size in absent.items()})
            except ValueError as error:
                source = "@".join(filter(None, source_of(base)))
                raise ValueError(f"base weights of {part!r}: {source}: {error}") from error
    return tensors


def _completed(
    name: str, found: Mapping[str, torch.Tensor], extras: Mapping[str, torch.Tensor], size: torch.Size | None
) -> torch.Tensor:
    """The base's tensor and the extra rows of ours, of the given size if any."""
    if name not in found:
        raise ValueError(f"no tensor for {name}; name the base that this model was trained on")
    tensor, extra = found[name], extras.get(name + EXTRA_ROWS)
    if extra is not None and tensor.shape[1:] == extra.shape[1:]:
        tensor = torch.cat([tensor.to(extra.dtype), extra])
    if size is not None and tensor.shape != size:
        raise ValueError(
            f"{name} is {tuple(tensor.shape)} with the base's weights and {tuple(size)} by the configuration; "
            "name the base that this model was trained on"
        )
    return tensor
