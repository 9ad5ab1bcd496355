"""What a prediction is asked for, and whether a folder holds that prediction or another."""

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from defect_hub.train.claim import claim_folder
from defect_hub.train.prediction.shards import explained_disk_errors
from defect_hub.train.prediction.sources import (
    ListedImages,
    Source,
    image_paths,
    is_image_folder,
    list_images,
    load_source,
    split_digest,
)
from defect_hub.train.recording import public_name
from defect_hub.train.whole_file import write_whole

RESULT_FILE = "predictions.json"
BATCHES_PER_PART = 4
"""Of rows that can be cut anywhere: few, so that many processes share even small sets evenly."""


@dataclass(frozen=True)
class PredictionRequest:
    """What to diagnose, and how.

    Attributes:
        model: folder or Hub id of a diagnosing model.
        data: folder of a data set or of image files, or the Hub id of a data set.
        out: folder of the predictions.
        config: of the data set.
        split: of the data set, and what the predictions' split is called.
        streaming: read the data set without copying it to this machine.
        references: normal images of the same object, files or folders; none is zero-shot.
        memory_bank: name of references that are saved with the model, instead.
        object_name: what images show whose row does not say; None takes the checkpoint's.
        threshold: image-level, 0-1; None takes the calibrated one.
        describe: whether to generate text; the template sentence is there in any case.
        maps: whether to keep the anomaly maps.
        dtype: number format of the model, "auto" for that of the checkpoint.
        batch_size: images per forward pass.
        num_workers: loading processes of each process; None: some where a GPU runs the model.
    """

    model: str
    data: str
    out: Path
    config: str = "default"
    split: str = "test"
    streaming: bool = False
    references: tuple[Path, ...] = ()
    memory_bank: str | None = None
    object_name: str | None = None
    threshold: float | None = None
    describe: bool = True
    maps: bool = False
    dtype: str = "auto"
    batch_size: int = 16
    num_workers: int | None = None

    @property
    def work(self) -> Path:
        """Folder of what is not finished; hidden, so that nobody loads it for the result."""
        return self.out / ".unfinished"

    @property
    def chunks(self) -> Path:
        """Folder of chunks."""
        return self.work / "chunks"

    @property
    def merged(self) -> Path:
        """Folder of merged files, until all are there."""
        return self.work / "merged"

    def reference_files(self) -> list[Path]:
        """Files of the references, those of folders in the order of their names.

        Raises:
            ValueError: if one does not exist.
        """
        files: list[Path] = []
        for path in self.references:
            if not path.exists():
                raise ValueError(f"{path}: --reference: does not exist. Check the path")
            files += map(Path, image_paths(path)) if path.is_dir() else [path]
        if self.references and not files:
            raise ValueError(f"{self.references[0]}: --reference: holds no image. Check the path")
        return files


def prepare(request: PredictionRequest) -> dict[str, Any]:
    """Check a request against what lies in its folder, and lay the ground for all processes.

    Returns:
        The record of the request: all that decides about the predictions, and how the rows are cut.

    Raises:
        ValueError: if the request is unusable, or the folder holds anything but its predictions.
        OSError: if the disk is full.
    """
    if not request.split.replace("_", "").isalnum():
        raise ValueError(f"--split {request.split}: is no name of a split. Give letters, digits and _")
    earlier = _earlier_record(request)
    rows_per_part = earlier["rows_per_part"] if earlier else BATCHES_PER_PART * request.batch_size
    record = _identity(request)
    with tempfile.TemporaryDirectory() as scratch:
        listing = Path(scratch) / "images.parquet"
        if is_image_folder(request.data):
            record["data_digest"] = list_images(Path(request.data), listing, rows_per_part)
        else:
            record["data_digest"] = split_digest(request.data, request.config, request.split)
        if earlier:
            _check_same(request.out, earlier, record)
        record["rows_per_part"] = rows_per_part
        if (request.out / RESULT_FILE).exists():
            shutil.rmtree(request.work, ignore_errors=True)  # of a run that ended between its last two steps
            return record
        claim_folder(request.work)
        with explained_disk_errors(request.out):
            for folder in (request.chunks, request.merged):
                folder.mkdir(parents=True, exist_ok=True)
                for leftover in folder.glob("*.tmp"):  # of killed processes
                    leftover.unlink()
            if listing.exists():
                shutil.copyfile(listing, request.work / listing.name)
            write_json(request.work / RESULT_FILE, record)
    return record


def open_source(request: PredictionRequest, record: dict[str, Any]) -> Source:
    """The rows of a prepared request."""
    if is_image_folder(request.data):
        return ListedImages(Path(request.data), request.work / "images.parquet")
    return load_source(request.data, request.config, request.split, request.streaming, record["rows_per_part"])


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a document whole or not at all."""
    write_whole(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _earlier_record(request: PredictionRequest) -> dict[str, Any] | None:
    for folder in (request.out, request.work):
        if (folder / RESULT_FILE).is_file():
            return json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    # What a run leaves that was killed before it wrote its record is no obstacle.
    others = request.out.is_dir() and any(path != request.work for path in request.out.iterdir())
    if others or (request.out.exists() and not request.out.is_dir()):
        raise ValueError(f"{request.out}: --out: holds something else than predictions. Choose another folder")
    return None


def _identity(request: PredictionRequest) -> dict[str, Any]:
    """What decides about the predictions; the number of images per forward pass moves at most their last bits."""
    return {
        "model": public_name(request.model),
        "model_version": _model_version(request.model),
        "data": public_name(request.data),
        "config": request.config,
        "split": request.split,
        "streaming": request.streaming,
        "references": [
            {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for path in request.reference_files()
        ],
        "memory_bank": request.memory_bank,
        "object": request.object_name,
        "threshold": request.threshold,
        "describe": request.describe,
        "maps": request.maps,
        "dtype": request.dtype,
    }


def _check_same(out: Path, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise `ValueError` where a folder's record differs from a request's, by name."""
    different = [
        f"{name} ({_short(earlier.get(name))} there, {_short(now[name])} here)"
        for name in now
        if earlier.get(name) != now[name]
    ]
    if different:
        raise ValueError(
            f"{out}: --out: holds predictions of another run: {', '.join(different)}. Choose another folder, or "
            "remove this one"
        )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _model_version(model: str) -> str:
    """Commit of a checkpoint on the Hub, or digest of a folder's files.

    Raises:
        ValueError: if there is no such checkpoint.
    """
    folder = Path(model)
    if not folder.is_dir():
        try:
            return Path(hf_hub_download(model, "config.json")).parent.name
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{model}: --model: no such folder, and not to be had from the Hub ({reason})") from error
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("[!.]*") if path.is_file()):
        with path.open("rb") as file:
            digest.update(f"{path.relative_to(folder)} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:16]
