"""The verb `defect-hub convert`. Heavy imports wait until it runs, so that `--help` is quick."""

from __future__ import annotations

import argparse

from defect_hub.modeling.convert_options import add_options


def add_convert_verb(parser: argparse.ArgumentParser) -> None:
    """Add a verb for each model; `run` is a function of the parsed arguments."""
    models = parser.add_subparsers(required=True, metavar="MODEL")
    spgdd_gpt = models.add_parser(
        "spgdd-gpt", help="open_clip weights and a language model to a checkpoint that is ready to train"
    )
    add_options(spgdd_gpt)
    spgdd_gpt.set_defaults(run=_convert_spgdd_gpt)


def _convert_spgdd_gpt(args: argparse.Namespace) -> None:
    from defect_hub.modeling.convert_spgdd_gpt import run

    try:
        run(args)
    except ImportError as error:  # open_clip is not installed
        raise ValueError(str(error)) from error
