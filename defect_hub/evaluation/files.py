"""The folder of an evaluation: `metrics.json`, `scores.jsonl`, plots and one self-contained page."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from defect_hub.evaluate_metrics.kernels.calibration import CalibrationBins
from defect_hub.evaluate_metrics.kernels.description import parse_yes_no
from defect_hub.evaluate_metrics.kernels.histogram import ScoreHistogram
from defect_hub.evaluate_metrics.plots import (
    pr_plot,
    pro_plot,
    region_plot,
    reliability_plot,
    roc_plot,
    save_plot,
    score_plot,
)
from defect_hub.evaluation.draw import RESAMPLES, Draw
from defect_hub.evaluation.page import evaluation_page

VERDICTS = {True: "yes", False: "no", None: None}


def write_report(folder: Path, facts: dict[str, Any], draws: Sequence[Draw], seed: int) -> dict[str, Any]:
    """Write all files.

    Args:
        folder: Existing, empty.
        facts: Where the figures come from.
        draws: Passes over the split, at least one; plots and pictures show the first.
        seed: Of the bootstrap.

    Returns:
        The metrics by name, see `summary`.
    """
    results = [draw.results(seed) for draw in draws]
    metrics = summary([result["metrics"] for result in results])
    undefined = {name: reason for result in results for name, reason in result["undefined"].items()}
    references = [{name: [shown.id for shown in of] for name, of in draw.references.items()} for draw in draws]
    document = {
        "metrics": metrics,
        "undefined": undefined,
        "interval": {"confidence": 0.95, "method": "percentile bootstrap over images", "resamples": RESAMPLES},
        **facts,
        "draws": [{"references": ids, **result} for ids, result in zip(references, results, strict=True)],
    }
    _write_json(folder / "metrics.json", document)
    with (folder / "scores.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in _score_rows(draws))
    (folder / "plots").mkdir()
    for name, figure in _plots(draws[0], results[0]["metrics"]):
        save_plot(figure, folder / "plots" / name)
    (folder / "index.html").write_text(evaluation_page(document, draws[0], folder / "plots"), encoding="utf-8")
    return metrics


def summary(draws: Sequence[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Metrics over all draws: those of a single one as they are, else mean ("value") and sample deviation ("std").

    Args:
        draws: Metrics of each draw by name, from `Draw.results`.
    """
    if len(draws) == 1:
        return draws[0]
    values = {name: [draw[name]["value"] for draw in draws] for name in draws[0]}
    return {
        name: {"value": statistics.fmean(found), "std": statistics.stdev(found), "min": min(found), "max": max(found)}
        for name, found in values.items()
    }


def _score_rows(draws: Sequence[Draw]) -> Iterator[dict[str, Any]]:
    for number, draw in enumerate(draws):
        threshold = draw.calibration["image"]["value"] if draw.calibration else None
        scores = draw.scores
        for index, image_id in enumerate(draw.watch.image_ids):
            score = float(scores.image_scores[index])
            row = {
                "image_id": image_id,
                "score": score,
                "label": int(scores.is_defective[index]),
                # At the checkpoint's own threshold; without one there is no verdict.
                "verdict": None if threshold is None else int(score >= threshold),
            }
            if scores.descriptions:
                text = scores.descriptions[index]
                row |= {"description": text, "description_verdict": VERDICTS[parse_yes_no(text)]}
            yield row | ({"draw": number} if len(draws) > 1 else {})


def _plots(draw: Draw, metrics: dict[str, dict[str, Any]]) -> Iterator[tuple[str, Figure]]:
    """Yield names and figures, those whose metric is undefined left out."""
    scores, defective = draw.scores.image_scores, draw.scores.is_defective
    images = ScoreHistogram()
    images.update(scores, defective)
    bins = CalibrationBins()
    bins.update(scores, defective)

    def legend(name: str) -> tuple[float, Any]:
        return metrics[name]["value"], metrics[name].get("interval")

    threshold = draw.calibration["image"]["value"] if draw.calibration else None
    yield "scores", score_plot(scores, defective, threshold)
    if "image_auroc" in metrics:
        value, interval = legend("image_auroc")
        yield "image_roc", roc_plot(images.roc_curve(), value, interval)
        value, interval = legend("image_ap")
        yield "image_pr", pr_plot(images.pr_curve(), value, float(defective.mean()), interval)
    if "pixel_auroc" in metrics:
        value, interval = legend("pixel_auroc")
        yield "pixel_roc", roc_plot(draw.scores.pixels.roc_curve(), value, interval, "pixel")
        value, interval = legend("pixel_ap")
        curve = draw.scores.pixels.pr_curve()
        # Where everything is called defective, the precision is the share of defective pixels.
        yield "pixel_pr", pr_plot(curve, value, float(curve.y[-1]), interval, "pixel")
    if "aupro_0.3" in metrics:
        value, interval = legend("aupro_0.3")
        yield "pro", pro_plot(draw.scores.pixels.pro_curve(), value, interval=interval)
    overlaps = draw.watch.overlaps()
    if overlaps is not None and draw.watch.pixel_threshold is not None:
        yield "regions", region_plot(overlaps, draw.watch.pixel_threshold)
    yield "reliability", reliability_plot(bins.reliability(), metrics["image_ece"]["value"])


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(f"{json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)}\n", encoding="utf-8")
