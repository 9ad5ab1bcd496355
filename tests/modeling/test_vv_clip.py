"""The original branch against open_clip and transformers; the local branch is judged in test_references_spgdd_gpt."""

import open_clip
import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from defect_hub.modeling.configuration_spgdd_gpt import VIT_B_16_PLUS_240
from defect_hub.modeling.open_clip_weights import renamed
from defect_hub.modeling.vv_clip import encode_image, encode_prompts

MODES = ("enhanced_vv", "vv", "maskclip", "clip")
BLOCKS = [1, 3, 4]


@pytest.fixture(scope="module")
def clip() -> CLIPModel:
    """A small float64 CLIP whose weights are all large enough to matter."""
    vision = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3}
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {"vocab_size": 50, "max_position_embeddings": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 49}
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(
            vision_config={**vision, "image_size": 32, "patch_size": 8, "hidden_act": "gelu"},
            text_config={**text, **tokens, "hidden_act": "gelu"},
            projection_dim=20,
        )
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@torch.no_grad()
def test_cls_is_transformers_own_image_embedding(clip):
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = clip.visual_projection(clip.vision_model(pixel_values=images).pooler_output)
    for mode in MODES:
        torch.testing.assert_close(encode_image(clip, images, BLOCKS, mode)[0], expected)


@torch.no_grad()
def test_prompt_ensemble_is_the_normalised_mean_and_repeats_cost_nothing(clip):
    ids = torch.randint(2, 49, (2, 2, 3, 8), generator=torch.Generator().manual_seed(0))
    ids[..., 0], ids[..., 6] = 1, 49
    calls = []
    hook = clip.text_model.register_forward_hook(lambda *call: calls.append(len(call[2].pooler_output)))
    embeds = encode_prompts(clip, ids[[1, 0, 1, 1]])
    hook.remove()
    assert calls == [2 * 2 * 3]
    for row, source in enumerate([1, 0, 1, 1]):
        for state in range(2):
            single = clip.text_projection(clip.text_model(input_ids=ids[source, state]).pooler_output)
            mean = (single / single.norm(dim=-1, keepdim=True)).mean(dim=0)
            torch.testing.assert_close(embeds[row, state], mean / mean.norm())


@pytest.mark.slow
@torch.no_grad()
def test_original_branch_equals_open_clip_vit_b_16_plus_240():
    torch.manual_seed(0)
    reference = open_clip.create_model("ViT-B-16-plus-240").eval()
    for parameter in reference.parameters():
        if parameter.dim() == 1:  # fresh norms and biases are all ones and zeros, so that a swap would not show
            parameter.add_(0.1 * torch.randn_like(parameter))
    clip = CLIPModel(CLIPConfig(**VIT_B_16_PLUS_240)).eval()
    clip.load_state_dict(renamed(reference.state_dict()))
    images = torch.randn(2, 3, 240, 240)
    ids = open_clip.tokenize(["a photo of a flawless steel surface.", "a photo of a damaged magnetic tile."])
    cls, maps = encode_image(clip, images, [3, 8, 12], "enhanced_vv")
    torch.testing.assert_close(cls, reference.encode_image(images), atol=1e-4, rtol=0)
    assert [z.shape for z in maps] == [(2, 225, 896), (2, 225, 896), (2, 225, 640)]
    text = encode_prompts(clip, ids.view(1, 2, 1, 77))
    torch.testing.assert_close(text[0], reference.encode_text(ids, normalize=True), atol=1e-4, rtol=0)
