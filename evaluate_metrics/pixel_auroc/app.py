"""A small Space: pixel AUROC of an anomaly map and a mask."""

from pathlib import Path

import evaluate
import gradio as gr
import numpy as np
from PIL import Image

EXAMPLES = Path(__file__).parent / "examples"
METRIC = evaluate.load(str(Path(__file__).with_name("pixel_auroc.py")))


def compute(map_file: str | None, mask_file: str | None) -> dict[str, float]:
    """Return the pixel AUROC of a map (.npy, or a grey image) and a mask (an image, defects not black)."""
    if map_file is None or mask_file is None:
        raise gr.Error("Upload an anomaly map and a mask.")
    try:
        score_map = np.load(map_file) if map_file.endswith(".npy") else np.asarray(Image.open(map_file).convert("F"))
        mask = np.asarray(Image.open(mask_file).convert("L")) > 0
        return METRIC.compute(predictions=[score_map], references=[mask])
    except (OSError, ValueError) as error:
        raise gr.Error(str(error)) from error


with gr.Blocks(title="Pixel AUROC") as demo:
    gr.Markdown("# Pixel AUROC\nArea under the ROC curve over the pixels of one map; 0.5 is chance.")
    with gr.Row():
        score_map = gr.File(label="Anomaly map (.npy or grey image)", file_types=[".npy", "image"], elem_id="map")
        mask = gr.File(label="Mask (image, defects not black)", file_types=["image"], elem_id="mask")
    button = gr.Button("Compute", elem_id="compute")
    gr.Examples([[str(EXAMPLES / "map.png"), str(EXAMPLES / "mask.png")]], [score_map, mask], elem_id="examples")
    button.click(compute, [score_map, mask], gr.JSON(elem_id="result"))

if __name__ == "__main__":
    demo.launch()
