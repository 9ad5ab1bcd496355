"""The verbs of `defect-hub publish`. Imports wait until a verb needs them, so that `--help` is quick."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from defect_hub.publishing.organisation import Entry
    from defect_hub.publishing.staged import Staged

STAGING = Path("~/.cache/defect-hub/publishing")
Stage = Callable[[Path, str, Path, argparse.Namespace], "Staged"]


def add_publish_verbs(parser: argparse.ArgumentParser) -> None:
    """Add all verbs; each sets `run`, a function of the parsed arguments."""
    parser.description = (
        "Publish folders as repositories of the Hub. Start with --dry-run: it shows what would change."
    )
    verbs = parser.add_subparsers(required=True, metavar="KIND")

    dataset = verbs.add_parser("dataset", help="a folder that `data build` wrote")
    dataset.add_argument(
        "--i-hold-the-rights",
        nargs="+",
        default=(),
        metavar="SOURCE",
        dest="keep",
        help="sources whose images are published although their licence does not allow it to everybody",
    )
    dataset.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: all)")
    dataset.set_defaults(stage=_stage_dataset)

    model = verbs.add_parser("model", help="a checkpoint folder that training wrote")
    model.add_argument(
        "--base",
        nargs="+",
        default=(),
        metavar="PART=ID[@REVISION]",
        help="parts to leave out because they equal a model of the Hub, e.g. language_model=lmsys/vicuna-7b-v1.5",
    )
    model.set_defaults(stage=_stage_model)

    metric = verbs.add_parser("metric", help="a folder of evaluate_metrics/, as a Space")
    metric.set_defaults(stage=_stage_metric)
    space = verbs.add_parser("space", help="a folder of spaces/")
    space.add_argument(
        "--model",
        nargs="+",
        default=(),
        dest="models",
        metavar="ID",
        help="models for the card; the Space runs the first (default: the one in the package)",
    )
    space.set_defaults(stage=_stage_space, datasets=())

    for verb in (dataset, model, metric, space):
        verb.add_argument("folder", type=Path, metavar="FOLDER")
        verb.add_argument("--repo", required=True, metavar="NAMESPACE/NAME")
        verb.add_argument("--revision", default="main", metavar="BRANCH", help="branch (default: %(default)s)")
        verb.add_argument("--create-pr", action="store_true", help="propose the change as a pull request")
        verb.add_argument("--tag", metavar="TAG", help="name for the resulting state, e.g. v1.0.0")
        verb.set_defaults(run=_publish)
    everything = verbs.add_parser("all", help="every repository of organisation.yaml, and their collections")
    everything.add_argument("--org", required=True, metavar="NAMESPACE", help="organisation, or your user name")
    everything.add_argument(
        "--table", type=Path, default=Path("organisation.yaml"), help="what belongs to it (default: %(default)s)"
    )
    everything.add_argument("--skip-missing", action="store_true", help="go on without folders that are not built")
    everything.set_defaults(run=_publish_all)

    for verb in (metric, space, everything):
        verb.add_argument(
            "--requirement",
            metavar="LINE",
            help="what Spaces install instead of defect-hub from PyPI, e.g. 'defect-hub[space] @ https://...whl'",
        )
    for verb in (dataset, model, metric, space, everything):
        verb.add_argument("--private", action="store_true", help="make a new repository private")
        verb.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")
        verb.add_argument(
            "--overwrite", action="store_true", help="also replace what was edited on the Hub or written by others"
        )
        verb.add_argument(
            "--staging", type=Path, default=STAGING, help="folder for files on their way (default: %(default)s)"
        )


def _publish(args: argparse.Namespace) -> None:
    from defect_hub.publishing.hub import SAME_COMMAND
    from defect_hub.publishing.upload import Target, publish

    target = Target(args.repo, args.revision, args.private, args.create_pr, args.tag)
    if not args.folder.is_dir():
        raise ValueError(f"{args.folder}: there is no such folder")
    # The same folder when the command is repeated, so that nothing is made twice.
    key = hashlib.sha256(f"{args.folder.resolve()}\n{args.repo}".encode()).hexdigest()[:12]
    staging = args.staging.expanduser() / f"{args.repo.replace('/', '--')}-{key}"
    staging.mkdir(mode=0o700, parents=True, exist_ok=True)  # It may hold images that nobody else shall see.
    try:
        staged = args.stage(args.folder, args.repo, staging, args)
        publish(staged, target, dry_run=args.dry_run, overwrite=args.overwrite)
        if not args.dry_run:
            shutil.rmtree(staging, ignore_errors=True)
    except KeyboardInterrupt:
        print(f"interrupted; {SAME_COMMAND}", file=sys.stderr)
        raise
    finally:
        if staging.is_dir() and not any(staging.iterdir()):
            staging.rmdir()


def _publish_all(args: argparse.Namespace) -> int:
    """Publish what is built, entry by entry; one that fails does not keep the others back."""
    from huggingface_hub import HfApi

    from defect_hub.publishing.collection import ensure_collections
    from defect_hub.publishing.organisation import load_organisation

    organisation = load_organisation(args.table)
    for entry in organisation.entries:
        print(entry.line(args.org))
    missing = [entry.name for entry in organisation.entries if not entry.is_built]
    if missing and not (args.dry_run or args.skip_missing):
        raise ValueError(f"{args.table}: {', '.join(missing)}: not built; build them or give --skip-missing")
    failed = []
    for entry in organisation.entries:
        if entry.is_built:
            print()
            try:
                _publish(_arguments(args, entry))
            except (OSError, ValueError) as error:
                print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
                failed.append(entry.name)
    if failed:
        print(f"error: not published: {', '.join(failed)}", file=sys.stderr)
    print()
    print(*ensure_collections(HfApi(), args.org, organisation.collections, args.dry_run, args.private), sep="\n")
    return 2 if failed else 0


def _arguments(args: argparse.Namespace, entry: Entry) -> argparse.Namespace:
    """The arguments with which one entry is published alone."""
    stages: dict[str, Stage] = {"dataset": _stage_dataset, "model": _stage_model, "metric": _stage_metric}
    return argparse.Namespace(
        **{**vars(args), "folder": entry.folder, "repo": entry.repo_id(args.org)},
        stage=stages.get(entry.kind, _stage_space),
        revision="main",
        create_pr=False,
        tag=None,
        keep=(),
        workers=len(os.sched_getaffinity(0)),
        base=(),
        models=[f"{args.org}/{name}" for name in entry.models],
        datasets=[f"{args.org}/{name}" for name in entry.datasets],
    )


def _stage_dataset(folder: Path, repo: str, staging: Path, args: argparse.Namespace) -> Staged:
    from defect_hub.publishing.dataset import stage_dataset

    return stage_dataset(folder, repo, staging, args.keep, args.workers)


def _stage_model(folder: Path, repo: str, staging: Path, args: argparse.Namespace) -> Staged:
    from defect_hub.publishing.model import stage_model

    bases = {}
    for text in args.base:
        part, separator, base = text.partition("=")
        if not separator:
            raise ValueError(f"--base {text}: is not of the form PART=ID[@REVISION]")
        bases[part] = base
    return stage_model(folder, repo, staging, bases)


def _stage_metric(folder: Path, repo: str, staging: Path, args: argparse.Namespace) -> Staged:
    from defect_hub.publishing.space import stage_metric

    return stage_metric(folder, repo, staging, args.requirement)


def _stage_space(folder: Path, repo: str, staging: Path, args: argparse.Namespace) -> Staged:
    from defect_hub.publishing.space import stage_space

    return stage_space(folder, repo, staging, args.requirement, args.models, args.datasets)
