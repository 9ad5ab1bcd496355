"""The verb `defect-hub calibrate`. Heavy imports wait until it runs, so that `--help` is quick."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_calibrate_verb(parser: argparse.ArgumentParser) -> None:
    """Add the options; `run` is a function of the parsed arguments."""
    parser.add_argument("--model", required=True, metavar="ID", help="folder or Hub id")
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument("--data", metavar="DATA", help="a built data set folder, or a Hub id")
    images.add_argument(
        "--normal", type=Path, nargs="+", default=[], metavar="IMAGE", help="normal images, or folders of them"
    )
    parser.add_argument("--split", help="split of DATA, not that of training and not that of the final test")
    parser.add_argument("--object", metavar="NAME", help='what the images of --normal show, e.g. "magnetic tile"')
    parser.add_argument(
        "--method",
        choices=("f1", "quantile"),
        help="f1 needs normal and defective images, quantile normal ones (default: f1, with --normal quantile)",
    )
    parser.add_argument(
        "--quantile",
        type=float,
        metavar="Q",
        help="share of normal images to call normal, e.g. 0.99 (default with the method quantile)",
    )
    few_shot = parser.add_mutually_exclusive_group()
    few_shot.add_argument(
        "--shots",
        type=int,
        default=0,
        metavar="K",
        help='normal references of each object, drawn from the split "train", or from the images of --normal',
    )
    few_shot.add_argument(
        "--reference", type=Path, nargs="+", default=[], metavar="OK", help="normal images of the same object"
    )
    parser.add_argument("--draws", type=int, default=1, metavar="N", help="draws of references")
    parser.add_argument("--seed", type=int, default=42, help="of the draws (default: %(default)s)")
    parser.add_argument(
        "--image-score",
        choices=("max", "cls", "mean"),
        help="score of an image: maximum of its map, CLS softmax, or their mean (default: the model's own)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="new model folder; without it the folder --model is changed"
    )
    parser.set_defaults(run=_calibrate)


def _calibrate(args: argparse.Namespace) -> None:
    from defect_hub.evaluation.calibrate import DEFAULT_QUANTILE, CalibrationRequest, calibrate_checkpoint

    method = args.method or ("quantile" if args.normal or args.quantile is not None else "f1")
    if method == "f1" and args.quantile is not None:
        raise ValueError(f"--quantile {args.quantile:g}: --method f1 takes none. Leave one of them out")
    if method == "f1" and args.normal:
        raise ValueError("--method f1: needs defective images too. Give --data, or take --method quantile")
    if args.data and not args.split:
        raise ValueError("--data: needs the name of a split. Add --split")
    quantile = DEFAULT_QUANTILE if args.quantile is None else args.quantile
    request = CalibrationRequest(
        model=args.model,
        data=args.data,
        split=args.split,
        normal=args.normal,
        object_name=args.object,
        quantile=quantile if method == "quantile" else None,
        shots=args.shots,
        references=args.reference,
        draws=args.draws,
        seed=args.seed,
        image_score=args.image_score,
        out=args.out,
    )
    print(calibrate_checkpoint(request))
