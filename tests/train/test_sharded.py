"""FSDP2 through accelerate's own functions, on two CPU processes, where accelerate would leave it out."""

import os
import signal
from functools import partial

import numpy as np
import peft  # noqa: F401 (here: else each forked process imports it)
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor
from torch.utils.data import Dataset
from transformers import AutoModel

from defect_hub.train.adaptation import LoraSettings, adapt
from defect_hub.train.checkpoints import checkpoints
from defect_hub.train.loop import build_accelerator, fit
from defect_hub.train.loop_config import LoopConfig
from defect_hub.train.signals import INTERRUPTED_EXIT_CODE
from tests.train.launch_environment import launch
from tests.train.processes import run_together

BATCHES = 4  # one step an epoch: two processes, two batches each a step
RANDOM = np.random.default_rng(0)


class Batches(Dataset):
    """Items are whole batches."""

    def __init__(self, batches):
        self.batches = batches

    def set_epoch(self, epoch):
        """All epochs are alike."""

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


@pytest.fixture(scope="module")
def batches(processor):
    side = processor.image_processor.size["height"]
    made = []
    for number in range(BATCHES):
        images = processor.image_processor(
            list(RANDOM.integers(0, 256, (3, 3, side, side), dtype=np.uint8)), return_tensors="pt"
        )["pixel_values"]
        made.append(
            {
                "pixel_values": images[:2],
                "masks": torch.from_numpy(RANDOM.integers(0, 2, (2, side, side))),
                "is_defective": torch.tensor([True, False]),
                "prompt_input_ids": processor.prompt_input_ids(["steel surface"] * 2),
                **processor.tokenize(["Is there any defect in this image?"] * 2, ["Yes.", "No."]),
                **({"reference_pixel_values": images[None, 2:]} if number % 2 else {}),
            }
        )
    return made


def shard():
    """As `accelerate launch` with fsdp2.yaml would, but on the CPU."""
    _, environment = launch("fsdp2")
    os.environ |= {name: value for name, value in environment.items() if name.startswith("FSDP_")}
    os.environ |= {"ACCELERATE_USE_FSDP": "true", "ACCELERATE_TORCH_DEVICE": "cpu"}
    PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)


def train(_, checkpoint, batches, folder, sharded, trainable, stop_at=0, **settings):
    """In one process: a run, or two where the first is stopped; what the main process ends with."""
    if sharded:
        shard()
    else:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    for stop in (stop_at, 0) if stop_at else (0,):
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        config = LoopConfig(
            output_dir=str(folder),
            batch_size=1,
            gradient_accumulation_steps=2,
            epochs=3,
            learning_rate=1e-3,
            max_grad_norm=0.5,
            **settings,
        )
        accelerator = build_accelerator(config)
        assert accelerator.num_processes == 2
        assert accelerator.is_fsdp2 == sharded
        model = AutoModel.from_pretrained(checkpoint)
        bfloat16 = "bfloat16" if config.mixed_precision == "bf16" else ""
        model = adapt(model, trainable, "tiny", LoraSettings(4, 8, 0.0), frozen_dtype=bfloat16)
        fetched = 0

        def collate(items, stop=stop, rank=accelerator.process_index):
            nonlocal fetched
            fetched += 1
            if fetched == stop and rank == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return dict(items[0])

        try:
            trained = fit(model, Batches(batches), collate, config, accelerator)
        except SystemExit as stopped:
            assert stopped.code == INTERRUPTED_EXIT_CODE
            assert len(checkpoints(folder)) == 1
            continue
        local = sum(
            (p.to_local() if isinstance(p, DTensor) else p).numel() for p in model.parameters() if p.requires_grad
        )
        if accelerator.is_main_process:
            if trainable != "lora":
                trained.save_pretrained(folder / "model")
            return {name: value.numpy() for name, value in trained.float().state_dict().items()}, local
    return None, local


@pytest.fixture(scope="module")
def trained(tiny_checkpoint, batches, tmp_path_factory):
    """Runs each setting once; (weights of the main process, trained numbers it holds) and the run's folder."""
    done = {}

    def result(sharded, trainable, **settings):
        key = (sharded, trainable, *settings.items())
        if key not in done:
            folder = tmp_path_factory.mktemp("run")
            function = partial(train, checkpoint=tiny_checkpoint, batches=batches, folder=folder, sharded=sharded)
            results = run_together(2, partial(function, trainable=trainable, **settings), timeout=300, trains=True)
            for found in results:
                if isinstance(found, Exception):
                    raise found
            done[key] = results, folder
        return done[key]

    return result


def assert_close(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(("trainable", "precision"), [("adapter", "bf16"), ("lora", "no")])
def test_sharded_equals_whole(trained, trainable, precision):
    (whole, (_, numbers)), _ = trained(False, trainable, mixed_precision=precision)
    (sharded, (_, other)), sharded_folder = trained(True, trainable, mixed_precision=precision)
    assert sharded[1] + other < 1.01 * numbers  # uneven rows are filled up
    assert sharded[1] < 0.6 * whole[1]
    assert_close(sharded[0], whole[0], 1e-6)
    assert (sharded_folder / "log.jsonl").read_text().count("\n") == 3


@pytest.mark.slow
def test_gathered_model_is_an_ordinary_checkpoint(trained, tiny_checkpoint):
    (sharded, _), folder = trained(True, "adapter", mixed_precision="bf16")
    model = AutoModel.from_pretrained(folder / "model", dtype="float32")
    assert_close({name: value.numpy() for name, value in model.state_dict().items()}, sharded[0], 0)
    before = AutoModel.from_pretrained(tiny_checkpoint).state_dict()
    assert not torch.equal(model.model.adapter.map_projection.weight, before["model.adapter.map_projection.weight"])


@pytest.mark.slow
def test_sharded_run_is_resumed_bit_for_bit(trained):
    expected, _ = trained(True, "adapter", mixed_precision="bf16")
    found, _ = trained(True, "adapter", mixed_precision="bf16", stop_at=1)
    assert_close(found[0][0], expected[0][0], 0)


@pytest.mark.slow
def test_trained_weights_outside_the_sharding_are_refused(trained):
    """They would drift apart from process to process: with `trainable: all`, CLIP's."""
    with pytest.raises(ValueError, match=r"clip.*trained, but fsdp_ignored_modules leaves it out"):
        trained(True, "all")
