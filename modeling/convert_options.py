"""Options of the conversion, apart from what it imports, so that `--help` is quick."""

import argparse
from pathlib import Path

DTYPES = ("float32", "bfloat16", "float16")
VICUNA_SYSTEM_PROMPT = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of [`convert_spgdd_gpt.convert`]."""
    parser.add_argument(
        "--clip", required=True, metavar="FILE_OR_ID", help="open_clip weights: file, folder or Hub id"
    )
    parser.add_argument(
        "--llm", required=True, metavar="FOLDER_OR_ID", help="language model: folder or Hub id; none for a detector"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="new folder")
    parser.add_argument("--clip-revision", metavar="REV", help="commit, tag or branch of the Hub id (default: main)")
    parser.add_argument("--llm-revision", metavar="REV", help="likewise")
    parser.add_argument(
        "--dtype", choices=DTYPES, help="of the weights (default: bfloat16, and float32 for a detector)"
    )
    parser.add_argument(
        "--object", default="object", metavar="NAME", help="what the images show (default: %(default)s)"
    )
    parser.add_argument(
        "--system-prompt",
        default=VICUNA_SYSTEM_PROMPT,
        metavar="TEXT",
        help="sentences before the conversation; empty for none (default: Vicuna v1.5's)",
    )
