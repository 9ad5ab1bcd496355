"""A checkpoint folder as a model repository: weights, processor, the code that both need, card and endpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, AutoProcessor, PreTrainedConfig

from defect_hub import __version__, modeling
from defect_hub.dataset_scripts.readers.errors import DataError
from defect_hub.dataset_scripts.readers.jsonfile import read_json
from defect_hub.publishing.adapters import write_adapters
from defect_hub.publishing.remote_code import RemoteCode, remote_code
from defect_hub.publishing.staged import MANIFEST, Staged
from defect_hub.publishing.weights import INDEX, PICKLES, check_weights, find_weights, shard_weights
from defect_hub.train.cards import GENERATED, model_card

TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
"""Published from the folder and from those directly below it, where a processor keeps its other tokenizers."""
ROOT_FILES = ("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json", "run.json")
MADE_ANEW = ("README.md", MANIFEST, "requirements.txt")
"""Written for each publication, as all code is; what a folder holds of them is not worth a note."""
OWNED = (
    *TOKENIZER_FILES,
    *(f"*/{name}" for name in TOKENIZER_FILES),
    *ROOT_FILES,
    "*.py",
    "*.safetensors",
    "*.safetensors.index.json",
    "adapter_config.json",
    "pytorch_model*.bin*",
)
"""What a loader would take for a part of the model, left over from an earlier publication."""
LOCAL_TRACES = ("_name_or_path", "is_local", "local_files_only", "name_or_path")
"""Settings that tell where the publisher loaded a part from."""
CODE_ENTRIES = ("auto_map", "custom_pipelines")
"""Settings that name code, perhaps such as is not published; `auto_map` is written anew."""


def stage_model(
    folder: Path,
    repo_id: str,
    staging: Path,
    bases: Mapping[str, str] | None = None,
    max_shard_bytes: int = 5_000_000_000,
) -> Staged:
    """Check a checkpoint and lay out its repository. Weights are published from where they are.

    Args:
        folder: Model and processor as their `save_pretrained` write them.
        repo_id: For the card.
        staging: For what must be written anew: smaller weight files, the checkpoint without its base weights.
        bases: Sub-model -> Hub id of the pretrained model whose weights are left out; none publishes all weights.
        max_shard_bytes: Largest weight file.

    Raises:
        DataError: The folder is no complete checkpoint of a model type of ours.
    """
    folder = folder.resolve()
    config_class = _config_class(folder)
    _refuse_links(folder)
    check_weights(folder)
    _check_processor(folder)
    checkpoint = folder
    if bases:
        checkpoint = staging / "adapters"
        write_adapters(folder, checkpoint, bases)
    code = remote_code(config_class)
    taken, _ = _choose(checkpoint)
    _, notes = _choose(folder)
    files: dict[str, Path | bytes] = {
        **{name: _published(name, path, code) for name, path in taken.items()},
        **shard_weights(checkpoint, staging / "weights", max_shard_bytes),
        **code.files,
        "requirements.txt": code.requirements.encode(),
        "README.md": model_card(checkpoint, repo_id).encode(),
    }
    card = folder / "README.md"
    if card.is_file() and GENERATED not in card.read_text("utf-8"):
        files["README.md"] = card
        notes = (*notes, "README.md: published as you wrote it, not made from run.json")
    named = [f"weights of {part} left out: loaders take them from {base}" for part, base in (bases or {}).items()]
    message = f"{config_class.model_type} model and its code, defect-hub {__version__}"
    return Staged("model", dict(sorted(files.items())), message, OWNED, (*named, *notes))


def _config_class(folder: Path) -> type[PreTrainedConfig]:
    path = folder / "config.json"
    model_type = read_json(path, dict).get("model_type")
    config_class = CONFIG_MAPPING[model_type] if model_type in tuple(CONFIG_MAPPING) else None
    if config_class is None or not config_class.__module__.startswith(f"{modeling.__name__}."):
        remedy = "Name the folder of a checkpoint that was trained with defect-hub"
        raise DataError(path, "model_type", f"is {model_type!r}, which is no model of ours", remedy)
    return config_class


def _refuse_links(folder: Path) -> None:
    for path in (*folder.iterdir(), *folder.glob("*/*")):
        published = (*ROOT_FILES, *TOKENIZER_FILES, ".safetensors", INDEX)
        if path.name.endswith(published) and not path.resolve().is_relative_to(folder):
            remedy = "Publish a copy of the folder that holds the files themselves: cp -rL FOLDER COPY"
            raise DataError(path, "link", "leads out of the folder", remedy)


def _check_processor(folder: Path) -> None:
    try:
        AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    except (OSError, TypeError, ValueError) as error:
        remedy = "Save the processor of the checkpoint there with save_pretrained"
        raise DataError(folder, "processor", f"cannot be loaded ({error})", remedy) from error


def _choose(folder: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The files beside weights, code and card that are published, and notes on what is not."""
    known = {*MADE_ANEW, INDEX, *(path.name for path in find_weights(folder).values())}
    taken: dict[str, Path] = {}
    left: list[str] = []
    for path in sorted(folder.iterdir()):
        is_folder = path.is_dir() and not path.name.startswith(".")
        inside = {f"{path.name}/{file.name}": file for file in sorted(path.iterdir())} if is_folder else {}
        tokenizer = {name: file for name, file in inside.items() if file.name in TOKENIZER_FILES}
        if tokenizer:
            taken |= tokenizer
            left += inside.keys() - tokenizer.keys()
        elif path.is_file() and path.name in (*ROOT_FILES, *TOKENIZER_FILES):
            taken[path.name] = path
        elif path.name not in known and path.suffix != ".py":
            left.append(f"{path.name}/" if path.is_dir() else path.name)
    pickles = [name for name in left if Path(name).suffix in PICKLES]
    notes = {
        "left out, because loading it may run code": pickles,
        "left out, because no model needs it": [name for name in left if name not in pickles],
    }
    return taken, tuple(f"{why}: {', '.join(sorted(names))}" for why, names in notes.items() if names)


def _published(name: str, path: Path, code: RemoteCode) -> Path | bytes:
    """A settings file without the traces of this machine and with the right code; other files as they are."""
    if not path.name.endswith("config.json"):
        return path
    content = _cleaned(read_json(path, dict))
    auto_map = {"config.json": code.config_map, "processor_config.json": code.processor_map}.get(name)
    if auto_map:
        content["auto_map"] = auto_map
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        dropped = (*LOCAL_TRACES, *CODE_ENTRIES)
        return {name: _cleaned(item) for name, item in value.items() if name not in dropped}
    return [_cleaned(item) for item in value] if isinstance(value, list) else value
