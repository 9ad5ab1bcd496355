"""Scores of a diagnosing model on a split: what the tables, the calibration and the benchmarks share."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch.nn.functional import interpolate
from tqdm.auto import tqdm

from defect_hub.evaluate_metrics.kernels.description import DescriptionVerdicts
from defect_hub.evaluate_metrics.kernels.inputs import UndefinedMetricError
from defect_hub.evaluate_metrics.kernels.pixel_scores import PixelScores
from defect_hub.evaluate_metrics.kernels.ranking import auroc, average_precision, f1_max
from defect_hub.evaluate_metrics.kernels.states import defined
from defect_hub.modeling.processing_spgdd_gpt import DIAGNOSIS_QUESTION
from defect_hub.train.together import failing_together, gathered

# Names here by those of the kernel. A model that always says yes has a recall of 1 and a specificity of 0.
DESCRIPTION_METRICS = {
    "accuracy": "description_accuracy",
    "recall": "description_recall",
    "specificity": "description_specificity",
    "unparsed": "unparsed",
}


@dataclass(frozen=True)
class Reference:
    """A normal image to compare with.

    Attributes:
        id: `image_id` of a data set, or the name of a file.
        hashes: SHA-256 of the file, as stored and as published.
        image: the picture.
    """

    id: str
    hashes: frozenset[str]
    image: Image.Image

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Reference":
        """A row in the record schema."""
        hashes = frozenset(row[name] for name in ("sha256", "source_sha256") if row.get(name))
        return cls(row["image_id"], hashes, row["image"])


References = dict[str, list[Reference]]
"""By the name of the object that they show; empty: zero-shot."""


def apart(rows: Any, references: References) -> Any:
    """The rows without the references themselves, by the hashes of the files."""
    used = {digest for shown in references.values() for reference in shown for digest in reference.hashes}
    columns = [rows[name] for name in ("sha256", "source_sha256") if name in rows.column_names]
    return rows.select([index for index, hashes in enumerate(zip(*columns, strict=True)) if not used & {*hashes}])


def of_objects(rows: Any, references: References) -> Any:
    """The rows of objects that have references."""
    return rows.select([index for index, name in enumerate(rows["object_name"]) if name in references])


@dataclass
class DiagnosisScores:
    """Raw results of one pass over a split.

    Args:
        image_scores: (n,), 0-1.
        is_defective: (n,), bool.
        pixels: the pixel probabilities at the images' own sizes, annotated images only.
        descriptions: n generated texts; empty if none were asked for.
        by_mode: (n,) image scores as each `config.image_score` would give them; empty if the model has no CLS logits.
        score_stds: (n,) standard deviation of the score from one reference to another; None for fewer than two.
        num_references: that each image was compared with.
    """

    image_scores: np.ndarray
    is_defective: np.ndarray
    pixels: PixelScores
    descriptions: list[str] = field(default_factory=list)
    by_mode: dict[str, np.ndarray] = field(default_factory=dict)
    score_stds: np.ndarray | None = None
    num_references: int = 0

    def metrics(self) -> dict[str, float]:
        """Metrics of images, pixels and texts by name; without those that have no value on this data."""
        return {name: value for name, value in self._computed.items() if name != "undefined"}

    def undefined(self) -> dict[str, str]:
        """Why the other metrics have no value on this data, by name."""
        return self._computed.get("undefined", {})

    def metric(self, name: str) -> float:
        """One metric, for whoever cannot do without it.

        Raises:
            UndefinedMetricError: it has no value on this data.
        """
        if name in self.undefined():
            raise UndefinedMetricError(f"{name}: {self.undefined()[name]}. Evaluate on a split that has both classes")
        return self.metrics()[name]

    @cached_property
    def _computed(self) -> dict[str, Any]:
        images = defined(
            {
                "image_auroc": lambda: auroc(self.image_scores, self.is_defective),
                "image_ap": lambda: average_precision(self.image_scores, self.is_defective),
                "image_f1_max": lambda: f1_max(self.image_scores, self.is_defective)[0],
            }
        )
        pixels = self.pixels.compute()
        pixels.pop("pixel_threshold", None)
        reasons = images.pop("undefined", {}) | pixels.pop("undefined", {})
        reasons.pop("pixel_threshold", None)
        values = images | pixels
        if self.descriptions:
            verdicts = DescriptionVerdicts()
            verdicts.update(self.descriptions, self.is_defective.tolist())
            found = verdicts.compute()
            reasons |= {DESCRIPTION_METRICS[name]: reason for name, reason in found.pop("undefined", {}).items()}
            values |= {DESCRIPTION_METRICS[name]: value for name, value in found.items()}
        return values | ({"undefined": reasons} if reasons else {})


def joined(parts: list[DiagnosisScores]) -> DiagnosisScores:
    """The scores of several parts of a split as one."""
    pixels = PixelScores()
    for part in parts:
        pixels.merge(part.pixels)
    return DiagnosisScores(
        np.concatenate([part.image_scores for part in parts]),
        np.concatenate([part.is_defective for part in parts]),
        pixels,
        [text for part in parts for text in part.descriptions],
        {mode: np.concatenate([part.by_mode[mode] for part in parts]) for mode in parts[0].by_mode},
        _concatenated([part.score_stds for part in parts]),
        min(part.num_references for part in parts),
    )


def _concatenated(parts: list[np.ndarray | None]) -> np.ndarray | None:
    found = [part for part in parts if part is not None]
    return np.concatenate(found) if len(found) == len(parts) else None


def data_fingerprint(rows: Any) -> str:
    """Digest of a split's image contents, whatever their order."""
    return hashlib.sha256("".join(sorted(rows["sha256"])).encode()).hexdigest()[:16]


def pixel_target(row: dict[str, Any]) -> np.ndarray | None:
    """(H, W) bool mask at the image's own size; None for a defective image without pixel annotation."""
    if row["mask"] is not None:
        return np.asarray(row["mask"].convert("L")) > 127
    return None if row["is_defective"] else np.zeros((row["height"], row["width"]), dtype=bool)


class Prediction(NamedTuple):
    """Of a batch.

    Attributes:
        image_scores: (B,), 0-1.
        anomaly_maps: (B, h, w) of any size, 0-1.
        texts: B generated texts, or none.
        by_mode: (B,) each, see `DiagnosisScores`.
        score_stds: (B,), see `DiagnosisScores`.
        num_references: that the images were compared with.
    """

    image_scores: torch.Tensor
    anomaly_maps: torch.Tensor
    texts: list[str]
    by_mode: dict[str, np.ndarray] = {}  # noqa: RUF012 (read only)
    score_stds: np.ndarray | None = None
    num_references: int = 0


Predict = Callable[[list[dict[str, Any]]], Prediction]
"""Takes rows."""
Observer = Callable[[dict[str, Any], float, np.ndarray, np.ndarray | None], None]
"""Takes a row, its image score, its map (H, W) at the image's own size, and its `pixel_target`."""


def score_split(
    predict: Predict,
    rows: Any,
    batch_size: int,
    observe: Observer | None = None,
    accelerator: Accelerator | None = None,
) -> DiagnosisScores:
    """Collect the predictions for a split, in constant memory for the pixels.

    Several processes score the batches that one would score, so the result is the same bit for bit as far as
    `predict` gives the same for the same batch.

    Args:
        predict: rows to what a model says of them.
        rows: a split in the record schema; rows with unknown `is_defective` are left out.
        batch_size: images per call.
        observe: called for each image, in the order of the rows; in each process for those that it scores.
        accelerator: whose processes share the work, all with the same rows; each gets the scores of all. None: this
            process alone.

    Raises:
        ValueError: if `is_defective` is unknown for all rows, or an image cannot be read, in any of the processes.
    """
    batches = [(predict, indices) for indices in _batches(_known(rows), batch_size)]
    return _scored(rows, batches, observe, accelerator)


def _known(rows: Any) -> list[int]:
    known = [index for index, value in enumerate(rows["is_defective"]) if value is not None]
    if not known:
        raise ValueError("is_defective: unknown for every image of the split. Evaluate on annotated images")
    return known


def _batches(indices: list[int], size: int) -> list[list[int]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _scored(
    rows: Any,
    batches: list[tuple[Predict, list[int]]],
    observe: Observer | None,
    accelerator: Accelerator | None,
) -> DiagnosisScores:
    """Scores in the order of the batches, which are indices of the rows, each with what predicts it."""
    rank, processes = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    parts: dict[int, DiagnosisScores] = {}
    pixels = PixelScores()  # one for all batches of a process: a few megabytes to gather
    for first in tqdm(range(0, len(batches), processes), desc="evaluate", leave=False, disable=rank > 0):
        number = first + rank
        with failing_together(accelerator):
            if number < len(batches):  # in the last round there may be fewer than processes
                predict, indices = batches[number]
                batch = [_readable(rows, index) for index in indices]
                parts[number] = _taken(batch, predict(batch), pixels, observe)
    everyone = dict(gathered(list(parts.items()), accelerator))
    whole = joined([everyone[number] for number in range(len(batches))])
    for state in gathered([pixels], accelerator):
        whole.pixels.merge(state)
    return whole


def _readable(rows: Any, index: int) -> dict[str, Any]:
    try:
        return rows[index]
    except Exception as error:  # Pillow has many for a damaged file
        raise ValueError(
            f"{rows['image_id'][index]}: image or mask cannot be read ({error}). Replace it, or leave it out"
        ) from error


def _taken(
    batch: list[dict[str, Any]], found: Prediction, pixels: PixelScores, observe: Observer | None
) -> DiagnosisScores:
    """What is kept of a batch; its maps go into `pixels`, and not into the result."""
    image_scores = found.image_scores.float().cpu().numpy()
    for row, score, anomaly_map in zip(batch, image_scores.tolist(), found.anomaly_maps, strict=True):
        target = pixel_target(row)
        size = (row["height"], row["width"])
        resized = interpolate(anomaly_map.float()[None, None], size=size, mode="bilinear")[0, 0].cpu().numpy()
        if target is not None:
            pixels.update(resized, target)
        if observe is not None:
            observe(row, score, resized, target)
    return DiagnosisScores(
        image_scores,
        np.array([row["is_defective"] for row in batch]),
        PixelScores(),
        [text.strip() for text in found.texts],
        found.by_mode,
        found.score_stds,
        found.num_references,
    )


@dataclass(frozen=True)
class _Pass:
    """A model over a split, see `evaluate_diagnosis`."""

    model: Any
    processor: Any
    rows: Any
    describe: bool
    batch_size: int = 16
    max_new_tokens: int = 64
    observe: Observer | None = None
    accelerator: Accelerator | None = None

    @torch.no_grad()
    def scores(self, groups: list[tuple[list[int], list[Any]]]) -> DiagnosisScores:
        """Of groups of images, each with its references, or none."""
        model, processor = self.model.eval(), self.processor

        @cache
        def text_features(name: str) -> torch.Tensor:
            return model.encode_texts(processor.prompt_input_ids([name]).to(model.device))

        @lru_cache(maxsize=1)
        def reference_pixels(group: int) -> torch.Tensor:
            return processor.pixel_values(groups[group][1]).unsqueeze(0)

        def predict(group: int, batch: list[dict[str, Any]]) -> Prediction:
            names = [row["object_name"] for row in batch]
            inputs = processor(images=[row["image"] for row in batch], text=DIAGNOSIS_QUESTION, object_names=names)
            del inputs["prompt_input_ids"]
            inputs["text_features"] = torch.cat([text_features(name) for name in names])
            if groups[group][1]:
                inputs["reference_pixel_values"] = reference_pixels(group)
            return self._prediction(inputs.to(model.device, model.dtype))

        batches: list[tuple[Predict, list[int]]] = [
            (partial(predict, group), part)
            for group, (indices, _) in enumerate(groups)
            for part in _batches(indices, self.batch_size)
        ]
        return _scored(self.rows, batches, self.observe, self.accelerator)

    def _prediction(self, inputs: Any) -> Prediction:
        outputs = self.model.diagnose(**inputs, describe=self.describe, max_new_tokens=self.max_new_tokens)
        each = outputs.reference_scores
        texts = []
        if outputs.sequences is not None:
            texts = self.processor.tokenizer.batch_decode(outputs.sequences, skip_special_tokens=True)
        return Prediction(
            outputs.image_scores,
            outputs.anomaly_maps,
            texts,
            scores_by_mode(outputs),
            None if each is None else each.float().std(dim=1).cpu().numpy(),
            outputs.num_references or 0,
        )


def evaluate_diagnosis(
    model: Any,
    processor: Any,
    rows: Any,
    reference_images: list[Any] | None = None,
    describe: bool = True,
    batch_size: int = 16,
    max_new_tokens: int = 64,
    observe: Observer | None = None,
    accelerator: Accelerator | None = None,
) -> DiagnosisScores:
    """Run a model over a split, by the path that users take.

    Args:
        model: with `diagnose`.
        processor: its processor.
        rows: a split in the record schema.
        reference_images: normal images shared by the split; None is zero-shot.
        describe: whether to generate descriptions.
        batch_size: images per pass.
        max_new_tokens: of each description.
        observe: see `score_split`.
        accelerator: see `score_split`.
    """
    run = _Pass(model, processor, rows, describe, batch_size, max_new_tokens, observe, accelerator)
    return run.scores([(_known(rows), reference_images or [])])


def scores_by_mode(outputs: Any) -> dict[str, np.ndarray]:
    """(B,) image scores by `config.image_score`, all from the maps and the CLS logits of one pass.

    Args:
        outputs: `DefectDiagnosisOutput`; without `cls_logits` there is nothing to choose from.
    """
    if outputs.cls_logits is None:
        return {}
    pixel = outputs.anomaly_maps.float().amax(dim=(1, 2))
    cls = outputs.cls_logits.float().softmax(dim=-1)[:, 1]
    return {mode: score.cpu().numpy() for mode, score in (("max", pixel), ("cls", cls), ("mean", (pixel + cls) / 2))}


def evaluate_objects(
    model: Any,
    processor: Any,
    rows: Any,
    references: References,
    describe: bool = True,
    observe: Observer | None = None,
    accelerator: Accelerator | None = None,
) -> DiagnosisScores:
    """Run a model over a split, each object with references of its own.

    Args:
        model: with `diagnose`.
        processor: its processor.
        rows: a split in the record schema.
        references: for every object that the rows show; empty: zero-shot.
        describe: whether to generate descriptions.
        observe: see `score_split`; object by object in the order of the references.
        accelerator: see `score_split`.
    """
    known = _known(rows)
    groups: list[tuple[list[int], list[Any]]] = [(known, [])]
    if references:
        names = rows["object_name"][:]
        groups = [
            ([index for index in known if names[index] == name], [reference.image for reference in shown])
            for name, shown in references.items()
        ]
    return _Pass(model, processor, rows, describe, observe=observe, accelerator=accelerator).scores(groups)


def metrics_during_training() -> list[str]:
    """Names of the metrics that [`evaluate_during_training`] gives where both classes and a mask are there."""
    pixels = PixelScores()
    pixels.update(np.array([[0.0, 1.0]]), np.array([[False, True]]))
    return sorted(DiagnosisScores(np.array([0.0, 1.0]), np.array([False, True]), pixels).metrics())


def evaluate_during_training(
    model: torch.nn.Module, processor: Any, rows: Any, accelerator: Accelerator
) -> dict[str, float]:
    """Metrics of weights that go on learning, without references; called by all processes, which all get the same.

    Args:
        model: unwrapped, with `diagnose`; its modules come back in the mode that they were in.
        processor: its processor.
        rows: a split in the record schema, the same in all processes.
        accelerator: of the training, whose precision is used.

    Returns:
        Metrics of images and pixels by name, without those that have no value on these images.

    Raises:
        ValueError: if `is_defective` is unknown for all rows, or an image cannot be read, in any of the processes.
    """
    training = [module for module in model.modules() if module.training]
    try:
        with accelerator.autocast():
            return evaluate_diagnosis(model, processor, rows, describe=False, accelerator=accelerator).metrics()
    finally:
        for module in training:
            module.training = True
