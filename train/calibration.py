"""Thresholds of a diagnosing model: chosen on images, stored in its processor with all that they hang on."""

import hashlib
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from defect_hub.evaluate_metrics.kernels.histogram import ScoreHistogram
from defect_hub.evaluate_metrics.kernels.inputs import UndefinedMetricError
from defect_hub.evaluate_metrics.kernels.ranking import f1_max
from defect_hub.train.data import draw_references
from defect_hub.train.evaluation import (
    DiagnosisScores,
    Reference,
    References,
    apart,
    data_fingerprint,
    evaluate_objects,
    joined,
    of_objects,
)
from defect_hub.train.recording import versions
from defect_hub.train.together import failing_together

Passes = dict[str, list[DiagnosisScores]]
"""By protocol, `zero_shot` or `few_shot`: the scores of each draw of references."""


def images_needed(quantile: float) -> int:
    """Fewest normal images for which some score keeps the promise of a quantile, see `choose_thresholds`."""
    exact = Fraction(str(quantile))
    return math.ceil(exact / (1 - exact))


def choose_thresholds(scores: DiagnosisScores, quantile: float | None, n_normal: int) -> dict[str, float]:
    """Thresholds by level, `image` and `pixel`; a score counts as defective from its threshold upwards.

    By quantile q, the image threshold is the float32 next above the ceil(q (n + 1))-th lowest of n normal scores: at
    most the share 1 - q of these images reaches it, and another image of the same kind does so with a probability of
    at most 1 - q (the rank of split conformal prediction; Vovk et al. 2005). The pixel threshold is the float32 next
    above the q-quantile of all normal pixels. Nothing is interpolated: a value between two scores promises less.

    Args:
        scores: of one draw of references, or of several joined.
        quantile: of the normal scores; None: the thresholds of the highest F1.
        n_normal: different normal images among the scores.

    Raises:
        ValueError: no threshold up to 1 does it.
    """
    if quantile is None:
        try:
            pixel = scores.pixels.f1_max()[1]
        except UndefinedMetricError as error:
            raise ValueError(
                f"pixel threshold by F1: {error}. Give defective images with masks, or calibrate by quantile "
                "(defect-hub calibrate --method quantile)"
            ) from error
        return {"image": f1_max(scores.image_scores, scores.is_defective)[1], "pixel": pixel}
    images = ScoreHistogram()
    images.update(scores.image_scores, scores.is_defective)
    rank = math.ceil(Fraction(str(quantile)) * (n_normal + 1))
    return {
        "image": _next_above(images.negative_quantile(Fraction(rank, n_normal)), "image"),
        "pixel": _next_above(scores.pixels.negative_quantile(quantile), "pixel"),
    }


def _next_above(score: float, level: str) -> float:
    above = float(np.nextafter(np.float32(score), np.float32(np.inf)))
    if above > 1:
        raise ValueError(
            f"{level} threshold by quantile: normal images reach the score 1, and nothing lies above. Take another "
            "image score or a lower quantile"
        )
    return above


def weights_digest(model: torch.nn.Module) -> str:
    """Digest of all parameters as bfloat16, so that it is the same for float32 weights and their bfloat16 copy."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        values = parameter.detach().reshape(-1)
        values = values.bfloat16() if values.is_floating_point() else values
        digest.update(name.encode())
        digest.update(values.cpu().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def set_image_score(model: Any, processor: Any, mode: str) -> None:
    """Change what an image's score is; thresholds of another kind of score are void and dropped."""
    if mode != model.config.image_score:
        model.config.image_score = mode
        processor.calibration = None


def calibrate(
    model: Any,
    processor: Any,
    rows: Any,
    draws: Sequence[References] = (),
    quantile: float | None = None,
    data: str | None = None,
    split: str | None = None,
    accelerator: Accelerator | None = None,
) -> Passes:
    """Choose thresholds and write them into the processor; those of a protocol that was not measured stay.

    One pass without references, and one for each draw. The thresholds are those of all draws' scores together: whoever
    takes references of their own gets one more draw. Their standard deviation over the draws says how far it may lie.

    Args:
        model: with `diagnose`.
        processor: its processor; `calibration` is changed.
        rows: images in the record schema. A draw's references are left out of its pass; with a quantile, so are
            defective images.
        draws: references by object; none: zero-shot alone. Images of an object without references are left out of
            the pass.
        quantile: of the scores of normal images; None: the highest F1, for which both classes are needed.
        data: public name of the data set; None: not recorded.
        split: of the data set.
        accelerator: whose processes share the work, all with the same arguments, and each with the thresholds; None:
            this process alone.

    Returns:
        The scores of each pass.

    Raises:
        ValueError: the images do not suffice.
    """
    rows = _selected(rows, quantile)
    passes: Passes = {}
    references: dict[str, list[References]] = {}
    for draw in ({}, *draws):
        kept = of_objects(apart(rows, draw), draw) if draw else rows
        _check_enough(kept, quantile)
        scores = evaluate_objects(model, processor, kept, draw, describe=False, accelerator=accelerator)
        protocol = "few_shot" if draw else "zero_shot"
        passes.setdefault(protocol, []).append(scores)
        references.setdefault(protocol, []).append(draw)
    about = {
        "data_fingerprint": data_fingerprint(rows),
        "data": data,
        "split": split,
        "image_score": model.config.image_score,
        "weights_digest": weights_digest(model),
        "date": datetime.now(UTC).date().isoformat(),
        "version": versions()["defect-hub"],
    }
    measured = {
        protocol: _levels(scores, references[protocol], quantile, about) for protocol, scores in passes.items()
    }
    processor.calibration = (processor.calibration or {}) | measured
    return passes


def calibrate_trained(
    model: Any,
    processor: Any,
    rows: Any,
    train_rows: Any,
    num_references: int,
    seed: int,
    data: str | None = None,
    split: str | None = None,
    accelerator: Accelerator | None = None,
) -> None:
    """Thresholds of freshly trained weights, by F1, for both protocols.

    Each object is compared with references of its own. One without normal training images has no part in the few-shot
    thresholds; where the other objects' images are not of both classes, there are none. Both are said on the console.

    Args:
        model: trained.
        processor: its processor; earlier thresholds are of other weights and dropped.
        rows: images in the record schema, normal and defective.
        train_rows: whose normal images the references are drawn from.
        num_references: of each object; fewer where it has no more normal images.
        seed: of the draw.
        data: public name of the data set; None: not recorded.
        split: that `rows` are of.
        accelerator: see `calibrate`; the main process alone says something.
    """
    main = accelerator is None or accelerator.is_main_process
    names = sorted(set(rows["object_name"]))
    with failing_together(accelerator):
        draw = references_by_object(train_rows, names, num_references, seed)
    if main and num_references and (without := [name for name in names if name not in draw]):
        print(f"few-shot thresholds: without {', '.join(without)}, of which there is no normal training image")
    if draw and set(of_objects(apart(rows, draw), draw)["is_defective"]) < {False, True}:
        if main:
            print("few-shot thresholds: none, as the objects with references have no normal or no defective images")
        draw = {}
    processor.calibration = None
    calibrate(model, processor, rows, [draw] if draw else [], data=data, split=split, accelerator=accelerator)


def references_by_object(train_rows: Any, names: list[str], num_references: int, seed: int) -> References:
    """Normal training images of each object, fewer where it has no more; without the objects that have none."""
    labels = zip(train_rows["object_name"], train_rows["is_defective"], strict=True)
    normals = Counter(name for name, defective in labels if defective is False)
    draw = {}
    for name in names:
        if shots := min(num_references, normals[name]):
            [indices] = draw_references(train_rows, shots, 1, seed, object_name=name)
            draw[name] = [Reference.of(train_rows[index]) for index in indices]
    return draw


def _selected(rows: Any, quantile: float | None) -> Any:
    wanted = (False,) if quantile is not None else (False, True)
    return rows.select([index for index, value in enumerate(rows["is_defective"]) if value in wanted])


def _check_enough(rows: Any, quantile: float | None) -> None:
    labels = rows["is_defective"][:]
    normal, defective = labels.count(False), labels.count(True)
    if quantile is None and not (normal and defective):
        raise ValueError(
            f"threshold by F1: needs normal and defective images, found {normal} and {defective}. Add some, or "
            "calibrate on normal images alone (defect-hub calibrate --method quantile)"
        )
    if quantile is not None and normal < images_needed(quantile):
        possible = f" (at most {math.floor(1000 * normal / (normal + 1)) / 1000} with these)" if normal else ""
        raise ValueError(
            f"quantile {quantile}: needs at least {images_needed(quantile)} normal images, found {normal}, references "
            f"not counted. Add images, or take a lower quantile{possible}"
        )


def _levels(
    draws: list[DiagnosisScores], references: list[References], quantile: float | None, about: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """What the processor keeps of a protocol, by level."""
    normal = min(int((~scores.is_defective).sum()) for scores in draws)
    anomalous = min(int(scores.is_defective.sum()) for scores in draws)
    pooled = choose_thresholds(joined(draws), quantile, normal)
    single = [choose_thresholds(scores, quantile, normal) for scores in draws] if len(draws) > 1 else []
    ids = [{name: [shown.id for shown in of] for name, of in draw.items()} for draw in references]
    facts = {
        "method": "f1_max" if quantile is None else "quantile",
        "quantile": quantile,
        "n_normal": normal,
        "n_anomalous": anomalous,
        "num_references": draws[0].num_references,
        "num_draws": len(draws),
        "references": ids,
        **about,
    }
    return {
        level: {
            "value": value,
            "std": statistics.stdev(draw[level] for draw in single) if single else None,
            **facts,
        }
        for level, value in pooled.items()
    }
