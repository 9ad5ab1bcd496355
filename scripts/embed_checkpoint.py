"""Makes the checkpoint inside the package from a finished training run: half-precision weights, no code copies.

python scripts/embed_checkpoint.py runs/spgdd_gpt_tiny/model
"""

import json
import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from defect_hub.embedded import EMBEDDED_CHECKPOINT
from defect_hub.train.cards import model_card

CODE_KEYS = ("auto_map", "custom_pipelines")  # the installed package is the code


def embed(model: Path, target: Path) -> None:
    """Copy a model folder with its `run.json`, converted, over the embedded checkpoint.

    Args:
        model: folder written by a training run.
        target: folder to replace.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(model, target, ignore=shutil.ignore_patterns("*.py", "preprocessor_config.json"))
    weights = target / "model.safetensors"
    tensors = {name: t.half() if t.is_floating_point() else t for name, t in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})  # config.json still says float32: loading casts back
    weights.chmod(0o644)
    for path in (target / "config.json", target / "processor_config.json", target / "tokenizer_config.json"):
        content = {key: value for key, value in json.loads(path.read_text()).items() if key not in CODE_KEYS}
        path.write_text(json.dumps(content, indent=2) + "\n")
    (target / "README.md").write_text(model_card(target), encoding="utf-8")  # of these weights, without the code


if __name__ == "__main__":
    embed(Path(sys.argv[1]), EMBEDDED_CHECKPOINT)
