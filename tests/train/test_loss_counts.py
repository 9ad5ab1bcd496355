"""The losses of a batch that is split over processes or accumulation add up to those of the whole."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel

from defect_hub.modeling.losses import CLS_SHARE
from tests.modeling import reference_spgdd_gpt as numpy_model
from tests.train.split_run import train

ROOT = Path(__file__).parents[2]

SIDE = 240
# Images of the batch: 0, 4, 6, 7 normal; 1, 5 defective; 2, 3 defective, without pixel annotation. 4 has no answer.
SPLITS = {
    "1+7": [[0], [1, 2, 3, 4, 5, 6, 7]],
    "2+2+4": [[0, 1], [2, 3], [4, 5, 6, 7]],
    "only normal images": [[0, 6, 7], [1, 2, 3, 4, 5]],
    "only unannotated defective images": [[2, 3], [0, 1, 4, 5, 6, 7]],
    "no labels": [[4], [0, 1, 2, 3, 5, 6, 7]],
}


def load(tiny_checkpoint, **settings):
    """In training mode; the tiny preset has no dropout."""
    return AutoModel.from_pretrained(tiny_checkpoint, **settings).train()


@pytest.fixture(scope="module")
def batch(processor):
    rng = np.random.default_rng(0)
    answers = ["No, the steel surface shows no defect."] * 8
    for defective in (1, 2, 3, 5):
        answers[defective] = "Yes, there is a small dark scratch in the top left."
    found = dict(processor(images=list(rng.integers(0, 256, (8, 20, 20, 3), dtype=np.uint8)), answers=answers))
    found["labels"][4] = -100
    masks = torch.zeros(8, SIDE, SIDE, dtype=torch.long)
    masks[1, 30:140, 50:200] = 1
    masks[5, 100:110, 30:35] = 1
    masks[2:4] = -100
    return found | {"masks": masks, "is_defective": torch.tensor([index in (1, 2, 3, 5) for index in range(8)])}


def without_gradient(name):
    """A constant added to all of CLIP's keys does not change a softmax: what gradient these have is rounding."""
    return ".clip." in name and name.endswith("k_proj.bias")


def part(batch, indices):
    return {name: value[indices] for name, value in batch.items()}


def split(model, batch, parts):
    """Losses of the parts by name, and their gradients summed, with the counts of all parts together."""
    batches = [part(batch, indices) for indices in parts]
    counts = [model.loss_counts(each) for each in batches]
    totals = {name: sum(count[name] for count in counts) for name in counts[0]}
    model.zero_grad()
    outputs = []
    for each in batches:
        outputs.append(model(**each, loss_counts=totals))
        outputs[-1].loss.backward()
    return outputs


def expected_losses(model, batch):
    """All losses of the whole batch in float64, from what the network gives."""
    with torch.no_grad():
        output = model(**batch)
        detection = model.model.detect(batch["pixel_values"], batch["prompt_input_ids"])
    fields = ("mask_logits", "cls_logits", "d_normal", "d_abnormal", "text_embeds")
    mask_logits, cls_logits, d_normal, d_abnormal, text = (
        getattr(detection, name).double().numpy() for name in fields
    )
    masks, labels = batch["masks"].numpy(), batch["labels"].numpy()
    annotated = [0, 1, 4, 5, 6, 7]
    masks, d_normal, d_abnormal = masks[annotated], d_normal[annotated], d_abnormal[annotated]
    patches = numpy_model.patch_labels(masks, model.config.grid_size)
    verdicts = numpy_model.log_softmax(cls_logits, axis=1)[np.arange(8), batch["is_defective"].long().numpy()]
    margin = model.model.clip.logit_scale.exp().item() * (d_normal - d_abnormal)
    contrast = np.logaddexp(0, np.where(patches[:, None], -margin, margin)).mean()
    positive, mirrored = model.config.pixel_positive_weight, model.config.normal_weight
    return {
        "text": numpy_model.text_loss(output.logits.double().numpy(), labels),
        "pixel": numpy_model.pixel_loss(mask_logits[annotated], masks, positive),
        "tddf": numpy_model.tddf_loss(d_normal, d_abnormal, patches, mirrored),
        "contrast": contrast,
        "sep": numpy_model.separation_loss(text),
        "align": contrast - CLS_SHARE * verdicts.mean(),
    }


@pytest.fixture(scope="module")
def whole(tiny_checkpoint, batch):
    """By focuser: a model, the NumPy losses of the whole batch, and the gradients of its backward pass."""

    @cache
    def of(focuser):
        model = load(tiny_checkpoint, focuser=focuser)
        model(**batch).loss.backward()
        gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        return model, expected_losses(model, batch), gradients

    return of


@pytest.mark.parametrize(
    ("focuser", "parts"),
    [*(("tddf", parts) for parts in SPLITS.values()), ("cosine", SPLITS["2+2+4"])],
    ids=[*SPLITS, "without focuser"],
)
def test_parts_add_up_to_the_whole(whole, batch, focuser, parts):
    model, expected, gradients = whole(focuser)
    outputs = split(model, batch, parts)
    names = {"tddf": {"tddf", "sep"}, "cosine": {"contrast"}}[focuser] | {"text", "pixel", "align"}
    for output in outputs:
        assert output.losses.keys() == names
    for name in names:
        found = sum(output.losses[name].item() for output in outputs)
        assert found == pytest.approx(expected[name], rel=1e-6), name
    for name, parameter in model.named_parameters():
        if without_gradient(name):
            assert gradients[name].norm() < 1e-7
        else:
            assert (parameter.grad - gradients[name]).norm() <= 1e-5 * gradients[name].norm(), name


def test_averages_of_the_parts_are_another_loss(whole, batch):
    """Else the tests above would pass without the counts."""
    model, expected, _ = whole("tddf")
    with torch.no_grad():
        parts = [model(**part(batch, indices)).losses for indices in ([0, 1, 2, 3], [4, 5, 6, 7])]
    for name in ("text", "pixel", "tddf"):
        assert sum(losses[name].item() for losses in parts) / 2 != pytest.approx(expected[name], rel=1e-4), name


def test_counts_by_hand(whole, batch):
    model, _, _ = whole("tddf")
    annotated, patches, blocks = 6, 15**2, 3
    rows, columns = range(30 // 16, 139 // 16 + 1), range(50 // 16, 199 // 16 + 1)
    defective = len(rows) * len(columns) + 2  # the small defect reaches over the border of two patches
    expected = {
        "tokens": int((batch["labels"] != -100).sum()),
        "images": 8,
        "pixels": annotated * SIDE**2,
        "patches": annotated * patches * blocks,
        "defective_patches": defective * blocks,
        "normal_patches": (annotated * patches - defective) * blocks,
    }
    assert {name: count.item() for name, count in model.loss_counts(batch).items()} == expected
    without = model.loss_counts({"pixel_values": batch["pixel_values"]})
    assert {name: count.item() for name, count in without.items()} == dict.fromkeys(expected, 0)


def test_a_part_without_targets_has_gradients_of_every_parameter(whole, batch):
    """DDP reduces the gradients of all processes; and where nobody has a target, nothing is divided by zero."""
    model, _, _ = whole("tddf")
    nothing = part(batch, [2, 3]) | {"labels": torch.full_like(batch["labels"][2:4], -100)}
    model.zero_grad(set_to_none=True)
    [output] = split(model, nothing, [[0, 1]])
    assert output.losses["text"] == output.losses["pixel"] == output.losses["tddf"] == 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_parts_add_up_under_autocast_and_checkpointing(tiny_checkpoint, batch):
    model = load(tiny_checkpoint)
    model.model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
    three = part(batch, [0, 1, 2])
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(**three).losses
        outputs = split(model, three, [[0], [1, 2]])
    for name, value in expected.items():
        assert value.dtype == torch.float32
        assert sum(output.losses[name].item() for output in outputs) == pytest.approx(value.item(), rel=1e-4), name


@pytest.mark.slow
def test_lora_passes_the_counts_on(tiny_checkpoint, batch):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=r".*language_model\..*\.q_proj", modules_to_save=["model.adapter"])
    model = get_peft_model(load(tiny_checkpoint), config)
    with torch.no_grad():
        expected = model(**batch).loss
    outputs = split(model, batch, SPLITS["1+7"])
    assert sum(output.loss.item() for output in outputs) == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.slow
def test_every_split_of_a_batch_trains_the_same_weights(tmp_path, steelsynth):
    """20 steps of 8 images in the real recipe; without the counts, weights differ over a hundred times as much."""
    train(steelsynth, tmp_path, "1 process x 8", 8, 1, counts=True)
    train(steelsynth, tmp_path, "1 process x 4 x 2", 4, 2, counts=True)
    runs = [["2 processes x 4", 4, 1, True], ["2 processes x 2 x 2", 2, 2, True], ["without counts", 2, 2, False]]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run(
        [*launch, str(Path(__file__).with_name("split_run.py")), str(steelsynth), str(tmp_path), json.dumps(runs)],
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=300,
    )
    weights = {path.stem: torch.load(path) for path in tmp_path.glob("*.pt")}
    whole = weights.pop("1 process x 8")
    assert weights.keys() == {"1 process x 4 x 2", *(run[0] for run in runs)}
    for name, found in weights.items():
        apart = {key: (found[key] - value).abs().max().item() for key, value in whole.items()}
        # AdamW makes whole steps even of rounding.
        idle = max(apart.pop(key) for key in whole if without_gradient(key))
        if name == "without counts":
            assert max(apart.values()) > 1e-4
        else:
            assert max(apart.values()) < 1e-6, (name, max(apart, key=apart.__getitem__))
            assert idle < 1e-5, name
