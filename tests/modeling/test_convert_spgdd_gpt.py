"""Conversion of tiny open_clip towers and language models; no size is special to the converter."""

import json
import sys

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModel,
    AutoProcessor,
    AutoTokenizer,
    CLIPModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.initialization import no_init_weights

from defect_hub.cli import main
from defect_hub.modeling import open_clip_weights
from defect_hub.modeling.convert_spgdd_gpt import convert
from defect_hub.modeling.convert_spgdd_gpt import main as convert_main
from defect_hub.modeling.open_clip_weights import clip_config, clip_tokenizer, convert_clip, find_open_clip, renamed
from defect_hub.publishing.adapters import write_adapters
from tests.modeling.base_repos import save_to_cache

ARCHITECTURE = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 40, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
BLOCKS = [1, 2, 3]
LANGUAGE = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SENTENCES = ["Is there any defect in this image?", "Yes, there is a small dark scratch in the top left."] * 4


def open_clip_model():
    torch.manual_seed(0)
    model = open_clip.CLIP(**ARCHITECTURE).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases start at zero, where a wrong one would not show
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def reference():
    return open_clip_model()


@pytest.fixture(scope="module")
def clip_folder(reference, tmp_path_factory):
    """Laid out as open_clip's repositories are."""
    folder = tmp_path_factory.mktemp("clip")
    save_file(reference.state_dict(), folder / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    config = {"model_cfg": ARCHITECTURE, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def save_language_model(folder, kind=LlamaForCausalLM, config=LlamaConfig, **options):
    """A language model whose tokenizer knows neither padding nor images, as Llama's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)
    torch.manual_seed(1)
    sizes = {"vocab_size": len(fast), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    model = kind(config(**LANGUAGE, **sizes, **options))
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    save_language_model(folder)
    return folder


@pytest.fixture(scope="module")
def converted(clip_folder, llama_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "model"
    convert(str(clip_folder), str(llama_folder), out, object_name="steel tube", feature_blocks=BLOCKS)
    return out


@pytest.fixture(scope="module")
def detector(clip_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("detector") / "model"
    convert(str(clip_folder), "none", out, feature_blocks=BLOCKS, memory_capacity=4)
    return out


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def write_weights(folder, weights):
    """A copy of the clip folder with other weights."""
    config = {"model_cfg": ARCHITECTURE}
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(weights, folder / "open_clip_model.safetensors")
    return str(folder)


# CLIP


@torch.no_grad()
def test_embeddings_equal_open_clip(reference, detector):
    model, processor = AutoModel.from_pretrained(detector).eval(), AutoProcessor.from_pretrained(detector)
    images = torch.randn(3, 3, 32, 32)
    texts = ["a photo of a flawless steel tube.", "broken!", "don't touch: 2 café tubes", "scratch " * 40]
    ids = processor.clip_tokenizer(texts, padding="max_length", truncation=True, max_length=20, return_tensors="pt")
    cls, _ = model.model.encode_images(images)
    text = model.model.clip.get_text_features(input_ids=ids["input_ids"]).pooler_output
    expected = reference.encode_text(open_clip.tokenize(texts, context_length=20))
    torch.testing.assert_close(cls, reference.encode_image(images), atol=1e-5, rtol=0)
    torch.testing.assert_close(text, expected, atol=1e-5, rtol=0)


def test_every_tensor_arrives_once(reference):
    found = renamed(reference.state_dict())
    assert found.keys() == CLIPModel(clip_config(ARCHITECTURE)).state_dict().keys()
    assert sum(value.numel() for value in found.values()) == sum(p.numel() for p in reference.parameters())


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors"])
def test_a_weights_file_beside_its_architecture(reference, tmp_path, suffix):
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": ARCHITECTURE}))
    path, weights = tmp_path / f"epoch_32{suffix}", reference.state_dict()
    if suffix == ".safetensors":
        save_file(weights, path)
    else:  # as open_clip's training writes them
        trained = {f"module.{name}": value for name, value in weights.items()}
        torch.save({"epoch": 32, "state_dict": trained}, path)
    clip = convert_clip(find_open_clip(str(path)))
    assert all(torch.equal(clip.state_dict()[name], value) for name, value in renamed(weights).items())


def test_a_lone_file_is_taken_for_the_papers_architecture(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"")
    config = clip_config(find_open_clip(str(tmp_path / "weights.pt")).model_cfg)
    assert (config.projection_dim, config.vision_config.hidden_size, config.text_config.hidden_size) == (640, 896, 640)
    assert config.vision_config.hidden_act == config.text_config.hidden_act == "gelu"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("visual.ln_pre.bias"), r"1 tensors are missing, first visual\.ln_pre\.bias; "),
        (lambda weights: weights.update({"x": torch.ones(1)}), "1 tensors are unknown, first x; "),
        (
            lambda weights: weights.update({"visual.proj": weights["visual.proj"][1:].clone()}),
            r"1 tensors have another shape, first visual\.proj, \(39, 24\) instead of \(40, 24\); ",
        ),
        (lambda weights: weights["ln_final.bias"].fill_(torch.nan), "text embeddings differ from open_clip's by nan"),
    ],
    ids=["missing", "unknown", "shape", "nan"],
)
def test_wrong_weights_are_refused_before_anything_is_written(reference, tmp_path, change, message):
    weights = {name: value.clone() for name, value in reference.state_dict().items()}
    change(weights)
    with pytest.raises(ValueError, match=message):
        convert(write_weights(tmp_path / "clip", weights), "none", tmp_path / "out", feature_blocks=BLOCKS)
    assert [path.name for path in tmp_path.iterdir()] == ["clip"]


@pytest.mark.parametrize(
    ("names", "first", "second"),
    [("IN_BLOCK", "ln_1", "ln_2"), ("OUTSIDE", "visual.ln_pre.weight", "visual.ln_post.weight")],
)
def test_a_wrong_key_map_is_refused(clip_folder, tmp_path, monkeypatch, names, first, second):
    """Two norms swapped: every name and shape fits, only the embeddings tell."""
    names = getattr(open_clip_weights, names)
    swapped = {first: names[second], second: names[first]}
    for name, ours in swapped.items():
        monkeypatch.setitem(names, name, ours)
    with pytest.raises(ValueError, match=r"image embeddings differ from open_clip's by .*nothing was written"):
        convert(str(clip_folder), "none", tmp_path / "out", feature_blocks=BLOCKS)
    assert not any(tmp_path.iterdir())


def test_other_architectures_are_refused():
    other = ARCHITECTURE | {"vision_cfg": ARCHITECTURE["vision_cfg"] | {"timm_model_name": "convnext"}}
    with pytest.raises(ValueError, match=r"vision_cfg\.timm_model_name: only plain vision transformers"):
        clip_config(other)


def test_a_file_that_holds_no_weights(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"none")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": ARCHITECTURE}))
    with pytest.raises(ValueError, match=r"weights\.pt: no state dict of open_clip \(.*\); name another file"):
        convert_clip(find_open_clip(str(tmp_path / "weights.pt")))


TEXTS = [
    "a photo of a flawless steel surface.",
    "A cropped   photo\tof the\nmagnetic-tile (No. 12)!!",
    "it's I'm we'll they've don't 3/4\" 100% #7_b @ $5 ~`^|\\<>[]{}",
    "!",
    "",
    "naïve café Ünïcödé ß e\u0301 Åse",
    "钢板表面缺陷 表面の傷 표면 결함",
    "дефект поверхности, η επιφάνεια, عيب في السطح, सतह दोष",
    "emoji 👍🏽😀 ½ ² Ⅷ ° µ ± × →",
    "a\u00a0b\u3000c",
    "crack " * 100,
    "x" * 300,
]


def test_the_tokenizer_gives_open_clips_ids(tmp_path):
    built = clip_tokenizer(clip_config(open_clip.get_model_config("ViT-B-16-plus-240")))
    built.save_pretrained(tmp_path)
    for tokenizer in (built, AutoTokenizer.from_pretrained(tmp_path)):
        encoded = tokenizer(TEXTS, padding="max_length", truncation=True, return_tensors="pt")
        for text, found, mask, expected in zip(TEXTS, *encoded.values(), open_clip.tokenize(TEXTS), strict=True):
            end = int(expected.argmax()) + 1
            assert found[:end].tolist() == expected[:end].tolist(), text
            assert mask.sum() == end
            assert found[end:].unique().tolist() in ([], [49407])


# The whole checkpoint


def test_the_checkpoint_diagnoses(converted, images):
    model, processor = AutoModel.from_pretrained(converted).eval(), AutoProcessor.from_pretrained(converted)
    assert model.dtype == torch.bfloat16
    inputs = processor(images=images[:2], reference_images=images[2:4])
    output = model.diagnose(**inputs, min_new_tokens=4, max_new_tokens=4)
    assert output.sequences.shape == (2, 4)
    assert torch.isfinite(output.anomaly_maps).all()
    record = processor.post_process_diagnosis(output, threshold=0.5, pixel_threshold=0.5)[0]
    assert record["anomaly_map"].shape == (32, 32)
    assert (processor.object_name, *processor.image_processor.image_mean) == ("steel tube", 0.5, 0.4, 0.3)
    assert tuple(processor.image_processor.image_std) == (0.2, 0.3, 0.4)
    prompt = processor.build_prompt("Where?")
    assert prompt.startswith("A chat between a curious user") and prompt.endswith("USER: <image>\nWhere? ASSISTANT:")


def test_the_language_model_is_kept_and_extended(converted, llama_folder):
    model, processor = AutoModel.from_pretrained(converted), AutoProcessor.from_pretrained(converted)
    llama = LlamaForCausalLM.from_pretrained(llama_folder, dtype=torch.bfloat16)
    old = llama.config.vocab_size
    assert processor.tokenizer.convert_tokens_to_ids("<image>") == model.config.image_token_id == old
    assert model.config.text_config.vocab_size == -(-(old + 1) // 64) * 64
    assert (processor.tokenizer.padding_side, processor.tokenizer.pad_token) == ("left", "</s>")
    text = "Yes, there is a scratch."
    assert processor.tokenizer(text)["input_ids"] == AutoTokenizer.from_pretrained(llama_folder)(text)["input_ids"]
    for name, weight in llama.state_dict().items():
        name = name.replace("model.", "model.language_model.", 1)
        found = model.state_dict()[name]
        assert torch.equal(found[: len(weight)], weight), name
        if len(found) > len(weight):
            mean = weight.float().mean(dim=0).bfloat16()
            torch.testing.assert_close(found[len(weight) :], mean.expand(len(found) - len(weight), -1))
    ids = torch.tensor([[0, 5, 9, 70]])
    with torch.no_grad():
        found, expected = (m.eval()(input_ids=ids).logits for m in (model, llama))
    assert torch.equal(found[..., :old], expected)


def test_converting_again_gives_the_same(converted, clip_folder, llama_folder, tmp_path):
    torch.manual_seed(7)
    convert(str(clip_folder), str(llama_folder), tmp_path / "again", object_name="steel tube", feature_blocks=BLOCKS)
    names = sorted(path.name for path in converted.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    first, second = (load_file(folder / "model.safetensors") for folder in (converted, tmp_path / "again"))
    assert all(torch.equal(second[name], value) for name, value in first.items())


@pytest.mark.parametrize("tied", [True, False])
def test_tied_embeddings_and_another_model_of_the_family(clip_folder, tmp_path, tied):
    qwen = save_language_model(tmp_path / "qwen", Qwen2ForCausalLM, Qwen2Config, tie_word_embeddings=tied)
    convert(str(clip_folder), str(tmp_path / "qwen"), tmp_path / "out", dtype="float32", feature_blocks=BLOCKS)
    model = AutoModel.from_pretrained(tmp_path / "out").eval()
    assert (model.lm_head.weight is model.get_input_embeddings().weight) is tied
    assert model.config.text_config.model_type == "qwen2"
    ids = torch.tensor([[0, 5, 9, 70]])
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits[..., :290], qwen.eval()(input_ids=ids).logits)


def test_other_special_tokens_stay(clip_folder, tmp_path):
    """As Qwen2's turns, which its tokenizer lists as additional ones."""
    save_language_model(tmp_path / "qwen", Qwen2ForCausalLM, Qwen2Config)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "qwen", extra_special_tokens=["<|im_start|>"])
    tokenizer.save_pretrained(tmp_path / "qwen")
    earlier = AutoTokenizer.from_pretrained(tmp_path / "qwen").all_special_tokens
    assert "<|im_start|>" in earlier
    convert(str(clip_folder), str(tmp_path / "qwen"), tmp_path / "out", feature_blocks=BLOCKS)
    found = AutoProcessor.from_pretrained(tmp_path / "out").tokenizer
    assert set(found.all_special_tokens) >= set(earlier)
    ids = found("<|im_start|>Yes<image>")["input_ids"]
    assert len(ids) == 2 + len(found("Yes")["input_ids"])
    assert found.decode(ids) == "<|im_start|>Yes<image>"
    assert found.decode(ids, skip_special_tokens=True) == "Yes"


def test_other_families_are_refused(clip_folder, tmp_path):
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2}
    save_language_model(tmp_path / "gpt2", GPT2LMHeadModel, lambda **options: GPT2Config(**options | sizes))
    with pytest.raises(ValueError, match="gpt2 is built unlike the Llama family"):
        convert(str(clip_folder), str(tmp_path / "gpt2"), tmp_path / "out", feature_blocks=BLOCKS)
    assert [path.name for path in tmp_path.iterdir()] == ["gpt2"]


def test_hub_ids_and_their_commits(reference, clip_folder, llama_folder, tmp_path, cache):
    llama_commit = save_to_cache(cache, "org/llama", LlamaForCausalLM.from_pretrained(llama_folder))
    AutoTokenizer.from_pretrained(llama_folder).save_pretrained(cache / f"models--org--llama/snapshots/{llama_commit}")
    commit = "c" * 40
    repository = cache / "models--org--clip"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/v1").write_text(commit)
    clip_folder_copy = repository / "snapshots" / commit
    clip_folder_copy.mkdir(parents=True)
    for path in clip_folder.iterdir():
        (clip_folder_copy / path.name).write_bytes(path.read_bytes())
    convert("org/clip", "org/llama", tmp_path / "out", clip_revision="v1", feature_blocks=BLOCKS)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["base_models"] is None
    assert config["converted_from"] == {
        "clip": {"repo_id": "org/clip", "revision": commit},
        "language_model": {"repo_id": "org/llama", "revision": llama_commit},
    }
    # What publishing leaves out is what was recorded.
    base = "{repo_id}@{revision}".format(**config["converted_from"]["language_model"])
    write_adapters(tmp_path / "out", tmp_path / "adapters", {"language_model": base})
    kept = load_file(tmp_path / "adapters/model.safetensors")
    assert [name for name in kept if name.startswith("model.language_model.")] == [
        "model.language_model.embed_tokens.weight.extra_rows"
    ]


def test_local_sources_are_recorded_without_their_place(converted, llama_folder):
    origins = json.loads((converted / "config.json").read_text())["converted_from"]
    assert origins["clip"]["file"] == "open_clip_model.safetensors"
    assert origins["language_model"]["folder"] == llama_folder.name
    assert {len(origin["sha256"]) for origin in origins.values()} == {64}
    assert [path.name for path in converted.glob("*.json") if str(llama_folder.parent) in path.read_text()] == []


# A detector is of use at once


def textures(count):
    """Pictures of one surface, each with a grain of its own."""
    rng = np.random.default_rng(0)
    grain = 120 + 10 * rng.standard_normal((count, 200, 300, 3))
    return [Image.fromarray(pixels.clip(0, 255).astype(np.uint8)) for pixels in grain]


def test_the_focuser_starts_as_clips_norm_and_projection(detector):
    model = AutoModel.from_pretrained(detector)
    clip, focuser = model.model.clip, model.model.focuser
    norm = clip.vision_model.post_layernorm
    z = 3 + torch.randn(50, norm.normalized_shape[0], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = clip.visual_projection(norm(z) - norm.bias)
        for projection in focuser.projections:
            cosine = torch.nn.functional.cosine_similarity(projection(z), expected)
            torch.testing.assert_close(cosine, torch.ones(50))


def test_a_detector_marks_what_its_references_do_not_show(detector):
    model, processor = AutoModel.from_pretrained(detector).eval(), AutoProcessor.from_pretrained(detector)
    assert (model.dtype, model.model.language_model, processor.num_image_tokens) == (torch.float32, None, 0)
    plain, *references = textures(3)
    spoiled = plain.copy()
    spoiled.paste((250, 250, 20), (0, 100, 150, 200))
    output = model.diagnose(**processor(images=[spoiled, plain], reference_images=references))
    assert output.sequences is None
    bad, good = output.anomaly_maps
    assert bad[16:, :16].mean() > bad[:16, 16:].mean()
    assert output.image_scores[0] > output.image_scores[1]
    assert bad.max() > good.max()
    model.remember(processor.pixel_values(references))
    remembered = model.diagnose(**processor(images=[spoiled, plain]), memory_bank="default")
    torch.testing.assert_close(remembered.anomaly_maps, output.anomaly_maps)


# Mistakes and the command


def test_a_folder_that_holds_something_is_kept(clip_folder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="exists and is not empty; name a new folder"):
        convert(str(clip_folder), "none", tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_interrupted_write_leaves_nothing(clip_folder, tmp_path, monkeypatch):
    def full_disk(self, folder):
        raise OSError("No space left on device")

    monkeypatch.setattr("defect_hub.modeling.processing_spgdd_gpt.SpgddGptProcessor.save_pretrained", full_disk)
    with pytest.raises(OSError, match="No space left"):
        convert(str(clip_folder), "none", tmp_path / "out", feature_blocks=BLOCKS)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clip", "org/nowhere", "--llm", "none"], "error: org/nowhere: neither a local file or folder nor"),
        (["--clip", "CLIP", "--llm", "none", "--clip-revision", "v1"], "is local; leave the revision out"),
        (["--clip", "CLIP", "--llm", "none"], "error: feature_blocks=[3, 8, 12]: give rising block numbers"),
    ],
    ids=["absent", "revision", "blocks"],
)
def test_the_command_says_what_is_wrong(clip_folder, tmp_path, capsys, arguments, message):
    arguments = [str(clip_folder) if word == "CLIP" else word for word in arguments]
    assert main(["convert", "spgdd-gpt", *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_without_open_clip_the_remedy_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    (tmp_path / "weights.pt").write_bytes(b"")
    arguments = ["--clip", str(tmp_path / "weights.pt"), "--llm", "none", "--out", str(tmp_path / "out")]
    assert main(["convert", "spgdd-gpt", *arguments]) == convert_main(arguments) == 2
    said = ["error: conversion needs open_clip; run: pip install open_clip_torch"] * 2
    assert capsys.readouterr().err.splitlines() == said


@pytest.mark.slow
def test_the_papers_clip_by_the_command(tmp_path, capsys):
    """Random weights of the true shape, as a file without its architecture."""
    with no_init_weights():
        reference = open_clip.CLIP(**open_clip.get_model_config("ViT-B-16-plus-240")).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            parameter.normal_(float(".ln_" in name and "weight" in name), 0.02)
    save_file(reference.state_dict(), tmp_path / "vit_b_16_plus_240.safetensors")
    out = tmp_path / "detector"
    arguments = ["--clip", str(tmp_path / "vit_b_16_plus_240.safetensors"), "--llm", "none", "--out", str(out)]
    assert convert_main([*arguments, "--object", "steel"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    model, processor = AutoModel.from_pretrained(out).eval(), AutoProcessor.from_pretrained(out)
    plain, spoiled, *references = textures(3)
    spoiled.paste((250, 250, 20), (0, 100, 150, 200))
    inputs = processor(images=[spoiled, plain], reference_images=references)
    inputs["prompt_input_ids"] = inputs["prompt_input_ids"][:, :, :1]  # one prompt a state, for speed
    maps = model.diagnose(**inputs).anomaly_maps
    assert maps.shape == (2, 240, 240)
    assert maps[0, 120:, :120].mean() > maps[0, :120, 120:].mean()
    assert maps[0].max() > maps[1].max()
