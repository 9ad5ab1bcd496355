import argparse
import re

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DeepSpeedPlugin
from torch.distributed.fsdp import OffloadPolicy
from torch.distributed.fsdp.fully_sharded_data_parallel import StateDictType
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from transformers import AutoModel

from tests.train.launch_environment import CONFIGS, launch

NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
SLURM = CONFIGS.parent / "slurm/nodes.sh"


def options():
    """Names of all options of `accelerate launch`."""
    subactions = launch_command_parser()._actions
    return {action.dest for action in subactions if not isinstance(action, argparse._HelpAction)}


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_one_of_accelerate(name):
    """Those on top are checked by accelerate itself; those in a group it would pass over in silence."""
    config = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    assert (config.fsdp_config.keys() | config.deepspeed_config.keys()) - {"fsdp_ignored_modules"} <= options()


@pytest.mark.parametrize(
    ("name", "processes", "machines", "cpu"),
    [
        ("cpu", 1, 1, True),
        ("cpu_2", 2, 1, False),
        ("gpu", 1, 1, False),
        ("ddp", 8, 1, False),
        ("ddp_2_nodes", 16, 2, False),
        ("fsdp2", 8, 1, False),
        ("deepspeed_zero2", 8, 1, False),
        ("deepspeed_zero3", 8, 1, False),
    ],
)
def test_processes_and_devices(name, processes, machines, cpu):
    args, environment = launch(name)
    assert (args.num_processes, args.num_machines or 1, bool(args.use_cpu)) == (processes, machines, cpu)
    assert args.multi_gpu == (name in ("cpu_2", "ddp", "ddp_2_nodes"))
    assert environment["ACCELERATE_MIXED_PRECISION"] == "no"  # the recipe's is passed by the loop


def test_all_configurations_are_tested():
    assert len(NAMES) == 8


def test_one_gpu_and_none():
    assert launch("gpu")[1]["CUDA_VISIBLE_DEVICES"] == "0"
    assert launch("cpu")[1]["ACCELERATE_USE_CPU"] == "True"


def test_second_machine_meets_the_first():
    args, _ = launch("ddp_2_nodes", "--machine_rank", "1", "--main_process_ip", "10.0.0.1")
    assert (args.nnodes, args.nproc_per_node, args.node_rank) == ("2", "8", 1)
    assert args.rdzv_endpoint == "10.0.0.1:29500"


@pytest.fixture
def fsdp2(monkeypatch):
    _, environment = launch("fsdp2")
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    for name, value in environment.items():
        if name.startswith("FSDP_"):
            monkeypatch.setenv(name, value)
    return FullyShardedDataParallelPlugin()


def test_fsdp2(fsdp2):
    assert fsdp2.fsdp_version == 2
    assert fsdp2.auto_wrap_policy is transformer_auto_wrap_policy
    assert fsdp2.transformer_cls_names_to_wrap == ["LlamaDecoderLayer"]
    assert fsdp2.reshard_after_forward is True
    assert fsdp2.state_dict_type == StateDictType.SHARDED_STATE_DICT
    assert fsdp2.cpu_ram_efficient_loading is False
    assert fsdp2.activation_checkpointing is False
    assert type(fsdp2.cpu_offload) is OffloadPolicy


def test_fsdp2_names_parts_that_the_model_has(fsdp2, tiny_checkpoint):
    """And CLIP holds every scalar parameter, which cannot be split."""
    model = AutoModel.from_pretrained(tiny_checkpoint)
    assert {type(module).__name__ for module in model.modules()} >= set(fsdp2.transformer_cls_names_to_wrap)
    names = [name for name, _ in model.named_modules()]
    for prefix in ("", "base_model.model."):  # plain, and inside peft
        assert [name for name in names if re.fullmatch(fsdp2.ignored_modules, prefix + name)] == ["model.clip"]
    scalars = [name for name, parameter in model.named_parameters() if not parameter.dim()]
    assert scalars == ["model.clip.logit_scale"]


def test_batch_script_splits_as_the_configuration_does():
    _, environment = launch("fsdp2")
    exported = dict(re.findall(r"\b((?:FSDP|ACCELERATE)_\w+)='?([^'\s]+)", SLURM.read_text()))
    assert exported
    assert {name: environment[name] for name in exported} == exported
    needed = {"FSDP_VERSION", "FSDP_AUTO_WRAP_POLICY", "FSDP_TRANSFORMER_CLS_TO_WRAP", "FSDP_IGNORED_MODULES"}
    assert exported.keys() >= needed | {"ACCELERATE_USE_FSDP", "FSDP_STATE_DICT_TYPE"}


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed(stage, monkeypatch):
    _, environment = launch(f"deepspeed_zero{stage}")
    assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
    for name, value in environment.items():
        if name.startswith("ACCELERATE_"):
            monkeypatch.setenv(name, value)
    plugin = DeepSpeedPlugin()
    config = plugin.deepspeed_config
    assert config["zero_optimization"]["stage"] == stage
    assert config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] == (stage == 3)
    assert config["zero_optimization"]["offload_param"]["device"] == "none"
    # Filled in by the loop and by accelerate.
    assert [config[name] for name in ("gradient_accumulation_steps", "gradient_clipping", "train_batch_size")] == [
        "auto"
    ] * 3
    assert plugin.zero3_init_flag is False
    assert not torch.distributed.is_initialized()
