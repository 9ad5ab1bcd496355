"""Every variant of the paper's ablation tables at tiny scale: trained shortly from one checkpoint, then measured.

    python -m defect_hub.benchmarks.ablations --data MT_BUILD --tested BUILD --subsets MT CFD

The variants and checks are those of `tables/spgdd_gpt.yaml`. Each writes one record; one that is there is kept, so the
command goes on where it was interrupted.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any

from defect_hub.benchmarks.ablation_page import DEFAULT, IMAGE_SCORES, TABLE
from defect_hub.benchmarks.bench import diagnosis, load_checkpoint, variant_arguments, write_record
from defect_hub.benchmarks.measuring import NotRun, measure, of_source, provenance
from defect_hub.benchmarks.paper_tables import METRICS, load_paper
from defect_hub.embedded import EMBEDDED_CHECKPOINT
from defect_hub.train.data import load_split
from defect_hub.train.recording import public_name, without_places
from defect_hub.train.spgdd_gpt import main as train

PAPER = "spgdd-gpt"
RECIPE = "spgdd_gpt_tiny_mt.yaml"
DESCRIBED_SHOTS = (0, 1)


def is_trained(options: dict[str, Any]) -> bool:
    """Whether a variant has weights of its own; else it is the default's checkpoint, evaluated in another way."""
    return "evaluate" not in options


def shots_of(options: dict[str, Any]) -> tuple[int, ...]:
    """Numbers of references of a variant: what never saw one in training is not shown any."""
    return (0,) if options.get("reference_counts") == [0] else (0, 1, 2, 4)


def run_variant(name: str, request: argparse.Namespace) -> None:
    """Train a variant unless that is done, measure it, and write its record."""
    options = load_paper(PAPER).all_variants()[name]
    folder = request.work / (name if is_trained(options) else DEFAULT)
    if not (folder / "model").is_dir():
        if not is_trained(options):
            raise ValueError(f"{folder / 'model'}: no checkpoint. Run the variant {DEFAULT!r} first")
        recipe = files("defect_hub.train") / "configs" / RECIPE
        arguments = ["--config", str(recipe), "--model", str(EMBEDDED_CHECKPOINT), "--data", request.data]
        arguments += ["--output_dir", str(folder), "--max_steps", str(request.steps), "--eval_split", ""]
        train([*arguments, *variant_arguments(options)])
    checkpoint = load_checkpoint(str(folder / "model"))
    checkpoint.model.config.update(options.get("evaluate", {}))
    splits = {split: load_split(request.tested, split) for split in ("train", "test")}
    cells = []
    for subset in request.subsets:
        train_rows, test_rows = (of_source(splits[split], subset) for split in ("train", "test"))
        for shots in shots_of(options):
            cell = {"row": f"{shots}-shot", "data": subset, "shots": shots, "model": name, "part": ""}
            describe = shots in DESCRIBED_SHOTS and name != "tddf_only"
            scores_of = diagnosis(checkpoint.model, checkpoint.processor, describe)
            wanted = [metric for metric in METRICS.values() if describe or metric != METRICS["Acc."]]
            wanted += IMAGE_SCORES
            try:
                found = measure(scores_of, test_rows, train_rows, shots, request.draws, request.seed, wanted)
            except NotRun as missing:
                found = {"not_run": f"needs {missing.needs}", "command": missing.command}
            cells.append(cell | found)
    record = {
        "paper": PAPER,
        "table": TABLE,
        "variant": name,
        "options": options,
        "steps": request.steps,
        **provenance(command_of(request), request.seed),
        "data": public_name(request.data),
        "models": {name: checkpoint.facts | {"name": name}},
        "protocol": {
            "draws": request.draws,
            "split": "test",
            "mean": "of the objects of a data set, then of the draws; sample standard deviation",
        },
        "cells": cells,
    }
    write_record(record, record_file(request.out, name))


def record_file(folder: Path, name: str) -> Path:
    """The record of a variant."""
    return folder / f"{PAPER.replace('-', '_')}_ablation_{name}.json"


def command_of(request: argparse.Namespace) -> str:
    """That repeats all variants, without the places of this machine."""
    words = ["--data", public_name(request.data), "--tested", public_name(request.tested)]
    words += ["--subsets", *request.subsets, "--steps", str(request.steps), "--draws", str(request.draws)]
    return f"python -m defect_hub.benchmarks.ablations {without_places([*words, '--seed', str(request.seed)])}"


def run_all(request: argparse.Namespace, arguments: Sequence[str]) -> list[str]:
    """Run what has no record yet, each variant in a process of its own; returns the names of those that failed."""

    def run(name: str) -> int:
        log = request.work / f"{name}.log"
        with log.open("w") as output:
            own = [sys.executable, "-m", "defect_hub.benchmarks.ablations", *arguments, "--only", name]
            code = subprocess.run(own, stdout=output, stderr=subprocess.STDOUT).returncode
        print(f"{name}: {'done' if code == 0 else f'failed, see {log}'}", flush=True)
        return code

    request.work.mkdir(parents=True, exist_ok=True)
    left = [name for name in load_paper(PAPER).all_variants() if not record_file(request.out, name).is_file()]
    failed: list[str] = []
    for trained in (True, False):  # the others evaluate the default's checkpoint
        names = [name for name in left if is_trained(load_paper(PAPER).all_variants()[name]) == trained]
        with ThreadPoolExecutor(request.jobs) as pool:
            failed += [name for name, code in zip(names, pool.map(run, names), strict=True) if code]
    return failed


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of this module."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="build that the variants are trained on")
    parser.add_argument("--tested", required=True, help="build that they are tested on")
    parser.add_argument("--subsets", nargs="+", default=["MT", "CFD"], help="of it (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=150, help="of training (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=5, help="of references (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=42, help="of the draws (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("runs/ablations"), help="folder of checkpoints and logs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the records")
    parser.add_argument("--jobs", type=int, default=1, help="variants at a time (default: %(default)s)")
    parser.add_argument("--only", choices=list(load_paper(PAPER).all_variants()), help="one variant, in this process")
    options = parser.parse_args(arguments)
    if options.only:
        run_variant(options.only, options)
    elif failed := run_all(options, arguments):
        sys.exit(f"error: {', '.join(failed)}: failed; run the command again after mending it")


if __name__ == "__main__":
    main()
