"""The language half: every way to decode gives the text that plain decoding gives."""

from threading import Thread

import pytest
import torch
from transformers import AutoModel, BitsAndBytesConfig, TextIteratorStreamer, set_seed

from defect_hub.modeling.modeling_spgdd_gpt import SpgddGptForConditionalGeneration
from defect_hub.modeling.presets_spgdd_gpt import build_tiny

SIX = {"min_new_tokens": 6, "max_new_tokens": 6}
QUESTIONS = ["Is there any defect in this image?", "Where?"]
FAMILY = {
    "mistral": {"sliding_window": 32, "num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "llama": {"num_key_value_heads": 2, "head_dim": 16},
}
LANGUAGE = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TOKENS = {"vocab_size": 512, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@pytest.fixture
def batch(processor, images):
    """Two images, questions of different lengths."""
    return dict(processor(images=images[:2], text=QUESTIONS))


def test_greedy_decoding_equals_a_loop_over_the_whole_sequence(model, batch):
    """Without cache, padding or `generate`: each image alone, the most likely token appended and all read again."""
    found = model.diagnose(**batch, **SIX).sequences
    for row in range(2):
        kept = batch["attention_mask"][row].bool()
        ids = batch["input_ids"][row, kept][None]
        given = {name: batch[name][row : row + 1] for name in ("pixel_values", "prompt_input_ids")}
        tokens = []
        with torch.no_grad():
            for _ in range(6):
                logits = model(input_ids=ids, **given).logits[0, -1]
                logits[[model.config.image_token_id, model.config.text_config.eos_token_id]] = -torch.inf
                tokens.append(int(logits.argmax()))
                ids = torch.cat([ids, ids.new_tensor([[tokens[-1]]])], dim=1)
        assert found[row].tolist() == tokens


def test_samples_follow_the_seed_and_never_name_the_image_token(model, batch):
    sampling = {"do_sample": True, "temperature": 3.0, **SIX}
    drawn = []
    for seed in (0, 0, 1):
        set_seed(seed)
        drawn.append(model.diagnose(**batch, **sampling).sequences)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    set_seed(0)
    many = model.diagnose(**batch, **sampling, num_return_sequences=64).sequences
    assert many.shape == (128, 6)
    assert not (many == model.config.image_token_id).any()
    set_seed(0)
    coldest = model.diagnose(**batch, do_sample=True, top_k=1, **SIX).sequences
    assert torch.equal(coldest, model.diagnose(**batch, **SIX).sequences)


def test_left_padding_changes_no_sample_of_one_image(model, processor, images, batch):
    """More padding than the batch needs; the distribution is the same, so the same seed draws the same."""
    single = dict(processor(images=images[:1], text=QUESTIONS[1:]))
    padded = single | {
        "input_ids": torch.nn.functional.pad(single["input_ids"], (7, 0), value=processor.tokenizer.pad_token_id),
        "attention_mask": torch.nn.functional.pad(single["attention_mask"], (7, 0)),
    }
    for options in ({}, {"do_sample": True}, {"num_beams": 3}, {"cache_implementation": "static"}):
        texts = []
        for inputs in (single, padded):
            set_seed(0)
            texts.append(model.diagnose(**inputs, **options, **SIX).sequences)
        assert torch.equal(*texts), options


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"do_sample": True}], ids=["greedy", "beams", "sampled"])
def test_a_static_cache_gives_the_same_text(model, batch, options):
    texts = []
    for cache in ({}, {"cache_implementation": "static"}):
        set_seed(0)
        texts.append(model.diagnose(**batch, **options, **cache, **SIX).sequences)
    assert torch.equal(*texts)


@pytest.mark.parametrize("shared", [True, False])
def test_beams_over_several_images_with_references(model, processor, images, batch, shared):
    """`generate` repeats its inputs for the beams; references of all images are given once."""
    references = processor.pixel_values(images[2:5])[None]
    if not shared:
        other = processor.pixel_values(images[:3])[None]
        references = torch.cat([references, other])
    options = {"num_beams": 3, "num_return_sequences": 2, **SIX}
    described = model.diagnose(**batch, reference_pixel_values=references, **options).sequences
    generated = model.generate(**batch, reference_pixel_values=references, **options)
    assert described.shape == (4, 6)
    assert torch.equal(generated[:, -6:], described)
    for row in range(2):
        own = references if shared else references[row : row + 1]
        single = {name: value[row : row + 1] for name, value in batch.items()}
        alone = model.diagnose(**single, reference_pixel_values=own, **options).sequences
        assert torch.equal(described[2 * row : 2 * row + 2], alone)


class CountingStreamer(TextIteratorStreamer):
    """Knows how often it was given something."""

    puts = 0

    def put(self, value):
        self.puts += 1
        super().put(value)


def test_streamed_text_is_the_text(model, processor, images):
    inputs = dict(processor(images=images[:1]))
    streamer = CountingStreamer(processor.tokenizer, timeout=60, skip_special_tokens=True)
    whole = []
    worker = Thread(target=lambda: whole.append(model.diagnose(**inputs, streamer=streamer, **SIX)))
    worker.start()
    streamed = "".join(streamer)
    worker.join()
    assert streamed == processor.tokenizer.decode(whole[0].sequences[0], skip_special_tokens=True)
    assert streamer.puts >= 6


@pytest.mark.parametrize("model_type", FAMILY)
def test_other_language_models_of_the_family(tmp_path, images, model_type):
    text_config = {"model_type": model_type, **LANGUAGE, **TOKENS, **FAMILY[model_type]}
    torch.manual_seed(0)
    built, processor = build_tiny(
        QUESTIONS, ["steel surface"], text_config=text_config, tie_word_embeddings=False, num_prompt_tokens=3
    )
    with torch.no_grad():
        for parameter in built.model.language_model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    built.save_pretrained(tmp_path)
    model = AutoModel.from_pretrained(tmp_path).eval()
    assert isinstance(model, SpgddGptForConditionalGeneration)
    assert model.model.language_model.config.model_type == model_type
    batch = dict(processor(images=images[:2], text=QUESTIONS))
    described = model.diagnose(**batch, **SIX).sequences
    assert torch.equal(model.diagnose(**batch, **SIX, cache_implementation="static").sequences, described)
    for row in range(2):
        alone = model.diagnose(**dict(processor(images=images[row], text=QUESTIONS[row])), **SIX).sequences
        assert torch.equal(described[row], alone[0])
    answers = ["No, there is no defect.", "Yes, top left."]
    model(**processor(images=images[:2], text=QUESTIONS, answers=answers)).loss.backward()
    assert {name for name, p in model.model.language_model.named_parameters() if p.grad is None} == set()


@pytest.mark.slow
def test_a_compiled_step_with_a_static_cache_gives_the_same_text(model, batch):
    """The whole graph is captured, and later steps add no graph to those of the first two: one shape for all."""
    expected = model.diagnose(**batch, **SIX).sequences
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    torch._dynamo.reset()
    language_model = model.model.language_model
    language_model.forward = torch.compile(language_model.forward, fullgraph=True, backend=backend)
    short = model.diagnose(**batch, min_new_tokens=3, max_new_tokens=3, cache_implementation="static").sequences
    count = len(compiled)
    found = model.diagnose(**batch, **SIX, cache_implementation="static").sequences
    assert torch.equal(found, expected) and torch.equal(short, expected[:, :3])
    assert 0 < len(compiled) - count <= count <= 2


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
@torch.no_grad()
def test_only_the_language_model_is_quantised(tmp_path, images, bits):
    """The call of docs/converting.md, on the CPU; needs the extra `quantized`."""
    # Matrices of bitsandbytes' usual sizes: below 256 x 256 its 4 bits are far coarser on the CPU.
    wide = {"model_type": "llama", **TOKENS, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1}
    built, processor = build_tiny(QUESTIONS, ["steel surface"], text_config=wide, tie_word_embeddings=False)
    built.save_pretrained(tmp_path)
    quantization = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    plain = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    model = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16, quantization_config=quantization)
    quantised = {name for name, module in model.named_modules() if type(module).__module__.startswith("bitsandbytes.")}
    linear = {name for name, module in plain.named_modules() if isinstance(module, torch.nn.Linear)}
    assert quantised == {name for name in linear if name.startswith("model.language_model.")} != set()
    inputs = dict(processor(images=images[:2]))
    found, expected = (m.eval().diagnose(**inputs, **SIX) for m in (model, plain))
    assert torch.equal(found.anomaly_maps, expected.anomaly_maps)
    assert found.sequences.shape == (2, 6)
    for name in quantised:
        exact = plain.get_submodule(name)
        x = torch.randn(64, exact.in_features, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(0))
        wanted = exact(x).float()
        error = (model.get_submodule(name)(x).float() - wanted).norm() / wanted.norm()
        assert 0 < error < {4: 0.15, 8: 0.03}[bits], name


def test_a_description_is_not_cut_at_transformers_own_limit(model, inputs):
    model.generation_config.eos_token_id = None
    assert model.diagnose(**inputs).sequences.shape[1] == 128
    assert model.diagnose(**inputs, max_new_tokens=5).sequences.shape[1] == 5
    model.generation_config.max_new_tokens = 7
    assert model.diagnose(**inputs).sequences.shape[1] == 7
