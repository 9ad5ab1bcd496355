"""SPGDD-GPT in NumPy and float64, from the paper's equations and the decisions of docs/spgdd_gpt.md.

Nothing here comes from the implementation: it only reads a model's state dict and its configuration.
"""

from typing import Any

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import erf, log_softmax, softmax

Array = np.ndarray
DIRECT_SLOPE = 5.0  # of the mean map in an untrained detection head, chosen here: the paper is silent
RARE_CLASS_LOGIT = -2.0


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    """Norm over the last axis."""
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias


def gelu(x: Array) -> Array:
    """The exact form."""
    return x * (1 + erf(x / np.sqrt(2))) / 2


def unit(x: Array) -> Array:
    """L2 norm 1 over the last axis."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def attention(q: Array, k: Array, v: Array, heads: int, causal: bool = False) -> Array:
    """Eq. 1 for (B, T, C), per head; with `causal`, no token sees a later one."""
    hidden = np.triu(np.full((q.shape[1], k.shape[1]), -np.inf), 1) if causal else 0.0
    mixed = [
        softmax(qh @ kh.swapaxes(1, 2) / np.sqrt(qh.shape[-1]) + hidden, axis=-1) @ vh
        for qh, kh, vh in zip(*(np.split(part, heads, axis=-1) for part in (q, k, v)), strict=True)
    ]
    return np.concatenate(mixed, axis=-1)


def bilinear(maps: Array, size: int) -> Array:
    """(..., g, g) -> (..., size, size); pixel centres as corners of the interpolation, borders repeated."""
    grid = maps.shape[-1]
    place = np.clip((np.arange(size) + 0.5) * grid / size - 0.5, 0, grid - 1)
    weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(grid)))  # (size, g)
    return weights @ maps @ weights.T


def convolve(maps: Array, weight: Array, bias: Array) -> Array:
    """(B, C, g, g) by (D, C, k, k), borders padded with zeros."""
    reach = weight.shape[-1] // 2
    padded = np.pad(maps, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[-2:], axis=(2, 3))
    return np.einsum("bcxyij,dcij->bdxy", windows, weight) + bias[:, None, None]


# MSSPMM (Eq. 7-11)


def distances(query: Array, references: Array, matching: str) -> Array:
    """Eq. 9 by all pairs: (N, C) and (K, N, C) -> (K, N)."""
    if matching == "aligned":
        return np.linalg.norm(query - references, axis=-1)
    return np.stack([cdist(query, one).min(axis=1) for one in references])


def spread(references: Array) -> float:
    """How far two patches of the references lie apart: sqrt(2) times the mean distance to their mean."""
    return float(np.sqrt(2) * np.linalg.norm(references - references.mean(axis=(0, 1)), axis=-1).mean())


def relative_distances(queries: list[Array], references: list[Array], matching: str) -> Array:
    """Eq. 9 of one image in units of the references' spread: S blocks (N, C) and (K, N, C) -> (K, S, N)."""
    blocks = zip(queries, references, strict=True)
    return np.stack([distances(query, own, matching) / spread(own) for query, own in blocks], axis=1)


def attention_maps(queries: list[Array], references: list[Array], matching: str) -> tuple[Array, int]:
    """Maps against every reference (K, S, N), bounded by 2, and the best reference (Eq. 10)."""
    ratios = relative_distances(queries, references, matching)
    return 2 * ratios / (1 + ratios), int(ratios.sum(axis=(1, 2)).argmin())


def greedy_k_center(images: list[Array], count: int, matching: str) -> list[int]:
    """Coreset of S blocks (K, N, C): from the most central image on, always the one farthest from all chosen ones."""
    pairs = [relative_distances([z[index] for z in images], images, matching) for index in range(len(images[0]))]
    one_way = np.stack([distance.sum(axis=(1, 2)) for distance in pairs])
    apart = one_way + one_way.T
    chosen = [int(apart.sum(axis=1).argmin())]
    while len(chosen) < count:
        gaps = [-1 if index in chosen else min(row[chosen]) for index, row in enumerate(apart)]
        chosen.append(int(np.argmax(gaps)))
    return chosen


# Losses (Eq. 4, 5, 12, 13)


def tddf_loss(d_normal: Array, d_abnormal: Array, defective: Array, normal_weight: float) -> float:
    """Eq. 4 as its paragraph reads; (B, S, N) twice and (B, N)."""
    sides: dict[bool, list[float]] = {True: [], False: []}
    for image, block, patch in np.ndindex(d_normal.shape):
        is_defective = bool(defective[image, patch])
        gap = d_abnormal[image, block, patch] - d_normal[image, block, patch]
        sides[is_defective].append(max(0.0, gap if is_defective else -gap))
    loss, mirrored = (sum(values) / max(1, len(values)) for values in (sides[True], sides[False]))
    return loss + normal_weight * mirrored


def separation_loss(text: Array) -> float:
    """Eq. 5 with the sign that grows the distance; (B, 2, D) of unit length."""
    return -float(np.mean([np.sum((normal - abnormal) ** 2) for normal, abnormal in text]))


def pixel_loss(mask_logits: Array, masks: Array, positive_weight: float) -> float:
    """Eq. 13, mean over pixels; (B, 2, H, W) and (B, H, W)."""
    log_p = log_softmax(mask_logits, axis=1)
    return -float(np.mean(np.where(masks == 1, positive_weight * log_p[:, 1], log_p[:, 0])))


def text_loss(logits: Array, labels: Array) -> float:
    """Eq. 12, mean over the labelled tokens, each predicted from those before it; (B, T, V) and (B, T)."""
    log_p = log_softmax(logits[:, :-1], axis=-1)
    rows, places = np.nonzero(labels[:, 1:] != -100)
    return -float(np.mean(log_p[rows, places, labels[:, 1:][rows, places]]))


def patch_labels(masks: Array, grid: int) -> Array:
    """(B, H, W) -> (B, grid ** 2): whether a pixel of the patch is defective."""
    side = masks.shape[1] // grid
    cells = masks.reshape(len(masks), grid, side, grid, side)
    return cells.max(axis=(2, 4)).reshape(len(masks), -1) == 1


class Reference:
    """The whole model, from its weights alone."""

    def __init__(self, model: Any) -> None:
        self.weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
        self.config = model.config

    def linear(self, x: Array, name: str) -> Array:
        """The layer of this name; its bias is optional."""
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0)

    def norm(self, x: Array, name: str) -> Array:
        """CLIP's norm of this name."""
        return layer_norm(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], 1e-5)

    # Both towers of CLIP

    def qkv(self, x: Array, block: str) -> list[Array]:
        """Queries, keys and values of the normed input."""
        y = self.norm(x, f"{block}.layer_norm1")
        return [self.linear(y, f"{block}.self_attn.{part}_proj") for part in "qkv"]

    def block(self, x: Array, block: str, heads: int, causal: bool = False) -> Array:
        """One block of the original branch."""
        x = x + self.linear(attention(*self.qkv(x, block), heads, causal), f"{block}.self_attn.out_proj")
        y = self.linear(self.norm(x, f"{block}.layer_norm2"), f"{block}.mlp.fc1")
        return x + self.linear(gelu(y), f"{block}.mlp.fc2")

    def local(self, x: Array, block: str, heads: int) -> Array:
        """Eq. 3, or its alternatives in Table VII, from the original branch's input to the block."""
        mode = self.config.vv_mode
        if mode == "clip":
            return self.block(x, block, heads)
        _, _, v = self.qkv(x, block)
        mixed = v if mode == "maskclip" else attention(v, v, v, heads)
        z = self.linear(mixed, f"{block}.self_attn.out_proj")
        return z + x if mode == "vv" else z

    def images(self, pixels: Array) -> tuple[Array, list[Array]]:
        """(B, 3, H, W) -> CLS embedding (B, D), and S maps (B, N, C)."""
        tower, config = "model.clip.vision_model", self.config.clip_config.vision_config
        kernel, side = self.weights[f"{tower}.embeddings.patch_embedding.weight"], config.patch_size
        patches = [
            np.einsum("bcij,dcij->bd", pixels[:, :, row : row + side, column : column + side], kernel)
            for row in range(0, pixels.shape[2], side)
            for column in range(0, pixels.shape[3], side)
        ]
        cls = np.broadcast_to(self.weights[f"{tower}.embeddings.class_embedding"], patches[0].shape)
        x = np.stack([cls, *patches], axis=1) + self.weights[f"{tower}.embeddings.position_embedding.weight"]
        x, maps = self.norm(x, f"{tower}.pre_layrnorm"), []
        for number in range(1, config.num_hidden_layers + 1):
            name = f"{tower}.encoder.layers.{number - 1}"
            if number in self.config.feature_blocks:
                maps.append(self.local(x, name, config.num_attention_heads)[:, 1:])
            x = self.block(x, name, config.num_attention_heads)
        last, cls = (
            self.linear(self.norm(y, f"{tower}.post_layernorm"), "model.clip.visual_projection")
            for y in (maps[-1], x[:, 0])
        )
        return cls, [*maps[:-1], last]

    def prompt(self, ids: Array) -> Array:
        """(P, L) token ids -> (P, D), read at the first end token."""
        tower, config = "model.clip.text_model", self.config.clip_config.text_config
        x = self.weights[f"{tower}.embeddings.token_embedding.weight"][ids]
        x = x + self.weights[f"{tower}.embeddings.position_embedding.weight"][: ids.shape[1]]
        for number in range(config.num_hidden_layers):
            x = self.block(x, f"{tower}.encoder.layers.{number}", config.num_attention_heads, causal=True)
        x = self.norm(x, f"{tower}.final_layer_norm")
        end = (ids == config.eos_token_id).argmax(axis=1)
        return self.linear(x[np.arange(len(ids)), end], "model.clip.text_projection")

    def texts(self, ids: Array) -> Array:
        """Prompt ensemble: (B, 2, P, L) -> (B, 2, D), the normalised mean of normalised embeddings."""
        return np.stack([[unit(unit(self.prompt(state)).mean(axis=0)) for state in image] for image in ids])

    # Detection

    def adapted(self, text: Array) -> Array:
        """The residual text adapter: a shared linear map and one offset a state."""
        moved = text @ self.weights["model.text_adapter.weight"].T + self.weights["model.text_adapter.state_offset"]
        return unit(text + moved)

    def focused(self, maps: list[Array], text: Array) -> tuple[Array, Array]:
        """d_n and d_a of Eq. 6, each (B, S, N); one minus the cosine for the `cosine` focuser."""
        projected = [self.linear(z, f"model.focuser.projections.{number}") for number, z in enumerate(maps[:-1])]
        z = unit(np.stack([*projected, maps[-1]], axis=1))  # (B, S, N, D)
        if self.config.focuser == "cosine":
            similar = np.einsum("bsnd,btd->tbsn", z, text)
            return 1 - similar[0], 1 - similar[1]
        d_normal, d_abnormal = (np.linalg.norm(z - text[:, None, None, state], axis=-1) for state in (0, 1))
        return d_normal, d_abnormal

    def head(self, fused: Array) -> Array:
        """F_out (B, S, N) -> two-class logits (B, 2, g, g)."""
        grid = self.config.grid_size
        fused, name = fused.reshape(*fused.shape[:2], grid, grid), "model.detection_head"
        if self.config.detection_head == "mean":
            logit = DIRECT_SLOPE * fused.mean(axis=1) + RARE_CLASS_LOGIT
            return np.stack([-logit, logit], axis=1)
        direct, conv_in, conv_out = (
            (self.weights[f"{name}.{part}.weight"], self.weights[f"{name}.{part}.bias"])
            for part in ("direct", "conv_in", "conv_out")
        )
        return convolve(fused, *direct) + convolve(gelu(convolve(fused, *conv_in)), *conv_out)

    def probability(self, grid_logits: Array) -> Array:
        """(B, 2, g, g) -> (B, H, W) of a defect."""
        return softmax(bilinear(grid_logits, self.config.clip_config.vision_config.image_size), axis=1)[:, 1]

    def scores(self, peaks: Array, cls_logits: Array) -> Array:
        """Image scores from the maps' maxima (B,) and the verdict of CLS (B, 2)."""
        verdict = softmax(cls_logits, axis=1)[:, 1]
        return {"max": peaks, "cls": verdict, "mean": (peaks + verdict) / 2}[self.config.image_score]

    def detect(self, pixels: Array, ids: Array, references: Array | None = None) -> dict[str, Array]:
        """The visual half: images (B, 3, H, W), prompts (B, 2, P, L) and references (K, 3, H, W) of all images."""
        (cls, maps), text = self.images(pixels), self.adapted(self.texts(ids))
        scale = np.exp(self.weights["model.clip.logit_scale"])
        cls_logits = scale * np.einsum("bd,bsd->bs", unit(cls), text)
        d_normal, d_abnormal = self.focused(maps, text)
        fused, found = d_normal - d_abnormal, {}
        if references is not None:
            _, own = self.images(references)
            attended = [
                attention_maps([z[index] for z in maps], own, self.config.memory_matching)
                for index in range(len(pixels))
            ]
            every = [attention * (one + 2) - 2 for (attention, _), one in zip(attended, fused, strict=True)]
            fused = np.stack([one[best] for one, (_, best) in zip(every, attended, strict=True)])
            peaks = np.stack([self.probability(self.head(one)).max(axis=(1, 2)) for one in every])  # (B, K)
            columns = [self.scores(column, cls_logits) for column in peaks.T]
            found["reference_scores"] = np.stack(columns, axis=1)
        grid_logits = self.head(fused)
        anomaly_maps = self.probability(grid_logits)
        detection = (grid_logits[:, 1] - grid_logits[:, 0]).reshape(len(pixels), -1)
        return found | {
            "anomaly_maps": anomaly_maps,
            "mask_logits": bilinear(grid_logits, pixels.shape[-1]),
            "cls_logits": cls_logits,
            "image_scores": self.scores(anomaly_maps.max(axis=(1, 2)), cls_logits),
            "d_normal": d_normal,
            "d_abnormal": d_abnormal,
            "text": text,
            "prompt_embeds": self.adapter(fused, detection, unit(cls), text),
        }

    def adapter(self, fused: Array, detection: Array, cls: Array, text: Array) -> Array:
        """Section III-D: what the language model is told, (B, S + 4 + prompts, hidden)."""
        name, batch = "model.adapter", len(cls)
        prompts = self.weights[f"{name}.prompts.weight"]
        parts = [
            self.linear(fused, f"{name}.map_projection"),
            self.linear(detection, f"{name}.detection_projection")[:, None],
            self.linear(cls, f"{name}.cls_projection")[:, None],
            self.linear(text, f"{name}.text_projection"),
            np.broadcast_to(prompts, (batch, *prompts.shape)),
        ]
        return np.concatenate(parts, axis=1)

    # Language model (Llama)

    def rms_norm(self, x: Array, name: str) -> Array:
        """Llama's norm of this name."""
        eps = self.config.text_config.rms_norm_eps
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * self.weights[f"{name}.weight"]

    def turned(self, x: Array, heads: int) -> Array:
        """Rotary positions of (B, T, C): channel i of a head pairs with channel i + half."""
        theta = self.config.text_config.rope_parameters["rope_theta"]
        width = x.shape[-1] // heads
        angles = np.arange(x.shape[1])[:, None] * theta ** (-np.arange(0, width, 2) / width)  # (T, width / 2)
        first, second = np.split(x.reshape(*x.shape[:2], heads, width), 2, axis=-1)
        cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).reshape(x.shape)

    def language(self, ids: Array, prompt_embeds: Array) -> Array:
        """Logits (1, T, V) of one question (T,) without padding, the image's embeddings (I, hidden) in place."""
        config, x = self.config.text_config, self.weights["model.language_model.embed_tokens.weight"][ids]
        x[ids == self.config.image_token_id] = prompt_embeds
        x, heads = x[None], config.num_attention_heads
        for number in range(config.num_hidden_layers):
            name = f"model.language_model.layers.{number}"
            y = self.rms_norm(x, f"{name}.input_layernorm")
            q, k, v = (self.linear(y, f"{name}.self_attn.{part}_proj") for part in "qkv")
            mixed = attention(self.turned(q, heads), self.turned(k, heads), v, heads, causal=True)
            x = x + self.linear(mixed, f"{name}.self_attn.o_proj")
            y = self.rms_norm(x, f"{name}.post_attention_layernorm")
            gate, up = (self.linear(y, f"{name}.mlp.{part}_proj") for part in ("gate", "up"))
            x = x + self.linear(gate / (1 + np.exp(-gate)) * up, f"{name}.mlp.down_proj")
        return self.linear(self.rms_norm(x, "model.language_model.norm"), "lm_head")
