"""A small Space: BLEU, ROUGE-L and CIDEr-D of a table of texts."""

from pathlib import Path
from typing import Any

import evaluate

from defect_hub.evaluate_metrics.apps import table_app

METRIC = evaluate.load(str(Path(__file__).with_name("caption_overlap.py")))
EXAMPLE = [
    ["There is a dark scratch in the top left.", "There is a dark scratch at the top left."],
    ["A small round hole.", "A round hole near the lower edge."],
]


def compute(rows: list[list]) -> dict[str, Any]:
    """Return the metrics of the table's rows."""
    return METRIC.compute(predictions=[str(row[0]) for row in rows], references=[str(row[1]) for row in rows])


demo = table_app(
    title="Caption overlap",
    about="How many words do a description and a reference share, and in what order? BLEU, ROUGE-L and CIDEr-D.",
    headers=["description", "reference"],
    datatypes=["str", "str"],
    example=EXAMPLE,
    compute=compute,
)

if __name__ == "__main__":
    demo.launch()
