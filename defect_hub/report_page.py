"""The HTML of a report: one page with its styles, script and pictures inside, so that it can be mailed."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from html import escape
from typing import Any

from PIL import Image

GENERATOR = '<meta name="generator" content="defect-hub diagnose">'
"""Marks a folder as a report of ours, which a later run may replace."""
THUMBNAIL_SIDE = 384
TEXT_SOURCES = {"language model": "by the language model", "template": "composed from the mask"}

STYLE = """
:root { color-scheme: light dark; --page: #f3f4f6; --card: #fff; --ink: #16191d; --soft: #5b6570; --line: #d9dde2;
  --bad: #b42318; --bad-soft: #fdecea; --good: #14713d; --good-soft: #e7f5ec; --warn: #7a4d00; --warn-soft: #fff4d9; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --card: #1e2226; --ink: #e8eaed; --soft: #9aa4ae;
  --line: #343a41; --bad: #ff8a7d; --bad-soft: #3c1d1a; --good: #6fd898; --good-soft: #173323; --warn: #ffd27a;
  --warn-soft: #3a2d10; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", sans-serif; }
header, main, footer { max-width: 84rem; margin: 0 auto; padding: 1.25rem; }
h1 { margin: 0; font-size: 1.5rem; } h2 { margin: 0; font-size: 1rem; overflow-wrap: anywhere; }
.facts { margin: .35rem 0 0; color: var(--soft); }
.references { display: flex; gap: .5rem; margin-top: .75rem; } .references img { height: 4.5rem; border-radius: 4px; }
nav { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; margin-top: 1rem; }
nav span { display: inline-flex; flex-wrap: wrap; gap: .35rem; align-items: center; color: var(--soft); }
button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: 6px;
  padding: .2rem .7rem; cursor: pointer; }
button[aria-pressed=true] { background: var(--ink); border-color: var(--ink); color: var(--page); }
main { display: grid; align-items: start; gap: 1.25rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 36rem), 1fr)); }
article { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem;
  break-inside: avoid; }
article[hidden] { display: none; } .failed { grid-column: 1 / -1; }
.head { display: flex; justify-content: space-between; gap: 1rem; align-items: baseline; }
.verdict { white-space: nowrap; font-weight: 650; border-radius: 6px; padding: .05rem .55rem; }
.defective .verdict, .failed .verdict { color: var(--bad); background: var(--bad-soft); }
.normal .verdict { color: var(--good); background: var(--good-soft); }
.pictures { display: grid; grid-template-columns: repeat(3, 1fr); gap: .5rem; margin: .75rem 0; }
figure { margin: 0; } figcaption { color: var(--soft); font-size: .82rem; }
figure img { display: block; width: 100%; max-height: 20rem; object-fit: contain; border-radius: 6px;
  background: var(--page); }
.gauge { position: relative; height: .5rem; border-radius: 4px; background: var(--line); }
.gauge b { position: absolute; inset: 0 auto 0 0; border-radius: 4px; background: var(--good); }
.defective .gauge b { background: var(--bad); }
.gauge i { position: absolute; top: -.25rem; bottom: -.25rem; width: 2px; background: var(--ink); }
.numbers { color: var(--soft); font-size: .88rem; margin: .3rem 0 0; }
.description { margin: .6rem 0 0; } .description small { color: var(--soft); white-space: nowrap; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .8rem; margin: .6rem 0 0; font-size: .88rem; }
dt { color: var(--soft); } dd { margin: 0; }
.claims { margin: .6rem 0 0; padding: .45rem .7rem; border-radius: 6px; color: var(--warn);
  background: var(--warn-soft); }
.claims ul { margin: 0; padding-left: 1.2rem; }
footer { color: var(--soft); font-size: .88rem; }
@media (max-width: 30rem) { .pictures { grid-template-columns: 1fr; } }
@media print { nav { display: none; } }
"""

_SCRIPT = """
const list = document.querySelector("main"), cards = [...list.children];
const press = (group, button) => document.querySelectorAll(`[data-${group}]`)
  .forEach(other => other.setAttribute("aria-pressed", other === button));
const orders = {
  score: (a, b) => b.dataset.score - a.dataset.score || a.dataset.index - b.dataset.index,
  file: (a, b) => a.dataset.index - b.dataset.index,
};
const sort = order => list.append(...cards.sort(orders[order]));
document.querySelectorAll("[data-sort]").forEach(button => button.onclick = () => {
  press("sort", button); sort(button.dataset.sort); });
document.querySelectorAll("[data-show]").forEach(button => button.onclick = () => {
  press("show", button);
  cards.forEach(card => card.hidden = button.dataset.show !== "all" && card.className !== button.dataset.show); });
sort("score");
"""


@dataclass(frozen=True)
class RunFacts:
    """What was asked of the model.

    Attributes:
        model: Folder or Hub id.
        object_name: What the images show.
        threshold_source: How the threshold came about, a phrase.
        references: Normal images that every image was compared with.
        created: Date and time, a phrase.
        memory_bank: Name of the saved references that were taken in their place, with their number, a phrase.
    """

    model: str
    object_name: str
    threshold_source: str
    references: tuple[Image.Image, ...]
    created: str
    memory_bank: str = ""


def page_head(facts: RunFacts, counts: dict[str, int]) -> str:
    """Everything before the cards.

    Args:
        facts: Of the run.
        counts: Number of cards by kind: "defective", "normal", "failed".
    """
    count = len(facts.references)
    shots = (
        f"{count} normal reference{'s' * (count > 1)}" if count else facts.memory_bank or "no references (zero-shot)"
    )
    references = "".join(f'<img src="{data_uri(image)}" alt="normal reference">' for image in facts.references)
    shown = f'<div class="references">{references}</div>' if references else ""
    total = sum(counts.values())
    kinds = {"all": f"All {total}"} | {kind: f"{kind.capitalize()} {count}" for kind, count in counts.items()}
    filters = "".join(_button("show", key, label, key == "all") for key, label in kinds.items())
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">{GENERATOR}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>Defect report: {counts["defective"]} of {total} defective</title><style>{STYLE}</style></head>
<body><header><h1>Defect report</h1>
<p class="facts">{escape(facts.created)} · {escape(facts.object_name)} · model {escape(facts.model)}
 · {escape(shots)}<br>
Threshold {escape(facts.threshold_source)}</p>{shown}
<nav><span>Show {filters}</span>
<span>Sort by {_button("sort", "score", "Score", True)}{_button("sort", "file", "File", False)}</span></nav>
</header><main>
"""


PAGE_TAIL = f"""</main><footer>The score is the model's confidence, 0 to 1, that the image shows a defect; from the
threshold (the tick on the bar) upwards an image counts as defective; behind ± stands how far it differs from one
reference to another. A language model's text is generated: claims that the heat map does not bear out are listed. What
is composed or measured holds for the marked mask. A person decides.</footer><script>{_SCRIPT}</script></body></html>
"""


def result_card(index: int, name: str, pictures: dict[str, Image.Image], record: dict[str, Any]) -> str:
    """One diagnosed image.

    Args:
        index: Position in the run.
        name: File.
        pictures: By caption.
        record: Of `post_process_diagnosis`.
    """
    kind = "defective" if record["is_defective"] else "normal"
    score, threshold = record["score"], record["threshold"]
    figures = "".join(
        f'<figure><img src="{data_uri(picture)}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
        for caption, picture in pictures.items()
    )
    spread = "" if record["score_std"] is None else f" ± {record['score_std']:.3f}"
    return f"""<article class="{kind}" data-score="{score:.6f}" data-index="{index}">
<div class="head"><h2>{escape(name)}</h2><span class="verdict">{kind.capitalize()}</span></div>
<div class="pictures">{figures}</div>
<div class="gauge"><b style="width:{score:.1%}"></b><i style="left:{threshold:.1%}"></i></div>
<p class="numbers">Score {score:.3f}{spread}, threshold {threshold:.3f} · {_regions_phrase(record["regions"])}</p>
<p class="description">{escape(record["description"])} <small>({TEXT_SOURCES[record["text_source"]]})</small></p>
{_claims(record["unsupported_claims"])}{_attributes(record["attributes"])}</article>
"""


def failure_card(index: int, name: str, problem: str) -> str:
    """One image that could not be diagnosed; it sorts before all others."""
    return f"""<article class="failed" data-score="2" data-index="{index}">
<div class="head"><h2>{escape(name)}</h2><span class="verdict">Not diagnosed</span></div>
<p class="description">{escape(problem.removeprefix(f"{name}: "))}</p></article>
"""


def _button(group: str, value: str, label: str, pressed: bool) -> str:
    return f'<button data-{group}="{value}" aria-pressed="{str(pressed).lower()}">{label}</button>'


def _regions_phrase(regions: list[dict[str, Any]]) -> str:
    if not regions:
        return "no region marked"
    places = ", ".join(dict.fromkeys(region["position"].replace("-", " ") for region in regions))
    noun = "region" if len(regions) == 1 else "regions"
    return f"{len(regions)} {noun}, {sum(region['area_px'] for region in regions)} px ({places})"


def _attributes(attributes: dict[str, Any] | None) -> str:
    if attributes is None:
        return ""
    cells = [f"{cell.replace('-', ' ')} {share:.0%}" for cell, share in attributes["position"]]
    shown = {
        "Position": ", ".join(cells[:3]) + (", ..." if len(cells) > 3 else ""),
        "Scale": f"{attributes['scale']}, {attributes['scale_ratio']:.2%} of the image",
        "Form": ", ".join(
            attributes[name] for name in ("shape", "direction", "distribution") if attributes[name] != "none"
        ),
    }
    if "contrast" in attributes:
        words = f"{attributes['polarity']}, {attributes['saliency']} saliency"
        shown["Contrast"] = f"{words} ({attributes['contrast']:+.0f} gray levels)"
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{value}</dd>' for name, value in shown.items())}</dl>"


def _claims(claims: list[str]) -> str:
    items = "".join(f"<li>{escape(claim)}</li>" for claim in claims)
    return f'<div class="claims"><strong>Not borne out by the heat map</strong><ul>{items}</ul></div>' if items else ""


def data_uri(picture: Image.Image) -> str:
    """A thumbnail as the address of an `img`."""
    thumbnail = picture.copy()
    thumbnail.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    thumbnail.save(buffer, "JPEG", quality=85, subsampling=0)  # a thin line keeps its colour
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
