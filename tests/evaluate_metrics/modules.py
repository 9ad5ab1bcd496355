"""The folders of `evaluate` modules, and samples with what the kernels say of them."""

from pathlib import Path

import evaluate
import numpy as np

from defect_hub.evaluate_metrics.kernels import OverlapCounts, PixelScores, auroc, average_precision, f1_max

METRICS = Path(__file__).parents[2] / "evaluate_metrics"
NAMES = sorted(card.parent.name for card in METRICS.glob("*/README.md"))
SETTINGS = {"pixel_iou": {"threshold": 0.6}}

_RNG = np.random.default_rng(0)
SCORES = _RNG.random(60)
LABELS = (SCORES + _RNG.normal(0, 0.3, 60)) > 0.6
MASKS = np.zeros((7, 40, 50), bool)
MASKS[0, 4:9, 30:44] = MASKS[2, 10:30, 5:8] = MASKS[2, 20, 40] = MASKS[6, :3, :3] = True
MAPS = (0.4 * MASKS + _RNG.random(MASKS.shape)).astype(np.float16)

_PIXELS = PixelScores()
_PIXELS.update(MAPS, MASKS)
_OVERLAP = OverlapCounts(**SETTINGS["pixel_iou"])
_OVERLAP.update(MAPS, MASKS)
IMAGE_METRICS = {
    "image_auroc": {"image_auroc": auroc(SCORES, LABELS)},
    "image_ap": {"image_ap": average_precision(SCORES, LABELS)},
    "f1_max": dict(zip(("f1_max", "threshold"), f1_max(SCORES, LABELS), strict=True)),
}
PIXEL_METRICS = {
    "pixel_auroc": {"pixel_auroc": _PIXELS.auroc()},
    "pixel_ap": {"pixel_ap": _PIXELS.average_precision()},
    "pixel_f1_max": dict(zip(("pixel_f1_max", "threshold"), _PIXELS.f1_max(), strict=True)),
    "aupro": {"aupro_0.3": _PIXELS.aupro()},
    "pixel_metrics": _PIXELS.compute(),
    "pixel_iou": _OVERLAP.compute(),
}
EXPECTED = {**IMAGE_METRICS, **PIXEL_METRICS}


def load(name: str, **settings) -> evaluate.EvaluationModule:
    return evaluate.load(str(METRICS / name), **SETTINGS.get(name, {}), **settings)


def samples(name: str) -> tuple[np.ndarray, np.ndarray]:
    return (MAPS, MASKS) if name in PIXEL_METRICS else (SCORES, LABELS)
