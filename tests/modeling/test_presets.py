import numpy as np
import pytest
import torch

from defect_hub.modeling.modeling_spgdd_gpt import SpgddGptForConditionalGeneration
from defect_hub.modeling.presets_spgdd_gpt import build_tiny, dct_basis, paper_config, sinusoid_grid, tiny_tokenizers

CORPUS = ["Is there any defect in this image?", "Yes, there are two tiny dark blowholes in the center."]


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_paper_size():
    """open_clip's ViT-B-16-plus-240, and Vicuna-7B with 64 more rows in embeddings and head."""
    with torch.device("meta"):
        model = SpgddGptForConditionalGeneration(paper_config())
    assert count(model.model.clip) == 208_377_345
    assert count(model.model.language_model) + count(model.lm_head) == 6_738_415_616 + 2 * 64 * 4096
    assert model.config.feature_blocks == [3, 8, 12]
    assert model.config.grid_size == 15
    assert model.model.adapter.map_projection.weight.shape == (4096, 225)


def test_tiny_is_tiny_and_trains_everything():
    model, processor = build_tiny(CORPUS, ["magnetic tile"])
    assert 500_000 < count(model) < 3_000_000
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert processor.object_name == "magnetic tile"
    assert processor.num_image_tokens == model.config.num_image_tokens
    assert processor.image_token_id == model.config.image_token_id
    for tokenizer, config in (
        (processor.tokenizer, model.config.text_config),
        (processor.clip_tokenizer, model.config.clip_config.text_config),
    ):
        assert len(tokenizer) <= config.vocab_size
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            assert getattr(tokenizer, name) == getattr(config, name)


def test_the_same_seed_builds_the_same_model():
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        models.append(build_tiny(CORPUS, ["magnetic tile"])[0].state_dict())
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())


def test_overrides_reach_the_configuration():
    model, processor = build_tiny(CORPUS, ["magnetic tile"], vv_mode="vv", num_prompt_tokens=7)
    assert model.config.vv_mode == "vv"
    assert processor.num_image_tokens == model.config.num_image_tokens == 3 + 4 + 7


@pytest.mark.parametrize("text", [*CORPUS, "Ünknown wörds: 42 %"])
def test_tokenizer_returns_any_text(text):
    language, _ = tiny_tokenizers(CORPUS, ["magnetic tile"])
    ids = language(text)["input_ids"]
    assert ids[0] == language.bos_token_id
    assert language.decode(ids, skip_special_tokens=True) == text


def test_every_prompt_of_a_known_object_fits_clips_text_input():
    _, processor = build_tiny(CORPUS, ["magnetic tile", "steel surface"])
    ids = processor.prompt_input_ids(["magnetic tile", "steel surface"])
    end = processor.clip_tokenizer.eos_token_id
    assert ((ids == end).sum(dim=-1) == 1).all()
    assert (ids[..., 0] == processor.clip_tokenizer.bos_token_id).all()
    lengths = [
        len(ids)
        for ids in processor.clip_tokenizer(["a close-up photo of a steel surface without damage."])["input_ids"]
    ]
    assert max(lengths) < processor.max_prompt_length


def test_dct_basis_is_orthonormal_and_rises_in_frequency():
    basis, frequency = dct_basis(16, 96)
    flat = basis.reshape(96, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(96), atol=1e-12)
    assert frequency[0] == 0
    assert (np.diff(frequency) >= 0).all()


def test_sinusoid_tells_every_place_apart():
    table = sinusoid_grid(15, 96)
    assert table.shape == (225, 96)
    assert np.abs(table).max() <= 1
    distances = np.linalg.norm(table[:, None] - table[None], axis=-1) + 10 * np.eye(225)
    assert distances.min() > 0.1
    assert distances[0].argmin() in (1, 15)  # the nearest place is a neighbour
