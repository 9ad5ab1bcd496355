"""What the Hub knows of a repository's cards and attributes: its checks of a README's YAML, its `.gitattributes`."""

import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import yaml

LFS_SUFFIXES = (
    "7z arrow avro bin bz2 ckpt ftz gz h5 joblib lz4 mlmodel model msgpack npy npz onnx ot parquet pb pickle pkl pt"
    " pth rar safetensors tar tflite tgz wasm xz zip zst"
)
MEDIA_SUFFIXES = "mds pcm sam raw aac flac mp3 ogg wav bmp gif png tiff jpg jpeg webp mp4 webm"
COLOURS = ["red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"]
SDKS = ["gradio", "docker", "static"]
LICENCES = (
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0"
    " bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc"
    " cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0"
    " cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0"
    " cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1"
    " eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c"
    " ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr"
    " deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4"
    " grok2-community gemma unknown other"
)


def gitattributes_of(kind: str) -> str:
    """Return the `.gitattributes` that a new repository begins with."""
    suffixes = f"{LFS_SUFFIXES} {MEDIA_SUFFIXES}" if kind == "dataset" else LFS_SUFFIXES
    patterns = [*(f"*.{suffix}" for suffix in sorted(suffixes.split())), "*tfevents*", "saved_model/**/*"]
    return "".join(lfs_line(pattern) for pattern in patterns)


def lfs_line(pattern: str) -> str:
    """Return the line of `.gitattributes` that sends a pattern to large-file storage."""
    return f"{pattern} filter=lfs diff=lfs merge=lfs -text\n"


def is_lfs(path: str, attributes: str) -> bool:
    """Whether `.gitattributes` sends a path to large-file storage."""
    patterns = [line.split()[0] for line in attributes.splitlines() if "filter=lfs" in line]
    name = path.rsplit("/", 1)[-1]
    return any(fnmatchcase(path if "/" in one else name, one.replace("[[:space:]]", " ")) for one in patterns)


def space_readme(name: str, sdk: str) -> str:
    """Return the card that the Hub writes into a new Space."""
    return f"---\ntitle: {name}\nemoji: 🏭\ncolorFrom: blue\ncolorTo: gray\nsdk: {sdk}\npinned: false\n---\n"


def front_matter(text: str) -> Any:
    """Return the YAML block of a README, None without one; a YAMLError where it is broken."""
    found = re.match(r"\s*---[\r\n]+([\S\s]*?)[\r\n]+---(\r\n|\n|$)", text)
    return None if found is None else yaml.safe_load(found[1])


def check_card(text: str, kind: str) -> tuple[list[str], list[str]]:
    """Return the errors and the warnings that the Hub has for the YAML of a README."""
    try:
        data = front_matter(text)
    except yaml.YAMLError as error:
        return [f"Invalid YAML: {error}"], []
    if data is None:
        missing = "empty or missing yaml metadata in repo card"
        return (["Missing configuration in README"], []) if kind == "space" else ([], [missing])
    if not isinstance(data, dict):
        return ["YAML metadata must be an object"], []
    return list(errors_of(data, kind)), list(warnings_of(data))


def errors_of(data: dict[str, Any], kind: str) -> Iterator[str]:
    rules = {**COMMON_RULES, **KIND_RULES[kind]}
    for field, (holds, problem) in rules.items():
        if field in data and not holds(data[field]):
            yield f'"{field}" {problem}'
    if kind == "space" and "sdk" not in data:
        yield '"sdk" is required'
    if data.get("license") not in ("other", None) and "license_name" in data:
        yield '"license_name" is not allowed unless "license" is "other"'


def warnings_of(data: dict[str, Any]) -> Iterator[str]:
    if data.get("license") == "other" and "license_name" not in data:
        yield '"license_name" is recommended when "license" is "other"'


def is_text(value: object) -> bool:
    return isinstance(value, str)


def are_texts(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def one_of(allowed: list[str]) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in allowed, f"must be one of [{', '.join(allowed)}]"


def texts_of(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else value


def is_language(value: object) -> bool:
    return are_texts(value) and all(re.fullmatch(r"[a-z0-9-]+", code) for code in texts_of(value))


def is_licence(value: object) -> bool:
    return are_texts(value) and all(name in LICENCES.split() for name in texts_of(value))


def are_configs(value: object) -> bool:
    """`configs` of a dataset: each has a name of its own and says where its files are."""
    if not isinstance(value, list) or not all(isinstance(config, dict) for config in value):
        return False
    names = [config.get("config_name") for config in value]
    return all(isinstance(name, str) for name in names) and len(set(names)) == len(names)


Rules = dict[str, tuple[Callable[[Any], bool], str]]
TEXTS = (are_texts, "must be a string or an array of strings")
COMMON_RULES: Rules = {
    "license": (is_licence, f"must be one of [{', '.join(LICENCES.split())}]"),
    "language": (is_language, "must only contain lowercase characters"),
    "tags": (lambda value: isinstance(value, list) and are_texts(value), "must be an array of strings"),
    "license_name": (is_text, "must be a string"),
    "license_link": (is_text, "must be a string"),
}
KIND_RULES: dict[str, Rules] = {
    "model": {
        "datasets": TEXTS,
        "metrics": TEXTS,
        "base_model": TEXTS,
        "library_name": (is_text, "must be a string"),
        "pipeline_tag": (is_text, "must be a string"),
        "model-index": (lambda value: isinstance(value, list), "must be an array"),
    },
    "dataset": {
        "pretty_name": (is_text, "must be a string"),
        "task_categories": TEXTS,
        "task_ids": TEXTS,
        "size_categories": TEXTS,
        "configs": (are_configs, "must be an array of objects, each with a unique config_name"),
    },
    "space": {
        "title": (is_text, "must be a string"),
        "sdk": one_of(SDKS),
        "sdk_version": (is_text, "must be a string"),
        "app_file": (is_text, "must be a string"),
        "colorFrom": one_of(COLOURS),
        "colorTo": one_of(COLOURS),
        "pinned": (lambda value: isinstance(value, bool), "must be a boolean"),
        "short_description": (
            lambda value: isinstance(value, str) and len(value) <= 60,
            "length must be less than or equal to 60 characters long",
        ),
    },
}
