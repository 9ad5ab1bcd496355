"""The verb `defect-hub evaluate`. Heavy imports wait until it runs, so that `--help` is quick."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_evaluate_verb(parser: argparse.ArgumentParser) -> None:
    """Add the options; `run` is a function of the parsed arguments."""
    parser.add_argument("--model", metavar="ID", help="folder or Hub id (default: the one inside the package)")
    parser.add_argument("--data", required=True, metavar="DATA", help="a built data set folder, or a Hub id")
    parser.add_argument("--split", default="test", help="split to evaluate on (default: %(default)s)")
    few_shot = parser.add_mutually_exclusive_group()
    few_shot.add_argument(
        "--shots", type=int, default=0, metavar="K", help='normal references of each object, drawn from "train"'
    )
    few_shot.add_argument(
        "--reference", type=Path, nargs="+", default=[], metavar="OK", help="normal images of the same object"
    )
    parser.add_argument(
        "--draws", type=int, default=1, metavar="N", help="draws of references; with several, mean and deviation"
    )
    parser.add_argument("--seed", type=int, default=42, help="of draws and intervals (default: %(default)s)")
    parser.add_argument("--no-describe", action="store_true", help="maps and scores only, no text")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("evaluation"),
        help="folder to write; an earlier evaluation is replaced (default: evaluation)",
    )
    parser.set_defaults(run=_evaluate)


def _evaluate(args: argparse.Namespace) -> None:
    from defect_hub.embedded import EMBEDDED_CHECKPOINT
    from defect_hub.evaluation.run import EvaluationRequest, evaluate

    request = EvaluationRequest(
        model=args.model or str(EMBEDDED_CHECKPOINT),
        data=args.data,
        split=args.split,
        out=args.out,
        shots=args.shots,
        references=args.reference,
        draws=args.draws,
        describe=not args.no_describe,
        seed=args.seed,
    )
    print(evaluate(request))
