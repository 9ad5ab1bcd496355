"""`defect-hub calibrate`: thresholds of a checkpoint from images of the user's own, written into its folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import snapshot_download

from defect_hub.diagnose import find_images, load_pipeline, read_image
from defect_hub.evaluate_metrics.kernels.ranking import auroc
from defect_hub.evaluation.inputs import (
    REFERENCE_SPLIT,
    check_counts,
    drawn_references,
    given_references,
    load_rows,
)
from defect_hub.train.calibration import Passes, calibrate, set_image_score
from defect_hub.train.cards import GENERATED, PROTOCOLS, model_card
from defect_hub.train.data import load_split
from defect_hub.train.evaluation import References
from defect_hub.train.recording import public_name
from defect_hub.train.whole_file import write_whole

DEFAULT_QUANTILE = 0.99
CONFIG, PROCESSOR, CARD = "config.json", "processor_config.json", "README.md"


@dataclass(frozen=True)
class CalibrationRequest:
    """What to calibrate, and on what.

    Attributes:
        model: Folder or Hub id of a diagnosing model.
        data: Folder or Hub id of a data set in the record schema; None: `normal` is given.
        split: Of the data set.
        normal: Files and folders of normal images, instead of `data`.
        object_name: What these show; None takes the checkpoint's.
        quantile: Of the scores of normal images; None: the highest F1.
        shots: Normal references of each object, drawn from the split "train" or from `normal`; 0: none.
        references: Image files of normal references, instead of `shots`.
        draws: How often references are drawn.
        seed: Of the draws.
        image_score: Score of an image, see the model's configuration; None: its own.
        out: New model folder; None: the folder `model` is changed.
    """

    model: str
    data: str | None = None
    split: str = ""
    normal: Sequence[Path] = ()
    object_name: str | None = None
    quantile: float | None = None
    shots: int = 0
    references: Sequence[Path] = ()
    draws: int = 1
    seed: int = 42
    image_score: str | None = None
    out: Path | None = None

    @property
    def place(self) -> str:
        """Where the images are, in the user's words."""
        return self.split if self.data else "--normal"


def calibrate_checkpoint(request: CalibrationRequest) -> str:
    """Measure thresholds and write them with the model card.

    Returns:
        What changed.

    Raises:
        ValueError: Something of the request is unusable; nothing was written.
    """
    _check(request)
    pipe = load_pipeline(request.model, fastest=False)
    model, processor = pipe.model, pipe.processor
    rows, notes = _images(request, request.object_name or processor.object_name)
    earlier = processor.calibration or {}
    mode = model.config.image_score
    set_image_score(model, processor, request.image_score or mode)
    passes = calibrate(
        model,
        processor,
        rows,
        _draws(request, rows),
        request.quantile,
        data=_name(request),
        split=request.split or None,
    )
    if mode != model.config.image_score:
        notes.append(f"image score: {mode} -> {model.config.image_score}")
    dropped = [PROTOCOLS[name] for name in earlier if name not in processor.calibration]
    if dropped:
        notes.append(f"{', '.join(dropped)}: thresholds of the earlier image score dropped; calibrate again for them")
    for name in processor.calibration.keys() - passes.keys():
        options = "without references" if name == "zero_shot" else "with --shots or --reference"
        value = processor.calibration[name]["image"]["value"]
        notes.append(f"{PROTOCOLS[name]}: stays at {value:.4f}, chosen on other images. Calibrate {options} too")
    revision = getattr(model.config, "_commit_hash", None)
    with _changed_folder(request.model, revision, request.out) as folder:
        notes += _write(folder, processor.calibration, model.config.image_score)
    lines = [*_changes(earlier, processor.calibration, passes), *_choices(passes, model.config.image_score), *notes]
    return "\n".join([*lines, f"{request.out or request.model}: calibrated"])


def _check(request: CalibrationRequest) -> None:
    """Refuse what cannot be done before anything is loaded."""
    check_counts(request.shots, request.draws)
    if request.quantile is not None and not 0 < request.quantile < 1:
        raise ValueError(f"--quantile {request.quantile:g}: is not between 0 and 1. Give for example 0.99")
    if request.out is None and not Path(request.model).is_dir():
        raise ValueError(f"{request.model}: model: is no folder that could be changed. Name a new one with --out")
    if request.out is not None and request.out.exists():
        raise ValueError(f"{request.out}: output: exists. Name a new folder, or leave --out out to change --model")


def _images(request: CalibrationRequest, object_name: str) -> tuple[Any, list[str]]:
    """The images to calibrate on, and what is to be said of others."""
    if request.data is None:
        return _normal_rows(find_images(request.normal, request.out or Path(request.model)), object_name)
    rows, known = load_rows(request.data, request.split)
    notes = [f"{len(rows) - len(known)} images left out: unknown whether defective"] if len(known) < len(rows) else []
    defective = sum(known["is_defective"])
    if request.quantile is not None and defective:
        notes.append(f"{defective} defective images left out: a quantile is of normal ones")
    return known, notes


def _normal_rows(files: Sequence[Path], object_name: str) -> tuple[datasets.Dataset, list[str]]:
    """Image files as rows of normal images, each content once."""
    found: dict[str, dict[str, Any]] = {}
    for path in files:
        image = read_image(path)
        if colours := image.getcolors(maxcolors=2):
            raise ValueError(
                f"{path}: image: has {len(colours)} colours, as a mask has. Name folders or files that hold normal "
                "images alone"
            )
        width, height = image.size
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        about = {"image_id": path.name, "sha256": digest, "object_name": object_name, "is_defective": False}
        found.setdefault(digest, {"image": str(path), **about, "mask": None, "width": width, "height": height})
    rows = datasets.Dataset.from_list([*found.values()]).cast_column("image", datasets.Image())
    copies = len(files) - len(found)
    return rows, [f"{copies} images left out: copies of others"] if copies else []


def _name(request: CalibrationRequest) -> str | None:
    """How others may know the images; several files or folders have no name."""
    if request.data:
        return public_name(request.data)
    return public_name(str(request.normal[0])) if len(request.normal) == 1 else None


def _draws(request: CalibrationRequest, rows: Any) -> list[References]:
    if request.references:
        return [given_references(request.references, rows, request.place)]
    if not request.shots:
        return []
    source = load_split(request.data, REFERENCE_SPLIT) if request.data else rows
    return drawn_references(source, rows, request.shots, request.draws, request.seed)


@contextmanager
def _changed_folder(model: str, revision: str | None, out: Path | None) -> Iterator[Path]:
    """The model's folder, or a copy of it that takes its name when all is written."""
    if out is None:
        yield Path(model)
        return
    source = Path(model) if Path(model).is_dir() else Path(snapshot_download(model, revision=revision))
    partial = out.with_name(f"{out.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(source, partial)
        yield partial
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(folder: Path, calibration: dict[str, Any], image_score: str) -> list[str]:
    """Write thresholds, image score and card, each file at once; thresholds name the image score that they are of.

    Returns:
        What was not written.
    """
    _edit(folder / PROCESSOR, "calibration", calibration)
    _edit(folder / CONFIG, "image_score", image_score)
    card = folder / CARD
    if card.is_file() and GENERATED not in card.read_text("utf-8"):
        return [f"{CARD}: is written by hand and stays as it is; see to its thresholds"]
    write_whole(card, model_card(folder))
    return []


def _edit(path: Path, key: str, value: Any) -> None:
    content = json.loads(path.read_text("utf-8"))
    if content.get(key) != value:
        write_whole(path, f"{json.dumps(content | {key: value}, indent=2)}\n")


def _changes(earlier: dict[str, Any], calibration: dict[str, Any], passes: Passes) -> Iterator[str]:
    """A line for each threshold that was measured, and one for each protocol about its images."""
    for protocol, scores in passes.items():
        levels = calibration[protocol]
        image = levels["image"]
        shots = f", {image['num_draws']} draws of {image['num_references']}" if image["num_references"] else ""
        rule = image["method"] if image["quantile"] is None else f"quantile {image['quantile']:g}"
        yield (
            f"{PROTOCOLS[protocol]}: {rule} of {image['n_normal']} normal and {image['n_anomalous']} defective "
            f"images{shots}"
        )
        for level, leaf in levels.items():
            before = earlier.get(protocol, {}).get(level, {}).get("value")
            old = "none" if before is None else f"{before:.4f}"
            spread = "" if leaf["std"] is None else f" (standard deviation over the draws {leaf['std']:.4f})"
            yield f"  {level} threshold: {old} -> {leaf['value']:.4f}{spread}"
            if leaf["std"] is not None and leaf["std"] > leaf["value"]:
                yield f"  {level} threshold: uncertain, it varies by more than itself. Take more images or references"
        stds = [draw.score_stds.mean() for draw in scores if draw.score_stds is not None]
        if stds:
            yield f"  image score from one reference to another: mean standard deviation {statistics.fmean(stds):.4f}"


def _choices(passes: Passes, chosen: str) -> Iterator[str]:
    """Image AUROC of each kind of image score, so that the user can choose; nothing without both classes."""
    for protocol, draws in passes.items():
        labels = draws[0].is_defective
        if not labels.any() or labels.all():
            continue
        yield f"{PROTOCOLS[protocol]} image AUROC by --image-score:"
        for mode in draws[0].by_mode:
            values = [auroc(draw.by_mode[mode], draw.is_defective) for draw in draws]
            spread = f" (standard deviation {statistics.stdev(values):.3f})" if len(values) > 1 else ""
            yield f"  {mode:4} {statistics.fmean(values):.3f}{spread}{' *' if mode == chosen else ''}"
