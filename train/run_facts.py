"""`run.json`: what a training run knows and no other file of its model folder says, for the model card."""

import dataclasses
import json
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RUN_FILE = "run.json"
# What Apache-2.0 weights may be trained on without further terms; CC BY, for one, asks for attribution downstream.
OPEN_LICENSES = frozenset({"apache-2.0", "mit", "cc0-1.0"})


@dataclass(frozen=True)
class SourceRows:
    """Images of one source.

    Attributes:
        source: its name in the column `source`.
        license: in the words of the column `license`; None: not stated.
        redistributable: whether the owner allows to pass the images on; None: not stated.
        rows: number of images.
    """

    source: str | None
    license: str | None
    redistributable: bool | None
    rows: int


@dataclass(frozen=True)
class DataUse:
    """The images that served one purpose.

    Attributes:
        use: `training`, `calibration` or `evaluation`.
        split: that they are part of.
        sources: where they come from, with the numbers of images.
        fingerprint: digest of their contents; None: not recorded.
    """

    use: str
    split: str
    sources: list[SourceRows]
    fingerprint: str | None = None

    @property
    def rows(self) -> int:
        """Number of images."""
        return sum(source.rows for source in self.sources)


@dataclass(frozen=True)
class Measurement:
    """Figures on one split.

    Attributes:
        data: name of the data set; a Hub id, or the name of a folder.
        split: of the data set.
        rows: number of images.
        protocol: `zero_shot` or `few_shot`.
        values: by name of the metric.
        command: that measured them.
    """

    data: str
    split: str
    rows: int
    protocol: str
    values: dict[str, float]
    command: str


@dataclass(frozen=True)
class Cost:
    """What was measured of a run; None: not measured. Nothing here is estimated.

    Attributes:
        training_seconds: from `first_step` to `last_step`; earlier steps belong to an interrupted part of the run.
        calibration_seconds: of both protocols.
        evaluation_seconds: of the metrics.
        energy_kwh: by a meter of your own, for whoever has one.
        carbon_kg: likewise, CO2 equivalent.
    """

    training_seconds: float | None = None
    first_step: int | None = None
    last_step: int | None = None
    calibration_seconds: float | None = None
    evaluation_seconds: float | None = None
    energy_kwh: float | None = None
    carbon_kg: float | None = None


@dataclass(frozen=True)
class BaseModel:
    """A checkpoint that the run went on from.

    Attributes:
        name: Hub id, or the name of a folder (which has no "/").
        license: of its weights; None: not stated.
        run: its own record; None: it has none.
        version: commit on the Hub, or SHA-256 of local weights; None: not recorded.
    """

    name: str
    license: str | None
    run: "RunFacts | None" = None
    version: str | None = None


@dataclass(frozen=True)
class RunFacts:
    """A training run.

    Attributes:
        data: name of the data set; a Hub id, or the name of a folder (which has no "/").
        uses: which of its images served what.
        command: that repeats the run, without the places of this machine.
        recipe: settings, as a recipe file takes them.
        base_models: checkpoints that it went on from; none: from scratch.
        metrics: measured on the final weights.
        cost: what was measured of it.
        hardware: in general words; None: not recorded.
        versions: of the libraries.
        date: of the end, YYYY-MM-DD.
        limits: found in these weights, a sentence each.
    """

    data: str
    uses: list[DataUse]
    command: str
    recipe: dict[str, Any]
    base_models: list[BaseModel] = field(default_factory=list)
    metrics: list[Measurement] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)
    hardware: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    date: str | None = None
    limits: list[str] = field(default_factory=list)


def write_run(folder: Path, run: RunFacts) -> None:
    """Write `run.json`; the folder is complete or not at all, so the file need not be."""
    text = json.dumps(dataclasses.asdict(run), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / RUN_FILE).write_text(f"{text}\n", encoding="utf-8")


def read_run(folder: Path) -> RunFacts | None:
    """The record of a model folder; None if it has none.

    Raises:
        ValueError: if the file is damaged; the message names the field.
    """
    path = folder / RUN_FILE
    if not path.is_file():
        return None
    try:
        return _typed(RunFacts, json.loads(path.read_text(encoding="utf-8")), "")
    except ValueError as error:
        raise ValueError(f"{path}: {error}. Take the file from the training run again, or remove it") from None


def stages(run: RunFacts, name: str = "this run") -> Iterator[tuple[str, RunFacts]]:
    """The run and those of the checkpoints it went on from, newest first, by name."""
    yield name, run
    for base in run.base_models:
        if base.run is not None:
            yield from stages(base.run, base.name)


def weights_license(run: RunFacts | None) -> str | None:
    """`apache-2.0` where all that shaped the weights is open; None where anything has terms of its own or unknown."""
    if run is None:
        return None
    shaping = [source for use in run.uses if use.use != "evaluation" for source in use.sources]
    free = all(_is_open(source.license) and source.redistributable for source in shaping)
    inherited = all(
        _is_open(base.license) and (base.run is None or weights_license(base.run)) for base in run.base_models
    )
    return "apache-2.0" if free and inherited else None


def _is_open(license: str | None) -> bool:
    return (license or "").lower().replace(" ", "-") in OPEN_LICENSES


def _typed(kind: Any, value: Any, place: str) -> Any:
    """A JSON value as the type of its field, or a ValueError that names the field."""
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, place)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType or origin is typing.Union:
        return None if value is None else _typed(inner[0], value, place)
    if origin is list and isinstance(value, list):
        return [_typed(inner[0], item, f"{place}[{number}]") for number, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {key: _typed(inner[1], item, f"{place}.{key}") for key, item in value.items()}
    accepted = (int, float) if kind is float else origin or kind
    if kind is not Any and (not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool)):
        raise ValueError(
            f"{place or 'file'}: {json.dumps(value)[:40]} is not of the type {getattr(kind, '__name__', kind)}"
        )
    return value


def _record(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{place or 'file'}: not an object")
    hints = typing.get_type_hints(kind)
    dot = f"{place}." if place else ""
    if unknown := sorted(value.keys() - hints.keys()):
        raise ValueError(f"{dot}{unknown[0]}: no such field")
    for item in dataclasses.fields(kind):
        optional = item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
        if not optional and item.name not in value:
            raise ValueError(f"{dot}{item.name}: missing")
    return kind(**{name: _typed(hints[name], item, f"{dot}{name}") for name, item in value.items()})
