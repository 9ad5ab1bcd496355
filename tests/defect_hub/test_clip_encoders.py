import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    PreTrainedTokenizerFast,
)

from defect_hub.cli import main
from defect_hub.clip_encoders import load_encoder
from defect_hub.dataset_scripts.mmio.matching import read_matches
from tests.dataset_scripts.built_folders import png, row, write_built

WORDS = ["<start>", "<end>", "<unk>", "a", "crack", "pore", "in", "steel"]
TEXTS = ["a crack in steel", "a pore", "a crack " * 50]
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in range(3)]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP model of transformers with random weights, and its processor."""
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("<start> $A <end>", None, [("<start>", 0), ("<end>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<end>", unk_token="<unk>")
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**layers, "vocab_size": len(WORDS), "max_position_embeddings": 12, "eos_token_id": 1},
        vision_config={**layers, "image_size": 32, "patch_size": 16},
        projection_dim=8,
        logit_scale_init_value=3.0,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    CLIPModel(config).save_pretrained(folder)
    image_processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(image_processor, fast).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def open_clip_name(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny architecture of open_clip and a file with random weights of it."""
    folder = tmp_path_factory.mktemp("open_clip")
    (folder / "tiny-test.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "tiny-test.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-test", pretrained=None)
    torch.save(model.state_dict(), folder / "tiny.pt")
    return f"open_clip:tiny-test/{folder / 'tiny.pt'}"


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_cosines_of_transformers_are_those_of_its_own_forward(clip_folder: Path, images: list[Image.Image]) -> None:
    encoder = load_encoder(str(clip_folder))
    processor = CLIPProcessor.from_pretrained(clip_folder)
    inputs = processor(text=TEXTS, images=images, return_tensors="pt", padding=True, truncation=True, max_length=12)
    with torch.no_grad():
        expected = CLIPModel.from_pretrained(clip_folder).eval()(**inputs).logits_per_image.numpy()
    found = encoder.logit_scale * unit(encoder.images(images)) @ unit(encoder.texts(TEXTS)).T
    assert encoder.logit_scale == pytest.approx(np.exp(3))
    assert np.allclose(found, expected, atol=1e-4)
    assert np.ptp(expected) > 0.1  # The vectors tell the inputs apart.


def test_cosines_of_open_clip_are_those_of_its_own_forward(open_clip_name: str, images: list[Image.Image]) -> None:
    encoder = load_encoder(open_clip_name)
    weights = open_clip_name.partition("/")[2]
    model, _, preprocess = open_clip.create_model_and_transforms("tiny-test", pretrained=weights)
    pixels, tokens = torch.stack([preprocess(image) for image in images]), open_clip.get_tokenizer("tiny-test")(TEXTS)
    with torch.no_grad():
        image_vectors, text_vectors, scale = model.eval()(pixels, tokens)
    assert encoder.logit_scale == pytest.approx(scale.item())
    found = unit(encoder.images(images)) @ unit(encoder.texts(TEXTS)).T
    assert np.allclose(found, (image_vectors @ text_vectors.T).numpy(), atol=1e-5)
    assert np.ptp(found) > 0.001


def test_a_batch_gives_what_single_inputs_give(clip_folder: Path, images: list[Image.Image]) -> None:
    encoder = load_encoder(str(clip_folder))
    for encode, inputs in ((encoder.images, images), (encoder.texts, TEXTS)):
        together = encode(inputs)
        assert (together.shape, together.dtype) == ((3, 8), np.float32)
        assert np.allclose(together, np.concatenate([encode([item]) for item in inputs]), atol=1e-5)


def test_what_is_no_clip_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=8)
    BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="BertModel does not compare images and texts; name a CLIP model"):
        load_encoder(str(tmp_path))
    with pytest.raises(ValueError, match="ViT-B-32: no weights named; write open_clip:ViT-B-32/TAG"):
        load_encoder("open_clip:ViT-B-32")
    with pytest.raises(ValueError, match="cannot be loaded by open_clip"):
        load_encoder("open_clip:ViT-B-32/no-such-tag")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ImportError, match="pip install open_clip_torch"):
        load_encoder("open_clip:ViT-B-32/openai")


def test_the_command_writes_matches(
    clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], open_clip_name: str
) -> None:
    shard = [row(number, [("crack", [4, 4, 20, 20])], image=png((64, 48), number)) for number in range(2)]
    built = write_built(tmp_path / "built", {"train": shard})
    out, texts = tmp_path / "matches.csv", tmp_path / "texts.yaml"
    command: list[Any] = ["data", "match", built, "--out", out, "--model"]
    assert main([*map(str, command), str(clip_folder)]) == 2
    assert "lists no prompts" in capsys.readouterr().err
    texts.write_text("crack: [a crack in steel, a pore]\n")
    arguments = ["--texts", str(texts), "--score", "softmax", "--threshold", "0.5"]
    for model in (str(clip_folder), open_clip_name):
        assert main([*map(str, command), model, *arguments]) == 0
        assert capsys.readouterr().out == (
            f"{out}: 1 of 1 categories with a proposed text; answer yes or no in column accepted\n"
        )
    first, second = out.read_text().splitlines()[1:]
    out.write_text(f"category,scene,text,cosine,softmax,crops,proposed,accepted\n{first}yes\n{second}\n")
    assert read_matches(out, ["crack"]) == {"crack": first.split(",")[2]}
