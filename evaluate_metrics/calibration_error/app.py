"""A small Space: calibration errors of a table of probabilities."""

from pathlib import Path
from typing import Any

import evaluate

from defect_hub.evaluate_metrics.apps import table_app

METRIC = evaluate.load(str(Path(__file__).with_name("calibration_error.py")))
EXAMPLE = [[0.25, 0], [0.25, 1], [0.75, 1], [0.75, 1]]


def compute(rows: list[list]) -> dict[str, Any]:
    """Return the metrics of the table's rows."""
    return METRIC.compute(
        predictions=[float(row[0]) for row in rows],
        references=[int(row[1]) for row in rows],
    )


demo = table_app(
    title="Calibration error",
    about="Of the images called defective with 80 %, are 80 % defective? 15 bins of equal width; 0 is best.",
    headers=["probability of a defect", "defective (0 or 1)"],
    datatypes=["number", "number"],
    example=EXAMPLE,
    compute=compute,
)

if __name__ == "__main__":
    demo.launch()
