"""Diagnose millions of images: `accelerate launch -m defect_hub.train.predict --model ID --data DATA --out FOLDER`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="defect_hub.train.predict", description="Diagnose all images of a data set.")
    parser.add_argument("--model", required=True, metavar="ID", help="folder or Hub id")
    parser.add_argument(
        "--data", required=True, metavar="DATA", help="a built data set folder, a Hub id, or a folder of image files"
    )
    parser.add_argument("--config", default="default", help="of the data set (default: %(default)s)")
    parser.add_argument("--split", default="test", help="of data set and predictions (default: %(default)s)")
    parser.add_argument("--streaming", action="store_true", help="read the data set without copying it here")
    normal = parser.add_mutually_exclusive_group()
    normal.add_argument(
        "--reference", type=Path, nargs="+", default=[], metavar="OK", help="normal images of the same object"
    )
    normal.add_argument("--memory-bank", metavar="NAME", help="normal images that are saved with the model")
    parser.add_argument("--object", metavar="NAME", help="what images show whose row does not say")
    parser.add_argument("--threshold", type=float, metavar="T", help="score from which an image counts as defective")
    parser.add_argument(
        "--batch-size", type=int, default=16, metavar="N", help="images at once (default: %(default)s)"
    )
    parser.add_argument(
        "--num-workers", type=int, metavar="N", help="decoding processes of each process (default: 4 on a GPU, else 0)"
    )
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="number format of the model (default: the checkpoint's)",
    )
    parser.add_argument("--no-describe", action="store_true", help="a template sentence in place of generated text")
    parser.add_argument("--maps", action="store_true", help="keep the anomaly maps, as 16-bit PNGs")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write, or to go on with")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; problems of the user's input or disk become one line on stderr.

    Returns:
        0, or 2 after an error; after a signal the process leaves with 75.
    """
    args = build_parser().parse_args(argv)
    # Its threads do not survive the fork of the loading processes.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from defect_hub.train.prediction.request import PredictionRequest
    from defect_hub.train.prediction.run import predict

    try:
        if args.batch_size < 1:
            raise ValueError(f"--batch-size {args.batch_size}: is below 1. Give at least 1")
        line = predict(
            PredictionRequest(
                model=args.model,
                data=args.data,
                out=args.out,
                config=args.config,
                split=args.split,
                streaming=args.streaming,
                references=tuple(args.reference),
                memory_bank=args.memory_bank,
                object_name=args.object,
                threshold=args.threshold,
                describe=not args.no_describe,
                maps=args.maps,
                dtype=args.dtype,
                batch_size=args.batch_size,
                num_workers=args.num_workers,
            )
        )
    except (OSError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    if line:
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
