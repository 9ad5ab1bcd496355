"""The command `defect-hub`. Heavy imports wait until a verb needs them, so that `--help` is quick."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from defect_hub._version import __version__
from defect_hub.bench_commands import add_bench_verb
from defect_hub.calibration_commands import add_calibrate_verb
from defect_hub.convert_commands import add_convert_verb
from defect_hub.data_commands import add_data_verbs
from defect_hub.evaluation_commands import add_evaluate_verb
from defect_hub.publish_commands import add_publish_verbs


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs; each sets `run`, a function of the parsed arguments."""
    parser = argparse.ArgumentParser(prog="defect-hub", description="Industrial-defect data sets and models.")
    parser.add_argument("--version", action="version", version=f"defect-hub {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    add_convert_verb(verbs.add_parser("convert", help="make checkpoints of other libraries' weights"))
    add_data_verbs(verbs.add_parser("data", help="build, check and prepare data sets"))
    _add_diagnose(verbs.add_parser("diagnose", help="find and describe defects in images"))
    add_evaluate_verb(verbs.add_parser("evaluate", help="metrics of a model on a split, with intervals and plots"))
    add_calibrate_verb(verbs.add_parser("calibrate", help="choose a model's thresholds on images of yours"))
    add_bench_verb(verbs.add_parser("bench", help="a paper's table, measured here by its protocol"))
    add_publish_verbs(verbs.add_parser("publish", help="put data sets, models, metrics and Spaces on the Hub"))
    return parser


def _add_diagnose(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files, or folders of them")
    parser.add_argument("--model", metavar="ID", help="folder or Hub id (default: the one inside the package)")
    normal = parser.add_mutually_exclusive_group()
    normal.add_argument(
        "--reference", type=Path, nargs="+", default=[], metavar="OK", help="normal images of the same object"
    )
    normal.add_argument("--memory-bank", metavar="NAME", help="normal images that are saved with the model")
    parser.add_argument("--object", metavar="NAME", help='what the images show, e.g. "magnetic tile"')
    parser.add_argument("--threshold", type=float, metavar="T", help="score from which an image counts as defective")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report"),
        help="folder to write; an earlier report is replaced (default: report)",
    )
    parser.add_argument("--no-describe", action="store_true", help="a template sentence in place of generated text")
    parser.set_defaults(run=_diagnose)


def _diagnose(args: argparse.Namespace) -> None:
    from defect_hub.diagnose import DiagnosisRequest, diagnose
    from defect_hub.embedded import EMBEDDED_CHECKPOINT

    request = DiagnosisRequest(
        images=args.images,
        out=args.out,
        model=args.model or str(EMBEDDED_CHECKPOINT),
        references=args.reference,
        memory_bank=args.memory_bank,
        object_name=args.object,
        threshold=args.threshold,
        describe=not args.no_describe,
    )
    print(diagnose(request))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; problems of the user's input or disk become one line on stderr.

    Returns:
        0, or 2 after an error or where a check found problems, 130 after an interrupt.
    """
    args = build_parser().parse_args(argv)
    try:
        status: int | None = args.run(args)
    except (OSError, ValueError) as error:  # DataError is a ValueError.
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return status or 0


if __name__ == "__main__":
    sys.exit(main())
