"""What became of the images of each source set, for the terminal and the card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from defect_hub.dataset_scripts.readers.class_folders import Entry, plain_name
from defect_hub.dataset_scripts.steeldefectx.raw_images import RawImage
from defect_hub.dataset_scripts.steeldefectx.sources import SourceSet


@dataclass(frozen=True)
class Dropped:
    """An image that is not in the data set.

    Attributes:
        path: Path within the source set.
        reason: "unreadable", "duplicate" or "label conflict".
        detail: Of what, with what.
    """

    path: str
    reason: str
    detail: str


@dataclass
class SourceReport:
    """What became of the images of a source set.

    Attributes:
        source: What is known about the set.
        folder: Where it lies in the raw folder.
        unread: Further folders of it, which were not read.
        found: Images by plain raw class.
        kept: Images by plain raw class and class here.
        annotated: Kept images by kind of annotation: "mask", "boxes" or "none".
        dropped: Images left out.
        failed: Images with problems.
        ignored_boxes: Boxes of kept images that were left out because the table says so.
        unused: Annotation files without an image.
    """

    source: SourceSet
    folder: str
    unread: Sequence[str]
    found: Counter[str] = field(default_factory=Counter)
    kept: Counter[tuple[str, str]] = field(default_factory=Counter)
    annotated: Counter[str] = field(default_factory=Counter)
    dropped: list[Dropped] = field(default_factory=list)
    failed: int = 0
    ignored_boxes: int = 0
    unused: int = 0

    def keep(self, entry: Entry, raw: RawImage) -> None:
        """Count an image that is in the data set."""
        self.kept[plain_name(entry.class_name), raw.class_name] += 1
        self.annotated["mask" if entry.mask else "boxes" if raw.boxes else "none"] += 1
        self.ignored_boxes += raw.ignored_boxes

    def drop(self, path: str, reason: str, detail: str) -> None:
        """List an image that is not."""
        self.dropped.append(Dropped(path, reason, detail))

    def line(self) -> str:
        """The report in one line."""
        parts = [f"{self.kept.total():,} of {self.found.total():,} images kept", *self._left_out(), *self._remarks()]
        return f"{self.source.name}: {'; '.join(parts)}"

    def row(self) -> list[object]:
        """The report as a line of the card's table."""
        annotated = ", ".join(f"{kind} {count:,}" for kind, count in sorted(self.annotated.items()))
        left_out = ", ".join(self._left_out()) or "-"
        counts = [f"{count:,}" for count in (self.source.images, self.found.total(), self.kept.total())]
        return [self.source.name, f"`{self.folder}`", *counts, left_out, annotated]

    def _left_out(self) -> list[str]:
        reasons = Counter(item.reason for item in self.dropped)
        parts = [f"{count:,} dropped ({reason})" for reason, count in sorted(reasons.items())]
        return [*parts, f"{self.failed:,} with problems"] if self.failed else parts

    def _remarks(self) -> list[str]:
        remarks = []
        if self.unread:
            remarks.append(f"{', '.join(self.unread)} is the same set and was not read")
        if self.ignored_boxes:
            names = ", ".join(sorted(self.source.ignored_boxes))
            remarks.append(f"{self.ignored_boxes:,} boxes named {names} ignored")
        if self.unused:
            remarks.append(f"{self.unused:,} annotation files without an image")
        return remarks

    def class_rows(self) -> list[list[object]]:
        """Raw class, class here, images found, kept and in the whole set."""
        rows: list[list[object]] = []
        for raw, count in sorted(self.found.items()):
            targets = self.source.classes.get(raw, ())
            kept = [self.kept[raw, target] for target in targets]
            here = ", ".join(f"{target} ({n:,})" for target, n in zip(targets, kept, strict=True))
            whole = next((n for name, n in self.source.expected.items() if self.source.classes[name] == targets), "")
            rows.append([self.source.name, raw, targets[0] if len(targets) == 1 else here, count, sum(kept), whole])
        return rows

    def section(self) -> str:
        """Card section of the source."""
        lines = [_facts(self.source)]
        lines += [f"- {remark[0].upper()}{remark[1:]}." for remark in self._remarks()]
        if self.dropped:
            items = "\n".join(f"- `{item.path}`: {item.reason}, {item.detail}" for item in self.dropped)
            summary = f"<summary>Dropped images ({len(self.dropped):,})</summary>"
            lines.append(f"\n<details>{summary}\n\n{items}\n\n</details>")
        return "\n".join(lines)


def describe_sources(
    card: str, reports: Sequence[SourceReport], missing: Sequence[SourceSet], class_names: Sequence[str]
) -> str:
    """Fill the placeholders `$sources`, `$source_classes`, `$report` and `$absent` of a card template."""
    overview = _table(
        ["source", "folder", "whole set", "found", "kept", "left out", "annotation of the kept"],
        [*(report.row() for report in reports), *(_missing_row(source) for source in missing)],
    )
    classes = _table(
        ["source", "raw class", "class here", "found", "kept", "whole set"],
        [row for report in reports for row in report.class_rows()],
    )
    present = {name for report in reports for _, name in report.kept}
    absent = [name for name in class_names if name not in present]
    sections = [report.section() for report in reports] + [_facts(source) for source in missing]
    filled = {
        "$report": overview,
        "$source_classes": classes,
        "$absent": f"{len(absent)} of the 25 classes have no image: {', '.join(absent)}." if absent else "",
        "$sources": "\n\n".join(sections),
    }
    for placeholder, text in filled.items():
        # The card goes through `string.Template` afterwards; a file name may hold a dollar sign.
        card = card.replace(f"{placeholder}\n", text.replace("$", "$$") + "\n")
    return card


def _missing_row(source: SourceSet) -> list[object]:
    return [source.name, "not found", f"{source.images:,}", 0, 0, "-", "-"]


def _facts(source: SourceSet) -> str:
    permission = "may be redistributed" if source.redistributable else "must not be redistributed"
    heading = source.title if source.title.startswith(source.name) else f"{source.name}: {source.title}"
    lines = [
        f"### {heading}\n",
        f"- Home: <{source.homepage}>",
        f"- Licence: {source.license}; its images {permission}.",
        f"- Cite: {source.citation}",
    ]
    if source.note:
        lines.append(f"- {source.note}")
    if not source.verified:
        lines.append("- **Not verified**: folders and class names of this set are inferred, not published.")
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
