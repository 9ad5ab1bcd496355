"""`defect-hub evaluate`: a diagnosing model over a split, metrics with intervals, plots and a page out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transformers import Pipeline

from defect_hub.diagnose import load_pipeline
from defect_hub.evaluation.draw import evaluate_draw
from defect_hub.evaluation.files import write_report
from defect_hub.evaluation.inputs import (
    REFERENCE_SPLIT,
    check_counts,
    drawn_references,
    given_references,
    load_rows,
)
from defect_hub.evaluation.page import GENERATOR
from defect_hub.report import check_replaceable, replaced_report
from defect_hub.train.data import load_split
from defect_hub.train.evaluation import References
from defect_hub.train.recording import base_models, data_use, hardware, public_name, versions, without_places
from defect_hub.train.run_facts import stages


@dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate, and how.

    Attributes:
        model: Folder or Hub id of a diagnosing model.
        data: Folder or Hub id of a data set in the record schema.
        split: Of the data set.
        out: Folder of the report; an earlier one is replaced.
        shots: Normal references of each object, drawn from the split "train"; 0 is zero-shot.
        references: Image files of normal references, instead of `shots`.
        draws: How often references are drawn.
        describe: Whether to generate text.
        seed: Of the draws and of the bootstrap.
    """

    model: str
    data: str
    split: str
    out: Path
    shots: int = 0
    references: Sequence[Path] = ()
    draws: int = 1
    describe: bool = True
    seed: int = 42

    @property
    def protocol(self) -> str:
        """In the field's words: "zero-shot" or "2-shot"."""
        count = self.shots or len(self.references)
        return f"{count}-shot" if count else "zero-shot"

    def command(self) -> str:
        """That repeats the evaluation, without the places of this machine."""
        words = ["--model", self.model, "--data", self.data, "--split", self.split]
        words += ["--shots", str(self.shots), "--draws", str(self.draws)] if self.shots else []
        words += ["--reference", *map(str, self.references)] if self.references else []
        words += [] if self.describe else ["--no-describe"]
        return f"defect-hub evaluate {without_places([*words, '--seed', str(self.seed)])}"


def evaluate(request: EvaluationRequest) -> str:
    """Evaluate a model and write the report.

    Returns:
        A line about the report.

    Raises:
        ValueError: Something of the request is unusable; nothing was written.
    """
    check_counts(request.shots, request.draws)
    check_replaceable(request.out, GENERATOR)
    rows, known = load_rows(request.data, request.split)
    chosen = _references(request, known)
    for references in chosen:
        _check_apart(references, rows, request.split)
    pipe = load_pipeline(request.model, fastest=False)
    draws = [evaluate_draw(pipe, known, references, request.describe) for references in chosen]
    facts = _facts(request, pipe, rows, known)
    with replaced_report(request.out, GENERATOR) as folder:
        metrics = write_report(folder, facts, draws, request.seed)
    shown = metrics.get("image_auroc")
    found = f"image AUROC {shown['value']:.3f}" if shown else "image AUROC undefined"
    return f"{request.out / 'index.html'}: {len(known)} images, {request.protocol}, {found}"


def _references(request: EvaluationRequest, known: Any) -> list[References]:
    """References of each draw; one empty draw for zero-shot."""
    if request.references:
        return [given_references(request.references, known, request.split)]
    if not request.shots:
        return [{}]
    source = load_split(request.data, REFERENCE_SPLIT)
    return drawn_references(source, known, request.shots, request.draws, request.seed)


def _check_apart(references: References, rows: Any, split: str) -> None:
    """Refuse references that are evaluated themselves."""
    names = [name for name in ("sha256", "source_sha256") if name in rows.column_names]
    evaluated = {
        digest: image_id for name in names for digest, image_id in zip(rows[name], rows["image_id"], strict=True)
    }
    for reference in (reference for shown in references.values() for reference in shown):
        for digest in reference.hashes & evaluated.keys():
            raise ValueError(
                f"reference {reference.id}: is the image {evaluated[digest]} of {split!r}, which is evaluated. Take "
                "references from other images"
            )


def _facts(request: EvaluationRequest, pipe: Pipeline, rows: Any, known: Any) -> dict[str, Any]:
    """Where the figures come from, for whoever wants to repeat or to doubt them."""
    use = data_use("evaluation", request.split, rows)
    defective = sum(known["is_defective"])
    split_ids = sorted({value for value in rows["split_id"] if value}) if "split_id" in rows.column_names else []
    trained_on = _trained_on(request.model, pipe.processor.calibration or {})
    return {
        "protocol": request.protocol,
        "command": request.command(),
        "seed": request.seed,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "versions": versions(),
        "hardware": hardware(pipe.model.device, 1),
        "model": {
            "name": public_name(request.model),
            "revision": getattr(pipe.model.config, "_commit_hash", None),
            "input_px": dict(pipe.processor.image_processor.size),
            "dtype": str(pipe.model.dtype).removeprefix("torch."),
            "trained_on": trained_on,
        },
        "data": {
            "name": public_name(request.data),
            "split": request.split,
            "split_ids": split_ids,
            "fingerprint": use.fingerprint,
            "n_normal": len(known) - defective,
            "n_defective": defective,
            "n_unknown": len(rows) - len(known),
            "sources": [asdict(source) for source in use.sources],
        },
        "warnings": warnings(public_name(request.data), use.fingerprint, trained_on),
    }


def _trained_on(model: str, calibration: dict[str, Any]) -> list[dict[str, Any]] | None:
    """What the weights and thresholds come from, all stages of training; None if the checkpoint does not say."""
    run = base_models(model)[0].run
    if run is None:
        return None
    found = [
        {
            "run": name,
            "data": stage.data,
            "use": use.use,
            "split": use.split,
            "rows": use.rows,
            "fingerprint": use.fingerprint,
        }
        for name, stage in stages(run)
        for use in stage.uses
        if use.use != "evaluation"
    ]
    # Thresholds that were measured again after the run.
    for leaf in (levels["image"] for levels in calibration.values()):
        if leaf["data_fingerprint"] not in {use["fingerprint"] for use in found}:
            about = {
                "data": leaf.get("data"),
                "split": leaf.get("split"),
                "rows": leaf["n_normal"] + leaf["n_anomalous"],
            }
            found.append({"run": None, "use": "calibration", **about, "fingerprint": leaf["data_fingerprint"]})
    return found


def warnings(data: str, fingerprint: str | None, trained_on: list[dict[str, Any]] | None) -> list[str]:
    """Say what the model may have seen of the data, one sentence each.

    Args:
        data: Name of the data set.
        fingerprint: Of the evaluated split.
        trained_on: "data", "use", "split" and "fingerprint" of what shaped the model; None: not recorded.
    """
    if trained_on is None:
        return ["The checkpoint does not say what it was trained on: it may have seen these images."]
    found = []
    for use in trained_on:
        if use["fingerprint"] == fingerprint:
            found.append(
                f"These images served the model's {use['use']}: the figures do not tell how it does on others."
            )
        elif use["data"] == data:
            found.append(f"The model's {use['use']} used the split {use['split']!r} of the same data set.")
    return list(dict.fromkeys(found))
