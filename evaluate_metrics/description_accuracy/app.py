"""A small Space: description accuracy of a table of answers."""

from pathlib import Path
from typing import Any

import evaluate

from defect_hub.evaluate_metrics.apps import table_app

METRIC = evaluate.load(str(Path(__file__).with_name("description_accuracy.py")))
EXAMPLE = [["Yes, there is a scratch.", 1], ["No, it is clean.", 0], ["Perhaps.", 1]]


def compute(rows: list[list]) -> dict[str, Any]:
    """Return the metric of the table's rows."""
    return METRIC.compute(
        predictions=[str(row[0]) for row in rows],
        references=[int(row[1]) for row in rows],
    )


demo = table_app(
    title="Description accuracy",
    about='Does each answer say yes or no to "is there a defect?", and is it right?',
    headers=["answer", "defective (0 or 1)"],
    datatypes=["str", "number"],
    example=EXAMPLE,
    compute=compute,
)

if __name__ == "__main__":
    demo.launch()
