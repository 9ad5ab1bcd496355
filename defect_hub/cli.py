"""The command `defect-hub`. Heavy imports wait until a verb needs them, so that `--help` is quick."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from defect_hub._version import __version__


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs; each sets `run`, a function of the parsed arguments."""
    parser = argparse.ArgumentParser(prog="defect-hub", description="Industrial-defect data sets and models.")
    parser.add_argument("--version", action="version", version=f"defect-hub {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    _add_data(verbs.add_parser("data", help="build and prepare data sets"))
    _add_diagnose(verbs.add_parser("diagnose", help="find and describe defects in images"))
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    build = verbs.add_parser("build", help="write a data set folder that load_dataset reads")
    names = build.add_subparsers(required=True, metavar="DATASET")

    steeldefectx = names.add_parser("steeldefectx", help="SteelDefectX from its release layout")
    steeldefectx.add_argument("--raw", type=Path, required=True, help="folder with train/, train_mask/, ...")
    steeldefectx.set_defaults(run=_build_steeldefectx)

    steelsynth = names.add_parser("steelsynth", help="generated steel surfaces; needs no data")
    steelsynth.add_argument("--n", type=int, default=2000, help="number of images (default: %(default)s)")
    steelsynth.add_argument("--seed", type=int, default=42, help="seed of the generator (default: %(default)s)")
    steelsynth.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    steelsynth.set_defaults(run=_build_steelsynth)

    tadd = names.add_parser("tadd", help="TADD subsets from the public sets' own folders")
    tadd.add_argument("--raw", type=Path, required=True, help="the subset's folder, or the parent of several")
    tadd.add_argument("--subset", nargs="+", default=["MT"], metavar="NAME", help="subsets (default: MT)")
    tadd.set_defaults(run=_build_tadd)

    for name in (steeldefectx, steelsynth, tadd):
        name.add_argument("--out", type=Path, required=True, help="folder to write; an earlier build is replaced")

    prepare = verbs.add_parser("prepare", help='cache a built folder, so that load_dataset("NAME") works anywhere')
    prepare.add_argument("folder", type=Path, help="a built data set folder; its name becomes the data set's name")
    prepare.set_defaults(run=_prepare)


def _add_diagnose(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files, or folders of them")
    parser.add_argument("--model", metavar="ID", help="folder or Hub id (default: the one inside the package)")
    parser.add_argument(
        "--reference", type=Path, nargs="+", default=[], metavar="OK", help="normal images of the same object"
    )
    parser.add_argument("--object", metavar="NAME", help='what the images show, e.g. "magnetic tile"')
    parser.add_argument("--threshold", type=float, metavar="T", help="score from which an image counts as defective")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report"),
        help="folder to write; an earlier report is replaced (default: report)",
    )
    parser.add_argument("--no-describe", action="store_true", help="maps and scores only, no text")
    parser.set_defaults(run=_diagnose)


def _build_steeldefectx(args: argparse.Namespace) -> None:
    from defect_hub.dataset_scripts.steeldefectx.build import build_steeldefectx

    print(*build_steeldefectx(args.raw, args.out).lines(), sep="\n")


def _build_steelsynth(args: argparse.Namespace) -> None:
    from defect_hub.dataset_scripts.steelsynth.build import build_steelsynth

    print(*build_steelsynth(args.out, args.n, args.seed, args.workers).lines(), sep="\n")


def _build_tadd(args: argparse.Namespace) -> None:
    from defect_hub.dataset_scripts.tadd.build import build_tadd

    print(*build_tadd(args.raw, args.out, args.subset).lines(), sep="\n")


def _prepare(args: argparse.Namespace) -> None:
    from defect_hub.dataset_scripts.prepare import prepare_cache

    for config in prepare_cache(args.folder):
        print(f'load_dataset("{args.folder.resolve().name}", "{config}")')


def _diagnose(args: argparse.Namespace) -> None:
    from defect_hub.diagnose import DiagnosisRequest, diagnose
    from defect_hub.embedded import EMBEDDED_CHECKPOINT

    request = DiagnosisRequest(
        images=args.images,
        out=args.out,
        model=args.model or str(EMBEDDED_CHECKPOINT),
        references=args.reference,
        object_name=args.object,
        threshold=args.threshold,
        describe=not args.no_describe,
    )
    print(diagnose(request))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; problems of the user's input or disk become one line on stderr.

    Returns:
        0, or 2 after an error, 130 after an interrupt.
    """
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
    except (OSError, ValueError) as error:  # DataError is a ValueError.
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
