"""A small Space: which words of a description does the mask bear out?"""

import tempfile
from pathlib import Path
from typing import Any

import evaluate
import gradio as gr
import numpy as np
from PIL import Image

from defect_hub.evaluate_metrics.apps import write_example
from defect_hub.evaluate_metrics.kernels import grounded_claims

METRIC = evaluate.load(str(Path(__file__).with_name("groundedness.py")))
TEXT = "Yes, there is a medium-sized bright spot defect in the middle right. A second scratch is at the bottom."


def compute(text: str, mask_file: str | None) -> tuple[list[list[str]], dict[str, Any]]:
    """Return the claims of a description, and the metric of it."""
    if mask_file is None:
        raise gr.Error("Upload a mask.")
    try:
        mask = np.asarray(Image.open(mask_file).convert("L")) > 0
    except OSError as error:
        raise gr.Error(str(error)) from error
    claims = [[claim.kind, claim.words, "yes" if claim.supported else "no"] for claim in grounded_claims(text, mask)]
    return claims, METRIC.compute(predictions=[text], references=[mask])


with gr.Blocks(title="Groundedness") as demo:
    gr.Markdown("# Groundedness\nDoes the mask bear out what a description says of place, number and size?")
    with gr.Row():
        text = gr.Textbox(TEXT, label="Description", lines=3, elem_id="text")
        mask = gr.File(label="Mask (image, defects not black)", file_types=["image"], elem_id="mask")
    button = gr.Button("Compute", variant="primary", elem_id="compute")
    claims = gr.Dataframe(headers=["claim", "words", "supported"], label="Claims", elem_id="claims")
    result = gr.JSON(label="Result", elem_id="result")
    with tempfile.TemporaryDirectory() as folder:
        gr.Examples([[TEXT, write_example(Path(folder))[1]]], [text, mask], elem_id="examples")
    button.click(compute, [text, mask], [claims, result], api_name="compute")

if __name__ == "__main__":
    demo.launch()
