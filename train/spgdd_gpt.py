"""Train SPGDD-GPT.

accelerate launch train/spgdd_gpt.py --config train/configs/spgdd_gpt_tiny.yaml --output_dir runs/tiny
"""

import dataclasses
import json
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import AutoModel, AutoProcessor

from defect_hub.modeling.presets_spgdd_gpt import build_tiny
from defect_hub.train.adaptation import adapt, save_lora
from defect_hub.train.calibration import calibrate_trained
from defect_hub.train.checkpoints import checkpoints
from defect_hub.train.claim import claim_folder
from defect_hub.train.data import DiagnosisCollator, DiagnosisDataset, load_split
from defect_hub.train.evaluation import evaluate_diagnosis, evaluate_during_training, metrics_during_training
from defect_hub.train.feature_cache import CacheKey, build_feature_cache, encoder_digest, images_digest
from defect_hub.train.loop import build_accelerator, fit
from defect_hub.train.parts import parts_table
from defect_hub.train.recipe import Recipe, parse_recipe
from defect_hub.train.recording import (
    base_models,
    data_use,
    hardware,
    listed_rows,
    public_name,
    recipe_record,
    repeatable_command,
    versions,
)
from defect_hub.train.run_facts import Cost, Measurement, RunFacts
from defect_hub.train.saving import check_push, push, save_complete
from defect_hub.train.sharding import is_sharded, refuse_zero3
from defect_hub.train.signals import leaving_on_signals
from defect_hub.train.streaming import StreamedDiagnosisDataset
from defect_hub.train.together import failing_together, patient_barrier
from defect_hub.train.whole_file import write_whole


@dataclass
class SpgddGptRecipe(Recipe):
    """A training run of SPGDD-GPT.

    Args:
        reference_counts: numbers of normal references drawn per batch; 0 is zero-shot.
        calibration_references: references of the few-shot thresholds.
        simulated_defects: share of the normal images that get a simulated defect, 0-1; for sets without masks.
        feature_cache: folder where the image features of a frozen CLIP are computed once and read from then on; empty:
            every step encodes its images.

    Raises:
        ValueError: for values that do not fit each other.
    """

    reference_counts: list[int] = field(default_factory=lambda: [0, 1, 2, 4])
    calibration_references: int = 2
    simulated_defects: float = 0.0
    feature_cache: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = self.reference_counts
        if not (isinstance(counts, list) and counts and min(counts) >= 0):
            raise ValueError(f"reference_counts={counts!r}: give numbers from 0, e.g. 0 2")
        if not 0 <= self.simulated_defects <= 1:
            raise ValueError(f"simulated_defects={self.simulated_defects}: give a share from 0 to 1")
        if self.best_metric and self.best_metric not in (names := metrics_during_training()):
            raise ValueError(f"best_metric={self.best_metric!r}: choose one of {', '.join(names)}")
        if not self.feature_cache:
            return
        if self.trainable == "all":
            raise ValueError("feature_cache: trainable='all' changes the image encoder. Choose 'adapter' or 'lora'")
        for name in ("simulated_defects", "brightness", "contrast"):
            if getattr(self, name):
                raise ValueError(f"feature_cache: {name} draws new images in each epoch. Set one of them only")
        if self.dry_run:
            raise ValueError("feature_cache: a dry run would write all of it. Leave it empty for the estimate")
        if self.streaming:
            raise ValueError("feature_cache: a stream never shows its images by number. Set one of them only")

    def fixed(self) -> dict[str, Any]:
        """Where the features lie does not matter."""
        return super().fixed() | {"feature_cache": bool(self.feature_cache)}


def split_rows(recipe: SpgddGptRecipe) -> tuple[Any, Any]:
    """Training rows and calibration rows, never the same image."""
    rows = load_split(recipe.data, recipe.train_split, recipe.data_config, recipe.streaming)
    if recipe.calibration_split:
        return rows, load_split(recipe.data, recipe.calibration_split, recipe.data_config)
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
    """Fresh tiny model, or the checkpoint named by the recipe.

    Overrides may give parts of ours another size, which then start anew (variants of the ablations do).

    Raises:
        ValueError: if they do not fit the weights of CLIP or the language model.
    """
    overrides = json.loads(recipe.model_config)
    if recipe.model == "tiny":
        corpus = [turn["value"] for conversation in rows["conversation"] for turn in conversation[:2]]
        return build_tiny(corpus, sorted(set(rows["object_name"])), **overrides)
    model, report = AutoModel.from_pretrained(
        recipe.model,
        dtype="float32",
        ignore_mismatched_sizes=bool(overrides),
        output_loading_info=True,
        **overrides,
    )
    bases = tuple(prefix for part in model.base_parts.values() for prefix in part.values())
    if misfits := sorted(name for name, *_ in report["mismatched_keys"] if name.startswith(bases)):
        raise ValueError(f"model_config: {misfits[0]} has another size in {recipe.model}. Leave out what changes it")
    processor = AutoProcessor.from_pretrained(recipe.model)
    processor.num_image_tokens = model.config.num_image_tokens  # which the overrides may have changed
    return model, processor


def build_dataset(recipe: SpgddGptRecipe, rows: Any, processor: Any, accelerator: Accelerator) -> Any:
    """Training items: map-style, or this process's share of a stream.

    Raises:
        ValueError: if `num_workers` do not fit a stream.
    """
    changes = recipe.flip, recipe.simulated_defects, recipe.brightness, recipe.contrast
    if not recipe.streaming:
        return DiagnosisDataset(rows, processor, recipe.seed, *changes, decode_once=recipe.decode_once)
    dataset = StreamedDiagnosisDataset(
        rows,
        processor,
        recipe.seed,
        recipe.batch_size,
        *changes,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )
    if recipe.num_workers and dataset.lanes % recipe.num_workers:
        raise ValueError(f"num_workers={recipe.num_workers}: a stream is read by 0, or a divisor of {dataset.lanes}")
    return dataset


def clear_banks(model: Any) -> list[str]:
    """Empty the memory banks, whose features would not be those of the trained encoder; the filled ones' names."""
    memory = model.model.memory
    filled = [name for name in memory.banks if memory.size(name)]
    memory.clear()
    return filled


def cache_features(
    model: Any, dataset: DiagnosisDataset, collate: DiagnosisCollator, root: Path, accelerator: Accelerator
) -> None:
    """Compute the image features of all training items, in their flips, once; the items then hold them.

    Raises:
        ValueError: if the model turns its references, whose features are not cached.
        OSError: if the disk has no room for them.
    """
    config, clip = model.config, model.model.clip
    if config.reference_rotations:
        raise ValueError(
            f"feature_cache: reference_rotations={config.reference_rotations} need the images. Leave it empty"
        )
    vision = config.clip_config.vision_config
    settings = {name: getattr(vision, name) for name in ("hidden_act", "layer_norm_eps", "num_attention_heads")}
    settings |= {"feature_blocks": config.feature_blocks, "vv_mode": config.vv_mode}
    key = CacheKey(
        images=images_digest(dataset.image(index) for index in range(len(dataset))),
        count=len(dataset),
        encoder=encoder_digest({"vision": clip.vision_model, "projection": clip.visual_projection}, settings),
        transform=dataset.processor.image_processor.to_dict(),
        variants=len(dataset.variants(0)),
    )

    @torch.no_grad()
    def encode(images: torch.Tensor) -> dict[str, torch.Tensor]:
        cls, local = model.encode_images(collate.normalize(images).to(accelerator.device))
        return {"cls_features": cls, "local_features": local}

    model.to(accelerator.device).eval()
    dataset.features = build_feature_cache(root, key, dataset.variants, encode, accelerator)


def steps_done(recipe: SpgddGptRecipe) -> int:
    """Where the run stands: the step of its newest checkpoint."""
    found = checkpoints(Path(recipe.output_dir)) if recipe.resume else []
    return int(found[-1].name.split("-")[1]) if found else 0


def main(arguments: list[str] | None = None) -> None:
    """Train, calibrate, evaluate, save, publish."""
    arguments = sys.argv[1:] if arguments is None else arguments
    recipe = parse_recipe(SpgddGptRecipe, arguments)
    check_push(recipe.push_to_hub)
    accelerator = build_accelerator(recipe)
    refuse_zero3(accelerator)
    wait_for_main = patient_barrier(accelerator)
    with failing_together(accelerator):
        if accelerator.is_main_process and not recipe.dry_run:
            claim_folder(Path(recipe.output_dir))
    rows, calibration_rows = split_rows(recipe)
    # A stream cannot be counted, nor references taken out of its middle.
    listed = listed_rows(recipe.data, recipe.train_split, recipe.data_config) if recipe.streaming else rows
    reference_rows = calibration_rows if recipe.streaming else rows
    eval_rows = load_split(recipe.data, recipe.eval_split, recipe.data_config) if recipe.eval_split else None
    if eval_rows is not None:
        check_apart(recipe, calibration_rows, eval_rows)
    run = begun(recipe, arguments, (listed, calibration_rows), accelerator)
    model, processor = build_model(recipe, rows)
    if recipe.trainable == "all" and (filled := clear_banks(model)):
        accelerator.print(
            f"emptied the memory banks {', '.join(filled)}: training changes the image encoder. Fill them again with "
            "model.remember"
        )
    dataset = build_dataset(recipe, rows, processor, accelerator)
    collate = DiagnosisCollator(dataset, recipe.reference_counts)
    if recipe.feature_cache:
        cache_features(model, dataset, collate, Path(recipe.feature_cache), accelerator)
    adapted = adapt(
        model,
        recipe.trainable,
        public_name(recipe.model),
        recipe.lora,
        recipe.gradient_checkpointing,
        recipe.frozen_dtype,
    )
    accelerator.print(parts_table(adapted, ema=recipe.ema_decay > 0))

    def evaluate(model: Any) -> dict[str, float]:
        return evaluate_during_training(model, processor, eval_rows, accelerator)

    first_step, start = steps_done(recipe), time.monotonic()
    trained: Any = fit(
        adapted, dataset, collate, recipe, accelerator, recipe.fixed(), evaluate if eval_rows is not None else None
    )
    if recipe.dry_run:
        return
    last_step = steps_done(dataclasses.replace(recipe, resume=True))
    run = dataclasses.replace(run, cost=training_cost(first_step, last_step, time.monotonic() - start))
    # Of sharded weights, the main process alone has the whole model.
    together = None if is_sharded(accelerator) else accelerator
    if together or accelerator.is_main_process:
        complete(run, recipe, trained, processor, (reference_rows, calibration_rows, eval_rows), accelerator, together)
    wait_for_main()
    accelerator.end_training()


def complete(
    run: RunFacts,
    recipe: SpgddGptRecipe,
    model: Any,
    processor: Any,
    rows: tuple[Any, Any, Any],
    accelerator: Accelerator,
    together: Accelerator | None,
) -> None:
    """From trained weights to the model folder; arguments as those of `finish`, `accelerator` of the run."""
    output_dir = Path(recipe.output_dir)
    if recipe.trainable == "lora":
        if accelerator.is_main_process:
            save_lora(model, output_dir / "adapter")
        model = model.merge_and_unload()
    run = finish(run, recipe, model, processor, rows, together)
    if accelerator.is_main_process:
        save_complete(model, processor, output_dir / "model", run)
        push(output_dir / "model", recipe.push_to_hub)


def begun(recipe: SpgddGptRecipe, arguments: list[str], rows: tuple[Any, Any], accelerator: Accelerator) -> RunFacts:
    """What is known of a run before it trains; the rows are those of training and of calibration."""
    settings = dataclasses.asdict(recipe) | {"feature_cache": Path(recipe.feature_cache).name}
    return RunFacts(
        data=public_name(recipe.data),
        uses=[
            data_use("training", recipe.train_split, rows[0]),
            data_use("calibration", recipe.calibration_split or recipe.train_split, rows[1]),
        ],
        command=repeatable_command(arguments, accelerator.num_processes),
        recipe=recipe_record(settings),
        base_models=base_models(recipe.model),
        hardware=hardware(accelerator.device, accelerator.num_processes),
        versions=versions(),
    )


def calibrate(
    model: Any, processor: Any, rows: Any, train_rows: Any, recipe: SpgddGptRecipe, accelerator: Accelerator | None
) -> None:
    """Thresholds of both protocols; none where the images have one class alone."""
    processor.calibration = None  # of the weights that the run began with
    if set(rows["is_defective"]) >= {False, True}:
        split = recipe.calibration_split or recipe.train_split
        references, data = recipe.calibration_references, public_name(recipe.data)
        calibrate_trained(model, processor, rows, train_rows, references, recipe.seed, data, split, accelerator)
    elif accelerator is None or accelerator.is_main_process:
        print("not calibrated: no normal or no defective images; see `defect-hub calibrate --method quantile`")


def training_cost(first_step: int, last_step: int, seconds: float) -> Cost:
    """What this process measured of the training; nothing where an earlier one had finished it."""
    return Cost(round(seconds, 1), first_step, last_step) if last_step > first_step else Cost()


def chosen_weights(recipe: SpgddGptRecipe) -> list[str]:
    """How the weights were chosen among those of the run; nothing to say of the last ones."""
    found = []
    if recipe.best_metric:
        found.append(
            f"The split `{recipe.eval_split}` chose these weights, the best of the run by `{recipe.best_metric}`: its "
            "figures are too good."
        )
    if recipe.ema_decay:
        found.append(f"The trained weights are averages over the steps of the run (decay {recipe.ema_decay:g}).")
    return found


def finish(
    run: RunFacts,
    recipe: SpgddGptRecipe,
    model: Any,
    processor: Any,
    rows: tuple[Any, Any, Any],
    accelerator: Accelerator | None,
) -> RunFacts:
    """Calibrate and evaluate trained weights.

    Args:
        run: facts so far.
        recipe: of the run.
        model: trained.
        processor: gets the thresholds.
        rows: to draw references from, of calibration, and of evaluation; the last may be None.
        accelerator: whose processes share the images; None: this process alone.

    Returns:
        The facts with metrics and times.
    """
    reference_rows, calibration_rows, eval_rows = rows
    start = time.monotonic()
    calibrate(model, processor, calibration_rows, reference_rows, recipe, accelerator)
    cost = dataclasses.replace(run.cost, calibration_seconds=round(time.monotonic() - start, 1))
    uses, metrics = run.uses, []
    if eval_rows is not None:
        start = time.monotonic()
        scores = evaluate_diagnosis(model, processor, eval_rows, accelerator=accelerator)
        values, undefined = scores.metrics(), scores.undefined()
        cost = dataclasses.replace(cost, evaluation_seconds=round(time.monotonic() - start, 1))
        text = json.dumps(values | ({"undefined": undefined} if undefined else {}), indent=2)
        if accelerator is None or accelerator.is_main_process:
            write_whole(Path(recipe.output_dir) / "metrics.json", text)
            print(text)
        use = data_use("evaluation", recipe.eval_split, eval_rows)
        uses = [*uses, use]
        metrics = [Measurement(run.data, recipe.eval_split, use.rows, "zero_shot", values, run.command)]
    limits = [*run.limits, *chosen_weights(recipe)]
    today = datetime.now(UTC).date().isoformat()
    return dataclasses.replace(run, uses=uses, metrics=metrics, cost=cost, date=today, limits=limits)


if __name__ == "__main__":
    try:
        with leaving_on_signals():
            main()
    except (ValueError, OSError) as error:  # bad settings, data or checkpoint, full disk
        sys.exit(f"error: {error}")
