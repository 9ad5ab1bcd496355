"""The small apps of the metric Spaces: fill in a table, or upload a map and its mask, and press the button."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import gradio as gr
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Result = dict[str, Any]


def table_app(
    *,
    title: str,
    about: str,
    headers: Sequence[str],
    datatypes: Sequence[Literal["str", "number", "bool"]],
    example: list[list],
    compute: Callable[[list[list]], Result],
) -> gr.Blocks:
    """Build the app of a metric of rows: an editable table that starts with an example.

    Args:
        title: name of the metric.
        about: one or two sentences of Markdown below it.
        headers: names of the columns.
        datatypes: "str", "number" or "bool" per column.
        example: rows of the table at the start.
        compute: returns the metrics of the table's rows; its ValueError is shown to the user in one line.
    """

    def metrics_of(rows: list[list]) -> Result:
        for number, row in enumerate(rows, 1):
            for header, cell in zip(headers, row, strict=True):
                if cell is None or cell == "":
                    raise gr.Error(f"row {number}: `{header}` is empty; fill it in, or delete the row")
        try:
            return compute(rows)
        except ValueError as error:
            raise gr.Error(str(error)) from error

    with gr.Blocks(title=title) as demo:
        gr.Markdown(f"# {title}\n{about}")
        table = gr.Dataframe(
            example,
            headers=list(headers),
            datatype=list(datatypes),
            type="array",
            column_count=len(headers),
            wrap=True,
            elem_id="table",
        )
        button = gr.Button("Compute", variant="primary", elem_id="compute")
        button.click(metrics_of, table, gr.JSON(label="Result", elem_id="result"), api_name="compute")
    return demo


def map_app(
    *, title: str, about: str, compute: Callable[..., Result], option: tuple[str, float] | None = None
) -> gr.Blocks:
    """Build the app of a pixel metric: the files of an anomaly map and its mask; it starts with an example.

    Args:
        title: name of the metric.
        about: one or two sentences of Markdown below it.
        compute: returns the metrics of a map (H, W) of any range, a mask (H, W) of bool, and the option if there is
            one; its ValueError is shown to the user in one line.
        option: name and first value of a number that the user may set.
    """

    def metrics_of(map_file: str | None, mask_file: str | None, *options: float) -> Result:
        if map_file is None or mask_file is None:
            raise gr.Error("Upload an anomaly map and a mask.")
        try:
            mask = np.asarray(Image.open(mask_file).convert("L")) > 0
            return compute(_read_map(map_file), mask, *options)
        except (OSError, ValueError) as error:
            raise gr.Error(str(error)) from error

    with gr.Blocks(title=title) as demo:
        gr.Markdown(f"# {title}\n{about}")
        with gr.Row(), tempfile.TemporaryDirectory() as folder:
            example_map, example_mask = write_example(Path(folder))
            score_map = gr.File(
                example_map, label="Anomaly map (.npy or grey image)", file_types=[".npy", "image"], elem_id="map"
            )
            mask = gr.File(example_mask, label="Mask (image, defects not black)", file_types=["image"], elem_id="mask")
        options = [gr.Number(option[1], label=option[0], elem_id=option[0])] if option else []
        button = gr.Button("Compute", variant="primary", elem_id="compute")
        result = gr.JSON(label="Result", elem_id="result")
        button.click(metrics_of, [score_map, mask, *options], result, api_name="compute")
    return demo


def write_example(folder: Path) -> list[str]:
    """Write a generated map (a blurred spot over noise) and its mask, each 128 x 128; return their paths."""
    y, x = np.mgrid[:128, :128]
    spot = ((x - 80) / 18) ** 2 + ((y - 52) / 11) ** 2
    noise = np.random.default_rng(0).normal(0, 0.12, spot.shape)
    score_map = np.clip(0.25 + 0.5 * np.exp(-spot / 2) + noise, 0, 1)
    paths = [folder / "map.png", folder / "mask.png"]
    for path, image in zip(paths, (score_map, spot <= 1), strict=True):
        Image.fromarray((255 * image).astype(np.uint8)).save(path)
    return [str(path) for path in paths]


def _read_map(path: str) -> NDArray[Any]:
    return np.load(path) if path.endswith(".npy") else np.asarray(Image.open(path).convert("F"))
