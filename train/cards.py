"""Model card of a checkpoint folder: every figure in it stands in a file of the folder, none is written by hand."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData, RepoCard
from safetensors import safe_open

from defect_hub.train.run_facts import Cost, Measurement, RunFacts, read_run, stages, weights_license

TAGS = ["defect-detection", "anomaly-detection", "industrial-inspection", "spgdd-gpt"]
PROTOCOLS = {"zero_shot": "zero-shot", "few_shot": "few-shot"}
# What each metric is about, in the Hub's names of tasks.
TASKS = {"image": "image-classification", "pixel": "image-segmentation", "aupro": "image-segmentation"}
CITATION = """```bibtex
@article{an2026spgddgpt,
  title  = {{SPGDD-GPT}: Image-Text-Driven Generic Defect Diagnosis Using a Self-prompted Large Vision-Language Model},
  author = {An, Shengwang and Dong, Xinghui},
  year   = {2026}
}
```"""
LOAD_WITH = """With the package `defect-hub` installed:

```python
import defect_hub  # registers the models and the pipeline
from transformers import pipeline

pipe = pipeline("defect-diagnosis", model="{place}")
report = pipe("image.jpg", reference_images=["ok1.jpg", "ok2.jpg"]{thresholds})
print(report["is_defective"], report["score"], report["description"]{claims})
```

`ok1.jpg` and `ok2.jpg` are normal images of the same object; without `reference_images` the diagnosis is zero-shot.
`report` also holds `anomaly_map`, `mask` and `regions`, in pixels of the image."""
LOAD_WITHOUT = """Without the package, transformers runs the code of this repository:

```python
from PIL import Image
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("{place}", trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained("{place}", trust_remote_code=True)
image = Image.open("image.jpg")
references = [Image.open("ok1.jpg"), Image.open("ok2.jpg")]
inputs = processor(images=image, reference_images=references)
outputs = model.diagnose(**inputs{generation})
report = processor.post_process_diagnosis(outputs, images=[image]{thresholds})[0]
print(report["is_defective"], report["score"], report["description"]{claims})
```"""
ENDPOINT = """On an Inference Endpoint of your own, where `handler.py` answers and says which parameters it takes:

```bash
{ printf '{"inputs": "'; base64 < image.jpg; printf '"}'; } |
  curl "$ENDPOINT_URL" --header "Authorization: Bearer $HF_TOKEN" --header "Content-Type: application/json" --data @-
```"""
USE = """For finding, marking and describing defects on surfaces like those of its training data, to help a person who
looks at the image too.

Out of scope: acceptance or rejection without a validation on your own parts, anything on which safety depends, and
images of anything but products and materials."""
LIMITS = (
    "A score ranks images of one object under one protocol (zero-shot or few-shot). It is no probability, and scores "
    "of different objects, protocols or checkpoints do not compare.",
    "The thresholds hold for images like those of the calibration. On another material, camera or light, look at the "
    "scores of some images known to be good and pass `threshold=`.",
)
LIMIT_OF_TEXT = (
    "The description is generated text. Verdict, place and number are checked against the map, and what it does not "
    "support is listed in `unsupported_claims`; kind and cause are not checked."
)
LIMIT_OF_SENTENCES = (
    "There is no language model: the description is a sentence composed from the mask, and holds for the mask alone. "
    "Kind and cause are not in it."
)
GENERATED = "<!-- Made from run.json. Without this line, the card is yours, and is published as you write it. -->"
VERIFY = """After a download, in its folder:

```bash
sha256sum --check SHA256SUMS
```"""


@dataclass(frozen=True)
class Checkpoint:
    """What the files of a folder say.

    Attributes:
        model_id: where it will be on the Hub; None: a local folder.
        config: `config.json`.
        processor: `processor_config.json`.
        run: `run.json`; None: there is none.
        weights: numbers stored in the safetensors files, by type.
        access: what its card asks of who wants access to the repository, as fields of the front matter.
    """

    model_id: str | None
    config: Mapping[str, Any]
    processor: Mapping[str, Any]
    run: RunFacts | None
    weights: Mapping[str, int]
    access: Mapping[str, Any]

    @property
    def describes(self) -> bool:
        """Whether a language model writes the descriptions; a detector composes them."""
        return self.config.get("has_language_model", True)

    @property
    def left_out(self) -> Mapping[str, Mapping[str, str]]:
        """Base weights that are fetched from elsewhere, by part."""
        return self.config.get("base_models") or {}

    @property
    def converted_from(self) -> Mapping[str, Mapping[str, str]]:
        """Where converted weights came from, by part."""
        return self.config.get("converted_from") or {}


def model_card(folder: Path, model_id: str | None = None) -> str:
    """README.md of a model folder.

    Args:
        folder: with `config.json`, `processor_config.json`, safetensors files and, if a training run is recorded,
            `run.json`. Of an earlier README.md, the terms of a gated repository are kept (`extra_gated_...`).
        model_id: where it will be on the Hub; None: the card is read in the folder.

    Returns:
        Front matter and text. The same files give the same card.

    Raises:
        ValueError: if `run.json` or the earlier card is damaged.
        OSError: if one of the other files is missing.
    """
    checkpoint = Checkpoint(
        model_id,
        json.loads((folder / "config.json").read_text(encoding="utf-8")),
        json.loads((folder / "processor_config.json").read_text(encoding="utf-8")),
        read_run(folder),
        _weights(folder),
        _access(folder),
    )
    of_text = LIMIT_OF_TEXT if checkpoint.describes else LIMIT_OF_SENTENCES
    sections = {
        "How to load": _loading(checkpoint),
        "Intended use": USE,
        "Limits": _bullets([*LIMITS, of_text, *(checkpoint.run.limits if checkpoint.run else ())]),
        "Metrics": _metrics(checkpoint.run),
        "Calibration": _calibration(checkpoint),
        "Training data": _training_data(checkpoint.run),
        "Base models": _base_models(checkpoint),
        "Training": _training(checkpoint.run),
        "Cost": _cost(checkpoint.run),
        **({"Verify": VERIFY} if model_id else {}),
        "Citation": CITATION,
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"---\n{_front_matter(checkpoint).to_yaml()}\n---\n\n{GENERATED}\n\n{_head(checkpoint)}\n\n{body}\n"


def _weights(folder: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    index = folder / "model.safetensors.index.json"  # Read here: the model's own reader would load torch.
    weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"] if index.is_file() else {}
    for path in [folder / name for name in sorted({*weight_map.values()} or {"model.safetensors"})]:
        with safe_open(path, framework="numpy") as file:
            slices = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118 (no mapping)
        for tensor in slices:
            kind = tensor.get_dtype()
            if "F" in kind:  # F32, F16, BF16, F8: weights; the rest are counters
                counts[kind] = counts.get(kind, 0) + math.prod(tensor.get_shape())
    return counts


def _access(folder: Path) -> dict[str, Any]:
    path = folder / "README.md"
    try:
        about = RepoCard.load(path, ignore_metadata_errors=True).data.to_dict() if path.is_file() else {}
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: front matter: {error}. Correct the YAML between the ---, or remove it") from None
    return {name: value for name, value in about.items() if name.startswith("extra_gated_")}


def _front_matter(checkpoint: Checkpoint) -> ModelCardData:
    run = checkpoint.run
    license = weights_license(run)
    known = dict.fromkeys(stage.data for _, stage in (stages(run) if run else ()))
    bases = [base["repo_id"] for base in checkpoint.left_out.values()]
    bases += [origin.get("repo_id", "") for origin in checkpoint.converted_from.values()]
    bases += [base.name for _, stage in (stages(run) if run else ()) for base in stage.base_models]
    hub_bases = [name for name in dict.fromkeys(bases) if "/" in name]
    relation = "adapter" if checkpoint.left_out else "finetune"
    results = [result for measured in (run.metrics if run else ()) for result in _eval_results(measured)]
    return ModelCardData(
        license=license or "other",
        license_name=None if license else "per-source" if run else "not-stated",
        library_name="transformers",
        pipeline_tag="image-text-to-text" if checkpoint.describes else "image-segmentation",
        tags=TAGS,
        datasets=[name for name in known if "/" in name] or None,
        base_model=hub_bases or None,
        base_model_relation=relation if hub_bases else None,
        model_name=(checkpoint.model_id or "spgdd-gpt").split("/")[-1],
        eval_results=results or None,
        **checkpoint.access,
    )


def _eval_results(measured: Measurement) -> Iterator[EvalResult]:
    for name, value in measured.values.items():
        yield EvalResult(
            task_type=TASKS.get(name.split("_")[0], "image-text-to-text"),
            dataset_type=measured.data,
            dataset_name=measured.data,
            dataset_split=measured.split,
            metric_type=name,
            metric_name=f"{name} ({PROTOCOLS[measured.protocol]})",
            metric_value=value,
        )


def _head(checkpoint: Checkpoint) -> str:
    trained = f", trained on {checkpoint.run.data}" if checkpoint.run else ""
    task = "diagnosis of surface images: heat map, mask, verdict and description"
    if not checkpoint.describes:
        task = "detection on surface images: heat map, mask and verdict, without a language model"
    stored = ", ".join(f"{count:,} ({kind})" for kind, count in sorted(checkpoint.weights.items()))
    return (
        f"# SPGDD-GPT{trained}\n\n"
        f"Defect {task}, with or without a few normal reference images. "
        "By Defect Hub, a re-implementation of SPGDD-GPT (An & Dong 2026) from the paper alone; "
        "neither code nor weights nor results are the authors'.\n\n"
        f"Weights in this {'repository' if checkpoint.model_id else 'folder'}: {stored}."
    )


def _loading(checkpoint: Checkpoint) -> str:
    thresholds = "" if checkpoint.processor.get("calibration") else ", threshold=0.5, pixel_threshold=0.5"
    texts = {"generation": ", max_new_tokens=64", "claims": ', report["unsupported_claims"]'}
    if not checkpoint.describes:
        texts = dict.fromkeys(texts, "")
    blanks = {"place": checkpoint.model_id or ".", "thresholds": thresholds, **texts}
    blocks = [LOAD_WITH.format(**blanks)]
    if checkpoint.model_id is None:
        blocks.insert(0, "From within this folder; from elsewhere, its path takes the place of `.`.")
    if object_name := checkpoint.processor.get("object_name"):
        blocks.append(
            f'The prompts speak of a "{object_name}"; pass `object_name=` (the processor: `object_names=`) '
            "for anything else."
        )
    if checkpoint.model_id or "auto_map" in checkpoint.config:
        blocks.append(LOAD_WITHOUT.format(**blanks))
    if checkpoint.model_id:
        blocks.append(ENDPOINT)
    return "\n\n".join(blocks)


def _training(run: RunFacts | None) -> str:
    if run is None:
        return "No training run is recorded in this repository, for instance because the weights were converted."
    parts = [] if run.date is None else [f"Finished on {run.date}."]
    for name, stage in stages(run):
        recipe = yaml.safe_dump(stage.recipe, sort_keys=False, default_flow_style=None, width=100).strip()
        heading = f"{name[0].upper()}{name[1:]}" if name == "this run" else f"Before it, `{name}`"
        parts += [f"{heading}:", f"```bash\n{stage.command}\n```", f"```yaml\n{recipe}\n```"]
    if run.versions:
        parts.append(f"Versions: {', '.join(f'{name} {number}' for name, number in run.versions.items())}.")
    return "\n\n".join(parts)


def _training_data(run: RunFacts | None) -> str:
    if run is None:
        return "Not recorded, and neither are the terms that the weights inherit from it: `license: other`."
    allowed = {True: "yes", False: "no", None: "not stated"}
    rows = [
        [
            name,
            _hub_link(stage.data, "datasets/"),
            f"{use.use} (`{use.split}`)",
            source.source or "not stated",
            source.license or "not stated",
            allowed[source.redistributable],
            f"{source.rows:,}",
            f"`{use.fingerprint}`" if use.fingerprint else "",
        ]
        for name, stage in stages(run)
        for use in stage.uses
        for source in use.sources
    ]
    head = ["run", "data set", "use (split)", "source", "licence", "may be passed on", "images", "digest of the use"]
    if weights_license(run):
        verdict = "Everything that shaped the weights is open, and so are they: Apache-2.0."
    else:
        verdict = (
            "Not everything that shaped the weights is open. They carry the terms of the sources and base models, "
            "as their owners state them: `license: other`. Where nothing is stated, ask the owner."
        )
    return f"{_table(head, rows)}\n\n{verdict}"


def _base_models(checkpoint: Checkpoint) -> str:
    parts = []
    if checkpoint.left_out:
        rows = [
            [part, _hub_link(base["repo_id"]), f"`{base['revision']}`"] for part, base in checkpoint.left_out.items()
        ]
        parts.append(
            "This repository holds the trained parts alone. The weights of the base models have terms of their own, "
            "stated on their pages; they are fetched from there when the model is loaded:"
        )
        parts.append(_table(["part", "base model", "revision"], rows))
    run = checkpoint.run
    bases = [
        [name, _hub_link(base.name) + (f" at `{base.version}`" if base.version else ""), base.license or "not stated"]
        for name, stage in (stages(run) if run else ())
        for base in stage.base_models
    ]
    if bases:
        parts.append(_table(["run", "went on from", "licence of its weights"], bases))
    if run is None and (origins := checkpoint.converted_from):
        parts.append("Weights were converted from:")
        parts.append(
            _table(["part", "converted from", "commit or SHA-256"], [_origin(*item) for item in origins.items()])
        )
    if not parts:
        return "None: all weights were trained from scratch." if run else "Not recorded."
    return "\n\n".join(parts)


def _origin(part: str, origin: Mapping[str, str]) -> list[str]:
    """Part, place and version of converted weights, see `SpgddGptConfig.converted_from`."""
    name, version = origin.values()
    return [part, _hub_link(name), f"`{version}`"]


def _calibration(checkpoint: Checkpoint) -> str:
    calibration = checkpoint.processor.get("calibration")
    if not calibration:
        return (
            "None: 0.5 in the examples is no recommendation. Choose `threshold=` and `pixel_threshold=`, from 0 to 1, "
            "on images of your own."
        )
    leaves = [(protocol, level, leaf) for protocol, levels in calibration.items() for level, leaf in levels.items()]
    rows = [
        [
            PROTOCOLS[protocol],
            level,
            f"{leaf['value']:.4f}",
            f"quantile {leaf['quantile']:g}" if leaf.get("quantile") else leaf["method"],
            leaf["n_normal"],
            leaf["n_anomalous"],
            f"`{leaf['data_fingerprint']}`",
        ]
        for protocol, level, leaf in leaves
    ]
    head = ["protocol", "level", "threshold", "method", "normal images", "defective images", "digest of the images"]
    origin = _calibration_images(checkpoint.run, [leaf for _, _, leaf in leaves])
    return f"An image or pixel counts as defective from its threshold upwards.\n\n{_table(head, rows)}\n\n{origin}"


def _calibration_images(run: RunFacts | None, leaves: list[dict[str, Any]]) -> str:
    """Where the images come from, as `defect-hub calibrate` wrote it down, else as the training run knows it."""
    named = {(leaf.get("data"), leaf.get("split")) for leaf in leaves}
    if all(data for data, _ in named):
        places = [f"the split `{split}` of {data}" if split else f"{data}" for data, split in sorted(named, key=str)]
        return f"The images are {' and '.join(places)}."
    digests = {leaf["data_fingerprint"] for leaf in leaves}
    uses = run.uses if run else ()
    split = next((use.split for use in uses if use.use == "calibration" and digests == {use.fingerprint}), None)
    if run is None or split is None:
        return "Which images they are is not recorded."
    held_out = run.recipe.get("calibration_split") == ""
    part = "a part, held out of training, of the" if held_out else "the"
    return f"The images are {part} split `{split}` of {run.data}."


def _metrics(run: RunFacts | None) -> str:
    if run is None or not run.metrics:
        return "Not evaluated." if run else "Not recorded."
    parts = []
    for measured in run.metrics:
        parts.append(
            f"{PROTOCOLS[measured.protocol].capitalize()}, on the {measured.rows:,} images of the split "
            f"`{measured.split}` of {measured.data}:"
        )
        parts.append(_table(["metric", "value"], [[name, f"{value:.4f}"] for name, value in measured.values.items()]))
        if measured.command == run.command:
            parts.append("Measured at the end of the training command below.")
        else:
            parts.append(f"Measured by `{measured.command}`.")
    return "\n\n".join(parts)


def _cost(run: RunFacts | None) -> str:
    if run is None:
        return "Not recorded."
    lines = list(_cost_lines(run.cost)) or ["Times: not recorded."]
    if run.hardware:
        lines.append(f"Hardware: {run.hardware}.")
    return _bullets(lines)


def _cost_lines(cost: Cost) -> Iterator[str]:
    if cost.training_seconds is not None:
        earlier = "; earlier steps, before an interruption, were not timed" if cost.first_step else ""
        yield f"Training: {cost.training_seconds:,} s for the steps {cost.first_step} to {cost.last_step}{earlier}."
    if cost.calibration_seconds is not None:
        yield f"Calibration: {cost.calibration_seconds:,} s."
    if cost.evaluation_seconds is not None:
        yield f"Evaluation: {cost.evaluation_seconds:,} s."
    if cost.energy_kwh is not None:
        yield f"Energy, metered: {cost.energy_kwh:,} kWh."
    if cost.carbon_kg is not None:
        yield f"CO2 equivalent, metered: {cost.carbon_kg:,} kg."


def _hub_link(name: str, kind: str = "") -> str:
    """A Hub id as a link to its page; the name of a folder as it is."""
    return f"[{name}](https://huggingface.co/{kind}{name})" if "/" in name else name


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    # Names and licences come from data sets of others: a cell stays a cell.
    cells = [[" ".join(str(cell).replace("|", "/").split()) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
