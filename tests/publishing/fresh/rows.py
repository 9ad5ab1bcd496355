"""Prints a digest of each row of each split of configs, as JSON.

argv: "load" or "stream", repository or folder, revision, configs (default: all).
"""

import hashlib
import importlib.util
import json
import sys
from collections.abc import Mapping
from typing import Any

from datasets import Image, get_dataset_config_names, load_dataset


def digest(row: Mapping[str, Any]) -> str:
    """One word for all values of a row, the bytes of its images among them."""
    return hashlib.sha256(repr(sorted(row.items())).encode()).hexdigest()[:16]


def undecoded(data: Any) -> Any:
    for name, feature in data.features.items():
        if isinstance(feature, Image):
            data = data.cast_column(name, Image(decode=False))
    return data


def main(way: str, place: str, revision: str, *configs: str) -> None:
    assert importlib.util.find_spec("defect_hub") is None
    found = {}
    for config in configs or get_dataset_config_names(place, revision=revision):
        splits = load_dataset(place, config, revision=revision, streaming=way == "stream")
        found[config] = {name: [digest(row) for row in undecoded(data)] for name, data in splits.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
