"""A small Space: description accuracy of a table of answers."""

from pathlib import Path

import evaluate
import gradio as gr

METRIC = evaluate.load(str(Path(__file__).with_name("description_accuracy.py")))
EXAMPLE = [["Yes, there is a scratch.", 1], ["No, it is clean.", 0], ["Perhaps.", 1]]


def compute(rows: list[list]) -> dict[str, float]:
    """Return the metric of the table's rows."""
    try:
        return METRIC.compute(
            predictions=[str(row[0]) for row in rows],
            references=[int(row[1]) for row in rows],
        )
    except ValueError as error:
        raise gr.Error(str(error)) from error


with gr.Blocks(title="Description accuracy") as demo:
    gr.Markdown("# Description accuracy\nIs the leading yes or no of each answer right?")
    table = gr.Dataframe(
        EXAMPLE,
        headers=["answer", "defective (0 or 1)"],
        datatype=["str", "number"],
        type="array",
        column_count=2,
        elem_id="table",
    )
    button = gr.Button("Compute", elem_id="compute")
    button.click(compute, table, gr.JSON(elem_id="result"))

if __name__ == "__main__":
    demo.launch()
