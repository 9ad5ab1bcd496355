"""Builds a checkpoint that is ready to train: CLIP of open_clip, a language model, and new parts between them.

python -m defect_hub.modeling.convert_spgdd_gpt --clip WEIGHTS.pt --llm FOLDER_OR_ID --out FOLDER
"""

import argparse
import hashlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, CLIPModel, PreTrainedModel
from transformers.utils import cached_file, logging

from .configuration_spgdd_gpt import SpgddGptConfig
from .convert_options import VICUNA_SYSTEM_PROMPT, add_options
from .modeling_spgdd_gpt import SpgddGptForConditionalGeneration
from .open_clip_weights import clip_tokenizer, convert_clip, find_open_clip
from .presets_spgdd_gpt import build_processor
from .processing_spgdd_gpt import SpgddGptProcessor
from .text_driven_defect_focuser import TextDrivenDefectFocuser

NO_LANGUAGE_MODEL = "none"
IMAGE_TOKEN = "<image>"
ROWS_MULTIPLE = 64
SEED = 42
MAX_SHARD_SIZE = "5GB"
FIRST_TENSOR = "model.embed_tokens.weight"


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with the image token.

    Args:
        model: its weights, in the checkpoint's precision; the vocabulary holds the image token.
        tokenizer: left-padded, with a pad token.
        image_token_id: of the image token.
        origin: where it came from: {"repo_id", "revision"}, or {"folder", "sha256"} of a local one.
    """

    model: PreTrainedModel
    tokenizer: Any
    image_token_id: int
    origin: dict[str, str]


def convert(
    clip: str,
    llm: str,
    out: Path,
    *,
    clip_revision: str | None = None,
    llm_revision: str | None = None,
    dtype: str | None = None,
    object_name: str = "object",
    system_prompt: str = VICUNA_SYSTEM_PROMPT,
    **config_overrides: Any,
) -> None:
    """Write a complete checkpoint folder: model, processor and the code that loads them.

    CLIP is compared with open_clip before anything is written. The parts between CLIP and the language model are new,
    always the same (seed 42); the focuser starts as CLIP's own projection. `config.converted_from` names the origin of
    the weights.

    Args:
        clip: open_clip weights, see [`open_clip_weights.find_open_clip`].
        llm: causal language model of the Llama family, folder or Hub id; "none" makes a detector.
        out: folder that does not exist yet, or is empty.
        clip_revision: branch, tag or commit of a Hub id.
        llm_revision: likewise.
        dtype: precision of the weights; None: bfloat16, and float32 for a detector.
        object_name: what the images show where a call does not say.
        system_prompt: sentences before the conversation.
        config_overrides: fields of [`SpgddGptConfig`].

    Raises:
        OSError: weights cannot be had, or `out` holds something.
        ValueError: weights are not of the kind that can be converted.
        ImportError: open_clip is not installed.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out}: exists and is not empty; name a new folder")
    precision = getattr(torch, dtype or ("float32" if llm == NO_LANGUAGE_MODEL else "bfloat16"))
    files = find_open_clip(clip, clip_revision)
    vision = convert_clip(files)
    prompts = clip_tokenizer(vision.config)
    language = None if llm == NO_LANGUAGE_MODEL else load_language_model(llm, llm_revision, precision)
    config = _config(vision, language, files.origin, config_overrides)
    model = assemble(config, vision, language, precision)
    tokenizer = language.tokenizer if language else clip_tokenizer(vision.config)  # saving wants two objects
    processor = build_processor(config, tokenizer, prompts, object_name=object_name, system_prompt=system_prompt)
    for name in ("mean", "std"):
        if name in files.preprocess_cfg:
            setattr(processor.image_processor, f"image_{name}", list(files.preprocess_cfg[name]))
    _save(model, processor, out)


def load_language_model(source: str, revision: str | None, dtype: torch.dtype) -> LanguageModel:
    """A causal language model, with rows for the image token that start as the mean of the others.

    Args:
        source: folder or Hub id.
        revision: branch, tag or commit of a Hub id; None: its main branch.
        dtype: the weights are loaded in it, so that they are in memory once.

    Raises:
        OSError: it cannot be fetched.
        ValueError: a revision is given for a folder, or the tokenizer cannot be read.
    """
    options = {}
    if Path(source).is_dir():
        if revision is not None:
            raise ValueError(f"llm-revision {revision!r}: {source} is local; leave the revision out")
        origin = _local_origin(Path(source))
    else:
        config_file = Path(cached_file(source, "config.json", revision=revision))
        options = {"revision": config_file.parent.name}  # the same one for all files
        origin = {"repo_id": source, **options}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left", **options)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"{source}: its tokenizer cannot be read ({str(error).strip().partition(chr(10))[0]}); one that has only "
            "tokenizer.model needs pip install sentencepiece protobuf"
        ) from error
    model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, **options)
    model.config._name_or_path = ""  # a place on this machine
    names = model.state_dict().keys()
    if FIRST_TENSOR not in names or any(not name.startswith(("model.", "lm_head.weight")) for name in names):
        raise ValueError(
            f"{source}: {model.config.model_type} is built unlike the Llama family; name a model such as Llama, "
            "Vicuna, Mistral or Qwen2"
        )
    tokenizer.add_tokens([IMAGE_TOKEN], special_tokens=True)  # beside its own special tokens, not in their place
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    _extend_vocabulary(model, len(tokenizer))
    return LanguageModel(model, tokenizer, tokenizer.convert_tokens_to_ids(IMAGE_TOKEN), origin)


def _local_origin(folder: Path) -> dict[str, str]:
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        with path.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return {"folder": folder.resolve().name, "sha256": digest.hexdigest()}


@torch.no_grad()
def _extend_vocabulary(model: PreTrainedModel, num_tokens: int) -> None:
    """Rows for new tokens, padded to a multiple of 64; each starts as the mean of the old ones."""
    rows = -(-max(num_tokens, model.config.vocab_size) // ROWS_MULTIPLE) * ROWS_MULTIPLE
    for layer in {model.get_input_embeddings(), model.get_output_embeddings()}:
        old = layer.weight
        mean = old.mean(dim=0, keepdim=True, dtype=torch.float32).to(old.dtype)
        layer.weight = torch.nn.Parameter(torch.cat([old, mean.expand(rows - len(old), -1)]), requires_grad=False)
    if model.config.tie_word_embeddings:
        model.tie_weights()
    model.config.vocab_size = rows


def _config(
    clip: CLIPModel, language: LanguageModel | None, clip_origin: Mapping[str, str], overrides: Mapping[str, Any]
) -> SpgddGptConfig:
    fields: dict[str, Any] = {"has_language_model": False}
    origins = {"clip": dict(clip_origin)}
    if language:
        text_config = language.model.config
        origins["language_model"] = language.origin
        fields = {
            "text_config": text_config,
            "image_token_id": language.image_token_id,
            "tie_word_embeddings": text_config.tie_word_embeddings,
        }
    return SpgddGptConfig(**{"clip_config": clip.config, "converted_from": origins, **fields, **overrides})


def assemble(
    config: SpgddGptConfig, clip: CLIPModel, language: LanguageModel | None, dtype: torch.dtype
) -> SpgddGptForConditionalGeneration:
    """The model with the weights of its parts; the language model's are shared, not copied.

    Args:
        config: of the whole model.
        clip: both towers.
        language: in precision `dtype`; None for a detector.
        dtype: of the result.
    """
    sources = {"clip": clip} | ({"language_model": language.model} if language else {})
    weights = {
        ours + name.removeprefix(theirs): tensor
        for part, source in sources.items()
        for theirs, ours in SpgddGptForConditionalGeneration.base_parts[part].items()
        for name, tensor in source.state_dict().items()
        if name.startswith(theirs)
    }
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # the new parts are meant to be missing
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            model = SpgddGptForConditionalGeneration.from_pretrained(
                None, config=config, state_dict=weights, dtype=dtype
            )
    finally:
        logging.set_verbosity(verbosity)
    start_focuser(model.model.focuser, model.model.clip)
    if language:
        model.generation_config.eos_token_id = language.model.generation_config.eos_token_id
        model.generation_config.pad_token_id = language.tokenizer.pad_token_id
    return model


@torch.no_grad()
def start_focuser(focuser: TextDrivenDefectFocuser, clip: CLIPModel) -> None:
    """Start the maps of the earlier blocks into the text space as CLIP's own norm and projection.

    Random maps would add noise to what an untrained detector sees. The norm's centring and gain are linear and go into
    the weight, its division by the deviation is undone by the focuser's unit length; its shift has no place there.
    """
    gain = clip.vision_model.post_layernorm.weight.float()
    weight = clip.visual_projection.weight.float() * gain
    weight = weight - weight.mean(dim=1, keepdim=True)
    for name, parameter in focuser.projections.named_parameters():
        parameter.copy_(weight if name.endswith("weight") else torch.zeros_like(parameter))


def _save(model: SpgddGptForConditionalGeneration, processor: SpgddGptProcessor, out: Path) -> None:
    """Write beside `out`, then rename: it is complete or not there."""
    partial = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        model.save_pretrained(partial, max_shard_size=MAX_SHARD_SIZE)
        processor.save_pretrained(partial)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def run(args: argparse.Namespace) -> None:
    """Convert as the parsed options say, and print where the result is."""
    convert(
        args.clip,
        args.llm,
        args.out,
        clip_revision=args.clip_revision,
        llm_revision=args.llm_revision,
        dtype=args.dtype,
        object_name=args.object,
        system_prompt=args.system_prompt,
    )
    print(args.out)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, convert; problems become one line on stderr.

    Returns:
        0, or 2 after an error.
    """
    parser = argparse.ArgumentParser(prog="convert_spgdd_gpt", description=__doc__.partition("\n")[0])
    add_options(parser)
    try:
        run(parser.parse_args(argv))
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
