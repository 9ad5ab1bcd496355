"""Rebuilds docs/benchmarks/*_tables.md from benchmarks/results/*.json: `python -m defect_hub.benchmarks.pages`.

Nothing on these pages is typed but the text files beside the results: `results/<model>.md` is the discussion.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from defect_hub.benchmarks.ablation_page import TABLE as ABLATIONS
from defect_hub.benchmarks.ablation_page import ablation_lines
from defect_hub.benchmarks.paper_tables import (
    METRICS,
    Comparison,
    PaperTable,
    compare,
    load_paper,
    paper_names,
    percent,
)

Record = dict[str, Any]
ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGES = ROOT / "benchmarks" / "results", ROOT / "docs" / "benchmarks"
ROMAN = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII")


def read_records(folder: Path) -> list[Record]:
    """The records of all runs, in the order of their names."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def table_lines(paper_name: str, number: int, records: Sequence[Record]) -> Iterator[str]:
    """A table as Markdown: the paper's figures, the best of its baselines, and a column for each record."""
    paper = load_paper(paper_name)
    table = paper.tables[number]
    baselines = any(method != paper.ours for row in table.rows.values() for method in row.paper)
    columns = ["row", "data", "metric", f"*paper*: {paper.ours}", *(["*paper*: best other"] if baselines else [])]
    columns += [f"*measured here*: {title(record)}" for record in records]
    yield f"| {' | '.join(columns)} |"
    yield "|---|---|---|" + "---:|" * (len(columns) - 3)
    for name in table.rows:
        for position, data in enumerate(table.data):
            for index, metric in enumerate(table.metrics):
                words = [name, data.name + (" (?)" if data.place_not_certain else ""), metric]
                words.append(percent(*table.figure(name, paper.ours, position, index)))
                if baselines:
                    best = table.best_other(name, paper.ours, position, index)
                    words.append(f"{best[1]:.1f} ({best[0]})" if best else "-")
                words += [measured(cell_of(record, name, data.name), METRICS[metric]) for record in records]
                yield f"| {' | '.join(words)} |"
    missing = {cell["command"]: None for record in records for cell in record["cells"] if cell.get("command")}
    if missing:
        yield "\nWhat is not run needs, as far as the rows say so:\n\n```"
        yield from missing
        yield "```"
    yield from _significance(table, paper.ours, records)


def title(record: Record) -> str:
    """The models of a record with their sizes; whoever reads a figure sees how large the model was."""
    named = [f"{facts['name']}, {facts['parameters'] / 1e6:,.1f}M parameters" for facts in record["models"].values()]
    return "; ".join(named) or "no model"


def cell_of(record: Record, row: str, data: str) -> Record:
    """The cell of a row and a data set."""
    return next(cell for cell in record["cells"] if (cell["row"], cell["data"]) == (row, data))


def measured(cell: Record, metric: str) -> str:
    """A measured figure in percent; or why there is none."""
    if "not_run" in cell:
        return f"not run: {cell['not_run']}"
    if metric not in cell["metrics"]:
        return f"undefined: {cell['undefined'].get(metric, 'not asked for')}"
    figure = cell["metrics"][metric]
    shown = percent(100 * figure["mean"], None if figure["std"] is None else 100 * figure["std"])
    return shown + (f" (part: {cell['part']})" if cell["part"] else "")


def _significance(table: PaperTable, ours: str, records: Sequence[Record]) -> Iterator[str]:
    """Paired t-tests over the data sets, where a table has several: the paper's own row, and each record's."""
    if len(table.data) < 3:
        return
    yield "\nPaired t-test over the data sets, two-sided: gain in points against each method of the paper.\n"
    yield "| row | figures of | against | gain | p | n |\n|---|---|---|---:|---:|---:|"
    for name in table.rows:
        printed = {
            data.name: value
            for position, data in enumerate(table.data)
            if (value := table.figure(name, ours, position, 0)[0]) is not None
        }
        for against in compare(table, name, printed, but=ours):
            yield _comparison_line(name, "*paper*", against)
        for record in records:
            found = {
                cell["data"]: 100 * cell["metrics"][METRICS[table.metrics[0]]]["mean"]
                for cell in record["cells"]
                if cell["row"] == name and METRICS[table.metrics[0]] in cell.get("metrics", {}) and not cell["part"]
            }
            for against in compare(table, name, found):
                yield _comparison_line(name, f"*measured here* ({title(record)})", against)


def _comparison_line(row: str, whose: str, found: Comparison) -> str:
    return f"| {row} | {whose} | {found.against} | {found.gain:+.2f} | {found.p_value:.2g} | {found.pairs} |"


def provenance_lines(record: Record) -> Iterator[str]:
    """Where a record comes from, as a list."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    yield f"`{record['command']}`\n"
    yield f"- {record['date']}, commit {record['commit']}, seed {record['seed']}; {record['hardware']}; {versions}."
    protocol = record["protocol"]
    yield f"- {protocol['draws']} draws; split: {protocol['split']}; mean {protocol['mean']}."
    for facts in record["models"].values():
        trained = "it does not say what it was trained on"
        if facts["trained_on"] is not None:
            trained = f"trained on {', '.join(facts['trained_on'])}"
        yield (
            f"- {facts['name']}: {facts['parameters']:,} parameters, {facts['dtype']}, {facts['input_px']} px, "
            f"image score `{facts['image_score']}`, {trained}."
        )
    for data, cell in {cell["data"]: cell for cell in record["cells"] if "images" in cell}.items():
        images = cell["images"]
        about = f"{images['normal']} normal and {images['defective']} defective test images"
        yield f"- {data}: {about}, fingerprint {images['fingerprint']}; references: {cell['references']}."


def page(paper_name: str, records: Sequence[Record], discussion: str) -> str:
    """The page of a model."""
    paper = load_paper(paper_name)
    ours = [record for record in records if record.get("paper") == paper_name]
    parts = [
        f"# {paper.ours}: the paper's tables, and ours",
        "Generated by `make tables` from `benchmarks/results/`; do not edit. Figures in percent. Columns *paper* hold "
        f"what {paper.paper} print, columns *measured here* what this implementation gave; (?) marks columns of the "
        "paper whose data set its text leaves open. See [reproducing.md](../reproducing.md).",
        discussion.strip(),
    ]
    for number, table in paper.tables.items():
        found = [record for record in ours if record["table"] == number]
        parts.append(f"## Table {ROMAN[number]}: {table.title}")
        parts.append("\n".join(table_lines(paper_name, number, found)))
        parts += ["\n".join(provenance_lines(record)) for record in found]
        if not found:
            parts.append(f"Not run here: `defect-hub bench {paper_name} --table {number} --data DATA --model MODEL`.")
    ablations = [record for record in ours if record["table"] == ABLATIONS]
    if ablations:
        parts.append("\n".join(ablation_lines(paper, ablations)))
    return "\n\n".join(part for part in parts if part) + "\n"


def pages(results: Path) -> dict[str, str]:
    """All pages by file name."""
    records = read_records(results)
    found = {}
    for name in paper_names():
        stem = name.replace("-", "_")
        text = results / f"{stem}.md"
        discussion = text.read_text(encoding="utf-8") if text.is_file() else ""
        found[f"{stem}_tables.md"] = page(name, records, discussion)
    return found


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the records")
    parser.add_argument("--out", type=Path, default=PAGES, help="folder of the pages")
    options = parser.parse_args()
    for name, text in pages(options.results).items():
        (options.out / name).write_text(text, encoding="utf-8")
        print(options.out / name)


if __name__ == "__main__":
    main()
