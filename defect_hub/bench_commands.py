"""The verb `defect-hub bench`. Heavy imports wait until it runs, so that `--help` is quick."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_bench_verb(parser: argparse.ArgumentParser) -> None:
    """Add the options; `run` is a function of the parsed arguments."""
    parser.add_argument("paper", metavar="MODEL", help='whose paper: "spgdd-gpt"')
    parser.add_argument("--table", type=int, required=True, metavar="N", help="number of the table in the paper")
    parser.add_argument("--data", default="", metavar="DATA", help="a built TADD folder, or a Hub id")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="[NAME=]ID",
        help="folder or Hub id; NAME is a row of an ablation, or the set that it was trained on; may be given again",
    )
    parser.add_argument("--seed", type=int, default=42, help="of the draws of references (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=5, metavar="N", help="draws of references (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON record to write, for `make tables`")
    parser.set_defaults(run=_bench)


def _bench(args: argparse.Namespace) -> None:
    from defect_hub.benchmarks.bench import BenchRequest, parse_models, run_table, write_record
    from defect_hub.benchmarks.pages import table_lines

    request = BenchRequest(args.paper, args.table, args.data, parse_models(args.model), args.seed, args.draws)
    record = run_table(request)
    if args.out:
        write_record(record, args.out)
    print("\n".join(table_lines(args.paper, args.table, [record])))
