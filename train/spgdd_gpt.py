"""Train SPGDD-GPT.

accelerate launch train/spgdd_gpt.py --config train/configs/spgdd_gpt_tiny.yaml --output_dir runs/tiny
"""

import argparse
import dataclasses
import json
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoModel, AutoProcessor, HfArgumentParser

from defect_hub.modeling.presets_spgdd_gpt import build_tiny
from defect_hub.train.data import DiagnosisCollator, DiagnosisDataset, load_split
from defect_hub.train.evaluation import data_fingerprint, evaluate_diagnosis
from defect_hub.train.loop import LoopConfig, build_accelerator, checkpoints, fit
from defect_hub.train.recording import (
    base_models,
    data_use,
    hardware,
    public_name,
    recipe_record,
    repeatable_command,
    versions,
)
from defect_hub.train.run_facts import Cost, Measurement, RunFacts
from defect_hub.train.saving import save_complete

# Settings that may change between a checkpoint and its resumption without changing the result.
_FREE = {"output_dir", "resume", "save_steps", "keep_checkpoints", "num_workers", "eval_split"}


@dataclass
class SpgddGptRecipe(LoopConfig):
    """A training run of SPGDD-GPT.

    Args:
        data: data set in the record schema: build folder or Hub id.
        train_split: split to learn from.
        calibration_split: split the thresholds are taken from; empty holds `calibration_fraction` of the training
            split out of training.
        calibration_fraction: see above.
        eval_split: split of the final table; empty skips it.
        model: `tiny` for fresh weights, else a checkpoint (folder or Hub id) to start from.
        model_config: configuration fields to override, as a JSON object.
        trainable: `all`, or `adapter` (the paper: CLIP and the language model stay frozen).
        reference_counts: numbers of normal references drawn per batch; 0 is zero-shot.
        calibration_references: references of the few-shot thresholds.
        flip: random flips, with the position words of the answers flipped along.
    """

    data: str = "steelsynth"
    train_split: str = "train"
    calibration_split: str = ""
    calibration_fraction: float = 0.1
    eval_split: str = "val"
    model: str = "tiny"
    model_config: str = "{}"
    trainable: str = "all"
    reference_counts: list[int] = field(default_factory=lambda: [0, 1, 2, 4])
    calibration_references: int = 2
    flip: bool = True


def parse_recipe(arguments: list[str]) -> SpgddGptRecipe:
    """Defaults, then the YAML file of `--config`, then the command line.

    Raises:
        ValueError: if the file names a field that does not exist.
    """
    only_config = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    only_config.add_argument("--config", type=Path)
    found, arguments = only_config.parse_known_args(arguments)
    parser = HfArgumentParser(SpgddGptRecipe)
    if found.config:
        values = yaml.safe_load(found.config.read_text()) or {}
        known = {item.name for item in dataclasses.fields(SpgddGptRecipe)}
        if unknown := sorted(values.keys() - known):
            raise ValueError(
                f"{found.config}: {', '.join(unknown)}: no such field. Fields are: {', '.join(sorted(known))}"
            )
        if "model_config" in values:
            values["model_config"] = json.dumps(values["model_config"])  # as on the command line
        parser.set_defaults(**values)
    return parser.parse_args_into_dataclasses(arguments)[0]


def split_rows(recipe: SpgddGptRecipe) -> tuple[Any, Any]:
    """Training rows and calibration rows, never the same image."""
    rows = load_split(recipe.data, recipe.train_split)
    if recipe.calibration_split:
        return rows, load_split(recipe.data, recipe.calibration_split)
    parts = rows.train_test_split(test_size=recipe.calibration_fraction, seed=recipe.seed)
    return parts["train"], parts["test"]


def check_apart(recipe: SpgddGptRecipe, calibration_rows: Any, eval_rows: Any) -> None:
    """A data set may have two names for one split; thresholds must not come from the images that the table reports.

    Raises:
        ValueError: if every image of `eval_split` is used for calibration.
    """
    if set(eval_rows["sha256"]) <= set(calibration_rows["sha256"]):
        raise ValueError(
            f"{recipe.data}: calibration_split {recipe.calibration_split!r} and eval_split {recipe.eval_split!r} are "
            "the same images. Name another calibration_split, or leave it empty"
        )


def build_model(recipe: SpgddGptRecipe, rows: Any) -> tuple[Any, Any]:
    """Fresh tiny model, or the checkpoint named by the recipe."""
    overrides = json.loads(recipe.model_config)
    if recipe.model == "tiny":
        corpus = [turn["value"] for conversation in rows["conversation"] for turn in conversation[:2]]
        return build_tiny(corpus, sorted(set(rows["object_name"])), **overrides)
    model = AutoModel.from_pretrained(recipe.model, dtype="float32", **overrides)
    return model, AutoProcessor.from_pretrained(recipe.model)


def freeze(model: Any, trainable: str) -> None:
    """Leave only what the recipe trains.

    Raises:
        ValueError: for an unknown value of `trainable`.
    """
    if trainable not in ("all", "adapter"):
        raise ValueError(f"trainable={trainable!r}: choose 'all' or 'adapter'")
    if trainable == "adapter":
        for frozen in (model.model.clip, model.model.language_model, model.lm_head):
            frozen.requires_grad_(False)


def calibrate(model: Any, processor: Any, rows: Any, train_rows: Any, num_references: int, seed: int) -> None:
    """Write the thresholds of both protocols into the processor; references come from the training rows."""
    fingerprint = data_fingerprint(rows)
    normals = train_rows.filter(lambda normal: normal is False, input_columns="is_defective")
    references = normals.shuffle(seed=seed).select(range(min(num_references, len(normals))))["image"]
    processor.calibration = {
        "zero_shot": evaluate_diagnosis(model, processor, rows, describe=False).thresholds(fingerprint),
        "few_shot": evaluate_diagnosis(
            model, processor, rows, reference_images=list(references), describe=False
        ).thresholds(fingerprint),
    }


def steps_done(recipe: SpgddGptRecipe) -> int:
    """Where the run stands: the step of its newest checkpoint."""
    found = checkpoints(Path(recipe.output_dir)) if recipe.resume else []
    return int(found[-1].name.split("-")[1]) if found else 0


def main(arguments: list[str] | None = None) -> None:
    """Train, calibrate, evaluate, save."""
    arguments = sys.argv[1:] if arguments is None else arguments
    recipe = parse_recipe(arguments)
    output_dir = Path(recipe.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    accelerator = build_accelerator(recipe)
    rows, calibration_rows = split_rows(recipe)
    eval_rows = load_split(recipe.data, recipe.eval_split) if recipe.eval_split else None
    if eval_rows is not None:
        check_apart(recipe, calibration_rows, eval_rows)
    settings = dataclasses.asdict(recipe)
    run = RunFacts(
        data=public_name(recipe.data),
        uses=[
            data_use("training", recipe.train_split, rows),
            data_use("calibration", recipe.calibration_split or recipe.train_split, calibration_rows),
        ],
        command=repeatable_command(arguments, accelerator.num_processes),
        recipe=recipe_record(settings),
        base_models=base_models(recipe.model),
        hardware=hardware(accelerator.device, accelerator.num_processes),
        versions=versions(),
    )
    model, processor = build_model(recipe, rows)
    freeze(model, recipe.trainable)
    dataset = DiagnosisDataset(rows, processor, recipe.seed, recipe.flip)
    fixed = {key: value for key, value in settings.items() if key not in _FREE}
    first_step, start = steps_done(recipe), time.monotonic()
    model = fit(model, dataset, DiagnosisCollator(dataset, recipe.reference_counts), recipe, accelerator, fixed)
    cost = training_cost(first_step, steps_done(dataclasses.replace(recipe, resume=True)), time.monotonic() - start)

    if accelerator.is_main_process:
        run = finish(
            dataclasses.replace(run, cost=cost), recipe, model, processor, (rows, calibration_rows, eval_rows)
        )
        save_complete(model, processor, output_dir / "model", run)
    accelerator.wait_for_everyone()
    accelerator.end_training()


def training_cost(first_step: int, last_step: int, seconds: float) -> Cost:
    """What this process measured of the training; nothing where an earlier one had finished it."""
    return Cost(round(seconds, 1), first_step, last_step) if last_step > first_step else Cost()


def finish(run: RunFacts, recipe: SpgddGptRecipe, model: Any, processor: Any, rows: tuple[Any, Any, Any]) -> RunFacts:
    """Calibrate and evaluate trained weights.

    Args:
        run: facts so far.
        recipe: of the run.
        model: trained.
        processor: gets the thresholds.
        rows: of training, calibration and evaluation; the last may be None.

    Returns:
        The facts with metrics and times.
    """
    train_rows, calibration_rows, eval_rows = rows
    start = time.monotonic()
    calibrate(model, processor, calibration_rows, train_rows, recipe.calibration_references, recipe.seed)
    cost = dataclasses.replace(run.cost, calibration_seconds=round(time.monotonic() - start, 1))
    uses, metrics = run.uses, []
    if eval_rows is not None:
        start = time.monotonic()
        scores = evaluate_diagnosis(model, processor, eval_rows)
        values, undefined = scores.metrics(), scores.undefined()
        cost = dataclasses.replace(cost, evaluation_seconds=round(time.monotonic() - start, 1))
        text = json.dumps(values | ({"undefined": undefined} if undefined else {}), indent=2)
        (Path(recipe.output_dir) / "metrics.json").write_text(text)
        print(text)
        use = data_use("evaluation", recipe.eval_split, eval_rows)
        uses = [*uses, use]
        metrics = [Measurement(run.data, recipe.eval_split, use.rows, "zero_shot", values, run.command)]
    today = datetime.now(UTC).date().isoformat()
    return dataclasses.replace(run, uses=uses, metrics=metrics, cost=cost, date=today)


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:  # bad settings, data or checkpoint, full disk
        sys.exit(f"error: {error}")
