"""Images of a prediction, decoded and prepared in batches; runs in the loader's workers."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import IterableDataset, get_worker_info

from defect_hub.modeling.inspection_images import to_rgb
from defect_hub.train.prediction.sources import InputRow, Source

_ADDRESS = re.compile(r" <_io\.BytesIO object at 0x[0-9a-f]+>")


@dataclass(frozen=True)
class Job:
    """A part of the source, from its row `start` on."""

    part: int
    start: int


@dataclass
class PreparedBatch:
    """Consecutive rows of one part.

    Attributes:
        job: the part, and where in it the batch starts.
        last: whether the part ends here.
        rows: "image_id", "object_name", "sha256" and "error" of each; an error is None where the image can be used.
        grays: the n usable images (H, W), uint8.
        features: the processor's tensors of these, (n, ...); None for none.
    """

    job: Job
    last: bool
    rows: list[dict[str, str | None]] = field(default_factory=list)
    grays: list[np.ndarray] = field(default_factory=list)
    features: dict[str, torch.Tensor] | None = None

    def usable(self) -> list[dict[str, str | None]]:
        """Rows whose images can be used."""
        return [row for row in self.rows if row["error"] is None]


def decode_image(data: bytes) -> Image.Image:
    """An encoded image of any mode and bit depth as 8-bit RGB, upright.

    Raises:
        ValueError: it does not decode, or is too small or of an unusable type.
    """
    try:
        return to_rgb(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    except Exception as error:  # Damaged files make Pillow's readers raise almost anything.
        reason = _ADDRESS.sub("", " ".join(str(error).split())) or type(error).__name__
        raise ValueError(f"image: cannot be used ({reason}). Supply an intact copy in full size") from error


class PreparedBatches(IterableDataset):
    """Batches of the given parts; each of the loader's workers takes whole parts, so that nothing is read twice.

    Args:
        source: of the rows.
        jobs: what to read.
        processor: of the model.
        object_name: what images show whose row does not say.
        dtype: of the model.
        batch_size: rows of a batch; fewer at the end of a part.
    """

    def __init__(
        self, source: Source, jobs: list[Job], processor: Any, object_name: str, dtype: torch.dtype, batch_size: int
    ) -> None:
        self.source = source
        self.jobs = jobs
        self.processor = processor
        self.object_name = object_name
        self.dtype = dtype
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[PreparedBatch]:
        worker = get_worker_info()
        for job in self.jobs if worker is None else self.jobs[worker.id :: worker.num_workers]:
            yield from self._batches(job)

    def _batches(self, job: Job) -> Iterator[PreparedBatch]:
        rows = self.source.rows(job.part, job.start)
        start, batch = job.start, list(islice(rows, self.batch_size))
        while True:
            following = list(islice(rows, 1))
            yield self._prepared(PreparedBatch(Job(job.part, start), last=not following), batch)
            if not following:
                return
            start += len(batch)
            batch = following + list(islice(rows, self.batch_size - 1))

    def _prepared(self, batch: PreparedBatch, rows: list[InputRow]) -> PreparedBatch:
        images = []
        for row in rows:
            name = row.object_name or self.object_name
            about = {"image_id": row.image_id, "object_name": name, "sha256": row.sha256, "error": None}
            batch.rows.append(about)
            try:
                if row.data is None:
                    raise ValueError(f"image: is missing: {row.problem}. Supply it")
                image = decode_image(row.data)
                self.processor.prompt_input_ids([name])  # refuses names that are too long
            except ValueError as error:
                about["error"] = " ".join(str(error).split())
            else:
                images.append(image)
        if images:
            names = [row["object_name"] for row in batch.usable()]
            batch.features = dict(self.processor(images=images, object_names=names).to(self.dtype))
            # All that contrast is measured on; a third of the colour image on its way between processes.
            batch.grays = [np.asarray(image.convert("L")) for image in images]
        return batch
