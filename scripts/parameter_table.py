"""Prints the parameter table of the paper-size and the tiny preset, and published figures beside the former.

python scripts/parameter_table.py

The paper's size is built on the meta device, which needs no memory.
"""

import torch

from defect_hub.modeling.modeling_spgdd_gpt import SpgddGptForConditionalGeneration
from defect_hub.modeling.presets_spgdd_gpt import paper_config, tiny_config
from defect_hub.train.adaptation import freeze_bases
from defect_hub.train.parts import Part, parameters_under

PARTS = {
    "CLIP image encoder": ("model.clip.vision_model.", "model.clip.visual_projection."),
    "CLIP text encoder": ("model.clip.text_model.", "model.clip.text_projection."),
    "text adapter": ("model.text_adapter.",),
    "defect focuser": ("model.focuser.",),
    "detection head": ("model.detection_head.",),
    "adapter with prompts": ("model.adapter.",),
    "language model": ("model.language_model.", "lm_head."),
}
PUBLISHED = {"all": "8,195.65 M", "trained": "350.49 M"}
"""Table 11 of the SAM-LLaVA paper, which lists SPGDD-GPT without its parts; An & Dong 2026 give no count."""


def table() -> str:
    """The table in Markdown; trained by the recipe's `trainable: adapter`, and in the paper."""
    with torch.device("meta"):
        models = [SpgddGptForConditionalGeneration(config) for config in (paper_config(), tiny_config())]
    for model in models:
        freeze_bases(model)
    rows = {
        part: [Part.of(part, parameters_under(model, prefixes)).parameters for model in models]
        for part, prefixes in PARTS.items()
    }
    whole = [Part.of("all", model.parameters()) for model in models]
    rows["all"] = [part.parameters for part in whole]
    rows["trained"] = [part.trainable for part in whole]
    lines = ["| part | paper size | published | tiny |", "|---|---:|---:|---:|"]
    lines += [f"| {part} | {paper:,} | {PUBLISHED.get(part, '')} | {tiny:,} |" for part, (paper, tiny) in rows.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
