"""Data set cards: front matter that `datasets` loads by, body from a template and computed facts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from string import Template
from typing import Any

import yaml
from datasets import Features

from defect_hub.dataset_scripts.output import BUILD_MARK
from defect_hub.dataset_scripts.schema import FIELDS, TEXT_LEVELS

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""The C one where PyYAML was built with it: the features of fourteen configs make a long front matter."""
SIZE_CATEGORIES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
COPY, LICENCES = "copy", "licences"
"""Names of the card's blocks on how to get at the folder, and on whose images are under which licence."""
LOCAL_COPY = "The name is that of this folder, seen from its parent; its full path does as well.\n"


@dataclass(frozen=True)
class ConfigFacts:
    """A config of the data set.

    Attributes:
        files: Patterns of the shards of each split.
        features: Its columns.
        columns: Names of the columns that it reads; empty: all.
        filters: Conditions on its rows, see `schema.View`.
        sizes: (rows, bytes in memory) of each split.
    """

    files: Mapping[str, Sequence[str]]
    features: Features
    columns: Sequence[str]
    filters: Sequence[tuple[str, str, str | bool]]
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
        totals: Number of rows "defective", with each kind of annotation, with a text of each level, and "compared".
        warnings: One line for everything that was left out of a row.
        skipped: One line for every sample that was left out because of a problem.
        disagreements: (image id, what differs) where given attributes differ from measured ones.
        duplicates: Numbers of duplicate groups; None where nobody looked.
        sections: Text of further placeholders.
    """

    name: str
    digest: str
    configs: Mapping[str, ConfigFacts]
    class_names: Sequence[str]
    counts: Mapping[str, Counter[str]]
    totals: Mapping[str, int]
    warnings: Sequence[str] = ()
    skipped: Sequence[str] = ()
    disagreements: Sequence[tuple[str, str]] = ()
    duplicates: Mapping[str, int] | None = None
    sections: Mapping[str, str] = field(default_factory=dict)


def render_card(template: str, header: Mapping[str, Any], facts: DatasetFacts) -> str:
    """README.md of a data set.

    Args:
        template: Body with the placeholders `$name`, `$images`, `$defective`, `$annotated`, `$notes`, `$digest`, the
            sections `$agreement` and `$duplicates`, the tables `$counts` (classes and splits), `$configs`, `$texts`
            and `$fields`, the blocks `$copy` and `$licences`, and those of `facts.sections`.
        header: First keys of the front matter.
        facts: What the build found.

    Returns:
        The card. The digest stands in every `dataset_info` because `datasets` caches by front matter, not by shards.
    """
    images = sum(counts.total() for counts in facts.counts.values())
    front = {
        **header,
        "size_categories": [next((name for bound, name in SIZE_CATEGORIES if images < bound), "10M<n<100M")],
        "configs": [_config_entry(name, config) for name, config in facts.configs.items()],
        "dataset_info": [_info_entry(name, config, facts.digest) for name, config in facts.configs.items()],
        BUILD_MARK: facts.digest,
    }
    shown = {
        name: (config.columns, {split: rows for split, (rows, _) in config.sizes.items()})
        for name, config in facts.configs.items()
    }
    body = Template(template).substitute(
        name=facts.name,
        images=f"{images:,}",
        defective=f"{facts.totals['defective']:,}",
        annotated=f"{facts.totals['mask']:,}",
        counts=_counts_table(facts),
        configs=configs_table(shown),
        texts=_texts_table(facts),
        fields=markdown_table(["column", "meaning"], [[f"`{name}`", text] for name, text in FIELDS.items()]),
        notes=_notes(facts),
        agreement=_agreement(facts),
        duplicates=_duplicates(facts),
        digest=facts.digest,
        copy=_block(COPY, LOCAL_COPY),
        licences=_block(LICENCES, ""),
        **facts.sections,
    )
    return f"---\n{yaml.dump(front, Dumper=DUMPER, sort_keys=False, allow_unicode=True, width=120)}---\n\n{body}"


def _config_entry(name: str, config: ConfigFacts) -> dict[str, Any]:
    files = [
        {"split": split, "path": patterns if len(patterns) > 1 else patterns[0]}
        for split, patterns in config.files.items()
    ]
    entry: dict[str, Any] = {"config_name": name, "data_files": files}
    if name == "default":
        entry["default"] = True
    if config.columns:
        entry["columns"] = list(config.columns)
    if config.filters:
        entry["filters"] = [[list(condition) for condition in config.filters]]
    return entry


def _info_entry(name: str, config: ConfigFacts, digest: str) -> dict[str, Any]:
    # Configs of all columns have the features of the default one, which the shards state too: each list of them names
    # every class, so that a card of many classes and configs would grow to thousands of lines.
    stated = name == "default" or bool(config.columns)
    return {
        "config_name": name,
        "description": f"build {digest}",
        **({"features": config.features._to_yaml_list()} if stated else {}),
        "splits": [
            {"name": split, "num_bytes": size, "num_examples": rows} for split, (rows, size) in config.sizes.items()
        ],
        "dataset_size": sum(size for _, size in config.sizes.values()),
    }


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Head and rows as a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def _counts_table(facts: DatasetFacts) -> str:
    present = [name for name in facts.class_names if any(counts[name] for counts in facts.counts.values())]
    rows = [[name, *(counts[name] for counts in facts.counts.values())] for name in present]
    rows.append(["**all**", *(counts.total() for counts in facts.counts.values())])
    return markdown_table(["class", *facts.counts], rows)


def configs_table(configs: Mapping[str, tuple[Sequence[str], Mapping[str, int]]]) -> str:
    """Markdown table of configs: of each its columns, none for all, and the rows of its splits."""
    lines = [
        [
            f"`{name}`",
            ", ".join(columns) or "all columns",
            ", ".join(f"{split} {count:,}" for split, count in rows.items()),
        ]
        for name, (columns, rows) in configs.items()
    ]
    return markdown_table(["config", "columns", "rows"], lines)


def _block(name: str, text: str) -> str:
    return f"<!-- {name} -->\n{text}<!-- /{name} -->"


def has_block(body: str, name: str) -> bool:
    """Whether the body has a block of this name."""
    return f"<!-- {name} -->" in body


def with_block(body: str, name: str, text: str) -> str:
    """The body with other text in one of its blocks, which comes last where the body has none of this name."""
    earlier = re.compile(_block(re.escape(name), ".*?"), re.DOTALL)
    new, count = earlier.subn(lambda _: _block(name, text), body)
    return new if count else f"{body.rstrip()}\n\n{_block(name, text)}\n"


def renamed(body: str, name: str) -> str:
    """The body with another name of the data set in what loads and completes it; the last part is its folder's."""
    body = re.sub(r'load_dataset\("[^"]*"', lambda _: f'load_dataset("{name}"', body)
    return re.sub(r"defect-hub data join \S+", lambda _: f"defect-hub data join {PurePosixPath(name).name}", body)


def _notes(facts: DatasetFacts) -> str:
    lines = [*facts.warnings, *(f"skipped: {problem}" for problem in facts.skipped)]
    return "\n".join(f"- {_without_places(line)}" for line in lines) or "None."


def _without_places(line: str) -> str:
    """The line with absolute paths cut to their ends: a card is published, and tells nobody where a disk has what."""

    def end(match: re.Match[str]) -> str:
        parts = PurePosixPath(match[0]).parts
        return "/".join(parts[3:][-2:]) or parts[-1]

    return re.sub(r"(?<![\w/:.~-])/[^\s:,;()\"']+", end, line)


def _agreement(facts: DatasetFacts) -> str:
    """How far given attributes are those that the masks show."""
    compared = facts.totals["compared"]
    if not compared:
        return "No attributes were given with the images; they are measured."
    differing = Counter(line.split(":")[0] for _, line in facts.disagreements)
    images = len({image_id for image_id, _ in facts.disagreements})
    text = f"Number, position, scale, polarity and saliency were measured again on {compared:,} masks. "
    if not images:
        return text + "All agree with the given values."
    parts = ", ".join(f"{name} {count:,}" for name, count in differing.most_common())
    return text + f"{images:,} images differ from the given values ({parts}): `disagreements.csv` lists them."


def _duplicates(facts: DatasetFacts) -> str:
    """What the search for duplicates found."""
    found = facts.duplicates
    if found is None:
        return "Nobody looked for duplicates in this build."
    if not found["groups"]:
        return "No two images are equal or nearly equal under flips and rotations."
    pairs = ", ".join(f"{count:,} {kind}" for kind, count in found.items() if kind.endswith(" pairs"))
    moved = ""
    if "moved" in found:
        moved = f" Images that `leak_free` moves to `train`, where their twin is: {found['moved']:,}."
    return (
        f"Groups of equal or nearly equal pictures, flips and rotations included: {found['groups']:,}, of "
        f"{found['images']:,} images, connected by {pairs}; `duplicates.csv` lists them. Groups that straddle the "
        f"splits: {found['across']:,}; with more than one class: {found['conflicts']:,}.{moved}"
    )


def _texts_table(facts: DatasetFacts) -> str:
    meanings = ("class name in a sentence", "class description", "free description", "attributes in one line")
    rows = [
        [f"`{level}`", meaning, f"{facts.totals[level]:,}"]
        for level, meaning in zip(TEXT_LEVELS, (*meanings, "attributes as a sentence"), strict=True)
    ]
    return markdown_table(["level", "what it is", "images with it"], rows)
