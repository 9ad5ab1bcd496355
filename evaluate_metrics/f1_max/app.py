"""A small Space: F1-max of a table of scores."""

from pathlib import Path

import evaluate
import gradio as gr

METRIC = evaluate.load(str(Path(__file__).with_name("f1_max.py")))
EXAMPLE = [[0.1, 0], [0.7, 0], [0.6, 1], [0.9, 1]]


def compute(rows: list[list]) -> dict[str, float]:
    """Return the metric of the table's rows."""
    try:
        return METRIC.compute(
            predictions=[float(row[0]) for row in rows],
            references=[int(row[1]) for row in rows],
        )
    except ValueError as error:
        raise gr.Error(str(error)) from error


with gr.Blocks(title="F1-max") as demo:
    gr.Markdown("# F1-max\nThe highest F1 of any threshold, and the threshold.")
    table = gr.Dataframe(
        EXAMPLE,
        headers=["score", "defective (0 or 1)"],
        datatype=["number", "number"],
        type="array",
        column_count=2,
        elem_id="table",
    )
    button = gr.Button("Compute", elem_id="compute")
    button.click(compute, table, gr.JSON(elem_id="result"))

if __name__ == "__main__":
    demo.launch()
