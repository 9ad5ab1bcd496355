"""A small Space: F1-max of a table of scores."""

from pathlib import Path
from typing import Any

import evaluate

from defect_hub.evaluate_metrics.apps import table_app

METRIC = evaluate.load(str(Path(__file__).with_name("f1_max.py")))
EXAMPLE = [[0.1, 0], [0.7, 0], [0.6, 1], [0.9, 1]]


def compute(rows: list[list]) -> dict[str, Any]:
    """Return the metric of the table's rows."""
    return METRIC.compute(
        predictions=[float(row[0]) for row in rows],
        references=[int(row[1]) for row in rows],
    )


demo = table_app(
    title="F1-max",
    about="The highest F1 of any threshold, and the threshold.",
    headers=["score", "defective (0 or 1)"],
    datatypes=["number", "number"],
    example=EXAMPLE,
    compute=compute,
)

if __name__ == "__main__":
    demo.launch()
