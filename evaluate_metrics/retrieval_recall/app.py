"""A small Space: recall@k of a table of similarities."""

from pathlib import Path
from typing import Any

import evaluate

from defect_hub.evaluate_metrics.apps import table_app

METRIC = evaluate.load(str(Path(__file__).with_name("retrieval_recall.py")))
EXAMPLE = [[0, 0.9, 0.2, 0.1], [1, 0.8, 0.3, 0.1], [2, 0.1, 0.2, 0.7], [1, 0.2, 0.6, 0.3]]


def compute(rows: list[list]) -> dict[str, Any]:
    """Return the metrics of the table's rows: the right item of a query, and its similarity to each item."""
    return METRIC.compute(
        predictions=[[float(cell) for cell in row[1:]] for row in rows],
        references=[int(row[0]) for row in rows],
        ks=[1, 2],
    )


demo = table_app(
    title="Retrieval recall",
    about="Is the right item among the first k? A row is a query: the number of its right item, then similarities.",
    headers=["right item (0, 1 or 2)", "item 0", "item 1", "item 2"],
    datatypes=["number"] * 4,
    example=EXAMPLE,
    compute=compute,
)

if __name__ == "__main__":
    demo.launch()
