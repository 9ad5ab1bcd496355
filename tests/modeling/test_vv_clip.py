"""The original branch against open_clip, the local branch against NumPy in float64."""

import numpy as np
import open_clip
import pytest
import torch
from scipy.special import erf, softmax
from transformers import CLIPConfig, CLIPModel

from defect_hub.modeling.configuration_spgdd_gpt import VIT_B_16_PLUS_240
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


class NumpyTower:
    """CLIP's image encoder, written from the papers' formulas."""

    def __init__(self, clip: CLIPModel) -> None:
        self.weights = {name: value.numpy() for name, value in clip.state_dict().items()}
        self.heads = clip.config.vision_config.num_attention_heads

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0)

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def attention(self, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        heads = [np.split(part, self.heads, axis=-1) for part in (q, k, v)]
        mixed = [
            softmax(qh @ kh.transpose(0, 2, 1) / np.sqrt(qh.shape[-1]), axis=-1) @ vh
            for qh, kh, vh in zip(*heads, strict=True)
        ]
        return np.concatenate(mixed, axis=-1)

    def embed(self, images: np.ndarray) -> np.ndarray:
        kernel = self.weights["vision_model.embeddings.patch_embedding.weight"]
        size = kernel.shape[-1]
        tokens = [
            np.einsum("bchw,dchw->bd", images[:, :, row : row + size, column : column + size], kernel)
            for row in range(0, images.shape[2], size)
            for column in range(0, images.shape[3], size)
        ]
        cls = np.broadcast_to(self.weights["vision_model.embeddings.class_embedding"], tokens[0].shape)
        x = np.stack([cls, *tokens], axis=1) + self.weights["vision_model.embeddings.position_embedding.weight"]
        return self.norm(x, "vision_model.pre_layrnorm")

    def block(self, x: np.ndarray, name: str) -> np.ndarray:
        y = self.norm(x, f"{name}.layer_norm1")
        q, k, v = (self.linear(y, f"{name}.self_attn.{part}_proj") for part in "qkv")
        x = x + self.linear(self.attention(q, k, v), f"{name}.self_attn.out_proj")
        y = self.linear(self.norm(x, f"{name}.layer_norm2"), f"{name}.mlp.fc1")
        return x + self.linear(y * (1 + erf(y / np.sqrt(2))) / 2, f"{name}.mlp.fc2")

    def local(self, x: np.ndarray, name: str, mode: str) -> np.ndarray:
        v = self.linear(self.norm(x, f"{name}.layer_norm1"), f"{name}.self_attn.v_proj")
        if mode == "maskclip":
            return self.linear(v, f"{name}.self_attn.out_proj")
        z = self.linear(self.attention(v, v, v), f"{name}.self_attn.out_proj")
        return {"enhanced_vv": z, "vv": z + x, "clip": self.block(x, name)}[mode]

    def project(self, x: np.ndarray) -> np.ndarray:
        return self.linear(self.norm(x, "vision_model.post_layernorm"), "visual_projection")

    def encode(self, images: np.ndarray, mode: str) -> tuple[np.ndarray, list[np.ndarray]]:
        x, maps = self.embed(images), []
        for number in range(1, BLOCKS[-1] + 1):
            name = f"vision_model.encoder.layers.{number - 1}"
            if number in BLOCKS:
                maps.append(self.local(x, name, mode)[:, 1:])
            x = self.block(x, name)
        return self.project(x[:, 0]), [*maps[:-1], self.project(maps[-1])]


@pytest.mark.parametrize("mode", MODES)
@torch.no_grad()
def test_both_branches_equal_numpy(clip, mode):
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    cls, maps = encode_image(clip, images, BLOCKS, mode)
    expected_cls, expected_maps = NumpyTower(clip).encode(images.numpy(), mode)
    np.testing.assert_allclose(cls.numpy(), expected_cls, rtol=1e-9, atol=1e-9)
    assert [z.shape for z in maps] == [(2, 16, 24), (2, 16, 24), (2, 16, 20)]
    for found, expected in zip(maps, expected_maps, strict=True):
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)


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


def clip_from_open_clip(model: torch.nn.Module) -> CLIPModel:
    """The same weights in transformers' layout."""
    renames = [
        ("visual.transformer.resblocks", "vision_model.encoder.layers"),
        ("transformer.resblocks", "text_model.encoder.layers"),
        ("attn.out_proj", "self_attn.out_proj"),
        ("ln_1", "layer_norm1"),
        ("ln_2", "layer_norm2"),
        ("mlp.c_fc", "mlp.fc1"),
        ("mlp.c_proj", "mlp.fc2"),
        ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
        ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
        ("visual.conv1", "vision_model.embeddings.patch_embedding"),
        ("visual.ln_pre", "vision_model.pre_layrnorm"),
        ("visual.ln_post", "vision_model.post_layernorm"),
        ("token_embedding", "text_model.embeddings.token_embedding"),
        ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
        ("ln_final", "text_model.final_layer_norm"),
    ]
    weights = {}
    for name, value in model.state_dict().items():
        if name in ("visual.proj", "text_projection"):
            weights[{"visual.proj": "visual_projection"}.get(name, name) + ".weight"] = value.T
            continue
        for old, new in renames:
            if old in name and new not in name:
                name = name.replace(old, new, 1)
        if ".attn.in_proj_" in name:
            prefix, kind = name.split("attn.in_proj_")
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                weights[f"{prefix}self_attn.{part}_proj.{kind}"] = rows
        else:
            weights[name] = value
    clip = CLIPModel(CLIPConfig(**VIT_B_16_PLUS_240))
    missing, unexpected = clip.load_state_dict(weights, strict=False)
    assert unexpected == []
    assert [name for name in missing if "position_ids" not in name] == []
    return clip.eval()


@pytest.mark.slow
@torch.no_grad()
def test_original_branch_equals_open_clip_vit_b_16_plus_240():
    torch.manual_seed(0)
    reference = open_clip.create_model("ViT-B-16-plus-240").eval()
    clip = clip_from_open_clip(reference)
    images = torch.randn(2, 3, 240, 240)
    ids = open_clip.tokenize(["a photo of a flawless steel surface.", "a photo of a damaged magnetic tile."])
    cls, maps = encode_image(clip, images, [3, 8, 12], "enhanced_vv")
    torch.testing.assert_close(cls, reference.encode_image(images), atol=1e-4, rtol=0)
    assert [z.shape for z in maps] == [(2, 225, 896), (2, 225, 896), (2, 225, 640)]
    text = encode_prompts(clip, ids.view(1, 2, 1, 77))
    torch.testing.assert_close(text[0], reference.encode_text(ids, normalize=True), atol=1e-4, rtol=0)
