"""Prints the parameter table of the paper-size and the tiny preset; the former is built on the meta device.

python scripts/parameter_table.py
"""

import torch
from torch import nn

from defect_hub.modeling.modeling_spgdd_gpt import SpgddGptForConditionalGeneration
from defect_hub.modeling.presets_spgdd_gpt import paper_config, tiny_config

PARTS = {
    "CLIP image encoder": ("model.clip.vision_model", "model.clip.visual_projection"),
    "CLIP text encoder": ("model.clip.text_model", "model.clip.text_projection"),
    "text adapter": ("model.text_adapter",),
    "defect focuser": ("model.focuser",),
    "detection head": ("model.detection_head",),
    "adapter with prompts": ("model.adapter",),
    "language model": ("model.language_model", "lm_head"),
}


def count(model: nn.Module, names: tuple[str, ...]) -> int:
    """Parameters of some submodules, shared ones once."""
    parameters = {id(p): p.numel() for name in names for p in model.get_submodule(name).parameters()}
    return sum(parameters.values())


def main() -> None:
    """Print a Markdown table."""
    with torch.device("meta"):
        models = [SpgddGptForConditionalGeneration(config) for config in (paper_config(), tiny_config())]
    print("| part | paper size | tiny |\n|---|---:|---:|")
    for part, names in PARTS.items():
        print(f"| {part} | {count(models[0], names):,} | {count(models[1], names):,} |")
    print(f"| all | {models[0].num_parameters():,} | {models[1].num_parameters():,} |")


if __name__ == "__main__":
    main()
