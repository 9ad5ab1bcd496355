"""The verbs of `defect-hub data`. Imports of the builders wait until a verb needs them, so that `--help` is quick."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from defect_hub.dataset_scripts.mmio.data import MmioData
    from defect_hub.dataset_scripts.samples import Sample

TRANSFER_SETS = {"msd-cls": "MSD-Cls, ten classes of aluminium", "cgfsds-9": "CGFSDS-9, five classes of steel tubes"}


def add_data_verbs(parser: argparse.ArgumentParser) -> None:
    """Add all verbs; each sets `run`, a function of the parsed arguments."""
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    _add_build(verbs.add_parser("build", help="write a data set folder that load_dataset reads"))
    _add_validate(verbs.add_parser("validate", help="check raw data or a built folder, and list all problems"))

    audit = verbs.add_parser("audit", help="find equal and nearly equal images, flips and rotations included")
    audit.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="built data sets, or folders of images")
    audit.add_argument("--out", type=Path, metavar="JSON", help="also write all groups and pairs to this file")
    _add_workers(audit)
    audit.set_defaults(run=_audit)

    stats = verbs.add_parser("stats", help="statistics and figures of a built folder, shown by its card")
    stats.add_argument("folder", type=Path, help="a built data set folder")
    stats.set_defaults(run=_stats)

    _add_release(
        verbs.add_parser("release", help="copy of a built folder without the images that must not be redistributed")
    )
    _add_join(verbs.add_parser("join", help="put your own copies of the images into a released folder"))

    _add_export(verbs.add_parser("export", help="folders of images with COCO and YOLO annotations of a built folder"))
    _add_match(verbs.add_parser("match", help="score texts for the categories of a built folder with a CLIP model"))

    prepare = verbs.add_parser("prepare", help='cache a built folder, so that load_dataset("NAME") works anywhere')
    prepare.add_argument("folder", type=Path, help="a built data set folder; its name becomes the data set's name")
    prepare.set_defaults(run=_prepare)


def _add_build(parser: argparse.ArgumentParser) -> None:
    names = parser.add_subparsers(required=True, metavar="DATASET")
    steeldefectx = names.add_parser(
        "steeldefectx", help="SteelDefectX from its release, or from the sets it was made of"
    )
    _add_steeldefectx_raw(steeldefectx)
    steeldefectx.set_defaults(run=_build_steeldefectx)

    steelsynth = names.add_parser("steelsynth", help="generated steel surfaces; needs no data")
    steelsynth.add_argument("--n", type=int, default=2000, help="number of images (default: %(default)s)")
    steelsynth.add_argument("--seed", type=int, default=42, help="seed of the generator (default: %(default)s)")
    steelsynth.set_defaults(run=_build_steelsynth)

    tadd = names.add_parser("tadd", help="TADD subsets from the public sets' own folders")
    _add_tadd_raw(tadd)
    tadd.set_defaults(run=_build_tadd)

    mmio = names.add_parser("mmio", help="MMIO from its release, or from public sets of its scenes")
    _add_mmio_raw(mmio)
    mmio.add_argument(
        "--prompts", type=Path, metavar="CSV", help="reviewed table of `data match`: texts of categories"
    )
    mmio.set_defaults(run=_build_mmio)

    transfers = []
    for name, title in TRANSFER_SETS.items():
        transfers.append(names.add_parser(name, help=f"{title}: a test set for transfer"))
        _add_transfer_raw(transfers[-1])
        transfers[-1].set_defaults(run=_build_transfer, name=name)

    for built in (steeldefectx, steelsynth, tadd, mmio, *transfers):
        built.add_argument("--out", type=Path, required=True, help="folder to write; an earlier build is replaced")
        _add_workers(built)
    for built in (steeldefectx, tadd, mmio, *transfers):
        built.add_argument("--skip-bad", action="store_true", help="leave out bad images and list them in the card")


def _add_validate(parser: argparse.ArgumentParser) -> None:
    names = parser.add_subparsers(required=True, metavar="DATASET")
    steeldefectx = names.add_parser("steeldefectx", help="raw data of SteelDefectX")
    _add_steeldefectx_raw(steeldefectx)
    steeldefectx.set_defaults(run=_validate_steeldefectx)
    tadd = names.add_parser("tadd", help="raw data of TADD subsets")
    _add_tadd_raw(tadd)
    tadd.set_defaults(run=_validate_tadd)
    mmio = names.add_parser("mmio", help="raw data of MMIO")
    _add_mmio_raw(mmio)
    mmio.set_defaults(run=_validate_mmio)
    built = names.add_parser("built", help="a built folder: row counts, hashes, pictures")
    built.add_argument("folder", type=Path, help="a built data set folder")
    built.set_defaults(run=_validate_built)
    for checked in (steeldefectx, tadd, mmio, built):
        _add_workers(checked)


def _add_release(parser: argparse.ArgumentParser) -> None:
    parser.description = "Copy a built folder without the images that must not be redistributed."
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a built data set folder")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; an earlier build is replaced")
    parser.add_argument(
        "--keep", nargs="+", default=(), metavar="SOURCE", help="sources that stay whole: you hold the rights"
    )
    parser.set_defaults(run=_release)


def _add_join(parser: argparse.ArgumentParser) -> None:
    parser.description = "Find missing images by their content among your own copies; masks of TADD and MMIO sets too."
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a released data set folder")
    parser.add_argument("--raw", type=Path, required=True, help="folder of your copies, searched with all below it")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; an earlier build is replaced")
    _add_workers(parser)
    parser.set_defaults(run=_join)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a built data set folder")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; an earlier export is replaced")
    parser.add_argument("--config", default="default", help="whose rows and splits (default: %(default)s)")
    parser.set_defaults(run=_export)


def _add_match(parser: argparse.ArgumentParser) -> None:
    parser.description = "Write a CSV file of texts and their scores, in which you answer yes or no."
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a built data set folder")
    parser.add_argument(
        "--model", required=True, metavar="ID", help="CLIP: folder or Hub id, open_clip:NAME/WEIGHTS or hf-hub:ID"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="CSV", help="file to write; answers in it are kept")
    parser.add_argument(
        "--texts",
        type=Path,
        metavar="YAML",
        help="candidates, a list or lists by category (default: prompts of the scene)",
    )
    parser.add_argument(
        "--threshold", type=float, default=0.8, help="score from which a text is proposed (default: %(default)s)"
    )
    parser.add_argument(
        "--score", choices=("cosine", "softmax"), default="cosine", help="what is compared (default: %(default)s)"
    )
    parser.set_defaults(run=_match)


def _add_steeldefectx_raw(parser: argparse.ArgumentParser) -> None:
    raw = parser.add_mutually_exclusive_group(required=True)
    raw.add_argument("--raw", metavar="RAW", help="release: a folder with train/, train_mask/, ..., or a Hub id")
    raw.add_argument(
        "--from-sources", type=Path, metavar="RAW", help="folder that holds the source sets (NEU, X-SDD, ...)"
    )
    parser.add_argument("--revision", help="branch, tag or commit of the Hub id")
    parser.add_argument("--skip-missing", action="store_true", help="go on without source sets that are not there")
    parser.add_argument("--sources", type=Path, metavar="YAML", help="own table of the source sets")


def _add_tadd_raw(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--raw", type=Path, required=True, help="parent of the subsets' folders, or the only one")
    parser.add_argument(
        "--subsets",
        type=lambda names: names.split(","),
        metavar="NAME,NAME",
        help="subsets that must be there (default: all that are)",
    )


def _add_mmio_raw(parser: argparse.ArgumentParser) -> None:
    raw = parser.add_mutually_exclusive_group(required=True)
    raw.add_argument("--raw", type=Path, metavar="RAW", help="release: a folder with Images/, labels/, annotations/")
    raw.add_argument(
        "--from-sources", type=Path, metavar="RAW", help="parent of the public sets' folders (docs/mmio.md)"
    )
    parser.add_argument(
        "--scenes",
        type=lambda names: [name.strip() for name in names.split(",")],
        metavar="NAME,NAME",
        help="with --from-sources: scenes of which a set must be there (default: all that are)",
    )
    parser.add_argument("--novel", type=Path, metavar="FILE", help="novel categories, one in each line")
    parser.add_argument("--license", metavar="TEXT", help="with --raw: licence of images that state none")
    parser.add_argument("--redistributable", action="store_true", help="with --raw: these images may be passed on")


def _add_transfer_raw(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--raw", type=Path, required=True, help="folder of the class folders")
    parser.add_argument("--classes", nargs="+", metavar="FOLDER", help="class folders to take (default: all)")


def _add_workers(parser: argparse.ArgumentParser) -> None:
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--workers", type=int, default=cores, help="processes (default: all %(default)s cores)")


def _build_steeldefectx(args: argparse.Namespace) -> None:
    if args.from_sources:
        from defect_hub.dataset_scripts.steeldefectx.assembly import build_from_sources

        _report(
            build_from_sources(
                args.from_sources,
                args.out,
                skip_missing=args.skip_missing,
                sources=args.sources,
                skip_bad=args.skip_bad,
                workers=args.workers,
            )
        )
        return
    from defect_hub.dataset_scripts.steeldefectx.build import build_steeldefectx
    from defect_hub.dataset_scripts.steeldefectx.hub import local_release

    raw = local_release(args.raw, args.revision)
    _report(build_steeldefectx(raw, args.out, skip_bad=args.skip_bad, workers=args.workers))


def _build_steelsynth(args: argparse.Namespace) -> None:
    from defect_hub.dataset_scripts.steelsynth.build import build_steelsynth

    _report(build_steelsynth(args.out, args.n, args.seed, args.workers))


def _build_tadd(args: argparse.Namespace) -> None:
    from defect_hub.dataset_scripts.tadd.build import build_tadd

    _report(build_tadd(args.raw, args.out, args.subsets, skip_bad=args.skip_bad, workers=args.workers))


def _build_mmio(args: argparse.Namespace) -> None:
    from defect_hub.dataset_scripts.mmio.build import build_mmio

    data = _mmio_data(args)
    _report(build_mmio(data, args.out, prompts=args.prompts, skip_bad=args.skip_bad, workers=args.workers))


def _mmio_data(args: argparse.Namespace) -> MmioData:
    """What the raw folder gives, by the way in that the arguments name."""
    if args.from_sources:
        if args.license or args.redistributable:
            raise ValueError("--license and --redistributable are for --raw; the table states them of public sets")
        from defect_hub.dataset_scripts.mmio.collection import collect

        return collect(args.from_sources, args.scenes, args.novel)
    if args.scenes:
        raise ValueError("--scenes chooses among public sets; give them by --from-sources")
    from defect_hub.dataset_scripts.mmio.build import read_release
    from defect_hub.dataset_scripts.mmio.release import Origin

    return read_release(args.raw, args.novel, Origin(args.raw.resolve().name, args.license, args.redistributable))


def _build_transfer(args: argparse.Namespace) -> None:
    from defect_hub.dataset_scripts.transfer.build import build_transfer

    _report(
        build_transfer(
            args.name, args.raw, args.out, classes=args.classes, skip_bad=args.skip_bad, workers=args.workers
        )
    )


def _validate_steeldefectx(args: argparse.Namespace) -> int:
    from defect_hub.dataset_scripts.steeldefectx.release import load_classes
    from defect_hub.dataset_scripts.validate import validate_samples

    classes = load_classes()
    if args.from_sources:
        from defect_hub.dataset_scripts.steeldefectx.assembly import assemble_samples

        found = assemble_samples(
            args.from_sources, skip_missing=args.skip_missing, sources=args.sources, workers=args.workers
        )
        splits, problems = found.splits, found.problems
    else:
        from defect_hub.dataset_scripts.steeldefectx.build import SOURCE
        from defect_hub.dataset_scripts.steeldefectx.hub import local_release
        from defect_hub.dataset_scripts.steeldefectx.release import read_release

        splits, problems = read_release(local_release(args.raw, args.revision), classes, SOURCE)
    return _verdict(validate_samples(classes.label_space(splits), splits, problems, args.workers))


def _validate_tadd(args: argparse.Namespace) -> int:
    from defect_hub.dataset_scripts.tadd.collection import collect
    from defect_hub.dataset_scripts.tadd.subsets import label_space
    from defect_hub.dataset_scripts.validate import validate_samples

    found = collect(args.raw, args.subsets)
    return _verdict(validate_samples(label_space(), {"all": found.samples}, found.problems, args.workers))


def _validate_mmio(args: argparse.Namespace) -> int:
    from defect_hub.dataset_scripts.mmio.categories import label_space
    from defect_hub.dataset_scripts.validate import validate_samples

    data = _mmio_data(args)
    categories = [category.name for category in data.categories]
    splits = {"all": data.samples}
    found = validate_samples(label_space(data.categories), splits, data.problems, args.workers, categories=categories)
    return _verdict(found)


def _validate_built(args: argparse.Namespace) -> int:
    from defect_hub.dataset_scripts.validate import validate_build

    return _verdict(validate_build(args.folder, args.workers))


def _audit(args: argparse.Namespace) -> None:
    from defect_hub.dataset_scripts.audit import audit

    report = audit(args.folders, workers=args.workers)
    if args.out:
        report.write(args.out)
    _report(report)


def _stats(args: argparse.Namespace) -> None:
    from defect_hub.dataset_scripts.statistics import write_statistics

    print(*write_statistics(args.folder), sep="\n")


def _release(args: argparse.Namespace) -> None:
    from defect_hub.dataset_scripts.release import write_release

    _report(write_release(args.folder, args.out, args.keep))


def _join(args: argparse.Namespace) -> None:
    from defect_hub.dataset_scripts.join import join_images
    from defect_hub.dataset_scripts.mmio.scenes import load_scenes
    from defect_hub.dataset_scripts.tadd.subsets import load_subsets

    names = {*load_subsets(), *load_scenes().sets}
    readers = {name: partial(_samples_of, name) for name in sorted(names)}
    _report(join_images(args.folder, args.raw, args.out, readers, args.workers))


def _samples_of(name: str, raw: Path) -> Sequence[Sample]:
    """The samples of one public set in a raw folder, as TADD and as MMIO read it."""
    from defect_hub.dataset_scripts.mmio.collection import collect as collect_mmio
    from defect_hub.dataset_scripts.mmio.scenes import load_scenes
    from defect_hub.dataset_scripts.tadd.collection import collect as collect_tadd
    from defect_hub.dataset_scripts.tadd.subsets import load_subsets

    found: list[Sample] = []
    if name in load_subsets():
        found += collect_tadd(raw, [name]).samples
    if name in load_scenes().sets:
        samples = collect_mmio(raw, [load_scenes().sets[name].scene]).samples
        found += [sample for sample in samples if sample.source.name == name]
    return found


def _export(args: argparse.Namespace) -> None:
    from defect_hub.dataset_scripts.export import export_detection

    _report(export_detection(args.folder, args.out, args.config))


def _match(args: argparse.Namespace) -> None:
    from defect_hub.clip_encoders import load_encoder
    from defect_hub.dataset_scripts.mmio.matching import folder_prompts, match_categories, read_texts

    texts = read_texts(args.texts) if args.texts else folder_prompts(args.folder)
    try:
        encoder = load_encoder(args.model)
    except ImportError as error:  # Of a library that only this verb needs.
        raise ValueError(str(error)) from error
    _report(match_categories(args.folder, texts, encoder, args.out, threshold=args.threshold, score=args.score))


def _prepare(args: argparse.Namespace) -> None:
    from defect_hub.dataset_scripts.prepare import prepare_cache

    for config in prepare_cache(args.folder):
        print(f'load_dataset("{args.folder.resolve().name}", "{config}")')


def _report(report: Any) -> None:
    """Print the lines of a report."""
    print(*report.lines(), sep="\n")


def _verdict(validation: Any) -> int:
    """Print what a check found; the exit status says whether anything is wrong."""
    _report(validation)
    return 2 if validation.problems else 0
