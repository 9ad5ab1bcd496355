"""The records of `ablations` as Markdown: directions beside the paper's, and all figures."""

from collections.abc import Iterator, Sequence
from typing import Any

from defect_hub.benchmarks.paper_tables import METRICS, Paper, PaperTable, percent

TABLE = "ablations"
"""In place of a table's number, in the records."""
DEFAULT, SEEDS = "default", ("default", "seed_43", "seed_44")
"""The full model, and the same by its seeds of training: what differs among these is chance."""
COMPARED_WITH = {"lora": "adapter_only"}
"""LoRA trains with frozen encoders; so does the full model in the paper, but not at tiny scale."""
DIRECTION_DATA = "MT"
"""Where directions are read: the variants are trained on it, and it has normal images."""
SHOTS = (0, 1, 2, 4)
IMAGE_SCORES = ("image_auroc_max", "image_auroc_cls", "image_auroc_mean")


def ablation_lines(paper: Paper, records: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The ablations as Markdown: directions beside the paper's, then all figures."""
    by_name = {record["variant"]: record for record in records}
    first = records[0]
    yield "## Ablations at tiny scale\n"
    yield (
        f"`{first['command']}`: {first['steps']} steps from the checkpoint inside the package for each variant, "
        f"{first['hardware']}, {first['date']}.\n"
    )
    for cell in (cell for cell in by_name[DEFAULT]["cells"] if cell["shots"] == 1):
        images = cell["images"]
        yield (
            f"- {cell['data']}: {images['normal']} normal and {images['defective']} defective test images, "
            f"fingerprint {images['fingerprint']}; references: {cell['references']}."
        )
    yield "\n### Directions\n"
    yield (
        "Row minus the full model, in points. *Paper*: mean of MVTec-AD and VisA. *Here*: MT, with the row's number "
        "of references, against the mean of the full model over its seeds of training (LoRA: against `adapter_only`, "
        "which trains as much). *Noise*: largest minus smallest of these seeds; a difference within it is none.\n"
    )
    yield "| table | row | metric | *paper* | *measured here* | noise | direction |\n|---|---|---|---:|---:|---:|---|"
    yield from _directions(paper, by_name)
    yield "\n### All figures\n"
    yield "Mean and sample standard deviation over draws of references, in percent.\n"
    yield "| variant | data | metric | 0-shot | 1-shot | 2-shot | 4-shot |\n|---|---|---|---:|---:|---:|---:|"
    for name in paper.all_variants():
        if name in by_name:
            yield from _figures(by_name[name], METRICS)
    yield "\n### Image scores\n"
    yield "Image-AUC of the full model, by seed of training, for each `image_score` of the configuration.\n"
    yield "| variant | data | image score | 0-shot | 1-shot | 2-shot | 4-shot |\n|---|---|---|---:|---:|---:|---:|"
    for name in (seed for seed in SEEDS if seed in by_name):
        yield from _figures(by_name[name], {f"`{metric.rpartition('_')[2]}`": metric for metric in IMAGE_SCORES})


def _directions(paper: Paper, records: dict[str, dict[str, Any]]) -> Iterator[str]:
    for number, table in paper.tables.items():
        full = next(name for name, row in table.rows.items() if row.variant == DEFAULT)
        shots = table.rows[full].shots
        for name, row in table.rows.items():
            other = COMPARED_WITH.get(row.variant, DEFAULT)
            if row.variant == DEFAULT or not {row.variant, other} <= records.keys():
                continue
            for index, metric in enumerate(table.metrics):
                key = METRICS[metric]
                theirs = _paper_difference(paper, table, name, full, index)
                found = _mean(records[row.variant], row.shots, key)
                seeds = [_mean(records[seed], shots, key) for seed in SEEDS if seed in records]
                chance = [value for value in seeds if value is not None]
                model = sum(chance) / max(len(chance), 1) if other == DEFAULT else _mean(records[other], shots, key)
                if theirs is None or found is None or model is None or len(chance) < 2:
                    continue
                here, noise = 100 * (found - model), 100 * (max(chance) - min(chance))
                verdict = "none" if abs(here) <= noise else "as in the paper" if here * theirs > 0 else "opposite"
                yield f"| {number} | {name} | {metric} | {theirs:+.1f} | {here:+.1f} | {noise:.1f} | {verdict} |"


def _paper_difference(paper: Paper, table: PaperTable, row: str, full: str, metric: int) -> float | None:
    """A row minus the full model, mean over the data sets, in points."""
    found = []
    for place in range(len(table.data)):
        value, model = (table.figure(name, paper.ours, place, metric)[0] for name in (row, full))
        if value is not None and model is not None:
            found.append(value - model)
    return sum(found) / len(found) if found else None


def _mean(record: dict[str, Any], shots: int, metric: str) -> float | None:
    cell = next(cell for cell in record["cells"] if (cell["shots"], cell["data"]) == (shots, DIRECTION_DATA))
    return cell["metrics"][metric]["mean"] if metric in cell.get("metrics", {}) else None


def _figures(record: dict[str, Any], metrics: dict[str, str]) -> Iterator[str]:
    for data in dict.fromkeys(cell["data"] for cell in record["cells"]):
        cells = {cell["shots"]: cell for cell in record["cells"] if cell["data"] == data}
        for metric, key in metrics.items():
            words = []
            for shots in SHOTS:
                figure = cells.get(shots, {}).get("metrics", {}).get(key, {"mean": None, "std": None})
                mean, std = (None if value is None else 100 * value for value in (figure["mean"], figure["std"]))
                words.append(percent(mean, std))
            if set(words) != {"-"}:
                yield f"| {record['variant']} | {data} | {metric} | {' | '.join(words)} |"
