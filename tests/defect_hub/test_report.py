import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from defect_hub.report import ReportWriter, replaced_report
from defect_hub.report_page import RunFacts

WIDTH, HEIGHT = 48, 32
FACTS = RunFacts("acme/model", "steel <surface>", "0.500, calibrated", (Image.new("RGB", (64, 64)),), "2026-01-01")

ATTRIBUTES = {
    "number": 1,
    "position": [["top-left", 0.7], ["center", 0.2], ["top-center", 0.06], ["top-right", 0.04]],
    "scale": "small",
    "scale_ratio": 16 / (WIDTH * HEIGHT),
    "shape": "circular",
    "direction": "none",
    "distribution": "isolated",
    "polarity": "dark",
    "saliency": "medium",
    "contrast": -20.4,
}


def record(score: float = 0.9, description: str = "Yes, a <pit>.", claims: tuple[str, ...] = ()) -> dict[str, Any]:
    anomaly_map = np.zeros((HEIGHT, WIDTH), np.float32)
    anomaly_map[4:8, 4:8] = score
    is_defective = score >= 0.5
    return {
        "score": score,
        "is_defective": is_defective,
        "threshold": 0.5,
        "anomaly_map": anomaly_map,
        "mask": ((anomaly_map > 0.5) * 255).astype(np.uint8),
        "regions": [{"box": [4, 4, 4, 4], "area_px": 16, "position": "top-left", "score": score}] * is_defective,
        "score_std": 0.0125 if is_defective else None,
        "attributes": ATTRIBUTES if is_defective else None,
        "description": description,
        "text_source": "language model" if is_defective else "template",
        "unsupported_claims": list(claims),
    }


def write(out: Path) -> None:
    image = Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90))
    with replaced_report(out) as folder:
        writer = ReportWriter(folder, FACTS)
        writer.add(Path("a/same.png"), image, record(claims=('count "two": the map shows <1>',)))
        writer.add_failure(Path("a/<bad>.png"), "a/<bad>.png: image: broken")
        writer.add(Path("b/same.png"), image, record(0.125, "No."))
        writer.finish()


class Page(HTMLParser):
    """Tags, classes and addresses of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.articles: list[dict[str, str | None]] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "article":
            self.articles.append(dict(attrs))
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_rows_and_files_belong_together(tmp_path: Path) -> None:
    write(tmp_path / "report")
    rows = [json.loads(line) for line in (tmp_path / "report/results.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == ["a/same.png", "a/<bad>.png", "b/same.png"]
    assert rows[1] == {"file": "a/<bad>.png", "error": "a/<bad>.png: image: broken"}
    for field in ("regions", "attributes", "score_std", "text_source"):
        assert rows[0][field] == record()[field]
    assert (rows[0]["width"], rows[0]["height"]) == (WIDTH, HEIGHT)
    for row, expected in ((rows[0], record()), (rows[2], record(0.125))):
        mask = np.asarray(Image.open(tmp_path / "report" / row["mask"]))
        assert np.array_equal(mask, expected["mask"])
        assert Image.open(tmp_path / "report" / row["overlay"]).size == (WIDTH, HEIGHT)
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "index.html",
        "masks",
        "overlays",
        "results.jsonl",
    ]


def test_page_is_self_contained_well_formed_and_escaped(tmp_path: Path) -> None:
    write(tmp_path / "report")
    html = (tmp_path / "report/index.html").read_text()
    page = Page(html)
    assert page.open == []
    assert len(page.addresses) == 1 + 2 * 3  # the reference, and three pictures for each result
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert "://" not in html
    assert [article["class"] for article in page.articles] == ["defective", "failed", "normal"]
    scores = [float(article["data-score"] or "") for article in page.articles]
    assert scores[1] > 1 > scores[0] > scores[2]
    assert "Yes, a &lt;pit&gt;." in html
    assert "steel &lt;surface&gt;" in html
    assert "the map shows &lt;1&gt;" in html
    assert html.count("Not borne out by the heat map") == 1
    assert html.count("<small>(by the language model)</small>") == html.count("<small>(composed from the mask)") == 1
    assert "Score 0.900 ± 0.013, threshold 0.500 · 1 region, 16 px (top left)" in html
    assert "Score 0.125, threshold 0.500 · no region marked" in html
    for name, value in (
        ("Position", "top left 70%, center 20%, top center 6%, ..."),
        ("Scale", "small, 1.04% of the image"),
        ("Form", "circular, isolated"),
        ("Contrast", "dark, medium saliency (-20 gray levels)"),
    ):
        assert html.count(f"<dt>{name}</dt><dd>{value}</dd>") == 1
    for label in ("All 3", "Defective 1", "Normal 1", "Failed 1"):
        assert f">{label}</button>" in html


def test_an_earlier_report_is_replaced_and_other_folders_are_not(tmp_path: Path) -> None:
    out = tmp_path / "report"
    write(out)
    (out / "masks/left-over.png").touch()
    write(out)
    assert not (out / "masks/left-over.png").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "index.html").write_text("<html>mine</html>")
    with pytest.raises(ValueError, match=r"other: output: exists and is not a report\. Choose another --out"):
        write(other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "report"]


def test_an_error_leaves_the_earlier_report(tmp_path: Path) -> None:
    out = tmp_path / "report"
    write(out)
    before = (out / "index.html").read_bytes()
    with pytest.raises(RuntimeError), replaced_report(out) as folder:
        ReportWriter(folder, FACTS).add_failure(Path("x"), "x")
        raise RuntimeError
    assert (out / "index.html").read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]
