"""A small Space: image AUROC of a table of scores."""

from pathlib import Path

import evaluate
import gradio as gr

METRIC = evaluate.load(str(Path(__file__).with_name("image_auroc.py")))
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


with gr.Blocks(title="Image AUROC") as demo:
    gr.Markdown("# Image AUROC\nArea under the ROC curve over images; 0.5 is chance.")
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
