"""What benchmarks of few-shot models share: parts of a data set, drawn references, means over draws, provenance."""

import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from defect_hub.evaluate_metrics.kernels.ranking import auroc
from defect_hub.train.evaluation import DiagnosisScores, Reference, data_fingerprint
from defect_hub.train.recording import hardware, versions

FILL_MARGIN = 3
"""Pixels around an annotated defect that are filled too: annotations are drawn by hand."""


class NotRun(Exception):  # noqa: N818 (no error: a row of a table says it)
    """A figure could not be measured.

    Args:
        needs: what is missing.
        command: that would produce it.
    """

    def __init__(self, needs: str, command: str = "") -> None:
        super().__init__(needs)
        self.needs = needs
        self.command = command


Measured = Callable[[Any, list[Image.Image]], DiagnosisScores]
"""Scores of rows that show one object, with references of it; no references is zero-shot."""


def of_source(rows: Any, source: str) -> Any:
    """The rows of one subset, by the column `source`."""
    return rows.select([index for index, name in enumerate(rows["source"]) if name == source])


def of_object(rows: Any, object_name: str) -> Any:
    """The rows that show an object and whose `is_defective` is known."""
    columns = zip(rows["object_name"], rows["is_defective"], strict=True)
    kept = [index for index, (name, defective) in enumerate(columns) if name == object_name and defective is not None]
    return rows.select(kept)


def object_references(
    train_rows: Any, object_name: str, shots: int, draws: int, seed: int
) -> tuple[str, list[list[Reference]]]:
    """Draw references of an object.

    Where a set has no normal image of it (all photos show cracks), defective images stand in, whose annotated defects
    are filled in from the surround.

    Args:
        train_rows: of the same subset, in the record schema; no tested image.
        object_name: that the references show.
        shots: references of a draw.
        draws: number of draws.
        seed: of the draws.

    Returns:
        What the references are, in words, and a list of them for each draw.

    Raises:
        NotRun: if there are too few images.
    """
    rows = of_object(train_rows, object_name)
    kind, usable = "normal images", [i for i, defective in enumerate(rows["is_defective"]) if not defective]
    if not usable:
        kind = "training images with the annotated defects filled in"
        usable = [index for index, annotation in enumerate(rows["annotation"]) if annotation == "mask"]
    if len(usable) < shots:
        raise NotRun(
            f"{shots} training images of {object_name!r} that are normal or have a mask; there are {len(usable)}"
        )
    chosen = rows.select(usable)
    indices = [np.random.default_rng([seed, shots, draw]).choice(len(usable), shots, False) for draw in range(draws)]
    return kind, [[_reference(chosen[int(index)]) for index in draw] for draw in indices]


def _reference(row: dict[str, Any]) -> Reference:
    return Reference.of(row | {"image": without_defects(row["image"], row["mask"])} if row["is_defective"] else row)


def without_defects(image: Image.Image, mask: Image.Image) -> Image.Image:
    """Each annotated pixel (and `FILL_MARGIN` around) takes the value of the nearest pixel outside."""
    inside = ndimage.binary_dilation(np.asarray(mask.convert("L")) > 127, iterations=FILL_MARGIN)
    nearest = ndimage.distance_transform_edt(inside, return_distances=False, return_indices=True)
    return Image.fromarray(np.asarray(image.convert("RGB"))[tuple(nearest)])


def summary(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and sample standard deviation; one value has no deviation."""
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else None}


def over_draws(runs: Sequence[dict[str, Any]], metric: str) -> dict[str, float | None]:
    """Mean and deviation of a metric; draws that all had the same references have no deviation.

    Args:
        runs: "references" (ids by object) and "metrics" of each draw.
        metric: name.
    """
    found = summary([run["metrics"][metric] for run in runs])
    drawn = {str(sorted((name, sorted(ids)) for name, ids in run["references"].items())) for run in runs}
    return found if len(drawn) > 1 else found | {"std": None}


def measure(
    scores_of: Measured, test_rows: Any, train_rows: Any, shots: int, draws: int, seed: int, metrics: Sequence[str]
) -> dict[str, Any]:
    """Metrics of one subset, the mean over its objects, for each draw of references.

    Args:
        scores_of: the model.
        test_rows: of the subset.
        train_rows: of the same subset, for the references.
        shots: references of each object; 0 is zero-shot, and a single draw.
        draws: of references.
        seed: of the draws.
        metrics: names as in `DiagnosisScores.metrics`, and `image_auroc_max`, `image_auroc_cls`, `image_auroc_mean`.

    Returns:
        `images` (counts and fingerprint), `references`, `draws` (ids and metrics of each), `metrics` (mean and std
        over the draws) and `undefined` (reasons): a metric that is undefined for one object has no value.

    Raises:
        NotRun: if there are no images to test, or too few references.
        ValueError: if a tested image is among the training rows.
    """
    if shared := set(test_rows["sha256"]) & set(train_rows["sha256"]):
        raise ValueError(f"{len(shared)} images are both in the tested and in the training rows. Build the data again")
    known = [value for value in test_rows["is_defective"] if value is not None]
    if not known:
        raise NotRun("test images whose is_defective is known")
    objects = [name for name in sorted(set(test_rows["object_name"])) if len(of_object(test_rows, name))]
    drawn = {name: object_references(train_rows, name, shots, draws, seed) for name in objects} if shots else {}
    runs: list[dict[str, Any]] = []
    undefined: dict[str, str] = {}
    for number in range(draws if shots else 1):
        values: dict[str, list[float]] = {name: [] for name in metrics}
        ids = {name: [reference.id for reference in sets[number]] for name, (_, sets) in drawn.items()}
        for name in objects:
            references = [reference.image for reference in drawn[name][1][number]] if shots else []
            scores = scores_of(of_object(test_rows, name), references)
            found, reasons = scores.metrics() | _by_mode(scores), scores.undefined()
            undefined |= {metric: f"{name}: {reasons[metric]}" for metric in metrics if metric in reasons}
            for metric in values.keys() & found.keys():
                values[metric].append(found[metric])
        means = {metric: float(np.mean(each)) for metric, each in values.items() if len(each) == len(objects)}
        runs.append({"references": ids, "metrics": means})
    return {
        "images": {
            "normal": known.count(False),
            "defective": known.count(True),
            "objects": len(objects),
            "fingerprint": data_fingerprint(test_rows),
        },
        "references": " and ".join(sorted({kind for kind, _ in drawn.values()})) or "none",
        "draws": runs,
        "metrics": {name: over_draws(runs, name) for name in runs[0]["metrics"]},
        "undefined": undefined,
    }


def _by_mode(scores: DiagnosisScores) -> dict[str, float]:
    """`image_auroc_max`, ...: as each `image_score` of the configuration gives it; none for a single class."""
    if len(set(scores.is_defective.tolist())) < 2:
        return {}
    return {f"image_auroc_{mode}": auroc(values, scores.is_defective) for mode, values in scores.by_mode.items()}


def commit() -> str:
    """Commit of the checkout that this code lies in, with "+" where files differ from it; "unknown" outside of one."""

    def git(*arguments: str) -> str:
        here = Path(__file__).resolve().parent
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def provenance(command: str, seed: int) -> dict[str, Any]:
    """Where figures come from: command, commit, seed, libraries, machine in general words, and the day."""
    return {
        "command": command,
        "commit": commit(),
        "seed": seed,
        "versions": versions(),
        "hardware": hardware(torch.device("cuda" if torch.cuda.is_available() else "cpu"), 1),
        "date": datetime.now(UTC).date().isoformat(),
    }
