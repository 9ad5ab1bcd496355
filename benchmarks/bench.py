"""`defect-hub bench`: a table of a paper, measured here by the paper's protocol.

A run writes one JSON file; the pages in docs/benchmarks are made of these, see `pages`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets

from defect_hub.benchmarks.measuring import Measured, NotRun, measure, of_source, provenance
from defect_hub.benchmarks.paper_tables import METRICS, Paper, PaperTable, TableData, TableRow, load_paper
from defect_hub.dataset_scripts.tadd.subsets import load_subsets
from defect_hub.diagnose import load_pipeline
from defect_hub.modeling.configuration_spgdd_gpt import SpgddGptConfig
from defect_hub.train.data import load_split
from defect_hub.train.evaluation import DiagnosisScores, evaluate_diagnosis
from defect_hub.train.recording import public_name, recorded_run, without_places
from defect_hub.train.run_facts import RunFacts, stages
from defect_hub.train.whole_file import write_whole

SPLITS = ("train", "validation", "test")
OFFICIAL_TEST = "official test"


@dataclass(frozen=True)
class BenchRequest:
    """A table to measure.

    Attributes:
        paper: name of the model, see `paper_tables`.
        table: number in the paper.
        data: built TADD, folder or Hub id; empty: there is none.
        models: checkpoints by name of the row or of what it was trained on; "" serves the rows without a variant.
        seed: of the draws of references.
        draws: of references.
    """

    paper: str
    table: int
    data: str = ""
    models: dict[str, str] = field(default_factory=dict)
    seed: int = 42
    draws: int = 5

    def command(self) -> str:
        """That repeats the run, without the places of this machine."""
        words = [self.paper, "--table", str(self.table)]
        words += ["--data", public_name(self.data)] if self.data else []
        named = {name: public_name(place) for name, place in self.models.items()}
        words += [word for name, place in named.items() for word in ("--model", f"{name}={place}" if name else place)]
        return "defect-hub bench " + without_places([*words, "--seed", str(self.seed), "--draws", str(self.draws)])


@dataclass(frozen=True)
class Loaded:
    """A checkpoint, ready to use, and what the record says of it."""

    model: Any
    processor: Any
    facts: dict[str, Any]


def run_table(request: BenchRequest) -> dict[str, Any]:
    """Measure a table.

    Returns:
        The record of the run: provenance, data, protocol, and for each row and data set figures or what is missing.

    Raises:
        ValueError: for a table that is not there, or unusable data or checkpoints.
    """
    paper = load_paper(request.paper)
    if request.table not in paper.tables:
        raise ValueError(f"--table {request.table}: {paper.paper} has the tables {', '.join(map(str, paper.tables))}")
    table = paper.tables[request.table]
    known = {"", *table.rows, *(data.trained_on for data in table.data)}
    if unknown := sorted(request.models.keys() - known):
        raise ValueError(f"--model {unknown[0]}=...: table {request.table} names {', '.join(sorted(known - {''}))}")
    if request.draws < 1:
        raise ValueError(f"--draws {request.draws}: give a number from 1")
    if "tiny" in request.models.values():
        raise ValueError(
            "--model tiny: stands for fresh weights in a training recipe; name a checkpoint, folder or Hub id"
        )
    splits = {split: load_split(request.data, split) for split in SPLITS} if request.data else {}
    loaded: dict[str, Loaded] = {}
    facts: dict[str, dict[str, Any]] = {}
    cells = []
    for name, row in table.rows.items():
        for data in table.data:
            cell = {"row": name, "data": data.name, "shots": row.shots}
            try:
                cells.append(cell | _cell(request, paper, table, name, row, data, splits, loaded))
                facts |= {checkpoint.facts["name"]: checkpoint.facts for checkpoint in loaded.values()}
            except NotRun as missing:
                cells.append(cell | {"not_run": f"needs {missing.needs}", "command": missing.command})
    return {
        "paper": request.paper,
        "table": request.table,
        **provenance(request.command(), request.seed),
        "data": public_name(request.data) if request.data else None,
        "models": facts,
        "protocol": {
            "draws": request.draws,
            "split": table.split,
            "mean": "of the objects of a data set, then of the draws; sample standard deviation",
        },
        "cells": cells,
    }


def _cell(
    request: BenchRequest,
    paper: Paper,
    table: PaperTable,
    name: str,
    row: TableRow,
    data: TableData,
    splits: dict[str, Dataset],
    loaded: dict[str, Loaded],
) -> dict[str, Any]:
    tested, training, part = _rows(paper, table, data, splits)
    checkpoint = _checkpoint(request, paper, name, row, data, loaded)
    metrics = [METRICS[metric] for metric in table.metrics]
    describe = "Acc." in table.metrics and row.variant != "tddf_only"
    scores_of = diagnosis(checkpoint.model, checkpoint.processor, describe)
    found = measure(scores_of, tested, training, row.shots, request.draws, request.seed, metrics)
    return {"model": checkpoint.facts["name"], "part": part, **found}


def diagnosis(model: Any, processor: Any, describe: bool) -> Measured:
    """Scores of a diagnosing model, see `measure`."""

    def scores_of(rows: Any, references: list[Any]) -> DiagnosisScores:
        return evaluate_diagnosis(model, processor, rows, references or None, describe)

    return scores_of


def _rows(
    paper: Paper, table: PaperTable, data: TableData, splits: dict[str, Dataset]
) -> tuple[Dataset, Dataset, str]:
    """Tested rows, rows for references, and which part of the whole set lies there ("" for all of it)."""
    of_set = {split: of_source(rows, data.source) for split, rows in splits.items()}
    images = sum(map(len, of_set.values()))
    if not images:
        raise NotRun(f"{data.source} in the data", paper.build.format(sources=data.source))
    whole = sum(load_subsets()[data.source].expected.values())
    part = f"{images:,} of {whole:,} images" if images < whole else ""
    if table.split == OFFICIAL_TEST:
        everything = concatenate_datasets(list(of_set.values()))
        official = [index for index, split in enumerate(everything["official_split"]) if split == "test"]
        others = sorted(set(range(len(everything))) - set(official))
        return everything.select(official), everything.select(others), part
    return of_set["test"], of_set["train"], part


def _checkpoint(
    request: BenchRequest, paper: Paper, name: str, row: TableRow, data: TableData, loaded: dict[str, Loaded]
) -> Loaded:
    """The checkpoint of a row and a data set, checked against what the table asks for."""
    key = data.trained_on or name
    place = request.models.get(key) or (request.models.get("") if row.variant == "default" else None)
    command = training_command(paper, row.variant, key)
    if data.trained_on:
        command = f"{paper.build.format(sources=data.trained_on)} && {command}"
    if place is None:
        raise NotRun(f"a checkpoint {'trained on ' if data.trained_on else ''}{key!r}", command)
    run = recorded_run(place)
    if data.trained_on:
        sources = training_sources(run) or {"what its run.json does not say"}
        if data.trained_on not in sources or data.source in sources:
            raise NotRun(
                f"a checkpoint trained on {data.trained_on}; this one saw {', '.join(sorted(sources))}", command
            )
    if place not in loaded:
        loaded.clear()  # at the paper's size, two do not fit
        loaded[place] = load_checkpoint(place)
    checkpoint = loaded[place]
    if problem := mismatch(paper, row.variant, checkpoint.model.config, run):
        raise NotRun(f"{problem} ({public_name(place)})", command)
    return checkpoint


def mismatch(paper: Paper, variant: str, config: Any, run: RunFacts | None) -> str:
    """Which option of any variant a checkpoint has otherwise than the variant that it is measured as; empty: none.

    Args:
        paper: with the variants.
        variant: where it does not name an option, a switch has the configuration's default. Sizes, which differ
            between presets, and options of the training only must not be those of another variant.
        config: of the checkpoint.
        run: its record, for the options of the training; a variant that names one cannot do without.
    """
    variants = {name: _flat(options) for name, options in paper.variants.items()}
    own = variants[variant]
    for option in sorted({option for options in variants.values() for option in options}):
        if hasattr(config, option):
            found, default = getattr(config, option), getattr(SpgddGptConfig(), option)
        else:
            found, default = run.recipe.get(option) if run else None, None
        wanted = own.get(option, default if isinstance(default, str) else None)
        if wanted is not None and found != wanted:
            stated = "what run.json does not say" if found is None else repr(found)
            return f"a checkpoint with {option}={wanted!r}; this one has {stated}"
        if wanted is None and any(options.get(option) == found for options in variants.values() if option in options):
            return f"a checkpoint with another {option} than {found!r}"
    return ""


def _flat(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a variant, those of the configuration and of the training side by side."""
    return options.get("model_config", {}) | {name: value for name, value in options.items() if name != "model_config"}


def load_checkpoint(place: str) -> Loaded:
    """A checkpoint, by folder or Hub id, with facts about it."""
    pipe = load_pipeline(place, fastest=False)
    model, processor = pipe.model, pipe.processor
    sources = training_sources(recorded_run(place))
    facts = {
        "name": public_name(place),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "input_px": processor.image_processor.size["height"],
        "image_score": model.config.image_score,
        "trained_on": None if sources is None else sorted(sources),
    }
    return Loaded(model, processor, facts)


def training_sources(run: RunFacts | None) -> set[str] | None:
    """Names of the sets that a checkpoint and those before it learned from; None without a record."""
    if run is None:
        return None
    uses = (use for _, stage in stages(run) for use in stage.uses if use.use == "training")
    return {source.source or "unknown" for use in uses for source in use.sources}


def training_command(paper: Paper, variant: str, name: str) -> str:
    """The command that trains a variant by the paper's recipe."""
    folder = "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-")
    words = without_places([*variant_arguments(paper.variants[variant]), "--output_dir", f"runs/{folder}"])
    return f"{paper.train} {words}"


def variant_arguments(options: dict[str, Any]) -> list[str]:
    """Options of a variant as arguments of the training script."""
    words = []
    for option, value in options.items():
        values = [json.dumps(value)] if isinstance(value, dict) else value if isinstance(value, list) else [value]
        words += [f"--{option}", *map(str, values)]
    return words


def write_record(record: dict[str, Any], out: Path) -> None:
    """Write a record, complete or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def parse_models(arguments: Sequence[str]) -> dict[str, str]:
    """`NAME=FOLDER` or `FOLDER` of the command line, by name."""
    return dict(_named(argument) for argument in arguments)


def _named(argument: str) -> tuple[str, str]:
    name, equals, place = argument.partition("=")
    return (name, place) if equals else ("", argument)
