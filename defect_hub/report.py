"""A report folder: `results.jsonl`, overlays, masks and one self-contained HTML page."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from defect_hub.modeling.visualization import outline, overlay
from defect_hub.report_page import GENERATOR, PAGE_TAIL, RunFacts, failure_card, page_head, result_card

PAGE = "index.html"
ROWS = "results.jsonl"
KINDS = ("defective", "normal", "failed")


class ReportWriter:
    """Writes results as they come; `finish` completes the page.

    Args:
        folder: Existing, empty.
        facts: Of the run, for the page's head.
    """

    def __init__(self, folder: Path, facts: RunFacts) -> None:
        self.counts = dict.fromkeys(KINDS, 0)
        self._folder, self._facts = folder, facts
        self._cards = folder / "cards.tmp"
        for name in ("overlays", "masks"):
            (folder / name).mkdir()

    def add(self, path: Path, image: Image.Image, record: dict[str, Any]) -> None:
        """Write one diagnosis.

        Args:
            path: File of the image.
            image: RGB.
            record: Of `post_process_diagnosis`.
        """
        index = sum(self.counts.values())
        # Paths of the run need not differ in their last part; names are limited to 255 bytes.
        stem = f"{index:05d}-{path.stem[:60]}"
        files = {"overlay": f"overlays/{stem}.jpg", "mask": f"masks/{stem}.png"}
        heat_map = overlay(image, record["anomaly_map"])
        heat_map.save(self._folder / files["overlay"], quality=90)
        Image.fromarray(record["mask"]).save(self._folder / files["mask"])
        pictures = {"Image": image, "Heat map": heat_map, "Outline": outline(image, record["mask"])}
        row = {key: value for key, value in record.items() if key not in ("anomaly_map", "mask")}
        size = {"width": image.width, "height": image.height}
        self._append(ROWS, json.dumps({"file": str(path), **size, **row, **files}) + "\n")
        self._append(self._cards.name, result_card(index, str(path), pictures, record))
        self.counts["defective" if record["is_defective"] else "normal"] += 1

    def add_failure(self, path: Path, problem: str) -> None:
        """Write down an image that could not be diagnosed."""
        self._append(ROWS, json.dumps({"file": str(path), "error": problem}) + "\n")
        self._append(self._cards.name, failure_card(sum(self.counts.values()), str(path), problem))
        self.counts["failed"] += 1

    def finish(self) -> None:
        """Write the page: its head, which needs the counts, then the cards."""
        with (self._folder / PAGE).open("w", encoding="utf-8", errors="replace") as page:
            page.write(page_head(self._facts, self.counts))
            if self._cards.exists():
                with self._cards.open(encoding="utf-8") as cards:
                    shutil.copyfileobj(cards, page)
                self._cards.unlink()
            page.write(PAGE_TAIL)

    def _append(self, name: str, text: str) -> None:
        with (self._folder / name).open("a", encoding="utf-8", errors="replace") as file:
            file.write(text)


def check_replaceable(out: Path, generator: str = GENERATOR) -> None:
    """Raise a `ValueError` where `out` exists and is neither an empty folder nor an earlier report of `generator`."""
    if not out.exists():
        return
    page = out / PAGE
    if out.is_dir() and not any(out.iterdir()):
        return
    if not (page.is_file() and generator in page.read_text("utf-8", errors="replace")[:1000]):
        raise ValueError(f"{out}: output: exists and is not a report. Choose another --out or remove it")


@contextmanager
def replaced_report(out: Path, generator: str = GENERATOR) -> Iterator[Path]:
    """Yield a temporary folder beside `out` that takes its place when the block ends without an error.

    Args:
        out: The folder.
        generator: Tag in the page of the reports that may be replaced.

    Raises:
        ValueError: `out` is not ours to replace, or cannot be written; an earlier report is intact.
    """
    check_replaceable(out, generator)
    temporary, earlier = (out.with_name(f".{out.name}.{os.getpid()}.{kind}") for kind in ("tmp", "old"))
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if out.exists():
            out.rename(earlier)
        temporary.rename(out)
    except OSError as error:
        if earlier.exists():
            earlier.rename(out)
        raise ValueError(
            f"{out}: output: {error.strerror or error}. Free some space or choose another --out"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(earlier, ignore_errors=True)
