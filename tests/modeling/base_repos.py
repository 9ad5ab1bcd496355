"""Base models of a tiny SPGDD-GPT as repositories in a Hub cache, where offline ids resolve."""

import copy
import hashlib
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, CLIPModel, LlamaForCausalLM, PreTrainedModel

EXTRA_ROWS = 5  # of our vocabulary, behind the base's


def save_to_cache(cache: Path, repo_id: str, model: PreTrainedModel, **options: Any) -> str:
    """Save a model as branch main of a cached repository; returns the commit."""
    commit = hashlib.sha1(repo_id.encode()).hexdigest()
    repository = cache / f"models--{repo_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(commit)
    model.save_pretrained(repository / "snapshots" / commit, **options)
    return commit


@torch.no_grad()
def clip_of(model: PreTrainedModel) -> CLIPModel:
    clip = CLIPModel(model.config.clip_config)
    clip.load_state_dict(model.model.clip.state_dict())
    return clip


@torch.no_grad()
def llama_of(model: PreTrainedModel, extra_rows: int = EXTRA_ROWS, tied: bool | None = None) -> LlamaForCausalLM:
    config = copy.deepcopy(model.config.text_config)
    config.vocab_size -= extra_rows
    config.tie_word_embeddings = model.config.tie_word_embeddings if tied is None else tied
    llama = LlamaForCausalLM(config)
    for name, parameter in llama.model.named_parameters():
        parameter.copy_(model.model.language_model.get_parameter(name)[: len(parameter)])
    llama.lm_head.weight.copy_(model.lm_head.weight[: config.vocab_size])
    return llama


def write_checkpoint(tiny: Path, folder: Path, tied: bool = True, dtype: torch.dtype = torch.float32) -> Path:
    """The tiny checkpoint as it would be with another head or precision."""
    model = AutoModel.from_pretrained(tiny)
    if not tied:
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
        model.all_tied_weights_keys.clear()
    model.to(dtype).save_pretrained(folder)
    for path in tiny.iterdir():
        target = folder / path.name
        if path.is_file() and not target.exists():
            target.write_bytes(path.read_bytes())
    return folder
