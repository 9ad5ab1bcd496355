"""`defect-hub diagnose`: images in, a report folder out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from tqdm import tqdm
from transformers import Pipeline, pipeline
from transformers.utils import logging

from defect_hub.embedded import EMBEDDED_CHECKPOINT
from defect_hub.modeling.inspection_images import IMAGE_SUFFIXES, to_rgb
from defect_hub.precision import fastest_dtype
from defect_hub.report import ReportWriter, check_replaceable, replaced_report
from defect_hub.report_page import RunFacts

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class DiagnosisRequest:
    """What to diagnose, and how.

    Attributes:
        images: Files, and folders that are searched to any depth.
        out: Folder of the report; an earlier report is replaced.
        model: Folder or Hub id of a diagnosing model.
        references: Normal images of the same object, files or folders; none is zero-shot.
        memory_bank: Name of references that are saved with the model, instead.
        object_name: What the images show; None takes the checkpoint's.
        threshold: Image-level, 0-1; None takes the calibrated one.
        describe: Whether to generate text; the template sentence is there in any case.
    """

    images: Sequence[Path]
    out: Path
    model: str = str(EMBEDDED_CHECKPOINT)
    references: Sequence[Path] = ()
    memory_bank: str | None = None
    object_name: str | None = None
    threshold: float | None = None
    describe: bool = True


def find_images(paths: Iterable[Path], out: Path | None = None) -> list[Path]:
    """Files as given, and the image files of folders in sorted order, each once.

    Args:
        paths: Files and folders.
        out: Folder whose pictures are not taken for input; None: there is none.

    Raises:
        ValueError: A path does not exist, or a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("[!.]*")) if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
            if out is not None:
                inside = [p for p in inside if not p.resolve().is_relative_to(out.resolve())]
            if not inside:
                kinds = " ".join(IMAGE_SUFFIXES)
                raise ValueError(f"{path}: folder: holds no image ({kinds}). Check the path")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise ValueError(f"{path}: image: does not exist. Check the path")
    return list(dict.fromkeys(found))


def read_image(path: Path) -> Image.Image:
    """An image file of any mode and bit depth as 8-bit RGB, upright.

    Raises:
        ValueError: The file does not decode, or its image is too small or of an unusable type.
    """
    try:
        with Image.open(path) as image:
            return to_rgb(ImageOps.exif_transpose(image))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow raises all of these.
        reason = str(error).replace(f" '{path}'", "")
        raise ValueError(f"{path}: image: cannot be used ({reason}). Supply an intact copy in full size") from error


def load_pipeline(model: str, fastest: bool = True) -> Pipeline:
    """The pipeline "defect-diagnosis" of a checkpoint, on a GPU if there is one.

    Args:
        model: Folder or Hub id.
        fastest: Whether to take the number format that this machine is fastest in; else the checkpoint's own, so that
            what is measured does not depend on the machine.

    Raises:
        ValueError: There is no such folder, or it lacks files of the model or its processor.
    """
    folder = Path(model)
    if not folder.is_dir() and not _HUB_ID.fullmatch(model):
        raise ValueError(f"{model}: model: is neither a folder nor a Hub id like org/name. Check --model")
    for name, remedy in (
        ("config.json", "Give a folder written by model.save_pretrained"),
        ("processor_config.json", "Save the processor beside the model: processor.save_pretrained(folder)"),
    ):
        if folder.is_dir() and not (folder / name).is_file():
            raise ValueError(f"{model}: {name}: is missing, so this is no complete checkpoint. {remedy}")
    logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        dtype = fastest_dtype(device) if fastest else "auto"
        return pipeline("defect-diagnosis", model=model, device=device, dtype=dtype)
    except (OSError, ValueError) as error:
        # transformers nests whole tracebacks; its first sentence says what is missing.
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{model}: model: cannot be loaded ({reason}). Check the checkpoint's files") from error


def calibration(pipe: Pipeline, num_references: int) -> dict[str, Any]:
    """The image-level calibration that counts for a number of references.

    Returns:
        `{"method", "value", "n_normal", "n_anomalous", "data_fingerprint"}`; "value" is the threshold.

    Raises:
        ValueError: The checkpoint carries none.
    """
    protocol = "few_shot" if num_references else "zero_shot"
    protocols = pipe.processor.calibration or {}
    if protocol not in protocols:
        folder = pipe.model.name_or_path
        raise ValueError(
            f"{folder}: processor_config.json: carries no {protocol} calibration. Run defect-hub calibrate"
        )
    return protocols[protocol]["image"]


def diagnose(request: DiagnosisRequest) -> str:
    """Diagnose images and write a report; one unusable image does not stop the others.

    Returns:
        A line about the report.

    Raises:
        ValueError: Something of the request is unusable, and nothing was written; or some of the images are, and the
            report lists them.
        KeyboardInterrupt: After the report on the images done so far was written.
    """
    if request.threshold is not None and not 0 <= request.threshold <= 1:
        raise ValueError(
            f"--threshold {request.threshold}: is outside 0 to 1. Leave it out to take the calibrated one"
        )
    check_replaceable(request.out)
    paths = find_images(request.images, request.out)
    references = [read_image(path) for path in find_images(request.references, request.out)]
    pipe = load_pipeline(request.model)
    facts = _facts(request, pipe, references)
    options = {
        "reference_features": pipe.encode_references(references) if references else None,
        "memory_bank": request.memory_bank,
        "object_name": facts.object_name,
        "threshold": request.threshold,
        "describe": request.describe,
    }
    interrupted = False
    with replaced_report(request.out) as folder:
        writer = ReportWriter(folder, facts)
        try:
            problems = _diagnose_all(pipe, paths, options, writer)
        except KeyboardInterrupt:
            interrupted = True
        writer.finish()
    if interrupted:
        raise KeyboardInterrupt
    page = request.out / "index.html"
    if problems:
        raise ValueError(f"{problems[0]} ({len(problems)} of {len(paths)} images not diagnosed, see {page})")
    return f"{page}: {len(paths)} images, {writer.counts['defective']} defective"


def _facts(request: DiagnosisRequest, pipe: Pipeline, references: list[Image.Image]) -> RunFacts:
    in_bank = _bank_size(pipe, request.memory_bank) if request.memory_bank else 0
    calibrated = calibration(pipe, len(references) or in_bank)
    quantile = calibrated.get("quantile")
    rule = "the highest F1" if quantile is None else f"the quantile {quantile:g} of normal scores"
    if request.threshold is None:
        source = (
            f"{calibrated['value']:.3f}, calibrated by {rule} on {calibrated['n_normal']} normal and "
            f"{calibrated['n_anomalous']} defective images"
        )
    else:
        source = f"{request.threshold:.3f}, set by hand (calibrated: {calibrated['value']:.3f})"
    return RunFacts(
        model=Path(request.model).name if Path(request.model).is_dir() else request.model,
        object_name=request.object_name or pipe.processor.object_name,
        threshold_source=source,
        references=tuple(references),
        created=f"{datetime.now():%Y-%m-%d %H:%M}",
        memory_bank=f"memory bank {request.memory_bank} ({in_bank} normal references)" if in_bank else "",
    )


def _bank_size(pipe: Pipeline, name: str) -> int:
    """Number of references that a bank of the model holds.

    Raises:
        ValueError: There is no such bank, or it is empty.
    """
    size = pipe.model.bank_size(name)
    if not size:
        raise ValueError(f"--memory-bank {name}: is empty. Fill it with model.remember, or give --reference")
    return size


def _printable(text: str) -> str:
    """Generated text must not move the terminal's cursor."""
    return "".join(character if character.isprintable() else " " for character in text)


def _diagnose_all(pipe: Pipeline, paths: list[Path], options: dict[str, Any], writer: ReportWriter) -> list[str]:
    problems = []
    for path in tqdm(paths, unit="image", disable=None):
        try:
            image = read_image(path)
            record = pipe(image, **options)
        except (ValueError, RuntimeError) as error:  # RuntimeError: out of memory
            problem = str(error) if str(error).startswith(str(path)) else f"{path}: image: {error}"
            problems.append(problem)
            writer.add_failure(path, problem)
            tqdm.write(f"failed           {problem}")
        else:
            writer.add(path, image, record)
            verdict = "defective" if record["is_defective"] else "normal"
            text = record["template_sentence"] if record["unsupported_claims"] else record["description"]
            tqdm.write(f"{verdict:9}  {record['score']:.3f}  {path}  {_printable(text)}".rstrip())
    return problems
