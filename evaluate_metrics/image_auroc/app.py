"""A small Space: image AUROC of a table of scores."""

from pathlib import Path
from typing import Any

import evaluate

from defect_hub.evaluate_metrics.apps import table_app

METRIC = evaluate.load(str(Path(__file__).with_name("image_auroc.py")))
EXAMPLE = [[0.1, 0], [0.7, 0], [0.6, 1], [0.9, 1]]


def compute(rows: list[list]) -> dict[str, Any]:
    """Return the metric of the table's rows."""
    return METRIC.compute(
        predictions=[float(row[0]) for row in rows],
        references=[int(row[1]) for row in rows],
    )


demo = table_app(
    title="Image AUROC",
    about="Area under the ROC curve over images; 0.5 is chance.",
    headers=["score", "defective (0 or 1)"],
    datatypes=["number", "number"],
    example=EXAMPLE,
    compute=compute,
)

if __name__ == "__main__":
    demo.launch()
