"""Scores of a diagnosing model on a split: what the tables, the calibration and the benchmarks share."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate
from tqdm.auto import tqdm

from defect_hub.evaluate_metrics.kernels.description import DescriptionVerdicts
from defect_hub.evaluate_metrics.kernels.inputs import UndefinedMetricError
from defect_hub.evaluate_metrics.kernels.pixel_scores import PixelScores
from defect_hub.evaluate_metrics.kernels.ranking import auroc, average_precision, f1_max
from defect_hub.evaluate_metrics.kernels.states import defined
from defect_hub.modeling.processing_spgdd_gpt import DIAGNOSIS_QUESTION

# Names here by those of the kernel. A model that always says yes has a recall of 1 and a specificity of 0.
DESCRIPTION_METRICS = {
    "accuracy": "description_accuracy",
    "recall": "description_recall",
    "specificity": "description_specificity",
    "unparsed": "unparsed",
}


@dataclass
class DiagnosisScores:
    """Raw results of one pass over a split.

    Args:
        image_scores: (n,), 0-1.
        is_defective: (n,), bool.
        pixels: the pixel probabilities at the images' own sizes, annotated images only.
        descriptions: n generated texts; empty if none were asked for.
    """

    image_scores: np.ndarray
    is_defective: np.ndarray
    pixels: PixelScores
    descriptions: list[str] = field(default_factory=list)

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

    def thresholds(self, fingerprint: str) -> dict[str, dict[str, Any]]:
        """F1-max thresholds for the processor's calibration, with what they were measured on."""
        anomalous = int(self.is_defective.sum())
        about = {
            "method": "f1_max",
            "n_normal": len(self.is_defective) - anomalous,
            "n_anomalous": anomalous,
            "data_fingerprint": fingerprint,
        }
        return {
            "image": {**about, "value": f1_max(self.image_scores, self.is_defective)[1]},
            "pixel": {**about, "value": self.pixels.f1_max()[1]},
        }


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
    )


def data_fingerprint(rows: Any) -> str:
    """Digest of a split's image contents, whatever their order."""
    return hashlib.sha256("".join(sorted(rows["sha256"])).encode()).hexdigest()[:16]


def pixel_target(row: dict[str, Any]) -> np.ndarray | None:
    """(H, W) bool mask at the image's own size; None for a defective image without pixel annotation."""
    if row["mask"] is not None:
        return np.asarray(row["mask"].convert("L")) > 127
    return None if row["is_defective"] else np.zeros((row["height"], row["width"]), dtype=bool)


Prediction = tuple[torch.Tensor, torch.Tensor, list[str]]
Observer = Callable[[dict[str, Any], float, np.ndarray, np.ndarray | None], None]
"""Takes a row, its image score, its map (H, W) at the image's own size, and its `pixel_target`."""


def score_split(
    predict: Callable[[list[dict[str, Any]]], Prediction], rows: Any, batch_size: int, observe: Observer | None = None
) -> DiagnosisScores:
    """Collect the predictions for a split, in constant memory for the pixels.

    Args:
        predict: rows to image scores (B,), anomaly maps (B, h, w) of any size, and B texts (or none).
        rows: a split in the record schema; rows with unknown `is_defective` are left out.
        batch_size: images per call.
        observe: called for each image, in the order of the rows.

    Raises:
        ValueError: if `is_defective` is unknown for all rows.
    """
    known = [index for index, value in enumerate(rows["is_defective"]) if value is not None]
    if not known:
        raise ValueError("is_defective: unknown for every image of the split. Evaluate on annotated images")
    pixels = PixelScores()
    scores, descriptions = [], []
    for start in tqdm(range(0, len(known), batch_size), desc="evaluate", leave=False):
        batch = [rows[index] for index in known[start : start + batch_size]]
        image_scores, maps, texts = predict(batch)
        scores.append(image_scores.float().cpu().numpy())
        descriptions += [text.strip() for text in texts]
        for row, score, anomaly_map in zip(batch, scores[-1].tolist(), maps, strict=True):
            target = pixel_target(row)
            size = (row["height"], row["width"])
            resized = interpolate(anomaly_map[None, None], size=size, mode="bilinear")[0, 0].cpu().numpy()
            if target is not None:
                pixels.update(resized, target)
            if observe is not None:
                observe(row, score, resized, target)
    labels = np.array([rows[index]["is_defective"] for index in known])
    return DiagnosisScores(np.concatenate(scores), labels, pixels, descriptions)


@torch.no_grad()
def evaluate_diagnosis(
    model: Any,
    processor: Any,
    rows: Any,
    reference_images: list[Any] | None = None,
    describe: bool = True,
    batch_size: int = 16,
    max_new_tokens: int = 64,
    observe: Observer | None = None,
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
        observe: called for each image, in the order of the rows.
    """
    model.eval()
    reference_pixels = processor.pixel_values(reference_images).unsqueeze(0) if reference_images else None

    def predict(batch: list[dict[str, Any]]) -> Prediction:
        inputs = processor(
            images=[row["image"] for row in batch],
            text=DIAGNOSIS_QUESTION,
            object_names=[row["object_name"] for row in batch],
        )
        if reference_pixels is not None:
            inputs["reference_pixel_values"] = reference_pixels
        outputs = model.diagnose(**inputs.to(model.device), describe=describe, max_new_tokens=max_new_tokens)
        texts = processor.tokenizer.batch_decode(outputs.sequences, skip_special_tokens=True) if describe else []
        return outputs.image_scores, outputs.anomaly_maps, texts

    return score_split(predict, rows, batch_size, observe)
