"""The tables of the papers, read from `tables/*.yaml`: what they print, and what is measured for each figure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml
from scipy import stats

METRICS = {"Image-AUC": "image_auroc", "Pixel-AUC": "pixel_auroc", "Acc.": "description_accuracy"}
"""Names of `DiagnosisScores.metrics` by those of the papers."""


@dataclass(frozen=True)
class TableData:
    """A data set of a table.

    Attributes:
        name: as the table calls it.
        source: in the column `source`.
        trained_on: the one source that the checkpoint must have learned from; empty: as the recipe says.
        place_not_certain: the paper's text leaves open whether the figures of this column belong to this set.
    """

    name: str
    source: str
    trained_on: str = ""
    place_not_certain: bool = False


@dataclass(frozen=True)
class TableRow:
    """A row of a table, or a block of rows of several methods.

    Attributes:
        shots: normal references of each object.
        paper: figures of each method in percent, by data set and metric; None: not given.
        deviation: likewise, the standard deviations that the paper gives.
        variant: of the checkpoint, see `Paper.variants`.
    """

    shots: int
    paper: dict[str, list[float | None]]
    deviation: dict[str, list[float]] = field(default_factory=dict)
    variant: str = "default"


@dataclass(frozen=True)
class PaperTable:
    """A table. `split` is "test", or "official test" for the set's own."""

    title: str
    split: str
    data: list[TableData]
    metrics: list[str]
    rows: dict[str, TableRow]

    def figure(self, row: str, method: str, data: int, metric: int) -> tuple[float | None, float | None]:
        """The paper's mean and deviation, in percent; None where there is none."""
        place = data * len(self.metrics) + metric
        values, deviations = self.rows[row].paper.get(method), self.rows[row].deviation.get(method)
        return values[place] if values else None, deviations[place] if deviations else None

    def best_other(self, row: str, ours: str, data: int, metric: int) -> tuple[str, float] | None:
        """The best baseline of the paper, with its figure; None if there is none."""
        found = [
            (value, method)
            for method in self.rows[row].paper
            if method != ours and (value := self.figure(row, method, data, metric)[0]) is not None
        ]
        value, method = max(found, default=(None, ""))
        return None if value is None else (method, value)


@dataclass(frozen=True)
class Paper:
    """The tables of a paper.

    Attributes:
        name: of the file: `spgdd-gpt`.
        paper: authors and year.
        ours: the method of the paper that ours re-implements.
        build: command that builds data, with `{sources}`.
        train: command that trains a checkpoint by the paper's recipe.
        tables: by number.
        variants: options of the training by name, see the YAML file.
        checks: likewise.
    """

    name: str
    paper: str
    ours: str
    build: str
    train: str
    tables: dict[int, PaperTable]
    variants: dict[str, dict[str, Any]]
    checks: dict[str, dict[str, Any]]

    def all_variants(self) -> dict[str, dict[str, Any]]:
        """Variants of the paper's tables and further checks, by name."""
        return self.variants | self.checks


def percent(mean: float | None, std: float | None = None) -> str:
    """A figure that is in percent, with its deviation where it has one; "-" for none."""
    if mean is None:
        return "-"
    return f"{mean:.1f}" + ("" if std is None else f" ± {std:.1f}")


def paper_names() -> list[str]:
    """Names of the models that have tables."""
    folder = files(__package__) / "tables"
    return sorted(path.name.removesuffix(".yaml").replace("_", "-") for path in folder.iterdir())


@lru_cache
def load_paper(name: str) -> Paper:
    """The tables of a model's paper.

    Raises:
        ValueError: if there is none of this name, or a row has other than one figure for each data set and metric.
    """
    if name not in paper_names():
        raise ValueError(f"{name}: no such model. Choose one of {', '.join(paper_names())}")
    file = files(__package__) / "tables" / f"{name.replace('-', '_')}.yaml"
    content = yaml.safe_load(file.read_text("utf-8"))
    content["tables"] = {number: _table(number, values) for number, values in content["tables"].items()}
    return Paper(name=name, **content)


def _table(number: int, values: dict[str, Any]) -> PaperTable:
    data = [TableData(**item) for item in values.pop("data")]
    rows = {name: TableRow(**row) for name, row in values.pop("rows").items()}
    table = PaperTable(**values, data=data, rows=rows)
    for name, row in rows.items():
        counts = [(method, len(figures)) for kind in (row.paper, row.deviation) for method, figures in kind.items()]
        for method, count in counts:
            if count != len(data) * len(table.metrics):
                raise ValueError(f"table {number}, {name}, {method}: {count} figures for {len(data)} data sets")
    return table


@dataclass(frozen=True)
class Comparison:
    """A paired t-test over data sets (An & Dong 2026, section VI-E): mean gain in points, two-sided p, pairs."""

    against: str
    gain: float
    p_value: float
    pairs: int


def compare(
    table: PaperTable, row: str, ours: dict[str, float], metric: int = 0, but: str = ""
) -> Iterator[Comparison]:
    """Compare figures with each method that the paper prints, and with the best of them on each data set.

    Args:
        table: of the paper.
        row: of the table.
        ours: figures in percent by name of the data set.
        metric: position in `table.metrics`.
        but: method that is not compared with.
    """
    indices = [index for index, data in enumerate(table.data) if data.name in ours]
    if len(indices) < 2:
        return
    mine = np.array([ours[table.data[index].name] for index in indices])
    others = {
        method: np.array([table.figure(row, method, index, metric)[0] for index in indices], dtype=float)
        for method in table.rows[row].paper
        if method != but
    }
    if not others:
        return
    for name, theirs in [*others.items(), ("the best of them", np.max(list(others.values()), axis=0))]:
        test = stats.ttest_rel(mine, theirs)
        yield Comparison(name, float(np.mean(mine - theirs)), float(test.pvalue), len(indices))
