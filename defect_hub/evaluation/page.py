"""The HTML of an evaluation: one page with its styles and pictures inside, so that it can be mailed."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from defect_hub.evaluation.draw import Draw, Shown
from defect_hub.modeling.visualization import outline, overlay
from defect_hub.report_page import STYLE, data_uri

GENERATOR = '<meta name="generator" content="defect-hub evaluate">'
"""Marks a folder as an evaluation of ours, which a later run may replace."""

MEANINGS = {
    "image_auroc": ("Image AUROC", "how often a defective image scores above a normal one; guessing gives 0.5"),
    "image_ap": ("Image AP", "precision averaged over the defects found; guessing gives the share of defects"),
    "image_f1_max": ("Image F1-max", "best F1 over all thresholds; the threshold is fitted on these images"),
    "image_ece": ("Image ECE", "mean gap between score and share of defects; 0 is best"),
    "image_brier": ("Image Brier score", "mean squared error of the score as a probability; 0 is best"),
    "score_std": ("Score deviation", "standard deviation of a score over the single references, mean of the images"),
    "pixel_auroc": ("Pixel AUROC", "as for images, over all pixels; large defects weigh more"),
    "pixel_ap": ("Pixel AP", "as for images, over all pixels; guessing gives the share of defective pixels"),
    "pixel_f1_max": ("Pixel F1-max", "best F1 (Dice) of the masks over all thresholds"),
    "pixel_iou_max": ("Pixel IoU-max", "best intersection over union of the masks over all thresholds"),
    "aupro_0.3": ("AUPRO 0.3", "share of each region found, up to 30 % false positives; guessing gives 0.15"),
    "description_accuracy": ("Description accuracy", "share of texts whose yes or no is right"),
    "description_recall": ("Description recall", "share of defective images whose text says yes"),
    "description_specificity": ("Description specificity", "share of normal images whose text says no"),
    "unparsed": ("Unparsed", "share of texts without a verdict; they count as wrong"),
}
CAPTIONS = {
    "scores": "Scores by class",
    "image_roc": "ROC of the images",
    "image_pr": "Precision and recall of the images",
    "pixel_roc": "ROC of the pixels",
    "pixel_pr": "Precision and recall of the pixels",
    "pro": "Per-region overlap",
    "regions": "Regions found, by size",
    "reliability": "Reliability",
}

_STYLE = """
main { display: block; padding-top: 0; } section { margin: 0 0 2rem; } section > h2 { font-size: 1.15rem; }
section > p { margin: .2rem 0 .6rem; color: var(--soft); }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .4rem .8rem; text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 500; font-size: .88rem; } tbody tr { border-top: 1px solid var(--line); }
td.number, th.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td small { display: block; color: var(--soft); }
.plots, .worst { display: grid; align-items: start; gap: 1rem; margin-top: .6rem; }
.plots { grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); }
.plots img { max-height: none; border: 1px solid var(--line); border-radius: 10px; background: #fff; }
.worst { grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.worst .pictures { grid-template-columns: repeat(2, 1fr); } .worst h3 { margin: 0; font-size: .9rem;
  font-weight: 600; overflow-wrap: anywhere; }
.warning { margin: .8rem 0 0; padding: .45rem .7rem; border-radius: 6px; color: var(--warn);
  background: var(--warn-soft); }
details { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .6rem .9rem; }
@media (max-width: 40rem) { thead { display: none; } tbody tr { display: flex; flex-wrap: wrap; }
  td:first-child { flex: 1 0 100%; padding-bottom: 0; }
  td.number:not(:empty)::before { content: attr(data-name) " "; color: var(--soft); font-size: .88rem; } }
pre { margin: .6rem 0 0; overflow-x: auto; font-size: .82rem; } summary { cursor: pointer; }
"""


def evaluation_page(document: Mapping[str, Any], draw: Draw, plots: Path) -> str:
    """The whole page.

    Args:
        document: What `metrics.json` holds.
        draw: Whose pictures are shown, the first.
        plots: Folder of the plots as SVG.
    """
    model, data = document["model"]["name"], document["data"]
    images = f"{data['n_normal']:,} normal and {data['n_defective']:,} defective images"
    warnings = "".join(f'<p class="warning">{escape(warning)}</p>' for warning in document["warnings"])
    several = len(document["draws"]) > 1
    first = f"Draw 1 of {len(document['draws'])}. " if several else ""
    worst = _worst("Highest-scored normal images", draw.watch.false_alarms, draw) + _worst(
        "Lowest-scored defective images", draw.watch.missed, draw
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">{GENERATOR}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Evaluation: {escape(model)} on {escape(data["name"])}</title><style>{STYLE}{_STYLE}</style></head>
<body><header><h1>Evaluation of {escape(model)}</h1>
<p class="facts">{escape(data["name"])}, split {escape(data["split"])} · {images} · {escape(document["protocol"])} ·
{escape(document["date"])}</p>{warnings}</header><main>
<section><h2>Metrics</h2><p>{_table_note(document)}</p>{_table(document, several)}</section>
<section><h2>Plots</h2><p>{first}Also as PNG and SVG in the folder <code>plots</code>.</p>
<div class="plots">{_plots(plots)}</div></section>
<section><h2>Worst images</h2><p>{first}Left the image, with the annotation outlined; right the heat map over it.</p>
{worst}</section>
<section><h2>Where the figures come from</h2>{_provenance(document)}</section>
</main><footer>All scores are in <code>scores.jsonl</code>, all figures in <code>metrics.json</code>.</footer></body>
</html>
"""


def _table_note(document: Mapping[str, Any]) -> str:
    count = len(document["draws"])
    if count > 1:
        return f"Mean and standard deviation over {count} draws of references, with the lowest and the highest."
    interval = document["interval"]
    return (
        f"{100 * interval['confidence']:g} % intervals by {interval['method']}, {interval['resamples']:,} resamples. "
        "They say what other images of the same kind might give, not what other data would."
    )


def _table(document: Mapping[str, Any], several: bool) -> str:
    columns = ("mean", "std", "range") if several else ("value", "95 % interval")
    head = "".join(f'<th class="number">{name}</th>' for name in columns)
    rows = []
    for name, (title, meaning) in MEANINGS.items():
        if name in document["metrics"]:
            cells = _cells(document["metrics"][name], several)
        elif name in document["undefined"]:
            cells = ["undefined", *[""] * (len(columns) - 1)]
            meaning = document["undefined"][name]
        else:
            continue
        numbers = "".join(
            f'<td class="number" data-name="{column}">{cell}</td>' for column, cell in zip(columns, cells, strict=True)
        )
        rows.append(f"<tr><td>{title}<small>{escape(meaning)}</small></td>{numbers}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr><th>metric</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cells(metric: Mapping[str, Any], several: bool) -> list[str]:
    value = f"{metric['value']:.3f}"
    if several:
        return [value, f"{metric['std']:.3f}", f"{metric['min']:.3f} to {metric['max']:.3f}"]
    interval = metric.get("interval")
    return [value, f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""]


def _plots(folder: Path) -> str:
    found = [(name, folder / f"{name}.svg") for name in CAPTIONS if (folder / f"{name}.svg").is_file()]
    return "".join(
        f'<figure><img src="data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"'
        f' alt="{CAPTIONS[name]}"></figure>'
        for name, path in found
    )


def _worst(title: str, images: Sequence[Shown], draw: Draw) -> str:
    if not images:
        return ""
    cards = "".join(_card(shown, draw) for shown in images)
    return f'<h3>{title}</h3><div class="worst">{cards}</div>'


def _card(shown: Shown, draw: Draw) -> str:
    marked = outline(shown.image, shown.mask) if shown.mask is not None else shown.image.convert("RGB")
    pictures = {"Image": marked, "Heat map": overlay(shown.image, shown.anomaly_map)}
    figures = "".join(
        f'<figure><img src="{data_uri(picture)}" alt="{caption}"></figure>' for caption, picture in pictures.items()
    )
    texts = draw.scores.descriptions
    description = f'<p class="description">{escape(texts[shown.index])}</p>' if texts else ""
    return (
        f'<article><h3>{escape(shown.image_id)}</h3><div class="pictures">{figures}</div>'
        f'<p class="numbers">Score {shown.score:.3f}</p>{description}</article>'
    )


def _provenance(document: Mapping[str, Any]) -> str:
    facts = {key: value for key, value in document.items() if key not in ("metrics", "undefined", "draws", "warnings")}
    facts["references"] = [draw["references"] for draw in document["draws"] if draw["references"]]
    text = json.dumps(facts, indent=2, ensure_ascii=False)
    return (
        f"<p><code>{escape(document['command'])}</code></p><details><summary>Versions, model, data, references"
        f"</summary><pre>{escape(text)}</pre></details>"
    )
