"""The Space: a picture in, heat map, mask, verdict and description out.

python spaces/defect_diagnosis/app.py [--model FOLDER_OR_HUB_ID] [--port PORT]
"""

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from huggingface_hub import SpaceCard
from PIL import Image
from transformers import Pipeline

from defect_hub.diagnose import calibration, load_pipeline, read_image
from defect_hub.embedded import EMBEDDED_CHECKPOINT
from defect_hub.modeling.visualization import outline, overlay

EXAMPLES = Path(__file__).parent / "examples"
CARD = Path(__file__).parent / "README.md"
MAX_REFERENCES = 4
KEEP_UPLOADS_S = 1800
WAITING = '<p class="verdict">Upload an image and press Diagnose.</p>'
CSS = """
.verdict { margin: 0; padding: .8rem 1rem; border-radius: 8px; font-size: 1.15rem;
  border-left: 6px solid #8a94a0; background: color-mix(in srgb, #8a94a0 14%, transparent); }
.verdict.defective { border-color: #d92d20; background: color-mix(in srgb, #d92d20 14%, transparent); }
.verdict.normal { border-color: #17924f; background: color-mix(in srgb, #17924f 14%, transparent); }
.verdict small { opacity: .75; margin-left: .6rem; }
#verdict { padding: 0 !important; }
#claims { padding: .6rem .9rem; border-radius: 8px; background: color-mix(in srgb, #f5a300 18%, transparent); }
"""
INTRODUCTION = """# Defect diagnosis
Is there a defect, where, of what kind, and why? Normal references of the same surface are optional and make the
comparison sharper. A language model's text is generated: claims that the heat map does not bear out are listed. A
person decides."""
SOURCES = {"language model": "Description (by the language model)", "template": "Description (composed from the mask)"}


def read_upload(path: str) -> Image.Image:
    """An uploaded file as RGB; a problem names the file as the user knows it, not its place on the server."""
    try:
        return read_image(Path(path))
    except ValueError as error:
        raise gr.Error(str(error).replace(path, Path(path).name), print_exception=False) from error


def diagnose(
    pipe: Pipeline,
    image_path: str | None,
    references: list[tuple[str, str | None]] | None,
    object_name: str,
    calibrated: bool,
    threshold: float,
) -> tuple[Any, ...]:
    """Diagnose one upload.

    Args:
        pipe: The pipeline "defect-diagnosis".
        image_path: Uploaded file.
        references: (file, caption) of normal images.
        object_name: What the image shows; empty takes the checkpoint's.
        calibrated: Whether the calibrated threshold counts, not the slider's.
        threshold: Of the slider, 0-1.

    Returns:
        Verdict (HTML), (image, overlay), mask, description, claims and JSON record.

    Raises:
        gr.Error: There is no image, more than four references, or a file is unusable.
    """
    if image_path is None:
        raise gr.Error("Upload an image first.", print_exception=False)
    if len(references or []) > MAX_REFERENCES:
        raise gr.Error(f"Give at most {MAX_REFERENCES} normal references.", print_exception=False)
    image = read_upload(image_path)
    record = pipe(
        image,
        reference_images=[read_upload(path) for path, _ in references or []] or None,
        object_name=object_name.strip() or None,
        threshold=None if calibrated else threshold,
    )
    row = {key: value for key, value in record.items() if key not in ("anomaly_map", "mask")}
    return (
        verdict(record),
        (image, outline(overlay(image, record["anomaly_map"]), record["mask"])),
        Image.fromarray(record["mask"]),
        gr.Textbox(record["description"], label=SOURCES[record["text_source"]]),
        claims(record["unsupported_claims"]),
        {"width": image.width, "height": image.height, **row},
    )


def verdict(record: dict[str, Any]) -> str:
    """The decision as HTML, with the numbers behind it."""
    kind = "defective" if record["is_defective"] else "normal"
    count = len(record["regions"])
    regions = f", {count} region{'s' * (count != 1)}" if record["is_defective"] else ""
    spread = "" if record["score_std"] is None else f" ± {record['score_std']:.3f}"
    numbers = f"score {record['score']:.3f}{spread}, threshold {record['threshold']:.3f}{regions}"
    return f'<p class="verdict {kind}"><strong>{kind.capitalize()}</strong><small>{numbers}</small></p>'


def claims(unsupported: list[str]) -> gr.Markdown:
    """The warning, shown only where there is something to warn of."""
    lines = "\n".join(f"- {claim}" for claim in unsupported)
    return gr.Markdown(f"**Not borne out by the heat map**\n\n{lines}", visible=bool(unsupported))


def threshold_slider(pipe: Pipeline, references: list[Any] | None, calibrated: bool) -> gr.Slider:
    """The slider: at the calibrated threshold of the protocol and locked, or free."""
    if not calibrated:
        return gr.Slider(interactive=True)
    value = calibration(pipe, len(references or []))["value"]
    return gr.Slider(0, 1, value, step=0.001, label="Threshold", interactive=False, elem_id="threshold")


def input_column(pipe: Pipeline) -> tuple[list[gr.components.Component], gr.Button]:
    """The left column; its components in the order of the arguments of `diagnose`."""
    image = gr.Image(
        label="Image",
        type="filepath",
        image_mode=None,  # the file as it is, 16-bit gray included
        sources=["upload", "clipboard"],
        height=320,
        elem_id="image",
    )
    references = gr.Gallery(
        label="Normal references (optional, up to four)",
        type="filepath",
        file_types=["image"],
        columns=MAX_REFERENCES,
        fit_columns=False,
        object_fit="contain",
        height=170,
        interactive=True,
        elem_id="references",
    )
    object_name = gr.Textbox(pipe.processor.object_name, label="Object", elem_id="object")
    calibrated = gr.Checkbox(True, label="Calibrated threshold", elem_id="calibrated")
    threshold = threshold_slider(pipe, None, True)
    button = gr.Button("Diagnose", variant="primary", elem_id="diagnose")
    gr.Examples([[str(path)] for path in sorted(EXAMPLES.glob("*.jpg"))], [image], elem_id="examples")
    update = partial(threshold_slider, pipe)
    for changed in (references.change, calibrated.change):
        changed(update, [references, calibrated], threshold, show_progress="hidden", api_visibility="private")
    return [image, references, object_name, calibrated, threshold], button


def output_column() -> list[gr.components.Component]:
    """The right column; its components in the order of what `diagnose` returns."""
    found = gr.HTML(WAITING, padding=False, elem_id="verdict")
    compared = gr.ImageSlider(
        label="Image | heat map and outline",
        format="png",
        slider_position=15,  # most of the heat map shows
        interactive=False,
        elem_id="overlay",
    )
    description = gr.Textbox(label="Description", lines=3, interactive=False, elem_id="description")
    warning = gr.Markdown(visible=False, elem_id="claims")
    with gr.Row():
        mask = gr.Image(label="Mask", format="png", interactive=False, height=280, elem_id="mask")
        record = gr.JSON(label="Record", max_height=280, elem_id="record")
    return [found, compared, mask, description, warning, record]


def build_demo(pipe: Pipeline) -> gr.Blocks:
    """The page around a pipeline."""
    with gr.Blocks(title="Defect diagnosis", delete_cache=(KEEP_UPLOADS_S, KEEP_UPLOADS_S)) as demo:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=2):
                inputs, button = input_column(pipe)
            with gr.Column(scale=3):
                outputs = output_column()
        button.click(partial(diagnose, pipe), inputs, outputs, concurrency_limit=1, api_name="diagnose")
    return demo


def default_model(card: Path) -> str:
    """The model that DEFECT_HUB_MODEL names, else the first under `models` of the card, else the embedded one."""
    models = SpaceCard.load(card).data.models if card.is_file() else None
    return os.environ.get("DEFECT_HUB_MODEL") or next(iter(models or []), str(EMBEDDED_CHECKPOINT))


def main() -> None:
    """Serve the page until interrupted."""
    parser = argparse.ArgumentParser(description="Serve the defect-diagnosis Space.")
    order = "DEFECT_HUB_MODEL, then models of README.md, then embedded"
    parser.add_argument("--model", default=default_model(CARD), help=f"folder or Hub id (default: {order})")
    parser.add_argument("--port", type=int, help="port (default: the first free one from 7860)")
    args = parser.parse_args()
    try:
        pipe = load_pipeline(args.model)
    except ValueError as error:
        parser.error(str(error))
    build_demo(pipe).queue(max_size=20).launch(server_port=args.port, max_file_size="30mb", show_error=True, css=CSS)


if __name__ == "__main__":
    main()
