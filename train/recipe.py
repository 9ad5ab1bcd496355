"""Settings that the training scripts of all models share, and how they are read."""

import argparse
import dataclasses
import inspect
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from transformers import HfArgumentParser

from defect_hub.train.adaptation import LoraSettings, check_adaptation
from defect_hub.train.loop_config import LoopConfig

# Settings that may change between a checkpoint and its resumption without changing the result.
_FREE = {
    "output_dir",
    "resume",
    "dry_run",
    "save_steps",
    "keep_checkpoints",
    "num_workers",
    "trackers",
    "push_to_hub",
    "gradient_checkpointing",
    "decode_once",
}


@dataclass
class Recipe(LoopConfig):
    """A training run of a model on a data set in the record schema.

    Args:
        data: build folder or Hub id.
        data_config: of the data set.
        streaming: read the training split as a stream, in constant memory; needs `max_steps`, and a
            `calibration_split`.
        decode_once: keep the decoded images in memory; else the data loading processes decode them in each epoch.
        train_split: split to learn from.
        calibration_split: split the thresholds are taken from; empty holds `calibration_fraction` of the training
            split out of training.
        calibration_fraction: see above.
        eval_split: split of the evaluations and the final table; empty skips them.
        flip: random flips, with the position words of the answers flipped along.
        brightness: strongest change of the light, as a share, up or down; 0: none.
        contrast: the same of the contrast.
        model: `tiny` for fresh weights, else a checkpoint (folder or Hub id) to start from.
        model_config: configuration fields to override, as a JSON object.
        trainable: `all`, `adapter` (the papers: the base models stay frozen), or `lora` (the same, plus low-rank
            updates of the language model).
        lora_rank: of the updates.
        lora_alpha: their scale is lora_alpha / lora_rank.
        lora_dropout: of their input, 0-1.
        gradient_checkpointing: less memory for the language model, more time; same result.
        frozen_dtype: `bfloat16` keeps the frozen weights of the language model in half the memory; empty: as loaded.
        push_to_hub: repository, such as `org/name`, that the model is published to at the end.

    Raises:
        ValueError: for values that do not fit each other.
    """

    data: str = "steelsynth"
    data_config: str = "default"
    streaming: bool = False
    decode_once: bool = True
    train_split: str = "train"
    calibration_split: str = ""
    calibration_fraction: float = 0.1
    eval_split: str = "val"
    flip: bool = True
    brightness: float = 0.0
    contrast: float = 0.0
    model: str = "tiny"
    model_config: str = "{}"
    trainable: str = "all"
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.05
    gradient_checkpointing: bool = False
    frozen_dtype: str = ""
    push_to_hub: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_adaptation(self.trainable, self.frozen_dtype)
        valid = {
            "calibration_fraction": (0 < self.calibration_fraction < 1, "a share between 0 and 1"),
            "lora_rank": (self.lora_rank >= 1, "a number from 1"),
            "lora_dropout": (0 <= self.lora_dropout < 1, "a share from 0 to below 1"),
            "brightness": (0 <= self.brightness < 1, "a share from 0 to below 1"),
            "contrast": (0 <= self.contrast < 1, "a share from 0 to below 1"),
            "model_config": (_is_json_object(self.model_config), """a JSON object such as '{"alpha": 1.0}'"""),
            "push_to_hub": (not self.push_to_hub or self.push_to_hub.count("/") == 1, "a repository such as org/name"),
        }
        for name, (fits, expected) in valid.items():
            if not fits:
                raise ValueError(f"{name}={getattr(self, name)!r}: give {expected}")
        if self.trainable == "lora" and self.model == "tiny":
            raise ValueError("trainable='lora': model='tiny' has fresh weights. Name a checkpoint to adapt")
        if self.frozen_dtype and self.mixed_precision == "fp16":
            raise ValueError("frozen_dtype='bfloat16': mixed_precision='fp16' has another range. Choose bf16 or no")
        if (self.eval_steps or self.eval_epochs) and not self.eval_split:
            raise ValueError("eval_split: empty, so there is nothing to evaluate on during training. Name a split")
        if self.streaming:
            self._check_streaming()

    def _check_streaming(self) -> None:
        if not self.max_steps:
            raise ValueError("streaming: a stream has no epochs. Set max_steps")
        if not self.calibration_split:
            raise ValueError("streaming: nothing can be held out of a stream. Name a calibration_split")
        if self.model == "tiny":
            raise ValueError("streaming: model='tiny' takes its vocabulary from all texts. Name a checkpoint")

    @property
    def lora(self) -> LoraSettings:
        """Settings of the low-rank updates."""
        return LoraSettings(self.lora_rank, self.lora_alpha, self.lora_dropout)

    def fixed(self) -> dict[str, Any]:
        """The settings that a checkpoint's resumption must share."""
        evaluates = self.eval_steps or self.eval_epochs
        free = _FREE if evaluates else _FREE | {"eval_split"}
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in free}


RecipeType = TypeVar("RecipeType", bound=Recipe)


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def documented_fields(kind: type[Recipe]) -> dict[str, str]:
    """What the docstrings of a recipe and of those that it builds on say of each field, as argparse takes it."""
    texts = {}
    for part in reversed(kind.__mro__):
        arguments = inspect.cleandoc(part.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
        for entry in re.split(r"\n    (?=\w)", f"\n{arguments}"):
            name, _, text = entry.strip().partition(": ")
            texts[name] = " ".join(text.split()).replace("%", "%%")
    return texts


def parse_recipe(kind: type[RecipeType], arguments: list[str]) -> RecipeType:
    """Defaults, then the YAML file of `--config`, then the command line.

    Raises:
        ValueError: if the file is none, or names a field that does not exist.
    """
    only_config = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    only_config.add_argument("--config", type=Path)
    found, arguments = only_config.parse_known_args(arguments)
    parser = HfArgumentParser(kind)
    parser.add_argument("--config", help="YAML file of these settings; the command line counts more")
    texts = documented_fields(kind)
    for action in parser._actions:
        action.help = texts.get(action.dest, action.help)
    if found.config:
        try:
            values = yaml.safe_load(found.config.read_text(encoding="utf-8")) or {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ValueError(f"{found.config}: cannot be read ({' '.join(str(error).split())})") from error
        if not isinstance(values, dict):
            raise ValueError(f"{found.config}: holds no fields. Write lines such as `batch_size: 8`")
        known = {item.name for item in dataclasses.fields(kind)}
        if unknown := sorted(map(str, values.keys() - known)):
            raise ValueError(
                f"{found.config}: {', '.join(unknown)}: no such field. Fields are: {', '.join(sorted(known))}"
            )
        if "model_config" in values:
            values["model_config"] = json.dumps(values["model_config"])  # as on the command line
        parser.set_defaults(**values)
    return parser.parse_args_into_dataclasses(arguments)[0]
