"""CLIP weights of open_clip and its vocabulary in transformers' layout; open_clip itself is needed to convert only."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.initialization import no_init_weights

PAPER_ARCHITECTURE = "ViT-B-16-plus-240"
CONFIG_FILE = "open_clip_config.json"
WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
TOLERANCE = 1e-4
"""Largest difference of an embedding's component from open_clip's, float32."""

# What a plain vision-transformer CLIP needs; any other field of an architecture changes what is computed.
KNOWN_FIELDS = {
    "model_cfg": {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"},
    "vision_cfg": {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"},
}
BLOCKS = {
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "transformer.resblocks.": "text_model.encoder.layers.",
}
IN_BLOCK = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
OUTSIDE = {
    "logit_scale": "logit_scale",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}


@dataclass(frozen=True)
class OpenClipFiles:
    """An open_clip checkpoint on this machine.

    Args:
        weights: file of the weights.
        model_cfg: architecture, as open_clip describes it.
        preprocess_cfg: "mean" and "std" of the images, where they are stated.
        origin: where the weights came from: {"repo_id", "revision"}, or {"file", "sha256"} of a local file.
    """

    weights: Path
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    origin: dict[str, str]


def find_open_clip(source: str, revision: str | None = None) -> OpenClipFiles:
    """An open_clip checkpoint, fetched from the Hub where it is not a local one.

    Args:
        source: weights file, folder laid out as open_clip's repositories are, or Hub id. The file
            `open_clip_config.json` beside the weights states the architecture; a file without it is taken for
            ViT-B-16-plus-240, the paper's.
        revision: branch, tag or commit of a Hub id; None: its main branch.

    Raises:
        OSError: the repository or a file of it cannot be had.
        ValueError: a revision is given for local weights.
    """
    if not Path(source).exists():
        return _from_hub(source, revision)
    if revision is not None:
        raise ValueError(f"clip-revision {revision!r}: {source} is local; leave the revision out")
    folder = Path(source) if Path(source).is_dir() else Path(source).parent
    weights = Path(source)
    if weights.is_dir():
        found = [folder / name for name in WEIGHT_FILES if (folder / name).is_file()]
        if not found or not (folder / CONFIG_FILE).is_file():
            raise OSError(f"{source}: no {CONFIG_FILE} with {WEIGHT_FILES[0]}; name a weights file")
        weights = found[0]
    with weights.open("rb") as opened:
        origin = {"file": weights.name, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}
    return OpenClipFiles(weights, *_read_config(folder / CONFIG_FILE), origin)


def _from_hub(repo_id: str, revision: str | None) -> OpenClipFiles:
    try:
        config = Path(hf_hub_download(repo_id, CONFIG_FILE, revision=revision))
        weights = _fetch_weights(repo_id, config.parent.name)
    except (OSError, HFValidationError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise OSError(
            f"{repo_id}: neither a local file or folder nor an open_clip repository that can be fetched "
            f"({type(error).__name__}: {reason})"
        ) from error
    return OpenClipFiles(weights, *_read_config(config), {"repo_id": repo_id, "revision": config.parent.name})


def _fetch_weights(repo_id: str, commit: str) -> Path:
    for name in WEIGHT_FILES:
        try:
            return Path(hf_hub_download(repo_id, name, revision=commit))
        except EntryNotFoundError:
            continue
    raise OSError(f"none of {', '.join(WEIGHT_FILES)} at {commit}")


def _read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """`model_cfg` and `preprocess_cfg` of a file, or open_clip's own of the paper's architecture."""
    if path.is_file():
        content = json.loads(path.read_text("utf-8"))
        return content["model_cfg"], content.get("preprocess_cfg") or {}
    return _open_clip().get_model_config(PAPER_ARCHITECTURE), {}


def _open_clip() -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise ImportError("conversion needs open_clip; run: pip install open_clip_torch") from error
    return open_clip


def clip_config(model_cfg: Mapping[str, Any]) -> CLIPConfig:
    """transformers' configuration of an open_clip architecture.

    Raises:
        ValueError: for an architecture that is no plain vision-transformer CLIP.
    """
    for part, known in KNOWN_FIELDS.items():
        if unknown := sorted((model_cfg if part == "model_cfg" else model_cfg[part]).keys() - known):
            raise ValueError(
                f"{CONFIG_FILE}: {part}.{unknown[0]}: only plain vision transformers such as {PAPER_ARCHITECTURE} can "
                "be converted; name other weights"
            )
    vision, text = model_cfg["vision_cfg"], model_cfg["text_cfg"]
    # open_clip's own weights use the exact GELU; CLIPConfig's default is the quick one.
    activation = {"hidden_act": "quick_gelu" if model_cfg.get("quick_gelu") else "gelu"}
    return CLIPConfig(
        projection_dim=model_cfg["embed_dim"],
        vision_config={
            "hidden_size": vision["width"],
            "intermediate_size": int(vision["width"] * vision.get("mlp_ratio", 4)),
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["width"] // vision.get("head_width", 64),
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            **activation,
        },
        text_config={
            "hidden_size": text["width"],
            "intermediate_size": int(text["width"] * text.get("mlp_ratio", 4)),
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "vocab_size": text["vocab_size"],
            "max_position_embeddings": text["context_length"],
            # open_clip reads the text at the largest id, the end token.
            "eos_token_id": text["vocab_size"] - 1,
            "bos_token_id": text["vocab_size"] - 2,
            "pad_token_id": 0,
            **activation,
        },
    )


def renamed(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of open_clip by their names and in the layout of transformers' CLIPModel."""
    found = {}
    for name, value in weights.items():
        tower = next((prefix for prefix in BLOCKS if name.startswith(prefix)), None)
        if name in TRANSPOSED:
            found[TRANSPOSED[name]] = value.T.contiguous()
        elif tower is None:
            found[OUTSIDE[name]] = value
        else:
            number, _, rest = name.removeprefix(tower).partition(".")
            block = f"{BLOCKS[tower]}{number}."
            module, _, kind = rest.rpartition(".")
            if module == "attn":  # in_proj_weight, in_proj_bias: queries, keys and values in one
                kind = kind.removeprefix("in_proj_")
                for part, rows in zip("qkv", value.chunk(3), strict=True):
                    found[f"{block}self_attn.{part}_proj.{kind}"] = rows.contiguous()
            else:
                found[f"{block}{IN_BLOCK[module]}.{kind}"] = value
    return found


def convert_clip(files: OpenClipFiles) -> CLIPModel:
    """CLIP of transformers with the weights of an open_clip checkpoint, compared with open_clip itself.

    Returns:
        The model, float32.

    Raises:
        ValueError: the architecture is not a plain one, a tensor is missing, unknown or of another shape, or the
            embeddings differ from open_clip's by more than 1e-4.
        ImportError: open_clip is not installed.
    """
    config = clip_config(files.model_cfg)
    reference = _open_clip_model(files)
    with no_init_weights():
        clip = CLIPModel(config)
    clip.load_state_dict(renamed(reference.state_dict()))
    check_equal(clip.eval(), reference, files.weights.name)
    return clip


def _open_clip_model(files: OpenClipFiles) -> Any:
    """open_clip's own model with the weights of a file."""
    open_clip = _open_clip()
    with no_init_weights():
        model, name = open_clip.CLIP(**files.model_cfg).eval(), files.weights.name
    try:
        weights = open_clip.factory.load_state_dict(str(files.weights))
    except (RuntimeError, UnpicklingError, EOFError) as error:  # TorchScript, damaged, no weights at all
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{name}: no state dict of open_clip ({reason}); name another file") from error
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in weights.items()}
    problems = {
        "are missing": shapes.keys() - found.keys(),
        "are unknown": found.keys() - shapes.keys(),
        "have another shape": {key for key in shapes.keys() & found.keys() if shapes[key] != found[key]},
    }
    for problem, keys in problems.items():
        if keys:
            first = min(keys)
            sizes = f", {found[first]} instead of {shapes[first]}" if problem == "have another shape" else ""
            raise ValueError(
                f"{name}: {len(keys)} tensors {problem}, first {first}{sizes}; name weights of this architecture, "
                f"with its {CONFIG_FILE} beside them unless it is {PAPER_ARCHITECTURE}"
            )
    model.load_state_dict(weights)
    return model


@torch.no_grad()
def check_equal(clip: CLIPModel, reference: Any, name: str) -> None:
    """Compare image and text embeddings of random inputs.

    Args:
        clip: converted, float32.
        reference: open_clip's model, float32.
        name: of the weights, for the message.

    Raises:
        ValueError: if they differ by more than 1e-4, or are not finite.
    """
    generator = torch.Generator().manual_seed(0)
    vision, text = clip.config.vision_config, clip.config.text_config
    images = torch.randn(1, 3, vision.image_size, vision.image_size, generator=generator)
    ids = torch.randint(1, text.bos_token_id, (2, text.max_position_embeddings), generator=generator)
    ids[:, 0] = text.bos_token_id
    for row, end in enumerate((ids.shape[1] // 2, ids.shape[1] - 1)):
        ids[row, end], ids[row, end + 1 :] = text.eos_token_id, 0
    pairs = {
        "image": (clip.get_image_features(pixel_values=images).pooler_output, reference.encode_image(images)),
        "text": (clip.get_text_features(input_ids=ids).pooler_output, reference.encode_text(ids)),
    }
    for kind, (found, expected) in pairs.items():
        difference = (found - expected).abs().max().item()
        if not difference <= TOLERANCE:  # also NaN
            raise ValueError(
                f"{name}: {kind} embeddings differ from open_clip's by {difference:.3g}, {TOLERANCE:g} is allowed; "
                "nothing was written. Are the weights damaged?"
            )


def clip_tokenizer(config: CLIPConfig) -> CLIPTokenizer:
    """CLIP's tokenizer from the vocabulary that open_clip carries.

    Its ids are open_clip's for text that needs no repair: open_clip's own tokenizer straightens curly quotes,
    ligatures, full-width letters and HTML entities first. Padding is the end token, as in transformers: id 0 is "!",
    which as padding could not be a word's part any more, and what follows the first end token is not read.

    Raises:
        ValueError: if the text tower has another vocabulary.
    """
    theirs = _open_clip().SimpleTokenizer()
    vocabulary = dict(theirs.encoder)
    vocabulary["<|startoftext|>"] = vocabulary.pop("<start_of_text>")
    vocabulary["<|endoftext|>"] = vocabulary.pop("<end_of_text>")
    text = config.text_config
    if text.vocab_size != len(vocabulary):
        raise ValueError(
            f"{CONFIG_FILE}: text_cfg.vocab_size is {text.vocab_size}, CLIP's vocabulary has {len(vocabulary)} "
            "tokens; name weights with CLIP's own tokenizer"
        )
    return CLIPTokenizer(
        vocab=vocabulary, merges=list(theirs.bpe_ranks), model_max_length=text.max_position_embeddings
    )
