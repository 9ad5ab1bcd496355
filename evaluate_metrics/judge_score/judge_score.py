"""The judge score as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from defect_hub.evaluate_metrics.cached import CachedMetric
from defect_hub.evaluate_metrics.judge import JudgeRequest, judge, judge_score

_DESCRIPTION = "Mean rating of descriptions by a vision model, from 0 to 100, on four criteria."
_INPUTS = """
Args:
    predictions: one description per image.
    references: an expert's answer per image; "" where there is none.
    images: one image file per description.
    base_url, model, record, api_key, options, concurrency, timeout, progress: (in `compute`) as
        `defect_hub.evaluate_metrics.judge.judge` takes them; the first three are needed.
Returns:
    judge_score: mean of the four criteria over the judged descriptions, in [0, 100].
    correctness, completeness, details, interpretability: means, in [0, 100].
    n_judged, n_unjudged, judge_model, prompt_version: how they came about.
    undefined: the reason, if nothing was judged.
"""


class JudgeScore(CachedMetric):
    """Judge score, range [0, 100]."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text, "images": text}),
        )

    def _compute(
        self, predictions: list[str], references: list[str], images: list[str], **settings: Any
    ) -> dict[str, Any]:
        missing = [name for name in ("base_url", "model", "record") if settings.get(name) is None]
        if missing:
            raise ValueError(f"give {', '.join(missing)} to compute; the card has an example")
        rows = zip(images, predictions, references, strict=True)
        requests = [JudgeRequest([image], description, reference or None) for image, description, reference in rows]
        return judge_score(judge(requests, **settings))
