"""The Python files that a model repository carries, and the entries that lead transformers to them."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path

from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_MAPPING,
    PROCESSOR_MAPPING,
    PreTrainedConfig,
)

from defect_hub import modeling

MODEL_CLASSES = {"AutoModel": MODEL_MAPPING, "AutoModelForImageTextToText": MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING}
PROCESSOR_CLASSES = {"AutoProcessor": PROCESSOR_MAPPING}
ON_EVERY_ENDPOINT = {"PIL", "huggingface_hub", "numpy", "safetensors", "torch"}
"""Modules that are there or come with transformers; an endpoint's torch is built for its GPUs and must stay."""
_FOLDER = Path(modeling.__path__[0])
_HANDLER = "handler"


@dataclass(frozen=True)
class RemoteCode:
    """Code of one model type.

    Attributes:
        config_map: `auto_map` of config.json: Auto class -> "module.Class".
        processor_map: `auto_map` of processor_config.json.
        files: Path in the repository -> file of the installed package: what the two maps need, and handler.py.
        requirements: Text of requirements.txt, which Inference Endpoints install.
    """

    config_map: Mapping[str, str]
    processor_map: Mapping[str, str]
    files: Mapping[str, Path]
    requirements: str


def remote_code(config_class: type[PreTrainedConfig]) -> RemoteCode:
    """Collect the code of a model type from the installed package, so that code and version agree.

    Args:
        config_class: Registered with transformers' Auto classes, as its model and its processor are.
    """
    config_map = {"AutoConfig": _entry(config_class), **_entries(MODEL_CLASSES, config_class)}
    processor_map = _entries(PROCESSOR_CLASSES, config_class)
    entries = (*config_map.values(), *processor_map.values())
    modules = _with_imports({_HANDLER, *(entry.split(".")[0] for entry in entries)})
    files = {f"{module}.py": _FOLDER / f"{module}.py" for module in modules}
    return RemoteCode(config_map, processor_map, files, _requirements(files.values()))


def _entries(mappings: Mapping[str, Mapping], config_class: type[PreTrainedConfig]) -> dict[str, str]:
    return {name: _entry(mapping[config_class]) for name, mapping in mappings.items() if config_class in mapping}


def _entry(registered: type) -> str:
    return f"{registered.__module__.rpartition('.')[2]}.{registered.__name__}"


def _with_imports(modules: Iterable[str]) -> list[str]:
    """The modules and what they import of each other, sorted."""
    found: set[str] = set()
    waiting = set(modules)
    while waiting:
        found |= waiting
        imported = {name for module in waiting for level, name in _imports(_FOLDER / f"{module}.py") if level}
        waiting = imported - found
    return sorted(found)


def _imports(file: Path) -> Iterator[tuple[int, str]]:
    """(relative level, first part of the dotted name) of each import, those inside functions too."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.level, node.module.split(".")[0]


def _requirements(files: Iterable[Path]) -> str:
    """What the code needs beyond the standard library and every endpoint, in our own versions up to the next major.

    transformers is among them: one that is too old cannot read our checkpoints.
    """
    imported = {name for file in files for level, name in _imports(file) if not level}
    lowest = dict(re.findall(r"^([\w-]+)>=([\w.]+)$", "\n".join(requires("defect-hub") or ()), re.MULTILINE))
    lines = []
    for name in sorted(imported - sys.stdlib_module_names - ON_EVERY_ENDPOINT):
        version = lowest[name]
        lines.append(f"{name}>={version},<{int(version.split('.')[0]) + 1}\n")
    return "".join(lines)
