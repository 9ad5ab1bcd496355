"""One pass of a model over a split: scores, metrics with their intervals, and what is kept of single images."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from transformers import Pipeline

from defect_hub.evaluate_metrics.kernels.bootstrap import Interval, bootstrap, bootstrap_mean
from defect_hub.evaluate_metrics.kernels.calibration import CalibrationBins
from defect_hub.evaluate_metrics.kernels.description import parse_yes_no
from defect_hub.evaluate_metrics.kernels.inputs import UndefinedMetricError
from defect_hub.evaluate_metrics.kernels.pixel_bootstrap import ImageSketches
from defect_hub.evaluate_metrics.kernels.regions import RegionOverlaps, region_overlaps
from defect_hub.train.evaluation import DiagnosisScores, References, evaluate_objects

RESAMPLES = 1000
IMAGE_METRICS = {"auroc": "image_auroc", "average_precision": "image_ap", "f1_max": "image_f1_max"}
"""Names here by those of the kernels."""
WORST = 6
"""Pictures of each kind of error."""


@dataclass(frozen=True)
class Shown:
    """An image of the page.

    Attributes:
        index: Position in the pass.
        image_id: Of the data set.
        score: Of the image.
        image: The picture, (H, W).
        anomaly_map: (H, W).
        mask: (H, W) bool, the annotation; None if there is none.
    """

    index: int
    image_id: str
    score: float
    image: Image.Image
    anomaly_map: np.ndarray
    mask: np.ndarray | None


@dataclass
class Watch:
    """What a pass keeps of single images: a few pictures, the found share of each region, 7 KB for intervals.

    Args:
        pixel_threshold: From which a pixel counts as defective; None: no shares.
    """

    pixel_threshold: float | None
    image_ids: list[str] = field(default_factory=list)
    false_alarms: list[Shown] = field(default_factory=list)
    missed: list[Shown] = field(default_factory=list)
    regions: list[RegionOverlaps] = field(default_factory=list)
    sketches: ImageSketches = field(default_factory=ImageSketches)

    def __call__(self, row: dict[str, Any], score: float, anomaly_map: np.ndarray, mask: np.ndarray | None) -> None:
        """Take one image, see `Observer`."""
        index = len(self.image_ids)
        self.image_ids.append(row["image_id"])
        worst, sign = (self.missed, 1) if row["is_defective"] else (self.false_alarms, -1)
        worst.append(Shown(index, row["image_id"], score, row["image"], anomaly_map, mask))
        worst.sort(key=lambda shown: (sign * shown.score, shown.index))
        del worst[WORST:]
        if mask is None:
            return
        self.sketches.update(anomaly_map, mask)
        if self.pixel_threshold is not None:
            found = region_overlaps(anomaly_map, mask, self.pixel_threshold)
            self.regions.append(RegionOverlaps(found.image + index, found.area, found.overlap))

    def overlaps(self) -> RegionOverlaps | None:
        """All regions; None if there are none, or no threshold."""
        if not sum(part.area.size for part in self.regions):
            return None
        columns = ((part.image, part.area, part.overlap) for part in self.regions)
        return RegionOverlaps(*(np.concatenate(values) for values in zip(*columns, strict=True)))


@dataclass(frozen=True)
class Draw:
    """One pass over the split.

    Attributes:
        references: That the images were compared with.
        scores: Of all images, in the order of `watch`.
        watch: What was kept of single images.
        calibration: Thresholds of the checkpoint, see the processor; None if it has none for this protocol.
    """

    references: References
    scores: DiagnosisScores
    watch: Watch
    calibration: dict[str, Any] | None

    def results(self, seed: int) -> dict[str, Any]:
        """Metrics by name, each with "value" and where there is one the "interval"; reasons of those "undefined".

        Args:
            seed: Of the bootstrap.
        """
        bins = CalibrationBins()
        bins.update(self.scores.image_scores, self.scores.is_defective)
        values = self.scores.metrics() | {"image_ece": bins.ece(), "image_brier": bins.brier()}
        ends = {name: [interval.low, interval.high] for name, interval in self._intervals(seed, values).items()}
        metrics = {
            name: {"value": value} | ({"interval": ends[name]} if name in ends else {})
            for name, value in values.items()
        }
        if self.scores.score_stds is not None:
            metrics["score_std"] = {"value": float(self.scores.score_stds.mean())}
        return {"metrics": metrics, "undefined": self.scores.undefined()}

    def _intervals(self, seed: int, values: dict[str, float]) -> dict[str, Interval]:
        scores, defective = self.scores.image_scores, self.scores.is_defective
        found = {"image_brier": bootstrap_mean((scores - defective) ** 2, RESAMPLES, seed=seed)}
        if self.scores.descriptions:
            verdicts = [parse_yes_no(text) for text in self.scores.descriptions]
            right = np.array([verdict == label for verdict, label in zip(verdicts, defective.tolist(), strict=True)])
            shares = {
                "description_accuracy": right,
                "description_recall": right[defective],
                "description_specificity": right[~defective],
                "unparsed": [verdict is None for verdict in verdicts],
            }
            found |= {
                name: bootstrap_mean(share, RESAMPLES, seed=seed) for name, share in shares.items() if len(share)
            }
        # A metric without a value has no interval; the reason stands with the metric.
        with suppress(UndefinedMetricError):
            drawn = bootstrap(scores, defective, tuple(IMAGE_METRICS), RESAMPLES, seed=seed)
            found |= {IMAGE_METRICS[name]: interval for name, interval in drawn.items()}
        with suppress(UndefinedMetricError):
            found |= self.watch.sketches.intervals(RESAMPLES, seed=seed, values=values)
        return found


def evaluate_draw(pipe: Pipeline, rows: Any, references: References, describe: bool) -> Draw:
    """Run a model over a split.

    Args:
        pipe: Model and processor.
        rows: In the record schema, `is_defective` known.
        references: For every object that the rows show; empty: zero-shot.
        describe: Whether to generate text.
    """
    protocol = "few_shot" if references else "zero_shot"
    calibration = (pipe.processor.calibration or {}).get(protocol)
    watch = Watch(calibration["pixel"]["value"] if calibration else None)
    scores = evaluate_objects(pipe.model, pipe.processor, rows, references, describe, watch)
    return Draw(references, scores, watch, calibration)
