"""What a run needs where each process holds only a part of every weight: FSDP2 and DeepSpeed's ZeRO-3."""

import copy
from typing import Any

import torch
from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils import parse_flag_from_env
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor


def fsdp_plugin() -> FullyShardedDataParallelPlugin | None:
    """With FSDP2: what the launch says, but lower precision is autocast's, as everywhere else. None without.

    accelerate's own policy rounds weights, outputs and gradients: a loss of 8.65881 became 8.625.
    """
    if not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return None
    return FullyShardedDataParallelPlugin(mixed_precision_policy=MixedPrecisionPolicy())


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether the processes hold parts of the weights."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return accelerator.deepspeed_plugin.zero_stage == 3
    return accelerator.distributed_type == DistributedType.FSDP


def check_supported(accelerator: Accelerator, ema_decay: float, evaluates: bool) -> None:
    """What would hang, or average parts only.

    Raises:
        ValueError: for an option that sharded weights do not allow.
    """
    if parse_flag_from_env("ACCELERATE_USE_FSDP") and accelerator.distributed_type != DistributedType.FSDP:
        raise ValueError("FSDP was asked for, and accelerate leaves it out: it needs several GPUs. Launch without it")
    if ema_decay and (is_sharded(accelerator) or accelerator.distributed_type == DistributedType.DEEPSPEED):
        raise ValueError("ema_decay: not with FSDP2 or DeepSpeed. Leave it out, or launch without them")
    if evaluates and is_sharded(accelerator):
        raise ValueError("eval_steps, eval_epochs: not with sharded weights (FSDP2, ZeRO-3). Leave them out")


def check_trained_are_sharded(accelerator: Accelerator, model: nn.Module) -> None:
    """Gradients of weights that are left out of sharding are not averaged, and the processes would drift apart.

    Raises:
        ValueError: for a trained weight that is left out.
    """
    if accelerator.distributed_type != DistributedType.FSDP:
        return
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not isinstance(parameter, DTensor):
            raise ValueError(
                f"{name}: trained, but fsdp_ignored_modules leaves it out. Freeze it (trainable: adapter or "
                "lora), or launch without FSDP"
            )


def prepare_deepspeed(accelerator: Accelerator, model: nn.Module, max_grad_norm: float, batch_size: int) -> None:
    """What accelerate leaves open or takes from elsewhere than the recipe; nothing without DeepSpeed.

    Raises:
        ValueError: for a trained weight without axes, which DeepSpeed cannot flatten.
    """
    if accelerator.distributed_type != DistributedType.DEEPSPEED:
        return
    settings = accelerator.deepspeed_plugin.deepspeed_config
    settings |= {"gradient_clipping": max_grad_norm, "train_micro_batch_size_per_gpu": batch_size}
    for path, module in model.named_modules():
        for name, parameter in list(module.named_parameters(prefix=path, recurse=False)):
            if parameter.dim() == 0 and parameter.requires_grad:
                raise ValueError(
                    f"{name}: trained, and DeepSpeed takes no weight without axes. Freeze it (trainable: adapter or "
                    "lora), or launch without DeepSpeed"
                )
            if parameter.dim() == 0:  # a frozen one may as well be a buffer of the same name
                last = name.rpartition(".")[2]
                delattr(module, last)
                module.register_buffer(last, parameter.detach())


def refuse_zero3(accelerator: Accelerator) -> None:
    """For models whose processes pass unequally often through some of their layers.

    Raises:
        ValueError: under ZeRO-3, where every pass waits for all processes.
    """
    if accelerator.distributed_type == DistributedType.DEEPSPEED and is_sharded(accelerator):
        raise ValueError(
            "zero_stage: 3 does not fit this model, whose processes encode unequally many references. Use fsdp2.yaml"
        )


def empty_copy(model: nn.Module) -> nn.Module:
    """The same modules and ties with parameters that take no memory; sharding changes the model itself for good."""
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, memo)


def gathered_model(accelerator: Accelerator, model: nn.Module, empty: Any) -> nn.Module:
    """The whole model, on the main process alone; called on all processes together.

    Args:
        accelerator: of the run.
        model: as prepared.
        empty: of `empty_copy`; the other processes get it back empty.
    """
    state = accelerator.get_state_dict(model)
    if accelerator.is_main_process:
        empty.load_state_dict(state, assign=True)
        if hasattr(empty, "tie_weights"):
            empty.tie_weights()
        empty.to(accelerator.device)
    return empty
