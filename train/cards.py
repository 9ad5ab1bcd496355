"""Model card of a training run, from what the run itself knows."""

import json
from typing import Any

import torch
import transformers

_TEMPLATE = """---
library_name: transformers
pipeline_tag: image-text-to-text
license: apache-2.0
tags: [defect-detection, anomaly-detection, industrial-inspection, spgdd-gpt]
datasets: [{data}]
---

# SPGDD-GPT, trained on {data}

A re-implementation of SPGDD-GPT (An & Dong 2026) by Defect Hub: heat map, mask, verdict and description of a surface
image, with or without a few normal reference images.

```python
import defect_hub  # registers the models and the pipeline
from transformers import pipeline

pipe = pipeline("defect-diagnosis", model="THIS_FOLDER_OR_HUB_ID")
print(pipe("image.jpg", reference_images=["ok1.jpg", "ok2.jpg"])["description"])
```

Without the package, `AutoModel` and `AutoProcessor` load the code in this folder: `trust_remote_code=True`.

## Intended use and limits

For surfaces like those of its training data. A score is comparable only within one object and one protocol
(zero-shot, few-shot). The description is checked against the mask; words that the map does not support are listed in
`unsupported_claims`. Not for safety-critical acceptance without a validation on your own parts.

## Training

{parameters:,} parameters, {trainable}. Recipe:

```json
{recipe}
```

## Calibration

F1-max thresholds on {n_normal} normal and {n_anomalous} defective images that were not trained on (fingerprint
`{fingerprint}`): zero-shot {zero_shot:.4f}, few-shot {few_shot:.4f}.

## Metrics

{metrics}

transformers {transformers}, torch {torch}.
"""


def write_model_card(model: Any, processor: Any, recipe: dict[str, Any], metrics: dict[str, float]) -> str:
    """README.md of a checkpoint.

    Args:
        model: as trained.
        processor: calibrated.
        recipe: settings of the run.
        metrics: of its evaluation split; may be empty.
    """
    zero_shot, few_shot = (processor.calibration[protocol]["image"] for protocol in ("zero_shot", "few_shot"))
    rows = [f"| {name} | {value:.4f} |" for name, value in metrics.items()]
    table = [f"Zero-shot, on the split `{recipe['eval_split']}`:", "", "| metric | value |", "|---|---:|", *rows]
    shown = {key: value for key, value in recipe.items() if key not in ("data", "model", "output_dir")}
    return _TEMPLATE.format(
        data=recipe["data"].rstrip("/").split("/")[-1],
        parameters=model.num_parameters(),
        trainable="all trained" if recipe["trainable"] == "all" else "only the new parts trained",
        recipe=json.dumps(shown, indent=2),
        n_normal=zero_shot["n_normal"],
        n_anomalous=zero_shot["n_anomalous"],
        fingerprint=zero_shot["data_fingerprint"],
        zero_shot=zero_shot["value"],
        few_shot=few_shot["value"],
        metrics="\n".join(table) if metrics else "Not evaluated.",
        transformers=transformers.__version__,
        torch=torch.__version__,
    )
