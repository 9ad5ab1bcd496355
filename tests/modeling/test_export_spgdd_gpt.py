"""The detection part leaves PyTorch: `torch.export` gives what the model gives, at any batch size."""

import pytest
import torch
from torch import nn
from transformers import AutoModel

from defect_hub.modeling.modeling_spgdd_gpt import SpgddGptForConditionalGeneration
from defect_hub.modeling.outputs import anomaly_maps


class DetectionPart(nn.Module):
    """Text features, images and references in; maps and image scores out."""

    def __init__(self, model: SpgddGptForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, text_features: torch.Tensor, pixel_values: torch.Tensor, references: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 2, D), (B, 3, H, W) and (1, K, 3, H, W) -> (B, H, W) and (B,)."""
        detection = self.model.model.detect(
            pixel_values, text_features=text_features, reference_pixel_values=references
        )
        maps = anomaly_maps(detection.mask_logits)
        return maps, self.model.image_scores(maps.amax(dim=(1, 2)), detection.cls_logits)


@pytest.mark.slow
@pytest.mark.parametrize("matching", ["aligned", "nearest"])
@torch.no_grad()
def test_exported_detection_equals_the_model_at_another_batch_size(tiny_checkpoint, processor, images, matching):
    model = AutoModel.from_pretrained(tiny_checkpoint, memory_matching=matching, has_language_model=False).eval()
    prompts = processor(images=images[:1], object_names=["magnetic tile"])["prompt_input_ids"]
    text = model.model.encode_texts(prompts)
    pixels, references = processor.pixel_values(images[:4]), processor.pixel_values(images[3:])[None]
    part = DetectionPart(model)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        part, (text.repeat(2, 1, 1), pixels[:2], references), dynamic_shapes=({0: batch}, {0: batch}, {})
    )
    for count in (1, 2, 4):
        inputs = (text.repeat(count, 1, 1), pixels[:count], references)
        for found, expected in zip(program.module()(*inputs), part(*inputs), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
