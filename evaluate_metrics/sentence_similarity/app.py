"""A small Space: Sentence-BERT similarity of a table of texts."""

from pathlib import Path
from typing import Any

import evaluate

from defect_hub.evaluate_metrics.apps import table_app
from defect_hub.evaluate_metrics.sentences import DEFAULT_MODEL

METRIC = evaluate.load(str(Path(__file__).with_name("sentence_similarity.py")))
EXAMPLE = [
    ["There is a dark scratch in the top left.", "A black line at the upper left."],
    ["A small round hole.", "The surface shows no defect."],
]


def compute(rows: list[list]) -> dict[str, Any]:
    """Return the metric of the table's rows."""
    return METRIC.compute(predictions=[str(row[0]) for row in rows], references=[str(row[1]) for row in rows])


demo = table_app(
    title="Sentence similarity",
    about=f"Do a description and a reference mean the same? Mean cosine of their embeddings by `{DEFAULT_MODEL}`.",
    headers=["description", "reference"],
    datatypes=["str", "str"],
    example=EXAMPLE,
    compute=compute,
)

if __name__ == "__main__":
    demo.launch()
