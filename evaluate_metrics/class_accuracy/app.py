"""A small Space: accuracy and mean class accuracy of a table of classes."""

from pathlib import Path
from typing import Any

import evaluate

from defect_hub.evaluate_metrics.apps import table_app

METRIC = evaluate.load(str(Path(__file__).with_name("class_accuracy.py")))
EXAMPLE = [["scratch", "scratch"], ["scratch", "scratch"], ["pit", "scratch"], ["pit", "pit"], ["scratch", "pit"]]


def compute(rows: list[list]) -> dict[str, Any]:
    """Return the metrics of the table's rows."""
    names = sorted({str(cell) for row in rows for cell in row})
    return METRIC.compute(
        predictions=[names.index(str(row[0])) for row in rows],
        references=[names.index(str(row[1])) for row in rows],
        class_names=names,
    )


demo = table_app(
    title="Class accuracy",
    about="Accuracy, and the mean recall of the classes: rare classes count as much as common ones.",
    headers=["predicted class", "true class"],
    datatypes=["str", "str"],
    example=EXAMPLE,
    compute=compute,
)

if __name__ == "__main__":
    demo.launch()
