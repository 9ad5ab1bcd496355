"""Data set cards: front matter that `datasets` loads by, body from a template and computed facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Template
from typing import Any

import yaml
from datasets import Features

from defect_hub.dataset_scripts.output import BUILD_MARK
from defect_hub.dataset_scripts.schema import FIELDS, TEXT_LEVELS

SIZE_CATEGORIES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True)
class ConfigFacts:
    """A config of the data set.

    Attributes:
        folder: Folder of its shards below `data/`.
        features: Its columns.
        sizes: (rows, bytes in memory) of each split.
    """

    folder: str
    features: Features
    sizes: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class DatasetFacts:
    """What the card says about a build; see `assemble.BuildReport`.

    Attributes:
        name: Name of the folder.
        digest: SHA-256 over the content of all rows.
        configs: Configs by name.
        class_names: Label space in label order.
        counts: Images by split and class name.
        totals: Number of rows "defective", "annotated" (with a mask) and with a text of each level.
        warnings: One line for everything that was left out.
    """

    name: str
    digest: str
    configs: Mapping[str, ConfigFacts]
    class_names: Sequence[str]
    counts: Mapping[str, Counter[str]]
    totals: Mapping[str, int]
    warnings: Sequence[str]


def render_card(template: str, header: Mapping[str, Any], facts: DatasetFacts) -> str:
    """README.md of a data set.

    Args:
        template: Body with the placeholders `$name`, `$images`, `$defective`, `$annotated`, `$notes`, `$digest` and
            the tables `$counts` (classes and splits), `$configs`, `$texts` and `$fields`.
        header: First keys of the front matter.
        facts: What the build found.

    Returns:
        The card. The digest stands in every `dataset_info` because `datasets` caches by front matter, not by shards.
    """
    images = sum(counts.total() for counts in facts.counts.values())
    front = {
        **header,
        "size_categories": [next((name for bound, name in SIZE_CATEGORIES if images < bound), "n>1M")],
        "configs": [_config_entry(name, config) for name, config in facts.configs.items()],
        "dataset_info": [_info_entry(name, config, facts.digest) for name, config in facts.configs.items()],
        BUILD_MARK: facts.digest,
    }
    body = Template(template).substitute(
        name=facts.name,
        images=f"{images:,}",
        defective=f"{facts.totals['defective']:,}",
        annotated=f"{facts.totals['annotated']:,}",
        counts=_counts_table(facts),
        configs=_configs_table(facts),
        texts=_texts_table(facts),
        fields=_table(["column", "meaning"], [[f"`{name}`", text] for name, text in FIELDS.items()]),
        notes="\n".join(f"- {warning}" for warning in facts.warnings) or "None.",
        digest=facts.digest,
    )
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=120)}---\n\n{body}"


def _config_entry(name: str, config: ConfigFacts) -> dict[str, Any]:
    files = [{"split": split, "path": f"data/{config.folder}/{split}-*.parquet"} for split in config.sizes]
    entry: dict[str, Any] = {"config_name": name, "data_files": files}
    if name == "default":
        entry["default"] = True
    if config.folder != name:
        entry["columns"] = list(config.features)
    return entry


def _info_entry(name: str, config: ConfigFacts, digest: str) -> dict[str, Any]:
    return {
        "config_name": name,
        "description": f"build {digest}",
        "features": config.features._to_yaml_list(),
        "splits": [
            {"name": split, "num_bytes": size, "num_examples": rows} for split, (rows, size) in config.sizes.items()
        ],
        "dataset_size": sum(size for _, size in config.sizes.values()),
    }


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def _counts_table(facts: DatasetFacts) -> str:
    present = [name for name in facts.class_names if any(counts[name] for counts in facts.counts.values())]
    rows = [[name, *(counts[name] for counts in facts.counts.values())] for name in present]
    rows.append(["**all**", *(counts.total() for counts in facts.counts.values())])
    return _table(["class", *facts.counts], rows)


def _configs_table(facts: DatasetFacts) -> str:
    rows = [
        [f"`{name}`", "all columns" if name == "default" else ", ".join(config.features), rows]
        for name, config in facts.configs.items()
        if (rows := sum(count for count, _ in config.sizes.values()))
    ]
    return _table(["config", "columns", "rows"], rows)


def _texts_table(facts: DatasetFacts) -> str:
    meanings = ("class name in a sentence", "class description", "free description", "attributes in one line")
    rows = [
        [level, meaning, facts.totals[level]]
        for level, meaning in zip(TEXT_LEVELS, (*meanings, "attributes as a sentence"), strict=True)
    ]
    return _table(["level", "what it is", "images with it"], rows)
